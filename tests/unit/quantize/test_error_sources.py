"""Where the error of a static INT8 model comes from, on small real graphs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgecv.quantize.ort.error_sources import WEIGHTS, error_sources, tensor_kinds, without
from edgecv.quantize.ort.graph import Graph, op_counts
from edgecv.quantize.ort.quantizer import OrtStaticQuantizer
from edgecv.quantize.quantizer import TellsErrorSources
from edgecv.quantize.recipes import RECIPES
from edgecv.quantize.record import ErrorSource
from edgecv.quantize.report.rows import source_rows
from edgecv.specs import TensorSpec
from tests.unit.quantize.convolutions import silu_network
from tests.unit.quantize.onnx_graphs import graph_of, weights

OUT = TensorSpec(name="out", role="class/2", shape=(1, 6, 16, 16), dtype="float32", layout="NCHW")
SMALL = TensorSpec(name="y", role="class/2", shape=(1, 16, 8, 8), dtype="float32", layout="NCHW")
RECIPE = RECIPES["ort-u8s8"]


def images(count: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (1, 32, 32, 3), np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def quantizer() -> Iterator[OrtStaticQuantizer]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = OrtStaticQuantizer((silu_network(folder / "float.onnx", convolutions=5),), (OUT,), folder)
        made.calibrate(images())
        yield made


def by_kind(sources: Sequence[ErrorSource]) -> dict[str, ErrorSource]:
    return {source.kind: source for source in sources}


def test_weights_and_each_kind_of_tensor_have_an_error_of_their_own(quantizer: OrtStaticQuantizer) -> None:
    assert isinstance(quantizer, TellsErrorSources)
    sources = quantizer.error_sources(RECIPE, images(), Path("unused"))
    found = by_kind(sources)
    assert set(found) == {"all", "weights", "before_silu", "after_silu", "sigmoid", "outputs"}
    assert sources[0].kind == "all"
    assert all(source.error > 0 for source in sources)
    # Rounding errors are nearly independent, so that their squares nearly add up.
    together = sum(source.error for source in sources[1:])
    assert 0.5 * found["all"].error < together < 2 * found["all"].error
    # The first convolution is float; its SiLU and those after it are rounded.
    assert found["after_silu"].tensors == found["sigmoid"].tensors == 4
    assert found["all"].tensors == sum(source.tensors for source in sources[1:])


def test_on_the_same_images_the_same_is_found(quantizer: OrtStaticQuantizer) -> None:
    first, second = (quantizer.error_sources(RECIPE, images(2), Path("unused")) for _ in range(2))
    assert first == second


def test_weights_that_were_rounded_before_are_measured_against_the_model_before(tmp_path: Path) -> None:
    source = silu_network(tmp_path / "source.onnx", convolutions=5)
    rounded = onnx.load(source)
    for tensor in rounded.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 4:
            step = np.abs(values).max(axis=(1, 2, 3), keepdims=True) / np.float32(127)
            tensor.CopyFrom(numpy_helper.from_array(np.rint(values / step) * step, tensor.name))
    onnx.save(rounded, tmp_path / "rounded.onnx")
    made = OrtStaticQuantizer((tmp_path / "rounded.onnx",), (OUT,), tmp_path)
    made.calibrate(images())
    recipe = msgspec.structs.replace(RECIPE, rounding="gptq")
    found, blind = (by_kind(made.error_sources(one, images(), source)) for one in (recipe, RECIPE))
    assert found["weights"].error > 1e-6
    assert blind["weights"].error < 0.01 * found["weights"].error
    assert found["after_silu"] == blind["after_silu"]


def quantized_pair(scale: float) -> tuple[Any, Any]:
    """``x`` rounded by ``scale``, and weights that are integers times their own scale: (quantized, float)."""
    kernel = weights(16, 16, 1, 1)
    step = np.float32(np.abs(kernel).max() / 127)
    whole = np.rint(kernel / step).astype(np.int8)
    floats = graph_of(
        [("Add", "x one", "sum"), ("Conv", "sum w", "y")],
        {"one": np.ones(1, np.float32), "w": whole.astype(np.float32) * step},
        ["y"],
    )
    constants = {"one": np.ones(1, np.float32), "stored": whole, "step": step, "zero": np.int8(0)}
    constants |= {"scale": np.float32(scale), "middle": np.uint8(128)}
    nodes = [
        ("Add", "x one", "sum"),
        ("QuantizeLinear", "sum scale middle", "q"),
        ("DequantizeLinear", "q scale middle", "real"),
        ("DequantizeLinear", "stored step zero", "w_real"),
        ("Conv", "real w_real", "y"),
    ]
    return graph_of(nodes, constants, ["y"]), floats


def run(model: Any, names: Sequence[str]) -> Iterator[Mapping[str, np.ndarray]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for seed in range(3):
        image = np.random.default_rng(seed).normal(0, 1, (1, 16, 8, 8)).astype(np.float32)
        yield dict(zip(names, session.run(list(names), {"x": image}), strict=True))


def test_weights_that_lie_on_their_grid_have_no_error_and_coarser_steps_have_more() -> None:
    errors = []
    for scale in (0.05, 0.1):
        found = by_kind(error_sources(*quantized_pair(scale), (SMALL,), run))
        assert found["weights"].error < 1e-6  # half precision of the float scores
        assert found["additions"].error == pytest.approx(found["all"].error, rel=1e-3)
        errors.append(found["all"].error)
    assert errors[1] == pytest.approx(4 * errors[0], rel=0.2)  # twice the step, four times the square


def test_a_kind_whose_pairs_are_gone_has_no_error() -> None:
    quantized, floats = quantized_pair(0.1)
    kinds = tensor_kinds(quantized, floats)
    assert kinds == {"real": "additions"}
    weights_alone = without(quantized, floats, kinds, keep=WEIGHTS)
    assert op_counts(weights_alone) == {"Add": 1, "Identity": 1, "DequantizeLinear": 1, "Conv": 1}
    nothing = without(quantized, floats, kinds, keep="sigmoid")
    assert op_counts(nothing) == {"Add": 1, "Identity": 1, "Conv": 1}
    onnx.checker.check_model(nothing)
    assert np.array_equal(Graph(nothing).constant("w_real"), numpy_helper.to_array(floats.graph.initializer[1]))
    wanted, found = (list(run(model, ["y"])) for model in (floats, nothing))
    assert all(np.array_equal(a["y"], b["y"]) for a, b in zip(wanted, found, strict=True))
    # The graph that was given is as it was.
    assert op_counts(quantized)["QuantizeLinear"] == 1


def test_a_model_without_class_scores_tells_nothing() -> None:
    boxes = TensorSpec(name="y", role="embeddings", shape=(1, 16, 8, 8), dtype="float32", layout="NCHW")
    assert error_sources(*quantized_pair(0.1), (boxes,), run) == ()


def test_the_report_shows_shares_of_the_whole() -> None:
    sources = (
        ErrorSource(kind="all", error=0.2, tensors=9),
        ErrorSource(kind="after_silu", error=0.1, tensors=9),
        ErrorSource(kind="weights", error=0.05),
    )
    rows = [(name, share, tensors) for name, _, share, tensors in source_rows(sources)]
    assert rows == [("tensors after a SiLU", "50%", "9"), ("weights", "25%", "–")]
    assert source_rows((ErrorSource(kind="all", error=0.0), ErrorSource(kind="weights", error=0.0)))[0][2] == "0%"

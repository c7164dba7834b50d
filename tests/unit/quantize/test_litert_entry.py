"""For the Edge TPU pixels enter a TFLite network as integers: the same results, and no operator works on floats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecv.errors import QuantizationError
from edgecv.quantize.litert.entry import take_pixels_as_integers
from edgecv.quantize.litert.quantizer import LitertQuantizer
from edgecv.quantize.recipes import ACCELERATED, RECIPES
from edgecv.runtimes.litert import LiteRtSession
from edgecv.specs import RuntimeOptions, TensorSpec
from tests.unit.quantize.test_litert_padding import interpreter, operators

SHAPE = (1, 16, 16, 3)
OUT = TensorSpec(name="output_0", role="logits", shape=(1, 16, 16, 8), dtype="float32", layout="NHWC")


def images(count: int) -> list[np.ndarray]:
    return [np.random.default_rng(seed).integers(0, 256, SHAPE, np.uint8) for seed in range(count)]


@pytest.fixture(scope="module")
def quantizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LitertQuantizer:
    """Of two convolutions over uint8 pixels, from which a mean is taken first if the parameter says so."""
    import litert_torch
    import torch

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first = torch.nn.Conv2d(3, 16, 3, padding=1)
            self.second = torch.nn.Conv2d(16, 8, 3, padding=1)
            self.register_buffer("mean", torch.tensor([100.0, 110.0, 120.0]).view(1, 1, 1, 3))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            pixels = image.float() - self.mean if request.param else image.float()
            made = self.second(torch.relu(self.first(pixels.permute(0, 3, 1, 2))))
            return made.permute(0, 2, 3, 1)

    folder = tmp_path_factory.mktemp("entry")
    path = folder / "float.tflite"
    path.write_bytes(litert_torch.convert(Small().eval(), (torch.zeros(SHAPE, dtype=torch.uint8),)).model_content())
    made = LitertQuantizer((path,), (OUT,), folder)
    made.calibrate(images(8))
    return made


def run(path: Path, image: np.ndarray, out: TensorSpec) -> np.ndarray:
    session = LiteRtSession(path, RuntimeOptions(threads=1), (), (out,))
    return session.run({session.inputs[0].name: image})["output_0"]


@pytest.mark.parametrize("quantizer", [False, True], ids=["plain", "with a mean"], indirect=True)
def test_every_operator_works_on_integers_and_pixels_go_in_as_they_are(
    quantizer: LitertQuantizer, tmp_path: Path
) -> None:
    results = {}
    for name in ("litert-static", "litert-edgetpu"):
        (tmp_path / name).mkdir()
        (path,), (out,) = quantizer.quantize(RECIPES[name], tmp_path / name)
        results[name] = [run(path, image, out).astype(int) for image in images(3)]
    assert operators(path)[0] == "QUANTIZE"
    assert not {"CAST", "DEQUANTIZE"} & set(operators(path))
    found = interpreter(path)
    used = {int(index) for op in found._get_ops_details() for index in (*op["inputs"], *op["outputs"])}
    kinds = {detail["dtype"] for detail in found.get_tensor_details() if detail["index"] in used}
    assert kinds <= {np.int8, np.uint8, np.int32}
    (pixels,) = found.get_input_details()
    assert (pixels["dtype"], pixels["quantization"]) == (np.uint8, (1.0, 0))
    gaps = [np.abs(a - b).max() for a, b in zip(*results.values(), strict=True)]
    # A mean that is taken from integers is rounded; without one nothing changes.
    assert max(gaps) <= (6 if "SUB" in operators(path) else 0)


@pytest.mark.parametrize("quantizer", [False], ids=["plain"], indirect=True)
def test_a_network_that_takes_no_pixels_as_integers_is_refused(quantizer: LitertQuantizer, tmp_path: Path) -> None:
    (path,), _ = quantizer.quantize(RECIPES["litert-edgetpu"], tmp_path)
    before = path.read_bytes()
    with pytest.raises(QuantizationError, match="an Edge TPU would leave all of it to the CPU"):
        take_pixels_as_integers(path)  # there is no CAST any more
    assert path.read_bytes() == before


def test_the_ladder_of_the_edge_tpu_has_full_integers_alone() -> None:
    found = ACCELERATED["edgetpu"]
    assert found.last == ()
    assert {(recipe.kind, recipe.entry, recipe.format) for recipe in found.first} == {("static", "integer", "tflite")}

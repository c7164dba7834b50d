"""Classifiers as torch, tf2onnx and others write them: the answers stay the file's own, or it is said what is wrong."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecv.converters.batch import batched
from edgecv.converters.families.foreign_onnx.open import open_onnx
from edgecv.converters.source import SourceModel, SourceOptions
from edgecv.errors import ConfigError, UnsupportedSource
from tests.conftest import shared_case
from tests.unit.converters.test_onnx_classifier import image, planes_of

SIDE, CLASSES = 32, 5


def network(
    path: Path,
    *,
    before: Sequence[Any] = (),
    after: Sequence[Any] = (),
    shape: Sequence[Any] = (1, 3, SIDE, SIDE),
    kind: int = TensorProto.FLOAT,
    outputs: Sequence[tuple[str, int]] = (("scores", TensorProto.FLOAT),),
    channels: int = 3,
    constants: dict[str, np.ndarray] | None = None,
) -> Path:
    """A small classifier from ``image`` to ``scores (1, 5)``; ``before`` makes ``x`` of ``image``, ``after`` follows ``scores``."""
    rng = np.random.default_rng(0)
    weights = {
        "w0": rng.normal(size=(8, channels, 3, 3)) / 3,
        "w1": rng.normal(size=(8, CLASSES)),
        "b1": rng.normal(size=CLASSES),
    }
    begin = "x" if before else "image"
    nodes = [
        *before,
        helper.make_node("Conv", [begin, "w0"], ["c"], pads=[1] * 4, strides=[2, 2], name="first"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w1", "b1"], ["scores"]),
        *after,
    ]
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    tensors += [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info(name, of, None) for name, of in outputs],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(onnx.shape_inference.infer_shapes(model), str(path))
    return path


def run(model: Any, feed: np.ndarray) -> np.ndarray:
    content = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: feed})[0]


def from_pixels(source: SourceModel, side: int = SIDE) -> np.ndarray:
    return run(source.parts[0].graph, image(side)[None])


def planes(source: SourceModel, side: int = SIDE) -> np.ndarray:
    return planes_of(image(side), source.spec.preprocess.mean, source.spec.preprocess.std)


def check_same(source: SourceModel, wanted: np.ndarray, side: int = SIDE) -> None:
    """Both roads from the same pixels give the file's own scores."""
    np.testing.assert_allclose(from_pixels(source, side), wanted.reshape(1, -1), rtol=1e-3, atol=1e-4)
    given = source.parts[0].reference({"image": image(side)[None]})["logits"]
    np.testing.assert_allclose(given, wanted.reshape(1, -1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["t_4d.onnx", "t_nhwc.onnx", "t_pad_first.onnx", "t_logits.onnx"])
def test_cases_that_were_refused_give_their_own_answers(name: str) -> None:
    path = shared_case(name)
    source = open_onnx(path, SourceOptions())
    feed = planes(source, 64)
    check_same(source, run(path, feed.transpose(0, 2, 3, 1) if name == "t_nhwc.onnx" else feed), 64)


@pytest.mark.parametrize(
    ("operator", "attributes", "axes"),
    [("Identity", {}, [2, 3]), ("Identity", {}, [2]), ("Identity", {}, [1, 2]), ("Squeeze", {}, [0])],
    ids=["(1, C, 1, 1)", "(1, C, 1)", "(1, 1, 1, C)", "(C,)"],
)
def test_axes_of_length_one_are_squeezed(operator: str, attributes: Any, axes: list[int], tmp_path: Path) -> None:
    kind = "Unsqueeze" if operator == "Identity" else "Squeeze"
    path = network(
        tmp_path / "a.onnx",
        after=[helper.make_node(kind, ["scores", "axes"], ["end"], **attributes)],
        outputs=[("end", TensorProto.FLOAT)],
        constants={"axes": np.array(axes)},
    )
    source = open_onnx(path, SourceOptions())
    check_same(source, run(path, planes(source)))
    if operator == "Identity":
        assert batched(source, 3).parts[0].outputs[0].shape == (3, CLASSES)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("mean", [(0.0, 0.0, 0.0), (0.4, 0.5, 0.6)], ids=["plain", "with a mean"])
@pytest.mark.parametrize("pads", [[0, 0, 2, 1, 0, 0, 2, 1], None], ids=["padded", "not padded"])
def test_a_graph_that_begins_with_anything_gets_its_preprocessing_before_it(
    color: str, mean: Any, pads: Any, tmp_path: Path
) -> None:
    node = helper.make_node("Pad", ["image", "pads"], ["x"]) if pads else helper.make_node("Identity", ["image"], ["x"])
    path = network(tmp_path / "a.onnx", before=[node], constants={"pads": np.array(pads or [0], np.int64)})
    said = {"mean": mean, "std": (0.2, 0.3, 0.25), "color": color}
    source = open_onnx(path, SourceOptions(preprocess=said))
    feed = planes_of(image(SIDE) if color == "rgb" else image(SIDE)[..., ::-1], mean, said["std"])
    check_same(source, run(path, feed))


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("shape", [(1, SIDE, SIDE, 3), ("n", SIDE, SIDE, 3), ("n", "h", "w", 3)], ids=str)
def test_channels_last_as_tf2onnx_writes_them(shape: Any, transposed: bool, tmp_path: Path) -> None:
    nodes = [helper.make_node("Transpose", ["image"], ["x"], perm=[0, 3, 1, 2])]
    if not transposed:  # something of TensorFlow's own comes first
        nodes = [
            helper.make_node("Mul", ["image", "two"], ["doubled"]),
            helper.make_node("Transpose", ["doubled"], ["x"], perm=[0, 3, 1, 2]),
        ]
    path = network(tmp_path / "a.onnx", before=nodes, shape=shape, constants={"two": np.float32([2])})
    source = open_onnx(path, SourceOptions(size_wh=(SIDE, SIDE)))
    check_same(source, run(path, planes(source).transpose(0, 2, 3, 1)))
    left = [node.op_type for node in source.parts[0].graph.graph.node].count("Transpose")
    assert left == (1 if transposed else 3)


@pytest.mark.parametrize("last", [False, True])
def test_a_grey_input_gets_the_brightness_of_the_image(last: bool, tmp_path: Path) -> None:
    shape = (1, SIDE, SIDE, 1) if last else (1, 1, SIDE, SIDE)
    before = [helper.make_node("Transpose", ["image"], ["x"], perm=[0, 3, 1, 2])] if last else []
    path = network(tmp_path / "a.onnx", before=before, shape=shape, channels=1)
    source = open_onnx(path, SourceOptions(preprocess={"mean": 0.1307, "std": 0.3081}))
    blue, green, red = np.moveaxis(image(SIDE).astype(np.float32), -1, 0)
    grey = ((0.299 * red + 0.587 * green + 0.114 * blue) / 255 - 0.1307) / 0.3081
    check_same(source, run(path, grey.astype(np.float32).reshape(shape)))
    assert any(line.startswith("grey: ") for line in source.assumptions)
    with pytest.raises(ConfigError, match="grey"):
        open_onnx(path, SourceOptions(preprocess={"color": "bgr"}))


@pytest.mark.parametrize("last", [False, True])
def test_a_uint8_input_gets_pixels(last: bool, tmp_path: Path) -> None:
    shape = (1, SIDE, SIDE, 3) if last else (1, 3, SIDE, SIDE)
    planes_first = [helper.make_node("Transpose", ["image"], ["t"], perm=[0, 3, 1, 2])] if last else []
    before = [
        *planes_first,
        helper.make_node("Cast", ["t" if last else "image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["real", "white"], ["x"]),
    ]
    path = network(
        tmp_path / "a.onnx", before=before, shape=shape, kind=TensorProto.UINT8, constants={"white": np.float32([255])}
    )
    source = open_onnx(path, SourceOptions())
    pixels = image(SIDE)[None, ..., ::-1]
    check_same(source, run(path, np.ascontiguousarray(pixels if last else pixels.transpose(0, 3, 1, 2))))
    assert [line.partition(":")[0] for line in source.assumptions] == ["resize", "color", "activation"]
    with pytest.raises(ConfigError, match="normalises them itself"):
        open_onnx(path, SourceOptions(preprocess={"mean": (0.5, 0.5, 0.5)}))


def test_uint8_that_is_computed_with_as_whole_numbers_is_refused(tmp_path: Path) -> None:
    before = [
        helper.make_node("Add", ["image", "more"], ["wrapped"]),  # 200 + 100 is 44
        helper.make_node("Cast", ["wrapped"], ["x"], to=TensorProto.FLOAT),
    ]
    path = network(
        tmp_path / "a.onnx", before=before, kind=TensorProto.UINT8, constants={"more": np.array([100], np.uint8)}
    )
    with pytest.raises(UnsupportedSource):
        open_onnx(path, SourceOptions())


@pytest.mark.parametrize("keep_io", [True, False])
def test_half_precision_is_read_as_float32(keep_io: bool, tmp_path: Path) -> None:
    """As Ultralytics' half=True and onnxruntime's converter write it: fp16 weights, with casts anywhere in the file."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    plain = network(tmp_path / "plain.onnx")
    half = convert_float_to_float16(onnx.load(str(plain)), keep_io_types=keep_io)
    nodes = [copy.deepcopy(node) for node in half.graph.node]
    del half.graph.node[:]
    half.graph.node.extend(nodes[::-1])
    onnx.save(half, str(tmp_path / "half.onnx"))
    source = open_onnx(tmp_path / "half.onnx", SourceOptions())
    wanted = run(plain, planes(source))
    np.testing.assert_allclose(from_pixels(source), wanted, atol=0.01)
    assert {tensor.data_type for tensor in source.parts[0].graph.graph.initializer} <= {1, 7}


def test_a_circle_of_nodes_is_still_refused(tmp_path: Path) -> None:
    before = [helper.make_node("Add", ["image", "y"], ["x"]), helper.make_node("Neg", ["x"], ["y"])]
    network(tmp_path / "a.onnx", before=before)
    with pytest.raises(UnsupportedSource, match="not a usable ONNX model"):
        open_onnx(tmp_path / "a.onnx", SourceOptions())


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside the scores"])
def test_the_scores_before_an_argmax_are_taken(beside: bool, tmp_path: Path) -> None:
    after = [
        helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["number"], to=TensorProto.INT32),
    ]
    outputs = [("number", TensorProto.INT32), *([("scores", TensorProto.FLOAT)] if beside else [])]
    path = network(tmp_path / "a.onnx", after=after, outputs=outputs)
    source = open_onnx(path, SourceOptions())
    plain = network(tmp_path / "plain.onnx")
    check_same(source, run(plain, planes(source)))


@pytest.mark.parametrize(
    ("kind", "names"),
    [("TopK", ["number", "value"]), ("TopK", ["value"]), ("TopK", ["number"]), ("ReduceMax", ["value"])],
    ids=["best three and their numbers", "best three", "numbers", "the best"],
)
def test_the_scores_before_a_choice_of_the_best_are_taken(kind: str, names: list[str], tmp_path: Path) -> None:
    """The best three scores would look like the scores of three classes."""
    types = {"number": TensorProto.INT64, "value": TensorProto.FLOAT}
    after = [
        helper.make_node("TopK", ["scores", "three"], ["value", "number"])
        if kind == "TopK"
        else helper.make_node("ReduceMax", ["scores"], ["value"], axes=[1], keepdims=0)
    ]
    outputs = [(name, types[name]) for name in names]
    path = network(tmp_path / "a.onnx", after=after, outputs=outputs, constants={"three": np.array([3])})
    source = open_onnx(path, SourceOptions())
    check_same(source, run(network(tmp_path / "plain.onnx"), planes(source)))


def test_a_network_that_gives_no_numbers_is_refused(tmp_path: Path) -> None:
    before = [helper.make_node("Mul", ["image", "endless"], ["x"])]
    path = network(tmp_path / "a.onnx", before=before, constants={"endless": np.float32([np.inf])})
    with pytest.raises(UnsupportedSource, match="no numbers"):
        open_onnx(path, SourceOptions())


def double(path: Path) -> Path:
    before = [helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT)]
    return network(path, before=before, kind=TensorProto.DOUBLE)


def two_rows(path: Path) -> Path:
    outputs = [("scores", TensorProto.FLOAT), ("f", TensorProto.FLOAT)]
    return network(path, outputs=outputs)


def two_inputs(path: Path) -> Path:
    model = onnx.load(str(network(path)))
    model.graph.input.append(helper.make_tensor_value_info("orig_size", TensorProto.INT64, (1, 2)))
    onnx.save(model, str(path))
    return path


def boxes(path: Path, shape: tuple[int, ...], *more: Any) -> Path:
    """A graph whose output has a detector's shape."""
    after = [
        helper.make_node("ReduceSum", ["scores"], ["sum"], keepdims=0),
        helper.make_node("Expand", ["sum", "shape"], ["end"]),
        *more,
    ]
    constants = {"shape": np.array(shape, np.int64)}
    return network(path, after=after, outputs=[("end", TensorProto.FLOAT)], constants=constants)


def suppressing(path: Path) -> Path:
    after = [
        helper.make_node("Expand", ["scores", "many"], ["boxes"]),
        helper.make_node("Expand", ["scores", "few"], ["class"]),
        helper.make_node("Slice", ["boxes", "from", "to", "axis"], ["four"]),
        helper.make_node("Transpose", ["class"], ["per_class"], perm=[0, 1, 2]),
        helper.make_node("NonMaxSuppression", ["four", "per_class", "one", "limit", "limit"], ["kept"]),
        helper.make_node("Cast", ["kept"], ["end"], to=TensorProto.FLOAT),
    ]
    constants = {
        "many": np.array([1, 5, 5], np.int64),
        "few": np.array([1, 1, 5], np.int64),
        "from": np.array([0], np.int64),
        "to": np.array([4], np.int64),
        "axis": np.array([2], np.int64),
        "one": np.array([1], np.int64),
        "limit": np.array([0.5], np.float32),
    }
    return network(path, after=after, outputs=[("end", TensorProto.FLOAT)], constants=constants)


def quantized(_path: Path) -> Path:
    return shared_case("t_qdq.onnx")


@pytest.mark.parametrize(
    ("make", "words", "hint"),
    [
        (quantized, "already quantized .14 DequantizeLinear", "float model"),
        (two_rows, r"several rows .*'scores' \(1, 5\), 'f' \(1, 8\)", "extract_model"),
        (two_inputs, r"inputs are 'image' float32 .*'orig_size' int64 \(1, 2\)", "image alone"),
        (lambda p: network(p, shape=(1, 4, SIDE, SIDE), channels=4), r"float32 \(1, 4, 32, 32\)", "2 or 4 channels"),
        (double, r"float64 \(1, 3, 32, 32\)", "float32"),
        (lambda p: boxes(p, (1, 300, 6)), r"end-to-end detector .*\(1, 300, 6\)", "end2end=False"),
        (lambda p: boxes(p, (1, 25200, 85)), "objectness", "yolov5nu"),
        (lambda p: boxes(p, (1, 21, 32, 32)), "map over the image", "classifiers"),
        (suppressing, "NonMaxSuppression", "nms=False"),
    ],
    ids=[
        "quantized",
        "two rows",
        "two inputs",
        "four channels",
        "double",
        "end-to-end",
        "YOLOv5",
        "map",
        "suppressing",
    ],
)
def test_what_is_not_read_says_what_it_is_and_the_way_out(make: Any, words: str, hint: str, tmp_path: Path) -> None:
    path = make(tmp_path / "a.onnx")
    with pytest.raises(UnsupportedSource, match=words) as caught:
        open_onnx(path, SourceOptions())
    assert hint in caught.value.hint

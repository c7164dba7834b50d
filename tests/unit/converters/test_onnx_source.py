"""A YOLOv8 that somebody else exported: its head is found by structure, and proven."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest

from edgecv.converters.families.foreign_onnx.open import open_onnx
from edgecv.converters.families.yolov8 import open_checkpoint
from edgecv.converters.source import SourceModel, SourceOptions
from edgecv.errors import ConfigError, UnsupportedSource
from edgecv.specs import TensorSpec
from edgecv.vision.yolov8 import PredictionDecoder, RawHeadDecoder
from tests.models import arithmetic, detector
from tests.unit.converters.conftest import SIDE


def run(model: Any, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    content = model if isinstance(model, str) else model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def noise(size_wh: tuple[int, int], seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size_wh[1], size_wh[0], 3), np.uint8)


def assert_is_the_original(source: SourceModel, path: Path, size_wh: tuple[int, int] = (SIDE, SIDE)) -> None:
    """The cut graph over pixels, decoded, is the whole graph's prediction."""
    image = noise(size_wh)
    outputs = run(source.parts[0].graph, {"image": image[None]})
    assert {name: value.shape for name, value in outputs.items()} == {o.name: o.shape for o in source.parts[0].outputs}
    planes = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)[None]).astype(np.float32) / 255
    whole = onnx.load(str(path))
    (prediction,) = run(str(path), {whole.graph.input[0].name: planes}).values()
    spec = TensorSpec(name="p", role="prediction", shape=prediction.shape, dtype="float32")
    limits = msgspec.structs.replace(source.spec.decode, confidence=0.0)
    wanted = PredictionDecoder(limits, (spec,)).candidates({"p": prediction}, -1.0)
    given = RawHeadDecoder(limits, source.parts[0].outputs).candidates(outputs, 0.0)
    assert np.abs(given.xyxy - wanted.xyxy).max() < 0.05
    assert np.abs(given.confidence - wanted.confidence).max() < 1e-4


def test_a_real_export_is_cut_at_its_raw_head(exported: Path, yolov8n: Path) -> None:
    source = open_onnx(exported, SourceOptions())
    assert_is_the_original(source, exported)
    twin = open_checkpoint(yolov8n, SourceOptions(size_wh=(SIDE, SIDE)))
    assert source.parts[0].outputs == twin.parts[0].outputs
    assert source.parts[0].inputs[0] == twin.parts[0].inputs[0]
    assert source.spec == twin.spec
    assert source.licence == "AGPL-3.0"
    image = noise((SIDE, SIDE))
    ours, theirs = (
        source.parts[0].reference({"image": image[None]}),
        twin.parts[0].reference({"image": image[None]}),
    )
    assert all(np.abs(ours[name] - theirs[name]).max() < 1e-3 for name in theirs)


def test_half_precision_with_nodes_in_any_order_is_the_same_detector(exported: Path, tmp_path: Path) -> None:
    """As Ultralytics' half=True writes it: its converter puts casts at the end of the file."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half = convert_float_to_float16(onnx.load(str(exported)), keep_io_types=False)
    nodes = [copy.deepcopy(node) for node in half.graph.node]
    del half.graph.node[:]
    half.graph.node.extend(nodes[::-1])
    onnx.save(half, str(tmp_path / "half.onnx"))
    source, whole = open_onnx(tmp_path / "half.onnx", SourceOptions()), open_onnx(exported, SourceOptions())
    assert source.parts[0].outputs == whole.parts[0].outputs
    image = {"image": noise((SIDE, SIDE))[None]}
    ours, theirs = run(source.parts[0].graph, image), run(whole.parts[0].graph, image)
    assert all(np.abs(ours[name] - theirs[name]).max() < 0.1 for name in theirs)


def test_scores_without_a_sigmoid_are_no_prediction(exported: Path, tmp_path: Path) -> None:
    model = onnx.load(str(exported))
    sigmoid = [node for node in model.graph.node if node.op_type == "Sigmoid"][-1]
    sigmoid.op_type = "Identity"
    onnx.save(model, str(tmp_path / "raw.onnx"))
    with pytest.raises(UnsupportedSource, match="do not decode"):
        open_onnx(tmp_path / "raw.onnx", SourceOptions())


def test_nothing_of_the_decoding_is_left_in_the_graph(exported: Path) -> None:
    source = open_onnx(exported, SourceOptions())
    onnx.checker.check_model(source.parts[0].graph)
    left = {node.op_type for node in source.parts[0].graph.graph.node}
    assert not left & {"Softmax", "Sub", "Gather"}
    whole = onnx.load(str(exported))
    assert len(source.parts[0].graph.graph.node) < len(whole.graph.node)


def renamed(path: Path, out: Path, seed: int) -> Path:
    """The same graph with every name of a node or tensor replaced, and without hints of shapes."""
    model = onnx.load(str(path))
    rng = random.Random(seed)
    names: dict[str, str] = {"": ""}

    def new(name: str) -> str:
        return names.setdefault(name, f"t{rng.getrandbits(48):x}")

    graph = model.graph
    for node in graph.node:
        node.name = "" if rng.random() < 0.5 else f"n{rng.getrandbits(48):x}"
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = new(value.name)
    del graph.value_info[:]
    onnx.checker.check_model(model)
    onnx.save(model, str(out))
    return out


@pytest.mark.parametrize("seed", range(2))
def test_names_of_nodes_and_tensors_play_no_part(exported: Path, tmp_path: Path, seed: int) -> None:
    path = renamed(exported, tmp_path / "renamed.onnx", seed)
    source = open_onnx(path, SourceOptions())
    assert source.parts[0].outputs == open_onnx(exported, SourceOptions()).parts[0].outputs
    assert_is_the_original(source, path)


def test_without_metadata_classes_are_numbered(exported: Path, tmp_path: Path) -> None:
    model = onnx.load(str(exported))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "bare.onnx"))
    source = open_onnx(tmp_path / "bare.onnx", SourceOptions())
    assert source.spec.decode.labels == tuple(str(index) for index in range(80))
    assert source.licence == "unknown"


@pytest.mark.parametrize(
    ("asked", "size_wh"),
    [(None, (SIDE, SIDE)), ((128, 128), (128, 128)), ((128, 64), (128, 64)), ((64, 96), (64, 96))],
    ids=str,
)
def test_open_shapes_take_the_size_that_is_asked_for(exported_dynamic: Path, asked, size_wh) -> None:
    source = open_onnx(exported_dynamic, SourceOptions(size_wh=asked))
    assert source.spec.preprocess.size_wh == size_wh
    assert source.parts[0].inputs[0].shape == (1, size_wh[1], size_wh[0], 3)
    assert_is_the_original(source, exported_dynamic, size_wh)


@pytest.mark.parametrize("value", ["640", "['a', 'b']", "[64]", "nonsense"])
def test_a_size_in_the_metadata_that_is_none_does_not_count(exported_dynamic: Path, tmp_path: Path, value: str) -> None:
    model = onnx.load(str(exported_dynamic))
    for entry in model.metadata_props:
        entry.value = value if entry.key == "imgsz" else entry.value
    onnx.save(model, str(tmp_path / "odd.onnx"))
    assert open_onnx(tmp_path / "odd.onnx", SourceOptions()).spec.preprocess.size_wh == (640, 640)
    assert open_onnx(tmp_path / "odd.onnx", SourceOptions(size_wh=(64, 64))).spec.preprocess.size_wh == (64, 64)


def test_equally_many_channels_are_told_apart_by_what_they_decode_to(exported_64: Path, untrained_64: Path) -> None:
    source = open_onnx(exported_64, SourceOptions())
    assert [o.shape[1] for o in source.parts[0].outputs] == [64] * 6
    assert_is_the_original(source, exported_64, (64, 64))
    twin = open_checkpoint(untrained_64, SourceOptions(size_wh=(64, 64)))
    image = noise((64, 64))
    ours, theirs = (
        source.parts[0].reference({"image": image[None]}),
        twin.parts[0].reference({"image": image[None]}),
    )
    assert all(np.abs(ours[name] - theirs[name]).max() < 1e-2 for name in theirs)


def test_a_fixed_size_cannot_be_changed(exported: Path) -> None:
    with pytest.raises(ConfigError, match=f"fixed input of {SIDE}x{SIDE}"):
        open_onnx(exported, SourceOptions(size_wh=(128, 128)))
    assert open_onnx(exported, SourceOptions(size_wh=(SIDE, SIDE))).spec.preprocess.size_wh == (SIDE, SIDE)


def transposed_export(exported: Path, out: Path) -> None:
    """A detector whose boxes come in another order than its prediction claims: structure fits, decoding does not."""
    model = onnx.load(str(exported))
    last = next(node for node in model.graph.node if model.graph.output[0].name in node.output)
    made = last.output[0]
    last.output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("Neg", ["before"], [made]))
    onnx.save(model, str(out))


def test_a_head_that_does_not_decode_to_the_prediction_is_refused(exported: Path, tmp_path: Path) -> None:
    transposed_export(exported, tmp_path / "other.onnx")
    with pytest.raises(UnsupportedSource, match="do not decode"):
        open_onnx(tmp_path / "other.onnx", SourceOptions())


def test_a_classifier_says_what_was_assumed_of_its_input(resnet20: Path) -> None:
    source = open_onnx(resnet20, SourceOptions(preprocess={"color": "rgb"}))
    assert source.spec.decode.task == "classify"
    assert source.spec.preprocess.resize == "stretch"
    assert [line.partition(":")[0] for line in source.assumptions] == ["resize", "mean", "std", "activation"]


@pytest.mark.parametrize("said", [{"resize": "squeeze"}, {"mean": (0.5, 0.5)}, {"colour": "rgb"}])
def test_what_cannot_be_said_of_a_classifier_is_refused(resnet20: Path, said) -> None:
    with pytest.raises(ConfigError):
        open_onnx(resnet20, SourceOptions(preprocess=said))


def missing(_path: Path) -> None:
    pass


def empty(path: Path) -> None:
    path.touch()


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 10)


def no_nodes(path: Path) -> None:
    path.write_bytes(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])).SerializeToString())


def no_image(path: Path) -> None:
    arithmetic(path)


def pixels(path: Path) -> None:
    detector(path)


def no_convolution(path: Path) -> None:
    detector(path, floats=True)


def external(path: Path) -> None:
    detector(path, floats=True)
    model = onnx.load(str(path))
    onnx.save_model(model, str(path), save_as_external_data=True, location="gone.bin", size_threshold=0)
    (path.parent / "gone.bin").unlink()


def outside(path: Path) -> None:
    external(path)
    content = path.read_bytes().replace(b"gone.bin", b"../x.bin")
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (missing, "does not exist"),
        (empty, "not a usable ONNX model"),
        (garbage, "not a usable ONNX model"),
        (no_nodes, "not a usable ONNX model|empty"),
        (no_image, "does not take one image.*pixels.*uint8.*gain"),
        (pixels, "detector that takes uint8"),
        (no_convolution, "no recognisable"),
        (external, "not a usable ONNX model"),
        (outside, "not a usable ONNX model"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_no_detector_says_so(tmp_path: Path, make, named: str) -> None:
    path = tmp_path / "bad.onnx"
    make(path)
    with pytest.raises(UnsupportedSource, match=named) as caught:
        open_onnx(path, SourceOptions())
    assert str(path) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("size_wh", [(640, 641), (31, 32), (0, 0), (-32, 32), (16, 16), (100, 100)])
def test_a_size_that_cuts_cells_is_refused(size_wh: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="multiple of 32"):
        SourceOptions(size_wh=size_wh)

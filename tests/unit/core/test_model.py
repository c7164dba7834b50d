"""``edgecv.load``: bundles and bare files, what is chosen, what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper

import edgecv
from edgecv.errors import (
    BundleError,
    ConfigError,
    DeviceError,
    EdgeCVError,
    ModelError,
    SessionError,
    SpecMismatch,
    UnknownPlugin,
)
from edgecv.results import Detections
from edgecv.specs import TensorSpec
from tests.models import CELL, LABELS, METADATA, SIDE, SPEC, bright_cell, detector, save, write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("model") / "tiny.ecv").path


@pytest.fixture(scope="module")
def model(bundle: Path) -> edgecv.Model:
    return edgecv.load(bundle, threads=1)


def detect(model: edgecv.Model, image: np.ndarray, **limits: Any) -> Detections:
    found = model(image, **limits)
    assert isinstance(found, Detections)
    return found


def box(row: int, column: int, scale: float = 1.0) -> list[float]:
    return [scale * CELL * v for v in (column, row, column + 1, row + 1)]


def test_a_bundle_finds_what_is_in_the_image(model: edgecv.Model) -> None:
    found = detect(model, bright_cell(1, 2))
    assert found.xyxy.tolist() == [box(1, 2)]
    assert found.confidence == pytest.approx([1.0])
    assert model.labels == LABELS
    assert model.task == "detect"


def test_scores_that_are_no_confidences_are_not_reported_as_such(tmp_path: Path) -> None:
    model = onnx.load(str(detector(tmp_path / "raw.onnx", METADATA)))
    white = next(tensor for tensor in model.graph.initializer if tensor.name == "white")
    white.CopyFrom(onnx.numpy_helper.from_array(np.float32(51), "white"))  # scores of 0 to 5: no sigmoid made them
    onnx.save(model, str(tmp_path / "raw.onnx"))
    with edgecv.load(tmp_path / "raw.onnx") as bare, pytest.raises(SpecMismatch, match="score of 5") as caught:
        bare(bright_cell(1, 2))
    assert "edgecv convert" in caught.value.hint


def test_finished_boxes_are_told_from_a_prediction(tmp_path: Path) -> None:
    """As nms=True and YOLO26 give them: (1, N, 6), the metadata of a detector beside them."""
    nodes = [
        helper.make_node("ReduceSum", ["images"], ["sum"], keepdims=0),
        helper.make_node("Expand", ["sum", "shape"], ["output0"]),
    ]
    path = save(
        tmp_path / "nms.onnx",
        nodes,
        [("images", onnx.TensorProto.FLOAT, (1, 3, SIDE, SIDE))],
        [("output0", onnx.TensorProto.FLOAT, (1, 300, 6))],
        {"shape": np.array([1, 300, 6])},
        METADATA,
    )
    with pytest.raises(SpecMismatch) as caught:
        edgecv.load(path)
    assert "nms=False" in caught.value.hint


def test_boxes_are_in_the_pixels_of_the_frame_that_was_given(model: edgecv.Model) -> None:
    large = bright_cell(3, 0).repeat(5, axis=0).repeat(5, axis=1)
    assert np.allclose(detect(model, large, confidence=0.9).xyxy, [box(3, 0, 5.0)], atol=0.01)


def test_an_empty_image_is_no_detections(model: edgecv.Model) -> None:
    assert len(detect(model, np.zeros((SIDE, SIDE, 3), np.uint8))) == 0


def test_limits_per_call_do_not_stay(model: edgecv.Model) -> None:
    grey = np.full((SIDE, SIDE, 3), 102, np.uint8)  # scores 0.4
    assert [len(detect(model, grey, confidence=c)) for c in (0.5, 0.3)] == [0, 16]
    assert len(detect(model, grey, confidence=0.3, max_detections=3)) == 3
    assert len(detect(model, grey)) == 16


@pytest.mark.parametrize(
    "limits",
    [
        {"confidence": -0.01},
        {"confidence": 1.01},
        {"confidence": float("nan")},
        {"iou": -1},
        {"iou": 1.5},
        {"max_detections": 0},
        {"max_detections": -5},
    ],
    ids=str,
)
def test_limits_out_of_range_are_refused(model: edgecv.Model, limits: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        model(bright_cell(0, 0), **limits)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((SIDE, SIDE), np.uint8),
        np.zeros((SIDE, SIDE, 4), np.uint8),
        np.zeros((3, SIDE, SIDE), np.uint8),
        np.zeros((SIDE, SIDE, 3), np.float32),
        np.zeros((0, 0, 3), np.uint8),
        None,
        "photo.jpg",
    ],
    ids=["grey", "alpha", "planes", "floats", "empty", "none", "path"],
)
def test_a_wrong_image_says_what_is_expected(model: edgecv.Model, image: Any) -> None:
    with pytest.raises(SpecMismatch, match=r"\(H, W, 3\) uint8") as caught:
        model(image)
    assert "edgecv.read_image" in caught.value.hint


@pytest.mark.parametrize(
    ("latencies_ms", "options", "chosen"),
    [
        ({"fp32": 2.0, "int8": 1.0}, {}, "onnx-int8"),
        ({"fp32": 1.0, "int8": 2.0}, {}, "onnx-int8"),  # the times of another machine decide nothing
        ({"fp32": 1.0, "int8": 2.0}, {"precision": "int8"}, "onnx-int8"),
        ({"fp32": 2.0, "int8": 1.0}, {"precision": "fp32"}, "onnx-fp32"),
        ({"fp32": 2.0, "int8": 1.0}, {"runtime": "onnxruntime"}, "onnx-int8"),
    ],
)
def test_auto_takes_the_first_variant_in_the_order_of_the_machine(
    tmp_path: Path, latencies_ms, options, chosen
) -> None:
    bundle = write_bundle(tmp_path / "b.ecv", latencies_ms)
    with edgecv.load(bundle.path, threads=1, **options) as model:
        assert model.variant is not None
        assert model.variant.name == chosen
        assert model.name == f"tiny/{chosen}"


@pytest.mark.parametrize(
    ("options", "error", "named", "hint"),
    [
        ({"precision": "fp16"}, ConfigError, "no fp16 variant", "onnx-fp32, onnx-int8"),
        ({"precision": "int4"}, ConfigError, "option is wrong", "int8"),
        ({"runtime": "onnxruntim"}, UnknownPlugin, "onnxruntim", "Did you mean 'onnxruntime'"),
        ({"runtime": "abacus"}, UnknownPlugin, "abacus", "Known: .*onnxruntime"),
        ({"threads": -1}, ConfigError, "threads", ""),
        ({"threads": "two"}, ConfigError, "threads", ""),
        ({"device": "cuda"}, DeviceError, "CUDA", "cpu"),
        ({"device": "toaster"}, DeviceError, "toaster", "cpu"),
        ({"spec": SPEC}, ConfigError, "spec=", ""),
    ],
)
def test_what_a_bundle_cannot_give_is_refused(bundle: Path, options, error, named, hint) -> None:
    with pytest.raises(error, match=named) as caught:
        edgecv.load(bundle, **options)
    assert re.search(hint, caught.value.hint)


def test_a_missing_path_says_how_to_make_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist") as caught:
        edgecv.load(tmp_path / "none.ecv")
    assert "edgecv convert" in caught.value.hint


def test_a_changed_model_file_is_not_loaded(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b.ecv")
    (bundle.path / "onnx-int8/model.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match="sha256"):
        edgecv.load(bundle.path)


@pytest.mark.parametrize("floats", [False, True], ids=["pixels", "floats"])
def test_a_bare_file_with_metadata_needs_nothing_else(tmp_path: Path, floats: bool) -> None:
    path = detector(tmp_path / "bare.onnx", METADATA, floats=floats)
    with edgecv.load(path) as model:
        assert (model.name, model.labels, model.bundle, model.variant) == ("bare", LABELS, None, None)
        found = detect(model, bright_cell(2, 3))
        assert found.xyxy.tolist() == [box(2, 3)]
        assert found.confidence == pytest.approx([1.0])


def test_a_bare_file_takes_its_spec_from_the_caller(tmp_path: Path) -> None:
    with edgecv.load(detector(tmp_path / "bare.onnx"), spec=SPEC) as model:
        assert detect(model, bright_cell(0, 1)).xyxy.tolist() == [box(0, 1)]


def test_the_callers_spec_wins_over_metadata(tmp_path: Path) -> None:
    renamed = msgspec.structs.replace(SPEC, decode=msgspec.structs.replace(SPEC.decode, labels=("a", "b")))
    with edgecv.load(detector(tmp_path / "bare.onnx", METADATA), spec=renamed) as model:
        assert model.labels == ("a", "b")


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {k: v for k, v in METADATA.items() if k != "names"},
        {k: v for k, v in METADATA.items() if k != "imgsz"},
        METADATA | {"names": "__import__('os').system('true')"},
        METADATA | {"names": "{1: 'from one'}"},
        METADATA | {"names": "{0: "},
        METADATA | {"imgsz": "640"},
        METADATA | {"imgsz": "['a', 'b']"},
        METADATA | {"task": "segment"},
        {k: v for k, v in METADATA.items() if k != "task"},
        METADATA | {"names": "{0: 'only one'}"},  # the prediction has two classes
    ],
    ids=str,
)
def test_a_bare_file_that_does_not_describe_itself_is_refused(tmp_path: Path, metadata: dict[str, str]) -> None:
    with pytest.raises(SpecMismatch):
        edgecv.load(detector(tmp_path / "bare.onnx", metadata))


def test_a_spec_that_does_not_fit_the_outputs_is_refused(tmp_path: Path) -> None:
    wrong = msgspec.structs.replace(SPEC, decode=msgspec.structs.replace(SPEC.decode, labels=("a", "b", "c")))
    with pytest.raises(SpecMismatch, match=r"6 rows for 4 [+] 3 labels"):
        edgecv.load(detector(tmp_path / "bare.onnx"), spec=wrong)


def test_a_spec_of_another_size_is_refused_when_an_image_is_given(tmp_path: Path) -> None:
    wrong = msgspec.structs.replace(SPEC, preprocess=msgspec.structs.replace(SPEC.preprocess, size_wh=(32, 32)))
    with pytest.raises(SpecMismatch), edgecv.load(detector(tmp_path / "bare.onnx"), spec=wrong) as model:
        model(bright_cell(0, 0))


def test_a_model_that_takes_no_image_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    path = save(tmp_path / "vector.onnx", [node], [("x", 1, (1, 8))], [("y", 1, (1, 8))], {})
    with pytest.raises(SpecMismatch, match="image input"):
        edgecv.load(path, spec=SPEC)


@pytest.mark.parametrize(
    ("name", "error", "named"),
    [("garbage.onnx", SessionError, "damaged"), ("notes.txt", EdgeCVError, "not a bundle")],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, name, error, named) -> None:
    (tmp_path / name).write_bytes(b"garbage")
    with pytest.raises(error, match=named):
        edgecv.load(tmp_path / name, spec=SPEC if name.endswith(".onnx") else None)


def test_a_closed_model_says_so_and_closes_again(bundle: Path) -> None:
    model = edgecv.load(bundle)
    model.close()
    model.close()
    with pytest.raises(SessionError, match="closed"):
        model(bright_cell(0, 0))


def test_the_stages_one_by_one_are_the_call(model: edgecv.Model) -> None:
    image = bright_cell(1, 1)
    feeds, transform = model.prepare(image)
    staged = model.decode(model.infer(feeds), transform)
    assert isinstance(staged, Detections)
    assert staged.xyxy.tolist() == detect(model, image).xyxy.tolist()


def test_an_input_without_a_layout_gets_the_one_its_shape_shows(tmp_path: Path) -> None:
    with edgecv.load(detector(tmp_path / "planes.onnx", METADATA, floats=True)) as model:
        assert model.session.inputs == (TensorSpec(name="images", role="", shape=(1, 3, SIDE, SIDE), dtype="float32"),)
        assert model.prepare(bright_cell(0, 0))[0]["images"].shape == (1, 3, SIDE, SIDE)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> edgecv.Model:
    return edgecv.Model.load(write_bundle(tmp_path_factory.mktemp("tiny") / "tiny.ecv").path, threads=1)


def test_a_look_gives_a_result_with_names_a_document_and_an_image(tiny: edgecv.Model) -> None:
    image = bright_cell(1, 2)
    result = tiny.look(image)
    assert result.names == ("bright",)
    assert result.as_dict()["detections"][0]["label"] == "bright"
    assert result.as_dict()["captured_ns"] > 1.6e18
    assert result.plot().shape == image.shape
    assert (result.plot() != image).any()
    assert set(result.timings_ms) == {"preprocess", "inference", "postprocess"}
    assert np.array_equal(result.detections.xyxy, tiny(image).xyxy)  # type: ignore[union-attr]
    assert edgecv.annotate(image, tiny(image)).tolist() == result.plot().tolist()


@pytest.mark.parametrize(
    ("classes", "count"), [(["bright"], 1), ([0], 1), ([np.int64(0)], 1), (("never", 0), 1), ([1], 0)]
)
def test_classes_are_given_by_name_or_number(tiny: edgecv.Model, classes: list[str | int], count: int) -> None:
    image = bright_cell(1, 2)
    assert len(tiny(image, classes=classes)) == count
    assert len(tiny.look(image, classes=classes).names) == count
    assert [len(found) for found in tiny.many([image, image], classes=classes)] == [count, count]


@pytest.mark.parametrize("classes", [["brigth"], [2], [-1], [True], [1.0], "bright", 0, []], ids=str)
def test_an_unknown_class_lists_the_classes(tiny: edgecv.Model, classes: list[str | int]) -> None:
    image = bright_cell(1, 2)
    with pytest.raises(ConfigError) as caught:
        tiny(image, classes=classes)
    assert "bright, never" in caught.value.hint or "must be a list" in caught.value.message


def two_boxes(path: Path) -> Path:
    """A detector that always finds a box of `bright` at 0.9 and another of `never` at 0.6."""
    found = np.zeros((1, 6, 2), np.float32)
    found[0, :, 0], found[0, :, 1] = (16, 16, 8, 8, 0.9, 0), (48, 48, 8, 8, 0, 0.6)
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=onnx.TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["found", "nothing"], ["prediction"]),
    ]
    inputs = [("image", onnx.TensorProto.UINT8, (1, SIDE, SIDE, 3))]
    outputs = [("prediction", onnx.TensorProto.FLOAT, found.shape)]
    return save(path, nodes, inputs, outputs, {"zero": np.float32(0), "found": found}, METADATA)


def test_boxes_of_other_classes_do_not_take_the_place_of_those_wanted(tmp_path: Path) -> None:
    with edgecv.Model.load(two_boxes(tmp_path / "two.onnx"), threads=1) as model:
        image = bright_cell(1, 2)
        assert model(image).names == ("bright", "never")
        assert model(image, max_detections=1).names == ("bright",)
        assert model(image, max_detections=1, classes=["never"]).names == ("never",)
        assert model(image, max_detections=1, classes=[1, "bright"]).names == ("bright",)


def test_the_typed_doors_load_as_edgecv_load_does(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "tiny.ecv").path
    with edgecv.Model.load(path, runtime="onnxruntime", threads=1) as model:
        assert isinstance(model, edgecv.Model)
    with pytest.raises(ConfigError, match="takes no prompts") as caught:
        edgecv.PromptableModel.load(path)
    assert "edgecv.Model.load" in caught.value.hint
    with pytest.raises(ModelError, match="does not exist"):
        edgecv.PromptableModel.load(tmp_path / "none.ecv")
    with pytest.raises(TypeError, match="thraeds"):
        edgecv.Model.load(path, thraeds=1)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="thraeds"):
        edgecv.PromptableModel.load(path, thraeds=1)  # type: ignore[call-arg]


def test_a_path_in_place_of_an_image_says_how_to_read_it(tiny: edgecv.Model) -> None:
    with pytest.raises(SpecMismatch, match="not str") as caught:
        tiny("bus.jpg")  # type: ignore[arg-type]
    assert "edgecv.read_image" in caught.value.hint

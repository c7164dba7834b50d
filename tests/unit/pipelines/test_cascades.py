"""A second model looks at each box: a classifier that tells colours apart, and a SAM of a few nodes that fills boxes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import edgecv
from edgecv import registry
from edgecv.bundles.bundle import describe_file
from edgecv.bundles.manifest import MANIFEST, ModelFiles, Variant, dump_manifest
from edgecv.choosing import runtime_options
from edgecv.errors import ConfigError
from edgecv.pipelines.steps import Classify, Segment
from edgecv.promptable import PromptableModel
from edgecv.results import Detections, Frame, Result
from edgecv.specs import DecodeSpec, ModelSpec, PreprocessSpec, TensorSpec
from tests.models import manifest, save
from tests.unit.pipelines.recorded import LABELS, at_s, boxes, result_of

COLOURS = ("blue", "green", "red")
SIDE, GRID, SLOTS = 64, 16, 3


SPEC = ModelSpec(
    preprocess=PreprocessSpec(size_wh=(8, 8), resize="stretch", color="bgr"),
    decode=DecodeSpec(task="classify", decoder="logits", labels=COLOURS),
)


def colour_graph(path: Path) -> Path:
    """The mean of each channel as the score of its colour."""
    return save(
        path,
        [
            helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["real"], ["mean"], axes=[1, 2], keepdims=0),
            helper.make_node("Mul", ["mean", "tenth"], ["logits"]),
        ],
        [("image", TensorProto.UINT8, (1, 8, 8, 3))],
        [("logits", TensorProto.FLOAT, (1, 3))],
        {"tenth": np.float32(0.1)},
    )


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> edgecv.Model:
    path = colour_graph(tmp_path_factory.mktemp("colours") / "colours.onnx")
    return edgecv.load(path, threads=1, spec=SPEC)


class Counted:
    """A model that counts the images it is shown."""

    task, name = "classify", "counted"

    def __init__(self, model: edgecv.Model) -> None:
        self.labels, self.seen, self._model = model.labels, 0, model

    def many(self, images: Sequence[Any]) -> list[Any]:
        self.seen += len(images)
        return self._model.many(images)


def painted(colour_of: Sequence[str], seconds: float = 0.0, ids: Sequence[int] | None = None, **more: Any) -> Result:
    """Squares of 20 pixels side by side, each of a colour, and boxes round them."""
    image = np.zeros((60, 200, 3), np.uint8)
    for at, colour in enumerate(colour_of):
        image[10:30, 10 + 30 * at : 30 + 30 * at, COLOURS.index(colour)] = 255
    rows = [(10 + 30 * at, 10, 30 + 30 * at, 30, 0.9 - at / 10) for at in range(len(colour_of))]
    result = result_of(boxes(*rows, ids=ids), seconds, **more)
    return replace(result, frame=replace(result.frame, image=image))


def labels_in(result: Result, name: str = "colour") -> list[str | None]:
    assert result.detections is not None and result.detections.data is not None
    return result.detections.data[name].tolist()


def test_each_box_gets_the_label_of_what_is_in_it(colours: edgecv.Model) -> None:
    step = Classify(name="colour", model=colours).build(LABELS)
    result = step(painted(["red", "blue", "green"]))
    assert labels_in(result) == ["red", "blue", "green"]
    rows = json.loads(json.dumps(result.as_dict()))["detections"]
    assert [row["colour"] for row in rows] == ["red", "blue", "green"]
    assert all(row["colour_confidence"] > 0.99 and row["label"] == "person" for row in rows)


def test_only_the_surest_boxes_of_wanted_classes_are_looked_at(colours: edgecv.Model) -> None:
    seen = Counted(colours)
    assert labels_in(Classify(name="colour", model=seen, most=2).build(LABELS)(painted(["red"] * 4))) == [
        "red",
        "red",
        None,
        None,
    ]
    assert seen.seen == 2
    result = painted(["red", "blue"])
    other = replace(result.detections, class_id=np.array([1, 0]))
    step = Classify(name="colour", model=seen, classes=["person"]).build(LABELS)
    assert labels_in(step(replace(result, detections=other))) == [None, "blue"]
    row = json.loads(json.dumps(step(replace(result, detections=other)).as_dict()))["detections"][0]
    assert (row["colour"], row["colour_confidence"]) == (None, None)


def test_the_label_of_a_tracked_object_is_kept_for_a_time(colours: edgecv.Model) -> None:
    seen = Counted(colours)
    step = Classify(name="colour", model=seen, refresh_s=1.0).build(LABELS)
    found = [step(painted(["red", "blue"], at / 10, ids=[1, -1])) for at in range(12)]
    assert all(labels_in(result) == ["red", "blue"] for result in found)
    assert seen.seen == 12 + 2, "the unconfirmed one each time, the other at 0 s and at 1 s"


def test_with_few_looks_every_tracked_object_gets_its_turn(colours: edgecv.Model) -> None:
    step = Classify(name="colour", model=colours, refresh_s=60, most=1).build(LABELS)
    found = [labels_in(step(painted(["red", "blue", "green"], at / 10, ids=[1, 2, 3]))) for at in range(3)]
    assert found == [["red", None, None], ["red", "blue", None], ["red", "blue", "green"]]


def test_sources_keep_their_own_labels(colours: edgecv.Model) -> None:
    step = Classify(name="colour", model=colours, refresh_s=60).build(LABELS)
    assert labels_in(step(painted(["red"], ids=[1], source_id="a"))) == ["red"]
    assert labels_in(step(painted(["blue"], ids=[1], source_id="b"))) == ["blue"]


def test_keeping_labels_needs_a_tracker(colours: edgecv.Model) -> None:
    with pytest.raises(ConfigError, match="nothing tracks"):
        Classify(name="colour", model=colours, refresh_s=1).build(LABELS)(painted(["red"]))


def test_two_cascades_stand_side_by_side(colours: edgecv.Model) -> None:
    first = Classify(name="colour", model=colours).build(LABELS)
    second = Classify(name="shade", model=colours, most=1).build(LABELS)
    result = second(first(painted(["red", "blue"])))
    assert (labels_in(result), labels_in(result, "shade")) == (["red", "blue"], ["red", None])


@pytest.mark.parametrize("box", [(-5, -5, 4, 4), (195, 55, 240, 90), (10, 10, 10, 30), (50, 50, 50.5, 50.5)])
def test_boxes_at_the_edge_and_without_area(colours: edgecv.Model, box: tuple[float, ...]) -> None:
    result = replace(painted(["red"]), detections=boxes(box))
    assert len(labels_in(Classify(name="colour", model=colours, margin=0.5).build(LABELS)(result))) == 1


def test_frames_without_boxes_and_without_detections(colours: edgecv.Model) -> None:
    step = Classify(name="colour", model=colours).build(LABELS)
    assert labels_in(step(result_of(boxes()))) == []
    assert step(result_of(None)).detections is None


def test_a_margin_shows_what_is_round_the_box(colours: edgecv.Model) -> None:
    image = np.full((100, 100, 3), (255, 0, 0), np.uint8)
    image[40:60, 40:60] = (0, 0, 255)
    result = replace(result_of(boxes((40, 40, 60, 60))), frame=replace(at_s(0), image=image))
    assert labels_in(Classify(name="colour", model=colours).build(LABELS)(result)) == ["red"]
    assert labels_in(Classify(name="colour", model=colours, margin=1.0).build(LABELS)(result)) == ["blue"]


def test_wrong_cascades_are_refused(colours: edgecv.Model, sam: PromptableModel) -> None:
    with pytest.raises(ConfigError, match="label"):
        Classify(name="label", model=colours).build(LABELS)
    with pytest.raises(ConfigError, match="no classifier"):
        Classify(name="colour", model=sam).build(LABELS)
    with pytest.raises(ConfigError, match="answers no prompts"):
        Segment(model=colours).build(LABELS)
    with pytest.raises(edgecv.EdgeCVError, match="does not exist"):
        Classify(name="colour", model="missing.ecv").build(LABELS)


def test_a_classifier_is_loaded_from_its_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "colours.ecv"
    (folder / "onnx-fp32").mkdir(parents=True)
    entry = describe_file(folder, colour_graph(folder / "onnx-fp32" / "model.onnx"))
    image = TensorSpec(name="image", role="image", shape=(1, 8, 8, 3), dtype="uint8", layout="NHWC")
    logits = TensorSpec(name="logits", role="logits", shape=(1, 3), dtype="float32")
    files = ModelFiles(files=(entry,), inputs=(image,), outputs=(logits,))
    variant = Variant(
        name="onnx-fp32", format="onnx", precision="fp32", size_wh=(8, 8), latency_ms=1.0, models={"main": files}
    )
    described = manifest([variant], family="resnet", preprocess=SPEC.preprocess.rule, decode=SPEC.decode)
    (folder / MANIFEST).write_bytes(dump_manifest(described))
    step = Classify(name="colour", model=str(folder), runtime="onnxruntime", threads=1).build(LABELS)
    assert labels_in(step(painted(["red", "blue"]))) == ["red", "blue"]


def spec_of(name: str, shape: tuple[int, ...], dtype: str = "float32", role: str = "") -> TensorSpec:
    return TensorSpec(name=name, role=role or name, shape=shape, dtype=dtype)


FEATURES = spec_of("image_embeddings", (1, 1, 1, 1))
PROMPTS = (
    spec_of("point_coords", (1, SLOTS, 2)),
    spec_of("point_labels", (1, SLOTS)),
    spec_of("mask_input", (1, 1, GRID, GRID)),
    spec_of("has_mask_input", (1,)),
)
PIXELS = spec_of("image", (1, SIDE, SIDE, 3), "uint8")
ANSWERS = (spec_of("low_res_masks", (1, 1, GRID, GRID)), spec_of("iou_predictions", (1, 1)))


def _session(path: Path, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Any:
    return registry.resolve("runtimes", "onnxruntime")(path, runtime_options(threads=1), inputs, outputs)


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> PromptableModel:
    """Its mask is the box, if the image is bright: which image was set makes a difference."""
    folder = tmp_path_factory.mktemp("sam")
    encoder = save(
        folder / "encoder.onnx",
        [
            helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("ReduceMean", ["planes"], ["image_embeddings"], axes=[1, 2, 3], keepdims=1),
        ],
        [("image", TensorProto.UINT8, PIXELS.shape)],
        [("image_embeddings", TensorProto.FLOAT, FEATURES.shape)],
        {},
    )
    middle = (np.arange(GRID, dtype=np.float32) + 0.5) * SIDE / GRID
    y, x = np.meshgrid(middle, middle, indexing="ij")
    edges = [("x", 0, 0, 1), ("x", 1, 0, -1), ("y", 0, 1, 1), ("y", 1, 1, -1)]  # axis, corner, coordinate, sign
    nodes = []
    for at, (axis, _, _, sign) in enumerate(edges):
        nodes += [
            helper.make_node("Slice", ["point_coords", f"from{at}", f"to{at}"], [f"edge{at}"]),
            helper.make_node("Sub", [axis, f"edge{at}"] if sign > 0 else [f"edge{at}", axis], [f"depth{at}"]),
        ]
    unused = ["point_labels", "mask_input", "has_mask_input"]
    nodes += [
        helper.make_node("Sub", ["image_embeddings", "dusk"], ["light"]),
        helper.make_node("Min", [*(f"depth{at}" for at in range(4)), "light"], ["inside"]),
        helper.make_node("Reshape", ["inside", "grid"], ["mask"]),
        *(helper.make_node("ReduceSum", [name], [f"sum_{name}"], keepdims=0) for name in unused),
        helper.make_node("Sum", [f"sum_{name}" for name in unused], ["rest"]),
        helper.make_node("Mul", ["rest", "zero"], ["nothing"]),
        helper.make_node("Add", ["mask", "nothing"], ["low_res_masks"]),
        helper.make_node("Reshape", ["image_embeddings", "one"], ["iou_predictions"]),
    ]
    constants = {
        "x": x[None],
        "y": y[None],
        "dusk": np.float32(40),
        "zero": np.float32(0),
        "grid": np.array([1, 1, GRID, GRID]),
        "one": np.array([1, 1]),
    }
    for at, (_, corner, coordinate, _) in enumerate(edges):
        constants[f"from{at}"] = np.array([0, corner, coordinate])
        constants[f"to{at}"] = np.array([1, corner + 1, coordinate + 1])
    decoder = save(
        folder / "decoder.onnx",
        nodes,
        [(one.name, TensorProto.FLOAT, one.shape) for one in (FEATURES, *PROMPTS)],
        [(one.name, TensorProto.FLOAT, one.shape) for one in ANSWERS],
        constants,
    )
    spec = ModelSpec(
        preprocess=PreprocessSpec(size_wh=(SIDE, SIDE), pad_anchor="top-left"),
        decode=DecodeSpec(task="promptable-segment", decoder="sam"),
    )
    sessions = {
        "encoder": _session(encoder, (PIXELS,), (FEATURES,)),
        "decoder": _session(decoder, (FEATURES, *PROMPTS), ANSWERS),
    }
    return PromptableModel("tiny-sam", spec, sessions)


def frame_of(level: int) -> Frame:
    return replace(at_s(0), image=np.full((128, 128, 3), level, np.uint8))


def masks_of(result: Result) -> np.ndarray:
    assert isinstance(result.detections, Detections) and result.detections.mask is not None
    return result.detections.mask


def test_each_box_gets_a_mask(sam: PromptableModel) -> None:
    found = boxes((8, 16, 72, 80), (64, 64, 120, 112))
    result = Segment(model=sam).build(LABELS)(replace(result_of(found), frame=frame_of(200)))
    assert masks_of(result).shape == (2, 128, 128)
    for mask, (left, top, right, bottom) in zip(masks_of(result), found.xyxy, strict=True):
        box = np.zeros((128, 128), bool)
        box[int(top) : int(bottom), int(left) : int(right)] = True
        assert (mask & box).sum() / (mask | box).sum() > 0.85
    assert "mask" in result.as_dict()["detections"][0]


def test_the_image_is_that_of_the_frame(sam: PromptableModel) -> None:
    step = Segment(model=sam).build(LABELS)
    bright, dark = (step(replace(result_of(boxes((8, 8, 72, 72))), frame=frame_of(level))) for level in (200, 10))
    assert masks_of(bright).any() and not masks_of(dark).any()


def test_boxes_that_were_not_asked_about_have_an_empty_mask(sam: PromptableModel) -> None:
    found = boxes((8, 8, 72, 72, 0.5, 0), (8, 8, 72, 72, 0.9, 1), (9, 9, 9, 40, 0.9, 0), (60, 60, 120, 120, 0.8, 0))
    step = Segment(model=sam, classes=["person"], most=1).build(LABELS)
    result = step(replace(result_of(found), frame=frame_of(200)))
    assert masks_of(result).any(axis=(1, 2)).tolist() == [False, False, False, True]


def test_nothing_to_mark(sam: PromptableModel) -> None:
    step = Segment(model=sam).build(LABELS)
    assert masks_of(step(replace(result_of(boxes()), frame=frame_of(200)))).shape == (0, 128, 128)
    assert step(result_of(None)).detections is None

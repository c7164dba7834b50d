"""``--data``: what is opened, what is refused, and what two models' scores on it say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgecv
from edgecv.errors import ConfigError
from edgecv.model import Model
from edgecv.quantize.labels.coco import Truth, encode_masks, match_boxes, match_masks
from edgecv.quantize.labels.evaluate import read_labels
from edgecv.quantize.labels.int8_loss import compare_scores, labelled_check, open_labelled
from edgecv.quantize.labels.scores import ClassifierScores, DetectorScores
from edgecv.quantize.record import Labelled
from edgecv.results import Detections
from edgecv.specs import DecodeSpec, ModelSpec, PreprocessSpec
from tests.models import METADATA, bright_cell, detector, save
from tests.pycoco import coco_map
from tests.unit.quantize.test_bootstrap import CLASSES, images

LABELS = ("blue", "green", "red")


def boxes_in(folder: Path, line: str = "0 {x} 0.375 0.25 0.25") -> Path:
    """Four images of one bright cell each, labelled in YOLO form."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for column in range(4):
        cv2.imwrite(str(folder / f"images/{column}.png"), bright_cell(1, column))
        (folder / f"labels/{column}.txt").write_text(line.format(x=(column + 0.5) / 4) + "\n")
    return folder


def colours_in(folder: Path, names: tuple[str, ...] = LABELS) -> Path:
    """Five images of each colour."""
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for at in range(5):
            image = np.zeros((16, 16, 3), np.uint8)
            image[..., number] = 100 + 20 * at
            cv2.imwrite(str(folder / name / f"{at}.png"), image)
    return folder


def colour_classifier(path: Path, gains: tuple[float, float, float] = (1, 1, 1)) -> Model:
    """The class of an image is its strongest channel (blue, green, red), each times its gain."""
    save(
        path,
        [
            helper.make_node("ReduceMean", ["image"], ["means"], axes=[2, 3], keepdims=0),
            helper.make_node("Mul", ["means", "gains"], ["logits"]),
        ],
        [("image", TensorProto.FLOAT, (1, 3, 16, 16))],
        [("logits", TensorProto.FLOAT, (1, 3))],
        {"gains": np.array(gains, np.float32)},
    )
    return edgecv.load(
        path,
        spec=ModelSpec(
            preprocess=PreprocessSpec(size_wh=(16, 16), resize="stretch", color="bgr"),
            decode=DecodeSpec(task="classify", decoder="logits", labels=LABELS),
        ),
    )


def blind_detector(path: Path) -> Path:
    """The detector of the tests with the scores of its best class lost."""
    graph = onnx.load(str(detector(path, METADATA)))
    for weights in graph.graph.initializer:
        if weights.name == "white":
            weights.CopyFrom(numpy_helper.from_array(np.float32(1e9), "white"))
    onnx.save(graph, str(path))
    return path


def named(file: Path, names: str) -> Path:
    file.write_text(f"path: {file.parent}\nval: images\nnames: {names}\n")
    return file


# What is opened


def test_boxes_are_kept_in_parts_of_the_image(tmp_path: Path) -> None:
    found = open_labelled(boxes_in(tmp_path), "detect", ("bright", "never"))
    assert [path.name for path in found.images] == ["0.png", "1.png", "2.png", "3.png"]
    assert np.allclose(found.truth[2].xyxy, [[0.5, 0.25, 0.75, 0.5]])


@pytest.mark.parametrize(
    ("line", "task", "xyxy"),
    [
        ("1 0.5 0.5 0.2 0.4", "detect", [0.4, 0.3, 0.6, 0.7]),
        ("1 0.5 0.5 0.2 0.4 0.9", "detect", [0.4, 0.3, 0.6, 0.7]),  # with a confidence
        ("1 0.1 0.2 0.5 0.3 0.3 0.8", "segment", [0.1, 0.2, 0.5, 0.8]),  # an outline
        ("1 0.1 0.2 0.5 0.3 0.3 0.8", "detect", [0.1, 0.2, 0.5, 0.8]),
        ("1 0.1 0.1 0.4 0.1 0.4 0.2 0.1 0.2", "obb", [0.1, 0.1, 0.4, 0.2]),
        ("1 0.5 0.5 0.2 0.4 0.1 0.1 2", "pose", [0.4, 0.3, 0.6, 0.7]),  # a keypoint behind the box
    ],
)
def test_a_line_is_read_as_its_task_means_it(tmp_path: Path, line: str, task: str, xyxy: list[float]) -> None:
    (tmp_path / "1.txt").write_text(line)
    assert np.allclose(read_labels(tmp_path / "1.jpg", task).xyxy, [xyxy])


@pytest.mark.parametrize("names", ["[never, bright]", "{0: Never, 1: bright, 7: whale}"])
def test_named_classes_are_the_models_of_that_name(tmp_path: Path, names: str) -> None:
    boxes_in(tmp_path, "1 {x} 0.375 0.25 0.25")
    found = open_labelled(named(tmp_path / "data.yaml", names), "detect", ("bright", "never"))
    assert {int(truth.class_id[0]) for truth in found.truth} == {0}


@pytest.mark.parametrize("names", [("green", "red", "blue"), ("1", "2", "0"), ("GREEN", "2", "Blue")])
def test_class_folders_are_matched_by_name_or_number(tmp_path: Path, names: tuple[str, ...]) -> None:
    found = open_labelled(colours_in(tmp_path, names), "classify", LABELS)
    classes = {path.parent.name: number for path, number in zip(found.images, found.truth, strict=True)}
    assert classes == dict(zip(names, (1, 2, 0), strict=True))


def test_class_folders_of_a_model_without_names_count_in_their_order(tmp_path: Path) -> None:
    data = open_labelled(colours_in(tmp_path / "data"), "classify", tuple(str(at) for at in range(len(LABELS))))
    order = sorted(LABELS)
    assert [order[at] for at in data.truth] == [image.parent.name for image in data.images]
    with pytest.raises(ConfigError, match="no class of the model"):
        open_labelled(tmp_path / "data", "classify", ("0", "1", "2", "3"))


def test_the_val_part_of_class_folders_is_judged_by(tmp_path: Path) -> None:
    colours_in(tmp_path / "train")
    colours_in(tmp_path / "val", ("red",))
    found = open_labelled(tmp_path, "classify", LABELS)
    assert len(found.images) == 5
    assert set(found.truth) == {2}


def test_a_list_of_images_is_a_part_as_in_cocos_own_data_yaml(tmp_path: Path) -> None:
    boxes_in(tmp_path)
    (tmp_path / "val.txt").write_text("./images/1.png\n\nimages/3.png\n")
    (tmp_path / "data.yaml").write_text("path: .\nval: val.txt\n")
    found = open_labelled(tmp_path / "data.yaml", "detect", ("bright", "never"))
    assert [path.name for path in found.images] == ["1.png", "3.png"]


# What is refused


def test_prompts_have_no_labels(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="detectors and classifiers"):
        open_labelled(tmp_path, "promptable-segment", ())


def _class_beyond(folder: Path) -> Path:
    return boxes_in(folder, "7 {x} 0.375 0.25 0.25")


def _pixels(folder: Path) -> Path:
    return boxes_in(folder, "0 320 240 20 20")


def _unknown_name(folder: Path) -> Path:
    boxes_in(folder)
    return named(folder / "data.yaml", "[whale]")


def _nothing_labelled(folder: Path) -> Path:
    return boxes_in(folder, "")


def _list_of_missing(folder: Path) -> Path:
    boxes_in(folder)
    (folder / "val.txt").write_text("images/0.png\nimages/9.png\n")
    (folder / "data.yaml").write_text("val: val.txt\n")
    return folder / "data.yaml"


def _missing_part(folder: Path) -> Path:
    boxes_in(folder)
    (folder / "data.yaml").write_text("val: images/val\ntrain: images\n")
    return folder / "data.yaml"


def _broken_yaml(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "data.yaml").write_text("- [")
    return folder / "data.yaml"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_class_beyond, r"0\.txt has class 7, .* 2 labels \(bright, never\)"),
        (_pixels, "not parts of the image"),
        (_unknown_name, "class 0, which the model does not know"),
        (_nothing_labelled, "show no object"),
        (_broken_yaml, "cannot be read"),
        (_list_of_missing, r"images/9\.png, which does not exist; 1 of 2"),
        (_missing_part, "images/val does not exist"),
        (lambda folder: folder / "missing", "no labelled images"),
        (lambda folder: folder / "missing.yaml", "cannot be read"),
    ],
)
def test_boxes_that_do_not_fit_are_refused(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        open_labelled(make(tmp_path), "detect", ("bright", "never"))
    assert error.value.hint


@pytest.mark.parametrize(
    ("names", "message"), [(("blue", "whale"), "whale is no class"), (("3",), "3 is no class"), ((), "no folders")]
)
def test_class_folders_that_do_not_fit_are_refused(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        open_labelled(colours_in(tmp_path, names), "classify", LABELS)
    assert error.value.hint


def test_boxes_do_not_judge_a_classifier_nor_folders_a_detector(tmp_path: Path) -> None:
    boxes = open_labelled(boxes_in(tmp_path / "b"), "detect", ("bright", "never"))
    classes = open_labelled(colours_in(tmp_path / "c"), "classify", LABELS)
    with colour_classifier(tmp_path / "c.onnx") as model, pytest.raises(ConfigError, match="detectors only"):
        boxes.score(model)
    with (
        edgecv.load(detector(tmp_path / "d.onnx", METADATA)) as model,
        pytest.raises(ConfigError, match="classifiers only"),
    ):
        classes.score(model)


def test_an_image_that_cannot_be_read_names_itself(tmp_path: Path) -> None:
    (boxes_in(tmp_path) / "images/2.png").write_bytes(b"no image")
    labelled = open_labelled(tmp_path, "detect", ("bright", "never"))
    with edgecv.load(detector(tmp_path / "d.onnx", METADATA)) as model, pytest.raises(ConfigError, match=r"2\.png"):
        labelled.score(model)


# What the scores say


def test_a_classifier_that_lost_a_channel_loses_its_class(tmp_path: Path) -> None:
    labelled = open_labelled(colours_in(tmp_path / "data"), "classify", LABELS)
    with colour_classifier(tmp_path / "f.onnx") as floats, colour_classifier(tmp_path / "q.onnx", (1, 1, 0)) as int8:
        found = compare_scores(labelled.score(floats), labelled.score(int8), LABELS)
    assert (found.metric, found.images, found.float_score) == ("top1", 15, 1.0)
    assert found.int8_score == pytest.approx(2 / 3)
    assert found.drop == pytest.approx(100 / 3)
    assert 0 < found.low < found.drop < found.high < 100
    worst = found.classes[0]
    assert (worst.label, worst.float_score, worst.int8_score, worst.count) == ("red", 1, 0, 5)
    assert found.more == {"float_top5": 1.0, "int8_top5": 1.0}


def test_the_float_model_need_not_run_again(tmp_path: Path) -> None:
    labelled = open_labelled(boxes_in(tmp_path / "data"), "detect", ("bright", "never"))
    with edgecv.load(detector(tmp_path / "f.onnx", METADATA)) as model:
        floats = labelled.score(model)
    with edgecv.load(blind_detector(tmp_path / "q.onnx")) as int8:
        found = compare_scores(floats, labelled.score(int8), ("bright", "never"))
    assert (found.metric, found.float_score, found.int8_score) == ("map50_95", pytest.approx(1.0), 0.0)
    assert (found.drop, found.low, found.high) == (pytest.approx(100), pytest.approx(100), pytest.approx(100))
    assert [loss.label for loss in found.classes] == ["bright"]


def test_scores_of_a_detector_are_those_of_pycocotools() -> None:
    pairs = images(16)
    scores = DetectorScores(pairs=tuple(pairs), matches=match_boxes(pairs, CLASSES))
    wanted = coco_map(pairs, CLASSES)
    figures = scores.figures()
    assert figures["map50_95"] == pytest.approx(wanted.map50_95, abs=1e-12)
    assert figures["map50"] == pytest.approx(wanted.map50, abs=1e-12)


def test_classes_stand_worst_first() -> None:
    pairs = images(40)
    worse = [(truth, _without_class(found, 2)) for truth, found in pairs]
    scores = [DetectorScores(pairs=tuple(p), matches=match_boxes(p, CLASSES)) for p in (pairs, worse)]
    found = compare_scores(*scores, labels=("a", "b", "c", "d", "e"), resamples=50)
    losses = [loss.float_score - loss.int8_score for loss in found.classes]
    assert losses == sorted(losses, reverse=True)
    assert (found.classes[0].label, found.classes[0].int8_score) == ("c", 0.0)
    assert losses[1:] == [0.0] * 4
    assert len(found.classes) == CLASSES - 1  # no label shows the last


def _without_class(found: Detections, class_id: int) -> Detections:
    return found[found.class_id != class_id]


def test_scores_of_other_images_are_not_compared() -> None:
    scores = [ClassifierScores(class_id=np.zeros(n, int), rank=np.zeros(n, int), classes=1) for n in (2, 3)]
    with pytest.raises(ConfigError, match="top1 of 2 images cannot be compared with top1 of 3"):
        compare_scores(*scores, labels=())


def squares(widths: tuple[int, ...]) -> tuple[Truth, Detections]:
    """Labelled squares of 40 pixels, and detections with the right boxes whose masks are only so wide."""
    left = [10 + 60 * at for at in range(len(widths))]
    boxes = np.array([[x, 20, x + 40, 60] for x in left], np.float32).reshape(-1, 4)
    corners = ((0, 1), (2, 1), (2, 3), (0, 3))
    outlines = tuple(np.array([[box[x], box[y]] for x, y in corners], np.float32) for box in boxes)
    masks = np.zeros((len(widths), 80, 200), np.bool_)
    for mask, x, width in zip(masks, left, widths, strict=True):
        mask[20:60, x : x + width] = True
    ids = np.zeros(len(widths), np.int64)
    found = Detections(xyxy=boxes, confidence=np.full(len(widths), 0.9, np.float32), class_id=ids, mask=masks)
    return Truth(xyxy=boxes, class_id=ids, outline=outlines), found


def mask_scores(*frames: tuple[Truth, Detections]) -> DetectorScores:
    masks = [encode_masks(found, (200, 80)) for _, found in frames]
    return DetectorScores(pairs=frames, matches=match_boxes(frames, 1), mask_matches=match_masks(frames, masks, 1))


@pytest.mark.parametrize(
    ("widths", "mask_map"),
    [
        ((40, 40, 40), 1.0),
        ((31, 31, 31), 0.6),  # IoU 31/40 = 0.775 passes 0.50, 0.55 ... 0.75 of ten limits
        ((10, 10, 10), 0.0),
        ((0, 0, 0), 0.0),
    ],
)
def test_masks_are_judged_apart_from_boxes(widths: tuple[int, ...], mask_map: float) -> None:
    figures = mask_scores(squares(widths), squares(())).figures()
    assert figures["map50_95"] == pytest.approx(1.0)
    assert figures["mask_map50_95"] == pytest.approx(mask_map)


def test_a_loss_of_masks_alone_is_refused() -> None:
    floats, worse = mask_scores(squares((40, 40))), mask_scores(squares((31, 31)))
    check = labelled_check(compare_scores(floats, worse, ("square",)), 1.0)
    assert not check.passed
    assert (check.metric, check.value, check.most) == ("mask_map50_95_drop", pytest.approx(40.0), 1.0)


def test_outlines_are_kept_for_masks_where_every_line_is_one(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_text("1 0.1 0.2 0.5 0.3 0.3 0.8\n")
    (tmp_path / "2.txt").write_text("1 0.1 0.2 0.5 0.3 0.3 0.8\n0 0.5 0.5 0.1 0.1\n")
    outlines = read_labels(tmp_path / "1.jpg", "segment").outline
    assert outlines is not None
    assert np.allclose(outlines[0], [[0.1, 0.2], [0.5, 0.3], [0.3, 0.8]])
    assert read_labels(tmp_path / "2.jpg", "segment").outline is None
    assert read_labels(tmp_path / "1.jpg", "detect").outline is None
    assert read_labels(tmp_path / "none.jpg", "segment").outline == ()


def test_top5_counts_the_fifth_and_no_sixth() -> None:
    scores = ClassifierScores(class_id=np.array([0, 0, 1, 1]), rank=np.array([0, 4, 5, 1 << 30]), classes=9)
    assert scores.figures() == {"top1": 0.25, "top5": 0.5}


def lost(drop: float, low: float, high: float) -> Labelled:
    return Labelled(
        metric="map50_95", images=64, float_score=0.44, int8_score=0.44 - drop / 100, drop=drop, low=low, high=high
    )


@pytest.mark.parametrize(
    ("found", "passed"),
    [
        (lost(0.3, -0.4, 0.9), True),
        (lost(0.3, -0.4, 1.2), True),
        (lost(-0.5, -1.0, 0.1), True),
        (lost(1.0, 0.2, 1.8), True),
        (lost(3.0, 1.9, 4.4), False),
    ],
)
def test_the_loss_itself_decides_and_not_its_interval(found: Labelled, passed: bool) -> None:
    check = labelled_check(found, 1.0)
    assert check.passed is passed
    assert (check.metric, check.value, check.most) == ("map50_95_drop", found.drop, 1.0)


def test_truth_of_other_images_is_not_mixed_up(tmp_path: Path) -> None:
    """Labels are scaled to the size of their own image."""
    folder = boxes_in(tmp_path)
    cv2.imwrite(
        str(folder / "images/0.png"), cv2.resize(bright_cell(1, 0), (192, 192), interpolation=cv2.INTER_NEAREST)
    )
    found = open_labelled(folder, "detect", ("bright", "never"))
    with edgecv.load(detector(tmp_path / "m.onnx", METADATA)) as model:
        scores = found.score(model)
    assert isinstance(scores, DetectorScores)
    first: Truth = scores.pairs[0][0]
    assert np.allclose(first.xyxy, [[0, 48, 48, 96]])
    assert scores.figures()["map50_95"] == pytest.approx(1.0)

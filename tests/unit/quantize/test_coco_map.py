"""Mean average precision at its ends and in cases computed by hand; labels as YOLO's layout keeps them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecv.errors import ConfigError
from edgecv.quantize.labels.coco import Truth, match_boxes
from edgecv.quantize.labels.evaluate import in_pixels, label_path, labelled_images, read_labels
from edgecv.quantize.labels.int8_loss import open_labelled
from edgecv.quantize.labels.scores import DetectorScores
from edgecv.results import Detections

BOXES = np.array([[10, 10, 60, 60], [100, 100, 180, 160], [200, 20, 280, 90]], np.float32)
LABELS = np.array([0, 1, 1])
TRUTH = Truth(xyxy=BOXES, class_id=LABELS)


def found(boxes: np.ndarray = BOXES, labels: np.ndarray = LABELS, confidence: float = 0.9) -> Detections:
    scores = np.full(len(boxes), confidence, np.float32)
    return Detections(xyxy=boxes.astype(np.float32), confidence=scores, class_id=labels)


def figures(pairs: list[tuple[Truth, Detections]], classes: int) -> dict[str, float]:
    return DetectorScores(pairs=tuple(pairs), matches=match_boxes(pairs, classes)).figures()


@pytest.mark.parametrize(
    ("detections", "map50_95", "map50"),
    [
        (found(), 1.0, 1.0),
        (found(confidence=0.01), 1.0, 1.0),  # scores only rank
        (Detections.empty(), 0.0, 0.0),
        (found(labels=np.array([1, 0, 0])), 0.0, 0.0),
        (found(BOXES + 500), 0.0, 0.0),
        (found(BOXES[:1], LABELS[:1]), 0.5, 0.5),  # one class perfect, one missed
        # Heights stretched by 1 / 0.62: IoU 0.62 passes the limits 0.50, 0.55 and 0.60 of ten.
        (found(np.concatenate([BOXES[:, :3], BOXES[:, 1:2] + (BOXES[:, 3:] - BOXES[:, 1:2]) / 0.62], 1)), 0.3, 1.0),
    ],
)
def test_known_cases(detections: Detections, map50_95: float, map50: float) -> None:
    wanted = {"map50_95": map50_95, "map50": map50}
    assert figures([(TRUTH, detections)], classes=2) == pytest.approx(wanted, abs=1e-6)


def test_classes_without_labels_do_not_count() -> None:
    assert figures([(TRUTH, found())], classes=80)["map50_95"] == pytest.approx(1.0)


def test_images_are_kept_apart() -> None:
    empty = Truth(xyxy=np.zeros((0, 4), np.float32), class_id=np.zeros(0, np.int64))
    assert figures([(TRUTH, Detections.empty()), (empty, found())], classes=2)["map50_95"] == pytest.approx(0.0)
    assert figures([(TRUTH, found()), (empty, Detections.empty())], classes=2)["map50_95"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("data/images/train/1.jpg", "data/labels/train/1.txt"),
        ("images/old/images/1.jpg", "images/old/labels/1.txt"),
        ("data/1.png", "data/1.txt"),
    ],
)
def test_labels_lie_beside_the_images(image: str, label: str) -> None:
    assert label_path(Path(image)) == Path(label)


def test_labels_are_read_in_pixels(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/1.txt").write_text("3 0.5 0.5 0.5 0.25\n\n0 0.25 0.25 0.1 0.1 0.9\n")
    truth = in_pixels(read_labels(tmp_path / "images/1.jpg"), (200, 100))
    assert truth.class_id.tolist() == [3, 0]
    assert np.allclose(truth.xyxy, [[50, 37.5, 150, 62.5], [40, 20, 60, 30]])


def test_an_image_without_a_label_file_shows_nothing(tmp_path: Path) -> None:
    assert in_pixels(read_labels(tmp_path / "images/1.jpg"), (200, 100)).xyxy.shape == (0, 4)


@pytest.mark.parametrize("text", ["a b c d e", "0 0.5", "0 0.5 0.5 0.5\n0 1 1 1 1 1"])
def test_a_damaged_label_file_names_itself(tmp_path: Path, text: str) -> None:
    (tmp_path / "1.txt").write_text(text)
    with pytest.raises(ConfigError, match=r"1\.txt"):
        read_labels(tmp_path / "1.jpg")


@pytest.mark.parametrize("make", [Path.exists, Path.mkdir, lambda p: (p / "images").mkdir(parents=True)])
def test_a_folder_without_labels_is_refused(tmp_path: Path, make) -> None:
    make(tmp_path / "data")
    with pytest.raises(ConfigError, match="labelled images"):
        labelled_images(tmp_path / "data")


def test_a_detector_is_scored_on_images(tmp_path: Path) -> None:
    import cv2

    import edgecv
    from tests.models import METADATA, bright_cell, detector

    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    for column in range(4):
        cv2.imwrite(str(tmp_path / f"images/{column}.png"), bright_cell(1, column))
        (tmp_path / f"labels/{column}.txt").write_text(f"0 {(column + 0.5) / 4} {1.5 / 4} 0.25 0.25\n")
    with edgecv.load(detector(tmp_path / "m.onnx", METADATA)) as model:
        assert open_labelled(tmp_path, "detect", model.labels).score(model).figures()["map50_95"] == pytest.approx(1.0)

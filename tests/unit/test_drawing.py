"""Boxes and labels on a copy of the image."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgecv.errors import SpecMismatch
from edgecv.media.drawing import annotate, class_color
from edgecv.results import Classification, Detections, Frame, Masks, Result

LABELS = ("person", "car")


def _boxes(*rows: tuple[float, float, float, float], tracker: bool = False) -> Detections:
    return Detections(
        xyxy=np.array(rows, np.float32).reshape(-1, 4),
        confidence=np.full(len(rows), 0.9, np.float32),
        class_id=np.arange(len(rows)) % 3,  # class 2 has no name
        tracker_id=np.arange(len(rows)) if tracker else None,
    )


@pytest.mark.parametrize("size_hw", [(48, 64), (240, 320), (1080, 1920)])
@pytest.mark.parametrize("tracker", [False, True])
def test_a_box_is_drawn_in_its_colour_on_a_copy(size_hw: tuple[int, int], tracker: bool) -> None:
    image = np.zeros((*size_hw, 3), np.uint8)
    height, width = size_hw
    box = (width * 0.25, height * 0.5, width * 0.75, height * 0.9)
    drawn = annotate(image, _boxes(box, tracker=tracker), LABELS)
    assert not image.any()
    assert drawn.shape == image.shape
    assert tuple(drawn[round(box[3]), round(width * 0.5)]) == class_color(0)
    assert not drawn[round(height * 0.75), round(width * 0.5)].any(), "the inside stays visible"


@pytest.mark.parametrize("box", [(-20, -20, 30, 30), (300, 220, 500, 500), (0, 0, 0, 0), (310, 0, 319, 5)])
def test_boxes_at_and_beyond_the_border_keep_a_label_in_the_image(box: tuple[float, float, float, float]) -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    drawn = annotate(image, _boxes(box), LABELS)
    assert (drawn == class_color(0)).all(axis=2).sum() > 50


def test_nothing_found_draws_nothing() -> None:
    image = np.full((20, 30, 3), 7, np.uint8)
    assert (annotate(image, Detections.empty()) == image).all()


def test_classes_are_written_into_the_corner() -> None:
    image = np.zeros((120, 160, 3), np.uint8)
    found = Classification(class_id=np.array([1, 0]), confidence=np.array([0.8, 0.2], np.float32))
    drawn = annotate(image, found, LABELS)
    assert drawn[:40, :40].any()
    assert not drawn[80:].any()


def test_neighbouring_classes_have_different_colours() -> None:
    colors = [np.array(class_color(class_id), int) for class_id in range(10)]
    assert min(np.abs(a - b).sum() for i, a in enumerate(colors) for b in colors[:i]) > 40


def test_masks_tint_their_pixels() -> None:
    image = np.full((120, 160, 3), 100, np.uint8)
    mask = np.zeros((1, 120, 160), bool)
    mask[0, 60:90, 50:80] = True
    found = dataclasses.replace(_boxes((40, 50, 100, 100)), mask=mask)
    drawn = annotate(image, found, LABELS)
    assert np.allclose(drawn[75, 65], (np.array(class_color(0)) + 100) / 2, atol=1)
    assert (drawn[75, 90] == 100).all()


def test_keypoints_that_are_seen_are_dots() -> None:
    image = np.zeros((120, 160, 3), np.uint8)
    keypoints = np.array([[[60, 80, 0.9], [80, 90, 0.1]]], np.float32)
    found = dataclasses.replace(_boxes((40, 50, 120, 110)), keypoints=keypoints)
    drawn = annotate(image, found, LABELS)
    assert tuple(drawn[80, 60]) == class_color(0)
    assert not drawn[90, 80].any()


def test_rotated_boxes_are_drawn_rotated() -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    obb = np.array([[100, 120, 80, 20, np.pi / 4]], np.float32)
    found = dataclasses.replace(_boxes((60, 80, 140, 160)), obb=obb)
    drawn = annotate(image, found, LABELS)
    side = np.rint(100 + 40 * np.cos(np.pi / 4)), np.rint(120 + 40 * np.sin(np.pi / 4))  # the middle of a short side
    assert tuple(drawn[int(side[1]), int(side[0])]) == class_color(0)
    assert not drawn[155:165, 60:90].any(), "the upright box is not drawn"


def test_names_come_from_the_detections_unless_others_are_given() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    found = _boxes((40, 60, 200, 200))
    named = dataclasses.replace(found, labels=LABELS)
    assert (annotate(image, named) == annotate(image, found, LABELS)).all()
    assert (annotate(image, named) != annotate(image, found)).any()


def test_masks_of_prompts_are_painted() -> None:
    image = np.full((90, 120, 3), 100, np.uint8)
    crop = np.ones((30, 40), np.bool_)
    empty = np.zeros((0, 0), np.bool_)
    box = np.array([[20, 40, 60, 70], [0, 0, 0, 0]], np.float32)
    found = Masks(xyxy=box, iou=np.array([0.9, 0.1], np.float32), crops=(crop, empty), frame_wh=(120, 90))
    drawn = annotate(image, found)
    assert np.allclose(drawn[60, 40], (np.array(class_color(0)) + 100) / 2, atol=1)
    assert (drawn[80, 100] == 100).all()
    assert (image == 100).all()


def test_what_cannot_be_painted_says_what_can() -> None:
    image = np.zeros((24, 32, 3), np.uint8)
    with pytest.raises(SpecMismatch, match="Result") as caught:
        annotate(image, Result(frame=Frame(image=image)))  # type: ignore[arg-type]
    assert "result.plot()" in caught.value.hint


def test_a_result_paints_itself_on_a_new_image() -> None:
    image = np.zeros((120, 160, 3), np.uint8)
    found = _boxes((20, 40, 100, 100))
    result = Result(frame=Frame(image=image), labels=LABELS, detections=found)
    assert (result.plot() == annotate(image, found, LABELS)).all()
    nothing = Result(frame=Frame(image=image)).plot()
    nothing[:] = 1
    assert not image.any()


def test_an_object_that_the_tracker_is_not_sure_of_has_no_number() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    unsure = dataclasses.replace(_boxes((60, 100, 200, 220)), tracker_id=np.array([-1]))
    assert np.array_equal(annotate(image, unsure, LABELS), annotate(image, _boxes((60, 100, 200, 220)), LABELS))

"""``Detections`` and its neighbours as an author of a program meets them: rows, names, texts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgecv.events import Event
from edgecv.results import Classification, Detections, Frame, Masks, Result

LABELS = ("person", "car")
SHORT = 400


def boxes(count: int = 5, **more: object) -> Detections:
    rows = np.arange(count, dtype=np.float32)
    return Detections(
        xyxy=np.stack([rows, rows, rows + 9, rows + 9], axis=1),
        confidence=1 - rows / 10,
        class_id=np.arange(count) % 2,
        labels=LABELS,
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("index", [0, 2, 4, -1, -5, np.int64(3), np.argmax(boxes().confidence)])
def test_an_index_gives_detections_of_one_row(index: int) -> None:
    found = boxes(mask=np.ones((5, 4, 4), np.bool_), data={"plate": np.array(list("abcde"), object)})
    one = found[index]
    assert isinstance(one, Detections)
    assert len(one) == 1
    assert np.array_equal(one.xyxy[0], found.xyxy[index])
    assert one.mask is not None
    assert one.data is not None
    assert (one.mask.shape, list(one.data["plate"]), one.labels) == ((1, 4, 4), ["abcde"[index]], LABELS)


@pytest.mark.parametrize("index", [5, -6, 1 << 70])
def test_an_index_out_of_range_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError, match="among 5"):
        boxes()[index]
    with pytest.raises(IndexError, match="among 0"):
        Detections.empty()[0]


@pytest.mark.parametrize(
    ("chosen", "kept"),
    [
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [4, 3, 2, 1, 0]),
        (slice(9, None), []),
        ([4, 0], [4, 0]),
        ([], []),
        (np.array([3, 3]), [3, 3]),
        (np.array([True, False, False, False, True]), [0, 4]),
        (boxes().confidence > 0.75, [0, 1, 2]),
    ],
    ids=str,
)
def test_slices_masks_and_indices_choose_rows(chosen: slice, kept: list[int]) -> None:
    found = boxes(tracker_id=np.arange(5))[chosen]
    assert found.tracker_id is not None
    assert (found.tracker_id.tolist(), found.class_id.tolist()) == (kept, [row % 2 for row in kept])


def test_classes_are_chosen_likewise() -> None:
    found = Classification(class_id=np.array([1, 0]), confidence=np.array([0.8, 0.1], np.float32), labels=LABELS)
    assert (found[-1].names, found[:1].names, len(found[found.confidence > 0.9])) == (("person",), ("car",), 0)


def test_names_come_with_the_boxes() -> None:
    assert boxes(3).names == ("person", "car", "person")
    assert dataclasses.replace(boxes(2), labels=()).names == ("0", "1")
    assert [one.names for one in boxes(2)] == [("person",), ("car",)]
    assert boxes(2).as_supervision()["data"]["class_name"].tolist() == ["person", "car"]


HARD = "\x1b[2J\n\u202e" * 900  # a name that a bundle may hold


def many(labels: tuple[str, ...], count: int = 9000) -> list[object]:
    frame = Frame(image=np.zeros((1080, 1920, 3), np.uint8), index=10**12, source_id=HARD, path=HARD)
    found = dataclasses.replace(boxes(count), labels=labels)
    classes = Classification(class_id=found.class_id, confidence=found.confidence, labels=labels)
    masks = Masks(
        xyxy=found.xyxy, iou=found.confidence, crops=(np.ones((9, 9), np.bool_),) * count, frame_wh=(1920, 1080)
    )
    events = tuple(Event(kind="x", time_ns=1) for _ in range(99))
    result = Result(
        frame=frame, labels=labels, detections=found, classification=classes, model=HARD, events=events,
        timings_ms={"inference": 1.0},
    )  # fmt: skip
    return [frame, found, classes, masks, result]


@pytest.mark.parametrize("labels", [(), LABELS, (HARD, HARD)], ids=["none", "short", "hostile"])
def test_the_text_of_an_object_is_short_on_one_line_and_holds_no_array(labels: tuple[str, ...]) -> None:
    for one in many(labels):
        text = repr(one)
        assert len(text) < SHORT
        assert text.startswith(type(one).__name__)
        assert text.isprintable()
        assert "array" not in text


def test_the_text_says_what_was_found() -> None:
    assert repr(boxes(2)) == "Detections(2: person 1.00, car 0.90)"
    assert repr(boxes(9)).startswith("Detections(9: person 1.00, car 0.90, person 0.80,")
    assert repr(boxes(9)).endswith(", ...)")
    assert repr(Detections.empty()) == "Detections(none)"
    assert "640 x 480" in repr(Frame(image=np.zeros((480, 640, 3), np.uint8)))
    assert repr(Result(frame=Frame(image=np.zeros((4, 6, 3), np.uint8)), detections=boxes(1), labels=LABELS)) == (
        "Result(Frame(6 x 4, number 0), Detections(1: person 1.00))"
    )

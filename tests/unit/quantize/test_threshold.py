"""The tuned confidence on scores that were moved in known ways."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgecv.quantize.gate.threshold import LARGEST_CHANGE, tune_confidence, tune_confidence_labelled
from edgecv.quantize.labels.coco import Truth
from edgecv.results import Detections

IMAGES, PER_IMAGE = 40, 30
Scores = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def grid(count: int) -> np.ndarray:
    """Boxes that do not touch: ``(count, 4)``."""
    left = 40.0 * np.arange(count)
    return np.stack([left, left * 0, left + 30, left * 0 + 30], axis=1).astype(np.float32)


def answer(scores: np.ndarray) -> Detections:
    """Boxes of those scores that are at least 0.05, best first; box ``i`` stands at place ``i`` in every image."""
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= 0.05]
    boxes = grid(len(scores))[order]
    return Detections(xyxy=boxes, confidence=scores[order].astype(np.float32), class_id=np.zeros(len(order), np.int64))


def float_scores(seed: int = 0, images: int = IMAGES) -> list[np.ndarray]:
    """As detectors have them: many doubtful ones, some sure ones."""
    random = np.random.default_rng(seed)
    return [np.clip(random.beta(0.7, 1.3, PER_IMAGE), 0.001, 0.97) for _ in range(images)]


def moved(scores: list[np.ndarray], move: Scores) -> list[Detections]:
    random = np.random.default_rng(1)
    return [answer(np.clip(move(each, random), 0.0, 1.0)) for each in scores]


SCORES = float_scores()
FLOATS = moved(SCORES, lambda scores, _: scores)


@pytest.mark.parametrize("shift", [-0.08, -0.03, 0.03, 0.06])
def test_scores_that_all_moved_move_the_threshold_as_much(shift: float) -> None:
    found = tune_confidence(FLOATS, moved(SCORES, lambda scores, _: scores + shift), 0.25)
    assert found.before == 0.25
    assert found.after == pytest.approx(0.25 + shift, abs=0.006)
    assert "0.25" in found.reason


def test_scores_three_points_lower_bring_the_same_boxes_at_about_022() -> None:
    student = moved(SCORES, lambda scores, _: scores - 0.03)
    after = tune_confidence(FLOATS, student, 0.25).after
    passing = sum(int((found.confidence >= 0.25).sum()) for found in FLOATS)
    assert sum(int((found.confidence >= after).sum()) for found in student) == pytest.approx(passing, rel=0.01)


@pytest.mark.parametrize("factor", [0.85, 1.15])
def test_scores_that_were_scaled_scale_the_threshold(factor: float) -> None:
    found = tune_confidence(FLOATS, moved(SCORES, lambda scores, _: scores * factor), 0.25)
    assert found.after == pytest.approx(0.25 * factor, abs=0.01)


def test_equal_models_keep_the_default() -> None:
    found = tune_confidence(FLOATS, FLOATS, 0.25)
    assert (found.after, found.reason[:5]) == (0.25, "Kept:")


def test_a_little_noise_changes_little() -> None:
    found = tune_confidence(FLOATS, moved(SCORES, lambda s, random: s + random.normal(0, 0.02, s.shape)), 0.25)
    assert found.after == pytest.approx(0.25, abs=0.01)


def test_what_so_few_images_cannot_show_changes_nothing() -> None:
    def noisy(scores: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return scores + random.normal(0, 0.1, scores.shape) - 0.005

    found = tune_confidence_labelled(labelled(SCORES, FLOATS), labelled(SCORES, moved(SCORES, noisy)), 0.25)
    assert found.after == 0.25
    assert "no proof" in found.reason


def test_boxes_that_float_does_not_have_raise_the_threshold() -> None:
    def with_ghosts(scores: np.ndarray, random: np.random.Generator) -> np.ndarray:
        ghosts = random.uniform(0.2, 0.32, len(scores))
        return np.where(scores < 0.05, ghosts, scores)

    assert 0.27 <= tune_confidence(FLOATS, moved(SCORES, with_ghosts), 0.25).after <= 0.35


@pytest.mark.parametrize(("shift", "default", "after"), [(-0.2, 0.25, 0.15), (0.2, 0.25, 0.35), (-0.2, 0.1, 0.05)])
def test_the_change_is_bounded(shift: float, default: float, after: float) -> None:
    found = tune_confidence(FLOATS, moved(SCORES, lambda scores, _: scores + shift), default)
    assert found.after == pytest.approx(after)
    assert abs(found.after - found.before) <= LARGEST_CHANGE + 1e-9
    assert f"limited to {LARGEST_CHANGE:g}" in found.reason


@pytest.mark.parametrize(
    ("teacher", "student", "who"),
    [
        ([], [], "the float model finds only 0"),
        (FLOATS[:2], moved(SCORES[:2], lambda scores, _: scores - 0.05), "the float model finds only"),
        (FLOATS, [Detections.empty()] * IMAGES, "INT8 finds only 0"),
    ],
)
def test_few_detections_keep_the_default_and_say_why(
    teacher: list[Detections], student: list[Detections], who: str
) -> None:
    found = tune_confidence(teacher, student, 0.25)
    assert found.after == 0.25
    assert who in found.reason


def labelled(scores: list[np.ndarray], answers: list[Detections]) -> list[tuple[Truth, Detections]]:
    """Every box is a labelled object with the chance of its float score."""
    random = np.random.default_rng(2)
    truths = [np.flatnonzero(random.uniform(size=len(each)) < each) for each in scores]
    return [
        (Truth(xyxy=grid(PER_IMAGE)[places], class_id=np.zeros(len(places), np.int64)), found)
        for places, found in zip(truths, answers, strict=True)
    ]


@pytest.mark.parametrize("shift", [-0.05, -0.03, 0.04])
def test_labels_find_the_shift_as_well(shift: float) -> None:
    student = moved(SCORES, lambda scores, _: scores + shift)
    found = tune_confidence_labelled(labelled(SCORES, FLOATS), labelled(SCORES, student), 0.25)
    assert found.after == pytest.approx(0.25 + shift, abs=0.01)
    assert "on the labelled images" in found.reason


def test_further_classes_of_a_box_are_left_out() -> None:
    """COCO's protocol gives a box once per class; at run time its best class counts alone."""
    pairs = labelled(SCORES, FLOATS)
    twice = [(truth, _with_second_class(found)) for truth, found in pairs]
    assert tune_confidence_labelled(pairs, twice, 0.25).after == 0.25
    assert tune_confidence_labelled(pairs, twice, 0.25).reason.startswith("Kept")


def _with_second_class(found: Detections) -> Detections:
    return Detections(
        xyxy=np.concatenate([found.xyxy, found.xyxy]),
        confidence=np.concatenate([found.confidence, found.confidence * 0.9]),
        class_id=np.concatenate([found.class_id, found.class_id + 1]),
    )

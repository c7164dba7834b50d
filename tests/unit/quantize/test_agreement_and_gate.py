"""How far two detectors agree, computed by hand; and what the gate makes of it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edgecv.errors import CalibrationError
from edgecv.quantize.gate.accuracy_gate import MINIMUM_TEACHER_BOXES, MULTI_LABEL, compare, judge
from edgecv.quantize.gate.boxes import Agreement, agreement, match
from edgecv.quantize.recipes import RECIPES, GateLimits, QuantizeRecipe
from edgecv.results import Classification, Detections

Row = tuple[float, float, float, float, float, int]


def detections(*rows: Row) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(xyxy=table[:, :4], confidence=table[:, 4], class_id=table[:, 5].astype(np.int64))


SQUARE = (0, 0, 10, 10, 0.8, 0)
FAR = (100, 100, 120, 120, 0.6, 1)


@pytest.mark.parametrize(
    ("teacher", "student", "f1_50", "f1_75", "matched_iou", "score_bias"),
    [
        ([SQUARE, FAR], [SQUARE, FAR], 1, 1, 1, 0),
        ([SQUARE], [], 0, 0, 0, 0),
        ([], [SQUARE], 0, 0, 0, 0),
        ([], [], 0, 0, 0, 0),
        ([SQUARE, FAR], [SQUARE], 2 / 3, 2 / 3, 1, 0),
        ([SQUARE], [SQUARE, FAR], 2 / 3, 2 / 3, 1, 0),
        ([SQUARE], [(0, 0, 10, 10, 0.8, 1)], 0, 0, 0, 0),  # another class
        ([SQUARE], [(0, 0, 10, 6, 0.7, 0)], 1, 0, 0.6, -0.1),  # IoU 0.6: matched at 0.5, not at 0.75
        ([SQUARE], [(0, 0, 10, 8, 0.9, 0)], 1, 1, 0.8, 0.1),
        ([SQUARE], [(0, 0, 10, 5, 0.8, 0)], 1, 0, 0.5, 0),  # exactly on the limit
        ([SQUARE], [(0, 0, 10, 4.9, 0.8, 0)], 0, 0, 0, 0),
        ([SQUARE], [(0, 0, 10, 9, 0.9, 0), SQUARE], 2 / 3, 2 / 3, 0.9, 0.1),  # one box cannot be found twice
        ([SQUARE, FAR], [(0, 0, 10, 8, 0.6, 0), (100, 100, 120, 112, 0.5, 1)], 1, 0.5, 0.7, -0.15),
    ],
)
def test_figures_of_one_image_are_those_computed_by_hand(
    teacher, student, f1_50, f1_75, matched_iou, score_bias
) -> None:
    found = agreement([(detections(*teacher), detections(*student))])
    assert found.f1_50 == pytest.approx(f1_50)
    assert found.f1_75 == pytest.approx(f1_75)
    assert found.matched_iou == pytest.approx(matched_iou, abs=1e-6)
    assert found.score_bias == pytest.approx(score_bias, abs=1e-6)
    assert found.teacher_boxes == len(teacher)


def test_images_are_compared_one_by_one_and_counted_together() -> None:
    pairs = [(detections(SQUARE), detections()), (detections(), detections(SQUARE)), (detections(FAR), detections(FAR))]
    found = agreement(pairs)
    assert found.f1_50 == pytest.approx(2 / 4)
    assert found.teacher_boxes == 2


def test_no_images_are_no_agreement() -> None:
    assert agreement([]) == Agreement(f1_50=0.0, f1_75=0.0, matched_iou=0.0, score_bias=0.0, teacher_boxes=0)


def test_the_students_best_box_chooses_first() -> None:
    teacher = detections((0, 0, 10, 10, 0.9, 0), (0, 0, 10, 8, 0.8, 0))
    student = detections((0, 0, 10, 8, 0.9, 0), (0, 0, 10, 10, 0.8, 0))
    rows, columns = match(teacher, student, 0.5)
    assert (rows.tolist(), columns.tolist()) == ([1, 0], [0, 1])


GOOD = Agreement(f1_50=0.94, f1_75=0.92, matched_iou=0.95, score_bias=-0.01, teacher_boxes=200)


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, []),
        ({"f1_50": 0.90, "f1_75": 0.88, "matched_iou": 0.92, "score_bias": 0.06}, []),  # the limits themselves pass
        ({"score_bias": -0.06}, []),
        ({"f1_50": 0.899}, ["f1_50"]),
        ({"f1_75": 0.879}, ["f1_75"]),
        ({"matched_iou": 0.919}, ["matched_iou"]),
        ({"score_bias": 0.061}, ["score_bias"]),
        ({"score_bias": -0.061}, ["score_bias"]),
        ({"f1_50": 0.866, "score_bias": -0.23}, ["f1_50", "score_bias"]),  # ranges from noise, measured
        ({"f1_50": float("nan")}, ["f1_50"]),
    ],
)
def test_the_gate_fails_exactly_what_passes_its_limit(changes, failed) -> None:
    found = Agreement(**({name: getattr(GOOD, name) for name in Agreement.__slots__} | changes))
    report = judge(found, GateLimits(), "recipe")
    assert report.passed == (not failed)
    assert [check.metric for check in report.checks if not check.passed] == failed
    assert all(name in report.reason() for name in failed)
    assert report.recipe == "recipe"


@pytest.mark.parametrize("boxes", [0, 1, MINIMUM_TEACHER_BOXES - 1])
def test_a_teacher_that_sees_next_to_nothing_judges_nobody(boxes: int) -> None:
    found = Agreement(f1_50=1.0, f1_75=1.0, matched_iou=1.0, score_bias=0.0, teacher_boxes=boxes)
    with pytest.raises(CalibrationError, match=f"only {boxes} objects"):
        judge(found, GateLimits(), "recipe")


def test_fifty_boxes_are_enough() -> None:
    many = detections(*[(20 * i, 0, 20 * i + 10, 10, 0.9, 0) for i in range(MINIMUM_TEACHER_BOXES)])
    assert compare("detect", [many], [many], GateLimits(), "recipe").passed


def test_images_must_pair_up() -> None:
    with pytest.raises(ValueError, match="argument 2"):
        compare("detect", [detections(SQUARE)] * 2, [detections(SQUARE)], GateLimits(), "recipe")


def test_recipes_are_data_that_survive_being_written_down() -> None:
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert msgspec.json.decode(msgspec.json.encode(recipe), type=QuantizeRecipe) == recipe


def labelled(*rows: dict[int, float]) -> list[Classification]:
    """Answers of a classifier with several labels per image, best first."""
    ordered = [sorted(row.items(), key=lambda item: -item[1]) for row in rows]
    return [
        Classification(
            class_id=np.array([label for label, _ in row]), confidence=np.array([score for _, score in row], np.float32)
        )
        for row in ordered
    ]


def test_several_labels_per_image_are_judged_by_all_of_them() -> None:
    """Two labels of nearly one confidence may change places; one that gets lost counts."""
    teacher = labelled(*({at % 3: 0.99, 4: 0.98, 5: 0.2} for at in range(24)))
    swapped = labelled(*({at % 3: 0.98, 4: 0.99, 5: 0.3} for at in range(24)))
    report = compare(MULTI_LABEL, teacher, swapped, GateLimits(), "r")
    assert report.passed
    assert report.metrics["label_f1"] == 1.0
    lost = labelled(*({at % 3: 0.99, 4: 0.4, 5: 0.2} for at in range(24)))
    report = compare(MULTI_LABEL, teacher, lost, GateLimits(), "r")
    assert report.metrics["label_f1"] == pytest.approx(2 / 3, abs=1e-4)
    assert not report.passed

"""The gate: an INT8 model that strays too far from its float model is not written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from types import MappingProxyType

import numpy as np

from edgecv._internal.progress import Progress, silent
from edgecv.bundles.golden import cosine
from edgecv.errors import CalibrationError
from edgecv.media.images import read_image
from edgecv.model import Model
from edgecv.protocols import Array
from edgecv.quantize.gate.boxes import Agreement, agreement
from edgecv.quantize.recipes import GateLimits
from edgecv.quantize.record import Check
from edgecv.results import Classification, Detections

MINIMUM_TEACHER_BOXES = 50  # below this an F1 of 0.9 and one of 0.8 cannot be told apart

MINIMUM_CLASSIFIED = 20
_LABEL_CONFIDENCE = 0.5  # of a label, where an image may have several

MULTI_LABEL = "multi-label"  # the task of a classifier whose classes each stand for themselves

Answer = Detections | Classification


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """What the gate found for one recipe."""

    recipe: str
    checks: tuple[Check, ...]
    strict_alone: bool = False  # only the limits of `--strict` refuse it

    @property
    def passed(self) -> bool:
        """Whether every figure lies within its limits."""
        return all(check.passed for check in self.checks)

    @property
    def metrics(self) -> dict[str, float]:
        """The value of each check by metric, rounded to four decimals."""
        return {check.metric: round(check.value, 4) for check in self.checks}

    def reason(self) -> str:
        """The figures that failed, in words; empty when it passed."""
        missed = ", ".join(f"{c.metric} {c.value:.3f} (limit {_limit(c)})" for c in self.checks if not c.passed)
        return f"{missed}; without --strict it passes" if self.strict_alone else missed


def check_teacher(boxes: int, images: int = 0) -> None:
    """Raise ``CalibrationError`` when the float model saw next to nothing in the held-out images: then agreement proves nothing."""
    if boxes < MINIMUM_TEACHER_BOXES:
        enough = ceil(2 * MINIMUM_TEACHER_BOXES * images / boxes) if boxes and images else 0  # half of them is held out
        raise CalibrationError(
            f"The float model finds only {boxes} objects in the {f'{images} ' if images else ''}held-out images; "
            f"at least {MINIMUM_TEACHER_BOXES} are needed to judge INT8 by.",
            (f"About {enough} images like these would do. " if images <= boxes else "")
            + "Give more images, or images that show what the model was trained for; or labelled images with --data.",
        )


def check_classes(teacher: Sequence[Answer]) -> None:
    """Raise ``CalibrationError`` when the float model's classes are too few to judge by."""
    classes = {int(answer.class_id[0]) for answer in teacher}
    if len(teacher) < MINIMUM_CLASSIFIED or len(classes) < 2:
        raise CalibrationError(
            f"{len(teacher)} held-out images in {len(classes)} classes cannot judge INT8.",
            f"Give at least {MINIMUM_CLASSIFIED * 4} images of several classes.",
        )


def judge(found: Agreement, limits: GateLimits, recipe: str) -> GateReport:
    """Hold the agreement against the limits.

    Raises:
        CalibrationError: the float model saw next to nothing, so the figures prove nothing.
    """
    check_teacher(found.teacher_boxes)
    checks = (
        Check.of("f1_50", found.f1_50, least=limits.f1_50),
        Check.of("f1_75", found.f1_75, least=limits.f1_75),
        Check.of("matched_iou", found.matched_iou, least=limits.matched_iou),
        _bias_check(found.score_bias, limits),
    )
    return GateReport(recipe=recipe, checks=checks)


def _bias_check(bias: float, limits: GateLimits) -> Check:
    return Check.of("score_bias", bias, least=-limits.score_bias, most=limits.score_bias)


def _bias_of_best(teacher: Sequence[Answer], student: Sequence[Answer]) -> float:
    """Mean of student minus teacher confidence in the best class of each image."""
    return float(np.mean([s.confidence[0] - t.confidence[0] for t, s in zip(teacher, student, strict=True)]))


def answers(
    model: Model, images: Sequence[Path], step: str, progress: Progress = silent, confidence: float | None = None
) -> tuple[Answer, ...]:
    """What a model finds in each image, from a confidence on; as many at a time as it takes."""
    found: list[Answer] = []
    for done in range(0, len(images), model.batch):
        progress(step, done, len(images))
        opened = (read_image(path) for path in images[done : done + model.batch])
        # Masks are as large as the images, and nothing here looks at them.
        found.extend(_without_masks(answer) for answer in model.many(opened, confidence=confidence))
    progress(step, len(images), len(images))
    return tuple(found)


def _without_masks(answer: Answer) -> Answer:
    return replace(answer, mask=None) if isinstance(answer, Detections) else answer


def compare(
    task: str, teacher: Sequence[Answer], student: Sequence[Answer], limits: GateLimits, recipe: str
) -> GateReport:
    """Agreement of two models' answers to the same images, held against the limits.

    Raises:
        CalibrationError: the float model saw next to nothing, so the figures prove nothing.
    """
    return _JUDGES[task](teacher, student, limits, recipe)


def judge_boxes(teacher: Sequence[Answer], student: Sequence[Answer], limits: GateLimits, recipe: str) -> GateReport:
    """Of detectors: F1, overlap of the boxes and bias of the scores."""
    pairs = [(t, s) for t, s in zip(teacher, student, strict=True) if isinstance(t, Detections)]
    return judge(agreement([(t, s) for t, s in pairs if isinstance(s, Detections)]), limits, recipe)


def judge_classes(teacher: Sequence[Answer], student: Sequence[Answer], limits: GateLimits, recipe: str) -> GateReport:
    """Of classifiers: the lower bound of the share of images with the same best class.

    The bound is Wilson's at 95 % (Wilson 1927): few images prove little, and it says so.

    Raises:
        CalibrationError: too few images, or the float model gives all of them one class.
    """
    check_classes(teacher)
    best = [(int(t.class_id[0]), int(s.class_id[0])) for t, s in zip(teacher, student, strict=True)]
    same = sum(first == second for first, second in best)
    checks = (
        Check.of("top1_agreement", same / len(best), least=0.0),
        Check.of("top1_lower_bound", wilson_lower(same, len(best)), least=limits.top1_lower),
        _bias_check(_bias_of_best(teacher, student), limits),
    )
    return GateReport(recipe=recipe, checks=checks)


def judge_labels(teacher: Sequence[Answer], student: Sequence[Answer], limits: GateLimits, recipe: str) -> GateReport:
    """Of classifiers that give several labels per image: F1 of the labels at half confidence or above, and bias of the best.

    The best label of an image counts whatever its confidence. The limit is that of boxes.

    Raises:
        CalibrationError: too few images, or the float model's best label is the same in all of them.
    """
    check_classes(teacher)
    pairs = [(_labels(t), _labels(s)) for t, s in zip(teacher, student, strict=True)]
    same = sum(len(first & second) for first, second in pairs)
    total = sum(len(first) + len(second) for first, second in pairs)
    label_f1 = Check.of("label_f1", 2 * same / total, least=limits.f1_50)
    return GateReport(recipe=recipe, checks=(label_f1, _bias_check(_bias_of_best(teacher, student), limits)))


def _labels(answer: Answer) -> set[int]:
    shown = answer.class_id[answer.confidence >= _LABEL_CONFIDENCE]
    return {int(answer.class_id[0]), *map(int, shown)}


def judge_outputs(
    teacher: Sequence[Mapping[str, Array]], student: Sequence[Mapping[str, Array]], limits: GateLimits, recipe: str
) -> GateReport:
    """Of untrained models: the cosine of each raw output, mean over the images; the worst output counts.

    It proves the plumbing: outputs near zero of random weights lose more to rounding than any trained model's (YOLOv8n at 64
    pixels: 0.89 to 0.95), while a layer lost or one scale for all outputs gives less than 0.5.

    Outputs are real numbers by name, as the teacher's.
    """
    names = teacher[0].keys()
    means = [
        float(np.mean([cosine(t[name], s[name]) for t, s in zip(teacher, student, strict=True)])) for name in names
    ]
    check = Check.of("output_cosine", min(means), least=limits.output_cosine, most=1.0 + 1e-6)
    return GateReport(recipe=recipe, checks=(check,))


def wilson_lower(hits: int, count: int) -> float:
    """Lower end of Wilson's 95 % interval of a share."""
    z, share = 1.96, hits / count
    middle = share + z * z / (2 * count)
    spread = z * ((share * (1 - share) + z * z / (4 * count)) / count) ** 0.5
    return (middle - spread) / (1 + z * z / count)


def _limit(check: Check) -> str:
    return f"{check.least:g}" if check.value < check.least else f"{check.most:g}"


_JUDGES: Mapping[str, Callable[[Sequence[Answer], Sequence[Answer], GateLimits, str], GateReport]] = MappingProxyType(
    {
        "detect": judge_boxes,
        "segment": judge_boxes,
        "pose": judge_boxes,
        "obb": judge_boxes,
        "classify": judge_classes,
        MULTI_LABEL: judge_labels,
    }
)

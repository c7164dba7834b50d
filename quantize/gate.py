"""The gate: an INT8 model that strays too far from its float model is not written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from edgecv.errors import AccuracyGateError, CalibrationError
from edgecv.media import read_image
from edgecv.progress import Progress, silent
from edgecv.quantize.agreement import Agreement, agreement
from edgecv.quantize.recipes import GateLimits
from edgecv.results import Detections, Image

MINIMUM_TEACHER_BOXES = 50  # below this an F1 of 0.9 and one of 0.8 cannot be told apart

Detector = Callable[[Image], Detections]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One figure against its limit: ``value`` must lie between ``least`` and ``most``."""

    metric: str
    value: float
    least: float
    most: float

    @property
    def passed(self) -> bool:
        """Whether the value lies within."""
        return self.least <= self.value <= self.most


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """What the gate found for one recipe."""

    recipe: str
    checks: tuple[Check, ...]
    teacher_boxes: int

    @property
    def passed(self) -> bool:
        """Whether every figure lies within its limits."""
        return all(check.passed for check in self.checks)

    @property
    def metrics(self) -> dict[str, float]:
        """Figures by name."""
        return {check.metric: round(check.value, 4) for check in self.checks}

    def reason(self) -> str:
        """The figures that failed, in words; empty when it passed."""
        return ", ".join(f"{c.metric} {c.value:.3f} (limit {_limit(c)})" for c in self.checks if not c.passed)


def check_teacher(boxes: int) -> None:
    """Raise ``CalibrationError`` when the float model saw next to nothing: then agreement proves nothing."""
    if boxes < MINIMUM_TEACHER_BOXES:
        raise CalibrationError(
            f"The float model finds only {boxes} objects in the held-out images; "
            f"at least {MINIMUM_TEACHER_BOXES} are needed to judge INT8 by.",
            "Give more images, or images that show what the model was trained for.",
        )


def judge(found: Agreement, limits: GateLimits, recipe: str) -> GateReport:
    """Hold the agreement against the limits.

    Raises:
        CalibrationError: the float model saw next to nothing, so the figures prove nothing.
    """
    check_teacher(found.teacher_boxes)
    return GateReport(
        recipe=recipe,
        teacher_boxes=found.teacher_boxes,
        checks=(
            Check(metric="f1_50", value=found.f1_50, least=limits.f1_50, most=1.0),
            Check(metric="f1_75", value=found.f1_75, least=limits.f1_75, most=1.0),
            Check(metric="matched_iou", value=found.matched_iou, least=limits.matched_iou, most=1.0),
            Check(metric="score_bias", value=found.score_bias, least=-limits.score_bias, most=limits.score_bias),
        ),
    )


def detect_all(
    detector: Detector, images: tuple[Path, ...], step: str, progress: Progress = silent
) -> tuple[Detections, ...]:
    """Detections of each picture."""
    found = []
    for done, path in enumerate(images):
        progress(step, done, len(images))
        found.append(detector(read_image(path)))
    progress(step, len(images), len(images))
    return tuple(found)


def compare(
    teacher: Iterable[Detections], student: Iterable[Detections], limits: GateLimits, recipe: str
) -> GateReport:
    """Agreement of two models' detections of the same pictures, held against the limits."""
    return judge(agreement(zip(teacher, student, strict=True)), limits, recipe)


def refusal(reports: list[GateReport]) -> AccuracyGateError:
    """The error when every rung failed: what was tried, and what each gave."""
    tried = "; ".join(f"{report.recipe}: {report.reason()}" for report in reports)
    return AccuracyGateError(
        f"No INT8 recipe keeps the accuracy of the float model. Tried {tried}. Nothing was written.",
        "Check that the calibration images look like what the model was trained on, or keep float with --fp32.",
        report=reports[-1],
    )


def _limit(check: Check) -> str:
    return f"{check.least:g}" if check.value < check.least else f"{check.most:g}"

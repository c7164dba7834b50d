"""What is measured of one picture, and the figures that its sums make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from edgecv.benchmarks.lab.recipes.intervals import BySeed, Compared, ratio_of_sums
from edgecv.benchmarks.lab.recipes.logits import Measured, class_logits, logits_error, mean_cosine, real_outputs
from edgecv.benchmarks.lab.recipes.running import Answer
from edgecv.bundles.golden import cosine
from edgecv.quantize.gate.boxes import match
from edgecv.quantize.labels.bootstrap import RealArray
from edgecv.results import Classification, Detections
from edgecv.vision.tensors import real_values


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A sum over the pictures divided by another one.

    Attributes:
        title: What a table calls it.
        over: The measure that is summed up.
        under: The measure that it is divided by; empty for the number of pictures.
        compared: How two recipes are compared by it; ``None`` where another figure says the same.
        factor: What the quotient is multiplied by.
        more_is_better: Whether a larger one is better.
    """

    title: str
    over: str
    under: str = ""
    compared: Compared | None = "difference"
    factor: float = 1.0
    more_is_better: bool = True

    def by_seed(self, measures: Mapping[str, RealArray]) -> BySeed:
        """The figure of any draw of the pictures, from measures of ``(S, I)`` each."""
        over = measures[self.over] * self.factor
        return ratio_of_sums(over, measures[self.under] if self.under else np.ones_like(over))


FIGURES: Mapping[str, Figure] = MappingProxyType(
    {
        "f1_50": Figure(title="F1 at IoU 0.5", over="hits_50", under="boxes", factor=2.0),
        "f1_75": Figure(title="F1 at IoU 0.75", over="hits_75", under="boxes", factor=2.0),
        "relevant_mse": Figure(
            title="squared error",
            over="relevant_error",
            under="relevant_values",
            compared="ratio",
            more_is_better=False,
        ),
        "relevant_relative": Figure(
            title="part of the logits' squares", over="relevant_error", under="relevant_norm", compared=None
        ),
        "mse": Figure(
            title="the same in all cells", over="error", under="values", compared="ratio", more_is_better=False
        ),
        "top1": Figure(title="top-1", over="right", factor=100.0),
        "top1_loss": Figure(title="top-1 loss", over="lost", factor=100.0, more_is_better=False),
        "agreement": Figure(title="same class as float, %", over="agreed", factor=100.0),
        "cosine": Figure(title="cosine of outputs", over="cosine"),
    }
)


def measured(teacher: Answer, student: Answer, truth: int | None = None) -> Measured:
    """Compare what float and INT8 made of one picture; ``truth`` is the class of a classifier's picture."""
    if isinstance(teacher.shown, Detections) and isinstance(student.shown, Detections):
        return _of_boxes(teacher.shown, student.shown) | _of_logits(teacher, student)
    if isinstance(teacher.shown, Classification) and isinstance(student.shown, Classification):
        return _of_classes(teacher, student, teacher.shown, student.shown, truth)
    outputs = real_outputs(teacher.outputs, teacher.specs), real_outputs(student.outputs, student.specs)
    return {"cosine": mean_cosine(*outputs)}


def _of_boxes(teacher: Detections, student: Detections) -> Measured:
    """Matched boxes, and those of both models together: twice the former by the latter is F1."""
    return {
        "boxes": float(len(teacher) + len(student)),
        "teacher_boxes": float(len(teacher)),
        "hits_50": float(len(match(teacher, student, 0.5)[0])),
        "hits_75": float(len(match(teacher, student, 0.75)[0])),
    }


def _of_logits(teacher: Answer, student: Answer) -> Measured:
    wanted, found = (class_logits(answer.outputs, answer.specs) for answer in (teacher, student))
    return {} if wanted is None or found is None else logits_error(wanted, found)


def _of_classes(
    teacher: Answer, student: Answer, wanted: Classification, found: Classification, truth: int | None
) -> Measured:
    best, given = int(wanted.class_id[0]), int(found.class_id[0])
    both = [real_values(a.outputs[a.specs[0].name], a.specs[0]) for a in (teacher, student)]
    return {
        "right": float(given == truth),
        "lost": float(best == truth) - float(given == truth),
        "agreed": float(best == given),
        "cosine": cosine(*both),
    }

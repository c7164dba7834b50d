"""After the gate: the confidence at which INT8 is as precise as the float model is at the default.

Quantization moves scores a little, nearly always all in one direction. A threshold that stays where it was then lets more, or
less, through than it did. What a user chose with the default was a precision: so that is what is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgecv.quantize.gate.boxes import match
from edgecv.quantize.labels.bootstrap import RealArray, paired_interval
from edgecv.quantize.labels.coco import Truth
from edgecv.quantize.record import ThresholdRecord
from edgecv.results import BoolArray, Detections, FloatArray, IntArray

LOW_CONFIDENCE = 0.05  # what both models are asked with, so that boxes below the default are seen as well
MINIMUM_BOXES = 50  # of the float model at the default; below this a precision cannot be told to a tenth
LARGEST_CHANGE = 0.1
_LOWEST, _HIGHEST = 0.05, 0.9
_STEP = 0.005
_IOU = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredDetections:
    """Detections of one model, each with the assumed probability that it is correct."""

    score: RealArray  # `(N,)` float64, the model's own
    truth: RealArray  # `(N,)` float64, 0 to 1
    image: IntArray  # `(N,)` int64, index of the image
    images: int  # how many images there are

    def precision(self, confidence: float) -> float:
        """Mean truth of the detections that pass; NaN when none does."""
        passing = self.score >= confidence
        return float(self.truth[passing].mean()) if passing.any() else float("nan")

    def count(self, confidence: float) -> int:
        """How many detections reach a confidence."""
        return int((self.score >= confidence).sum())

    def of_draws(self, counts: IntArray, confidence: float) -> RealArray:
        """The precision of each draw of the images: ``(B, images)`` to ``(B,)``; NaN where none passes."""
        passing = self.score >= confidence
        weights = counts[:, self.image[passing]]
        boxes = weights.sum(axis=1)
        right = weights @ self.truth[passing]
        return np.divide(right, boxes, out=np.full(len(counts), np.nan), where=boxes > 0)


def tune_confidence(teacher: Sequence[Detections], student: Sequence[Detections], default: float) -> ThresholdRecord:
    """The INT8 model's confidence, judged by the float model alone.

    No label says which detection is true, but the float model says how sure it is of each. Its score is taken as the chance that a
    detection is true: a box of its own counts with its score, a box of INT8 with the score of the float box that it is matched to
    (IoU 0.5, same class), or with 0 where there is none. The mean over the boxes that pass is the expected precision. The
    threshold is the one at which INT8's equals the float model's at ``default``. Where INT8 gives the same boxes with scores
    moved by any amount, that is ``default`` moved by as much, whatever the scores are worth as chances: the same boxes pass.
    Noise in INT8's scores lowers its precision (it lets doubtful boxes in), so it raises the threshold. Measured on 250 images of
    the demo, weights rounded to 5 bits: 0.315, and 0.285 by labels, which are better where there are any.

    Both answered the same images at ``LOW_CONFIDENCE`` or below, best first. The threshold lies at most ``LARGEST_CHANGE`` from
    ``default``, the bundle's confidence so far, and stays there where there are too few detections to say, or where the paired
    bootstrap over the images cannot tell the two precisions apart.
    """
    pairs = [(_kept(t), _kept(s)) for t, s in zip(teacher, student, strict=True)]
    floats = _joined([(first.confidence, first.confidence) for first, _ in pairs])
    int8s = _joined([(second.confidence, _believed(first, second)) for first, second in pairs])
    return _tuned(floats, int8s, default, "expected precision by the float model's own scores")


def tune_confidence_labelled(
    teacher: Sequence[tuple[Truth, Detections]], student: Sequence[tuple[Truth, Detections]], default: float
) -> ThresholdRecord:
    """The INT8 model's confidence at which its precision on labelled images (IoU 0.5) equals the float model's at ``default``.

    Both are as ``DetectorScores.pairs``: the further classes of a box are left out here, as they are at run time.
    """
    floats, int8s = (
        _joined([(found.confidence, _true(truth, found)) for truth, found in _run_time(pairs)])
        for pairs in (teacher, student)
    )
    return _tuned(floats, int8s, default, "precision at IoU 0.5 on the labelled images")


def _tuned(floats: ScoredDetections, int8s: ScoredDetections, default: float, measure: str) -> ThresholdRecord:
    for name, model in (("the float model", floats), ("INT8", int8s)):
        if model.count(default) < MINIMUM_BOXES:
            found = model.count(default)
            return _unchanged(
                default, f"{name} finds only {found} objects at {default:g}, which are too few to tune it"
            )
    wanted, given = floats.precision(default), int8s.precision(default)
    both = f"at a confidence of {default:g} the {measure} is {wanted:.3f} for float and {given:.3f} for INT8"
    first, second = (partial(model.of_draws, confidence=default) for model in (floats, int8s))
    lost = paired_interval(first, second, floats.images)
    if lost.low <= 0 <= lost.high:
        return _unchanged(
            default, f"{both}; the loss lies between {lost.low:.3f} and {lost.high:.3f}, which is no proof of one"
        )
    after = _nearest(int8s, wanted, default)
    moved = f"default confidence changed from {default:g} to {after:g}, so that INT8 is as precise as float"
    reason = f"{moved}: {both}, and {int8s.precision(after):.3f} for INT8 at {after:g}"
    if _bounded(after, default):
        reason += f" (the change is limited to {LARGEST_CHANGE:g}, within {_LOWEST:g} to {_HIGHEST:g})"
    return ThresholdRecord(before=default, after=after, reason=f"{reason[0].upper()}{reason[1:]}.")


def _bounded(after: float, default: float) -> bool:
    """Whether the threshold stands at an end of what is allowed."""
    return abs(after - default) > LARGEST_CHANGE - _STEP / 2 or after <= _LOWEST or after >= _HIGHEST


def _unchanged(default: float, reason: str) -> ThresholdRecord:
    return ThresholdRecord(before=default, after=default, reason=f"Kept: {reason}.")


def _nearest(int8s: ScoredDetections, wanted: float, default: float) -> float:
    """The threshold whose precision is nearest to ``wanted``; of equal ones that nearest to ``default``.

    Thresholds at which fewer than ``MINIMUM_BOXES`` pass are not looked at: their precision is chance.
    """
    steps = np.arange(-LARGEST_CHANGE, LARGEST_CHANGE + _STEP / 2, _STEP)
    candidates = [default, *np.clip(default + steps, _LOWEST, _HIGHEST).round(3)]
    able = [float(at) for at in candidates if int8s.count(at) >= MINIMUM_BOXES]
    return min(able, key=lambda at: (round(abs(int8s.precision(at) - wanted), 6), abs(at - default)))


def _kept(found: Detections) -> Detections:
    return found[found.confidence >= LOW_CONFIDENCE]


def _believed(teacher: Detections, student: Detections) -> FloatArray:
    """Per box of the student the score of the teacher's box that it is matched to; 0 without one."""
    belief = np.zeros(len(student), np.float32)
    at_teacher, at_student = match(teacher, student, _IOU)
    belief[at_student] = teacher.confidence[at_teacher]
    return belief


def _true(truth: Truth, found: Detections) -> FloatArray:
    """Per box 1 where it found a label that no better box had found, else 0."""
    labels = Detections(xyxy=truth.xyxy, confidence=np.ones(len(truth.xyxy), np.float32), class_id=truth.class_id)
    hits = np.zeros(len(found), np.float32)
    hits[match(labels, found, _IOU)[1]] = 1.0
    return hits


def _run_time(pairs: Sequence[tuple[Truth, Detections]]) -> list[tuple[Truth, Detections]]:
    """Each box with its best class alone, best first: under COCO's protocol a box comes once per class."""
    found = []
    for truth, detections in pairs:
        kept = _kept(detections)
        ordered = kept[np.argsort(-kept.confidence, kind="stable")]
        first: IntArray = np.unique(ordered.xyxy, axis=0, return_index=True)[1]
        chosen: BoolArray = np.zeros(len(ordered), bool)
        chosen[first] = True
        found.append((truth, ordered[chosen]))
    return found


def _joined(parts: Sequence[tuple[FloatArray, FloatArray]]) -> ScoredDetections:
    """Scores and truths of each image as one table."""
    scores, truths = zip(*parts, strict=True) if parts else ((), ())
    sizes = [len(score) for score in scores]
    return ScoredDetections(
        score=np.concatenate([np.zeros(0), *scores]).astype(np.float64),
        truth=np.concatenate([np.zeros(0), *truths]).astype(np.float64),
        image=np.repeat(np.arange(len(sizes)), sizes),
        images=len(sizes),
    )

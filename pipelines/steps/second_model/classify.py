"""Give each box a second label: the box is cut out and shown to a classifier."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import msgspec
import numpy as np

from edgecv.errors import ConfigError
from edgecv.model import Model
from edgecv.pipelines.steps.count.counting import Name, Seconds, tracked
from edgecv.pipelines.steps.count.memory import Memory
from edgecv.pipelines.steps.options import checked
from edgecv.pipelines.steps.per_source import PerSource
from edgecv.pipelines.steps.second_model.common import SecondModel, best_of, check_task
from edgecv.results import ROW_NAMES, Classification, Detections, Image, IntArray, Result
from edgecv.vision.class_names import label_of

_FORGET_S = 10.0  # what is out of sight for longer is looked at anew


class Classify(SecondModel, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``type = "classify"``: a classifier labels the boxes; boxes it did not see have no label.

    Attributes:
        name: Of the label: ``Detections.data[name]`` and a field of each detection in JSON, with ``NAME_confidence``.
        most: Boxes looked at per frame, the surest first.
        margin: Each box is widened by this share of its width and height on every side.
        refresh_s: Keep the label of a tracked object for so long, seconds; 0 looks at every box in every frame. Needs the
            step ``track`` before it.
    """

    name: Name
    most: Annotated[int, msgspec.Meta(ge=1, le=300)] = 8
    margin: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    refresh_s: Seconds = 0.0

    @property
    def needs_ids(self) -> bool:
        """Whether the step requires tracker ids, which it does to keep labels between frames."""
        return self.refresh_s > 0

    def build(self, labels: tuple[str, ...] = ()) -> PerSource:
        """The step for a detector with these labels; the classifier is loaded once for all sources.

        Raises ``ConfigError``: the name is taken, the model is no classifier, or the detector has no such class.
        """
        options = checked(self)
        if options.name in ROW_NAMES:
            raise ConfigError(f"A label cannot be named '{options.name}'.", f"Taken: {', '.join(sorted(ROW_NAMES))}.")
        wanted, model = options.wanted(labels), options.opened()
        check_task(model, "classify", "is no classifier", "Give one, such as a ResNet.")
        return PerSource(lambda _: BoxClassifier(options, model, wanted))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Label:
    text: str
    confidence: float
    made_ns: int  # monotonic


class BoxClassifier:
    """Step that labels the boxes of one source by a second model."""

    def __init__(self, options: Classify, model: Model, wanted: frozenset[int] | None) -> None:
        self._options, self._model, self._wanted = options, model, wanted
        self._keep_ns = round(options.refresh_s * 1e9)
        self._known: Memory[_Label] = Memory(max(self._keep_ns, round(_FORGET_S * 1e9)))

    def __call__(self, result: Result) -> Result:
        """The result with the second label of its boxes; ``ConfigError`` when labels are to be kept, and no tracker ran
        before.
        """
        found, now_ns = result.detections, result.frame.scene_ns
        if found is None:
            return result
        rows = best_of(found, self._wanted)
        labels: dict[int, _Label] = {}
        if self._keep_ns:
            labels = self._remembered(tracked(result, self._options.name), rows, now_ns)
            due = [row for row in rows if row not in labels or now_ns - labels[row].made_ns >= self._keep_ns]
            rows = np.array(due, np.int64)
        rows = rows[: self._options.most]
        labels |= zip(rows.tolist(), self._look(result.frame.image, found, rows, now_ns), strict=True)
        if self._keep_ns:
            self._remember(found, labels, now_ns)
        return replace(result, detections=replace(found, data={**(found.data or {}), **self._columns(found, labels)}))

    def _look(self, image: Image, found: Detections, rows: IntArray, now_ns: int) -> list[_Label]:
        crops = [_cut(image, box, self._options.margin) for box in found.xyxy[rows]]
        return [self._best(answer, now_ns) for answer in self._model.many(crops)]

    def _best(self, answer: Any, now_ns: int) -> _Label:
        if not isinstance(answer, Classification) or not len(answer):
            return _Label(text="", confidence=float("nan"), made_ns=now_ns)
        text = label_of(self._model.labels, int(answer.class_id[0]))
        return _Label(text=text, confidence=float(answer.confidence[0]), made_ns=now_ns)

    def _remembered(self, found: Detections, rows: IntArray, now_ns: int) -> dict[int, _Label]:
        self._known.forget(now_ns)
        pairs = ((row, self._known.get(tracker_id)) for row, tracker_id in _ids(found, rows.tolist()))
        return {row: label for row, label in pairs if label is not None}

    def _remember(self, found: Detections, labels: dict[int, _Label], now_ns: int) -> None:
        for row, tracker_id in _ids(found, list(labels)):
            self._known.see(tracker_id, labels[row], now_ns)

    def _columns(self, found: Detections, labels: dict[int, _Label]) -> dict[str, Any]:
        texts = np.full(len(found), None, object)
        confidence = np.full(len(found), np.nan, np.float32)
        for row, label in labels.items():
            texts[row], confidence[row] = label.text or None, label.confidence
        return {self._options.name: texts, f"{self._options.name}_confidence": confidence}


def _ids(found: Detections, rows: list[int]) -> list[tuple[int, int]]:
    ids = found.tracker_id
    return [] if ids is None else [(row, int(ids[row])) for row in rows if ids[row] >= 0]


def _cut(image: Image, box: Any, margin: float) -> Image:
    """The part of the image under a box, with its margin, at least one pixel."""
    height, width = image.shape[:2]
    grow = (box[2:] - box[:2]) * margin
    left, top = np.floor(box[:2] - grow).astype(int).clip(0, (width - 1, height - 1))
    right, bottom = np.ceil(box[2:] + grow).astype(int).clip((left + 1, top + 1), (width, height))
    return np.ascontiguousarray(image[top:bottom, left:right])

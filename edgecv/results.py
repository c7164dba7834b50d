"""What goes in and what comes out: frames, detections, classifications, results.

Arrays are shared, never copied: treat them as read-only.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

import numpy as np

from edgecv._internal.printable import printable
from edgecv.detections import (
    ROW_NAMES as ROW_NAMES,
    BoolArray as BoolArray,
    Classification as Classification,
    Detections as Detections,
    FloatArray as FloatArray,
    Image as Image,
    IntArray as IntArray,
    Masks as Masks,
    check_image,
)
from edgecv.events import Event, Priority
from edgecv.overlays import Overlay
from edgecv.vision.class_names import label_of

_SHOWN_CHARACTERS = 40  # of a name, in the text of an object


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """One image and where it comes from; ``Frame(image=image)`` is enough for one that comes from no source.

    Attributes:
        image: ``(H, W, 3)`` uint8, BGR.
        index: Position in the source, from 0; gaps are frames that were dropped.
        source_id: Name of the source, free of credentials; empty for an image that comes from no source.
        captured_ns: When it was captured, UTC nanoseconds since the epoch; now by default.
        monotonic_ns: The same moment on this machine's monotonic clock, by which ages are measured.
        position_ns: Position in a file that has a time of its own; ``None`` for a camera.
        path: The file that it is, where the source is a folder of images; empty for any other.
        is_damaged: Whether the file is damaged here, and the decoder made up a part of the image.
        scene_time_ns: Its time on the clock of the scene where neither of the others is that: of a file that is played.
    """

    image: Image
    index: int = 0
    source_id: str = ""
    captured_ns: int = field(default_factory=time.time_ns)
    monotonic_ns: int = field(default_factory=time.monotonic_ns)
    position_ns: int | None = None
    path: str = ""
    is_damaged: bool = False
    scene_time_ns: int | None = None

    @property
    def position_s(self) -> float | None:
        """Seconds from the start of the file, as its own times say; ``None`` for a camera."""
        return None if self.position_ns is None else round(self.position_ns / 1e9, 6)

    @property
    def scene_ns(self) -> int:
        """Nanoseconds on the clock of what is seen: however fast a file is read, a second in it is a second.

        It goes forward in a file that is played over and over, too.
        """
        if self.scene_time_ns is not None:
            return self.scene_time_ns
        return self.monotonic_ns if self.position_ns is None else self.position_ns

    def with_image(self, image: Image) -> Frame:
        """The same frame with another image in place of its own.

        It is a plain ``Frame``: whatever a class of a plug-in holds beside, such as the image as the camera encoded it, does not
        come along, unless that class says otherwise.
        """
        return Frame(
            image=image,
            index=self.index,
            source_id=self.source_id,
            captured_ns=self.captured_ns,
            monotonic_ns=self.monotonic_ns,
            position_ns=self.position_ns,
            path=self.path,
            is_damaged=self.is_damaged,
            scene_time_ns=self.scene_time_ns,
        )

    def __repr__(self) -> str:
        height, width = (*getattr(self.image, "shape", ()), 0, 0)[:2]
        source = f" of {printable(self.source_id)[:_SHOWN_CHARACTERS]}" if self.source_id else ""
        return f"Frame({width} x {height}, number {self.index}{source})"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """What a model or a pipeline found in one image.

    Attributes:
        frame: The frame itself; its image is still in memory while you hold the result.
        labels: Name of each class of the model.
        detections: Boxes, or ``None`` for another task.
        classification: Classes, or ``None`` for another task.
        timings_ms: Milliseconds per stage: ``wait, preprocess, inference, postprocess``.
        age_ms: Time from capture until this result was ready.
        model: Name of the bundle and the variant that ran, such as ``yolov8n/onnx-int8``.
        events: What steps had to say about this frame.
        overlays: Lines and areas of steps, for whoever paints the frame; they are no part of ``as_dict``.
    """

    frame: Frame
    labels: tuple[str, ...] = ()
    detections: Detections | None = None
    classification: Classification | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    age_ms: float = 0.0
    model: str = ""
    events: tuple[Event, ...] = ()
    overlays: tuple[Overlay, ...] = ()

    def label(self, class_id: int) -> str:
        """Name of a class, or its number when the model has no names."""
        return label_of(self.labels, class_id)

    @property
    def names(self) -> tuple[str, ...]:
        """The class name of each box or class that was found, best first."""
        found = self.classification if self.detections is None else self.detections
        return () if found is None else tuple(self.label(int(class_id)) for class_id in found.class_id)

    def with_event(self, kind: str, /, *, priority: Priority = "event", coalesce_key: str = "", **data: Any) -> Result:
        """The same result with one more event, of this frame's source and time.

        Args:
            kind: What happened, dotted, such as ``crowd.began``.
            priority: As in ``Event``.
            coalesce_key: As in ``Event``.
            data: Details that JSON can hold.

        Raises:
            ConfigError: there is no such priority, or the key is too long.
        """
        event = Event(
            kind=kind,
            time_ns=self.frame.captured_ns,
            source_id=self.frame.source_id,
            data=data,
            priority=priority,
            coalesce_key=coalesce_key,
        )
        return replace(self, events=(*self.events, event))

    def plot(self) -> Image:
        """A new image: that of the frame, with what was found and the lines and areas of its steps painted on it.

        Raises:
            SpecMismatch: the image is not ``(H, W, 3)`` uint8.
            MissingDependency: OpenCV is not installed.
        """
        from edgecv.media.drawing import annotate
        from edgecv.media.overlay_drawing import draw_overlays

        check_image(self.frame.image)
        painted = self.frame.image
        for found in (self.detections, self.classification):
            if found is not None:
                painted = annotate(painted, found, self.labels)
        painted = painted.copy() if painted is self.frame.image else painted
        draw_overlays(painted, self.overlays)
        return painted

    def __repr__(self) -> str:
        found = [repr(one) for one in (self.detections, self.classification) if one is not None]
        events = [f"{len(self.events)} events"] if self.events else []
        model = [printable(self.model)[:_SHOWN_CHARACTERS]] if self.model else []
        return f"Result({', '.join([*model, repr(self.frame), *found, *events])})"

    def as_dict(self, masks: bool = True) -> dict[str, Any]:
        """The form that JSON can hold: one document per image, empty or not; ``masks=False`` leaves masks out.

        ``path`` stands there only for images of a folder, ``position_s`` only for a file that has a time of its own, ``damaged``
        only where the file is, ``events`` only when steps had something to say.
        """
        frame = self.frame
        return {
            "index": frame.index,
            "source_id": frame.source_id,
            **({"path": frame.path} if frame.path else {}),
            "captured_ns": frame.captured_ns,
            **({} if frame.position_s is None else {"position_s": frame.position_s}),
            **({"damaged": True} if frame.is_damaged else {}),
            "age_ms": round(self.age_ms, 3),
            **answer_rows(self.detections, self.labels, masks),
            **answer_rows(self.classification, self.labels),
            "timings_ms": {name: round(ms, 3) for name, ms in self.timings_ms.items()},
            **({"events": [event.as_dict() for event in self.events]} if self.events else {}),
        }


def answer_rows(
    answer: Detections | Classification | None, labels: tuple[str, ...], masks: bool = True
) -> dict[str, list[dict[str, Any]]]:
    """The JSON form of what a model found: ``detections`` or ``classification``, best first; nothing for ``None``.

    A detection has ``keypoints`` (x, y, confidence each), ``obb`` (centre x, centre y, width, height, radians) and ``mask``
    (see ``run_lengths``) where the model gives them, and a field for each entry of its ``data``; ``masks=False`` leaves the
    masks out.
    """
    if answer is None:
        return {}
    ids = [int(class_id) for class_id in answer.class_id]
    rows: list[dict[str, Any]] = [
        {"confidence": round(float(confidence), 6), "class_id": class_id, "label": label_of(labels, class_id)}
        for class_id, confidence in zip(ids, answer.confidence, strict=True)
    ]
    if isinstance(answer, Classification):
        return {"classification": rows}
    more = _more_rows(answer, masks)
    trackers = [None] * len(ids) if answer.tracker_id is None else [int(tracker) for tracker in answer.tracker_id]
    boxes = _rounded_rows(answer.xyxy)
    return {
        "detections": [
            {"xyxy": box, **row, "tracker_id": tracker, **extra}
            for box, row, tracker, extra in zip(boxes, rows, trackers, more, strict=True)
        ]
    }


def mask_rows(masks: Masks) -> dict[str, list[dict[str, Any]]]:
    """The JSON form of what prompts marked; ``mask`` as in ``run_lengths``."""
    return {
        "masks": [
            {"xyxy": _rounded(box), "iou": round(float(iou), 6), "mask": run_lengths(mask)}
            for box, iou, mask in zip(masks.xyxy, masks.iou, masks.mask, strict=True)
        ]
    }


def _more_rows(found: Detections, masks: bool) -> list[dict[str, Any]]:
    """What each detection has beyond its box."""
    rows: list[dict[str, Any]] = [{} for _ in range(len(found))]
    for at, row in enumerate(rows):
        if found.keypoints is not None:
            row["keypoints"] = [_rounded(point) for point in found.keypoints[at]]
        if found.obb is not None:
            row["obb"] = [*_rounded(found.obb[at, :4]), round(float(found.obb[at, 4]), 6)]
        if found.mask is not None and masks:
            row["mask"] = run_lengths(found.mask[at])
        for name, values in (found.data or {}).items():
            row[name] = _plain(values[at : at + 1].tolist()[0])
    return rows


def _plain(value: Any) -> Any:
    """What JSON can hold: numbers as short as the others, ``null`` for one that is none."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return round(value, 6) if isfinite(value) else None
    return value if value is None or isinstance(value, str | bool | int) else str(value)


def _rounded_rows(rows: FloatArray) -> list[list[float]]:
    """``_rounded`` for each row, in one step where that gives the same digits.

    A float32 times 1,000 is exact in float64, so NumPy rounds what Python rounds; with other types the product is rounded itself.
    """
    if rows.dtype != "float32":
        return [_rounded(row) for row in rows]
    rounded: list[list[float]] = rows.astype("float64").round(3).tolist()
    return rounded


def _rounded(values: FloatArray) -> list[float]:
    return [round(float(value), 3) for value in values]


def run_lengths(mask: BoolArray) -> dict[str, list[int]]:
    """A mask ``(H, W)`` in COCO's uncompressed form: ``size`` is ``[H, W]``, ``counts`` the lengths of runs down the columns.

    The first run is of zeros (0 long where the first pixel is set), then they alternate. pycocotools reads it:
    ``mask.decode(mask.frPyObjects(rle, H, W))``.
    """
    height, width = mask.shape
    columns = np.flatnonzero(mask.any(axis=0))
    if not len(columns):
        return {"size": [height, width], "counts": [height * width]}
    # Outside these columns nothing is set: most of a large frame is not looked at again.
    first, last = int(columns[0]), int(columns[-1])
    part = mask[:, first : last + 1].T.reshape(-1)
    edges = np.flatnonzero(np.diff(part, prepend=np.False_, append=np.False_)) + first * height
    counts = np.diff(edges, prepend=0, append=height * width)
    return {"size": [height, width], "counts": [int(count) for count in (counts if counts[-1] else counts[:-1])]}

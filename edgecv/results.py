"""What goes in and what comes out: frames, detections, classifications, results.

Arrays are shared, never copied: treat them as read-only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecv.errors import SpecMismatch
from edgecv.events import Event

Image = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# The fields of a detection in JSON: what `data` holds stands beside them.
ROW_NAMES = frozenset(
    {"xyxy", "confidence", "class_id", "label", "tracker_id", "mask", "keypoints", "obb"},
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """One picture from a source.

    Attributes:
        image: ``(H, W, 3)`` uint8, BGR.
        index: Position in the source, from 0; gaps are frames that were dropped.
        source_id: Name of the source, free of credentials.
        captured_ns: When it was captured, UTC nanoseconds since the epoch.
        monotonic_ns: The same moment on this machine's monotonic clock; ages are measured on it.
        position_ns: Position in a file that has a time of its own; ``None`` for a camera.
        path: The file that it is, where the source is a folder of pictures; empty for any other.
        is_damaged: Whether the file is damaged here, and the decoder made up a part of the picture.
    """

    image: Image
    index: int
    source_id: str
    captured_ns: int
    monotonic_ns: int
    position_ns: int | None = None
    path: str = ""
    is_damaged: bool = False

    @property
    def position_s(self) -> float | None:
        """Seconds from the start of the file, as its own times say; ``None`` for a camera."""
        return None if self.position_ns is None else round(self.position_ns / 1e9, 6)

    @property
    def scene_ns(self) -> int:
        """Nanoseconds on the clock of what is seen: however fast a file is read, a second in it is a second."""
        return self.monotonic_ns if self.position_ns is None else self.position_ns


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detections:
    """``N`` boxes of one frame, best first.

    Attributes:
        xyxy: ``(N, 4)`` float32, left, top, right, bottom in frame pixels.
        confidence: ``(N,)`` float32, 0 to 1.
        class_id: ``(N,)`` int64, index into the model's labels.
        tracker_id: ``(N,)`` int64, or ``None`` without a tracker.
        mask: ``(N, H, W)`` bool, or ``None``.
        keypoints: ``(N, K, 3)`` float32, x, y in frame pixels and confidence, or ``None``.
        obb: ``(N, 5)`` float32, centre x, centre y, width, height in frame pixels and angle in radians, or ``None``.
        data: What steps say about each box beyond that, arrays of ``N`` rows by name, or ``None``. In JSON each is a field
            of its detection.

    Raises:
        SpecMismatch: a field has another length or shape than ``xyxy`` asks for, or ``data`` uses the name of a field.
    """

    xyxy: FloatArray
    confidence: FloatArray
    class_id: IntArray
    tracker_id: IntArray | None = None
    mask: BoolArray | None = None
    keypoints: FloatArray | None = None
    obb: FloatArray | None = None
    data: Mapping[str, npt.NDArray[Any]] | None = None

    def __post_init__(self) -> None:
        if self.xyxy.ndim != 2 or self.xyxy.shape[1] != 4:
            raise SpecMismatch(f"xyxy must have shape (N, 4), not {self.xyxy.shape}.")
        for name, array in (*self._arrays(), *(self.data or {}).items()):
            if array.shape[:1] != self.xyxy.shape[:1]:
                raise SpecMismatch(f"{name} has the shape {array.shape} for {len(self.xyxy)} boxes.")
        taken = ROW_NAMES & set(self.data or ())
        if taken:
            raise SpecMismatch(f"data cannot be named {', '.join(sorted(taken))}.", "Choose another name.")

    @classmethod
    def empty(cls) -> Detections:
        """No boxes."""
        return cls(
            xyxy=np.zeros((0, 4), np.float32),
            confidence=np.zeros(0, np.float32),
            class_id=np.zeros(0, np.int64),
        )

    @classmethod
    def from_supervision(cls, found: Any) -> Detections:
        """From a ``supervision.Detections``; see ``edgecv.media.supervision_bridge.from_supervision``."""
        from edgecv.media.supervision_bridge import from_supervision

        return from_supervision(found)

    def as_supervision(self, labels: Sequence[str] = ()) -> dict[str, Any]:
        """What ``supervision.Detections(**...)`` takes; see ``edgecv.media.supervision_bridge.as_supervision``."""
        from edgecv.media.supervision_bridge import as_supervision

        return as_supervision(self, labels)

    def __len__(self) -> int:
        return len(self.xyxy)

    def __iter__(self) -> Iterator[Detections]:
        return (self[index : index + 1] for index in range(len(self)))

    def __getitem__(self, chosen: slice | BoolArray | IntArray | list[int]) -> Detections:
        """The boxes that a slice, a mask or a list of indices chooses."""
        data = None if self.data is None else {name: array[chosen] for name, array in self.data.items()}
        return replace(self, **{name: array[chosen] for name, array in self._arrays()}, data=data)

    def _arrays(self) -> list[tuple[str, npt.NDArray[Any]]]:
        named = ((name, getattr(self, name)) for name in self.__slots__ if name != "data")
        return [(name, array) for name, array in named if array is not None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Classification:
    """Classes of one frame, best first.

    Attributes:
        class_id: ``(K,)`` int64, index into the model's labels.
        confidence: ``(K,)`` float32, 0 to 1.
    """

    class_id: IntArray
    confidence: FloatArray

    def __len__(self) -> int:
        return len(self.class_id)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Masks:
    """``N`` masks of one frame, each kept as the crop of its box: a hundred whole ones at 1080p are 200 MB.

    Attributes:
        xyxy: ``(N, 4)`` float32 frame pixels, around each mask; zeros for an empty one.
        iou: ``(N,)`` float32, the model's own estimate of each mask's overlap with the object.
        crops: ``N`` boolean arrays, each as large as its box.
        frame_wh: Width and height of the frame in pixels.
        low_res: ``(N, S/4, S/4)`` float32 logits in the model's square of ``S`` pixels, where they were asked for.
    """

    xyxy: FloatArray
    iou: FloatArray
    crops: tuple[BoolArray, ...]
    frame_wh: tuple[int, int]
    low_res: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.crops)

    @property
    def mask(self) -> BoolArray:
        """``(N, H, W)`` in frame size, made anew at each call."""
        width, height = self.frame_wh
        full = np.zeros((len(self), height, width), np.bool_)
        for canvas, crop, box in zip(full, self.crops, self.xyxy.astype(int), strict=True):
            canvas[box[1] : box[3], box[0] : box[2]] = crop
        return full


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """What a pipeline found in one frame.

    Attributes:
        frame: The frame itself; its image is still in memory while you hold the result.
        labels: Name of each class.
        detections: Boxes, or ``None`` for another task.
        classification: Classes, or ``None`` for another task.
        timings_ms: Milliseconds per stage: ``wait, preprocess, inference, postprocess``.
        age_ms: Time from capture until this result was ready.
        model: Name of the bundle and the variant that ran, such as ``yolov8n/onnx-int8``.
        events: What steps had to say about this frame.
    """

    frame: Frame
    labels: tuple[str, ...] = ()
    detections: Detections | None = None
    classification: Classification | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    age_ms: float = 0.0
    model: str = ""
    events: tuple[Event, ...] = ()

    def label(self, class_id: int) -> str:
        """Name of a class, or its number when the model has no names."""
        return label_of(self.labels, class_id)

    def as_dict(self, masks: bool = True) -> dict[str, Any]:
        """The JSON form of design section 4: one document per frame, empty or not; ``masks=False`` leaves masks out.

        ``path`` stands there only for pictures of a folder, ``position_s`` only for a file that has a time of its own, ``damaged``
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


def label_of(labels: tuple[str, ...], class_id: int) -> str:
    """Name of a class, or its number when there are no names."""
    return labels[class_id] if 0 <= class_id < len(labels) else str(class_id)


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
    boxes = [_rounded(box) for box in answer.xyxy]
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

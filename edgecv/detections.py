"""What a model finds in one image: boxes, classes or masks.

Arrays are shared, never copied: treat them as read-only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

from edgecv._internal.printable import printable
from edgecv.errors import SpecMismatch
from edgecv.media.supervision_bridge import corners_of, fields_of
from edgecv.vision.class_names import label_of

Image = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Chosen: TypeAlias = "SupportsIndex | slice | BoolArray | IntArray | Sequence[int]"

# The fields of a detection in JSON: what `data` holds stands beside them.
ROW_NAMES = frozenset(
    {"xyxy", "confidence", "class_id", "label", "tracker_id", "mask", "keypoints", "obb"},
)
_SHOWN_ROWS, _SHOWN_CHARACTERS = 3, 24  # in the text of an object


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detections:
    """``N`` boxes of one image, best first.

    ``found[0]`` is the best box alone, as ``Detections`` of one row; slices, masks and lists of indices choose several.

    Attributes:
        xyxy: ``(N, 4)`` float32, left, top, right, bottom in pixels of the image.
        confidence: ``(N,)`` float32, 0 to 1.
        class_id: ``(N,)`` int64, index into the model's labels.
        tracker_id: ``(N,)`` int64, or ``None`` without a tracker.
        mask: ``(N, H, W)`` bool, or ``None``.
        keypoints: ``(N, K, 3)`` float32, x, y in pixels of the image and confidence, or ``None``.
        obb: ``(N, 5)`` float32, centre x, centre y, width, height in pixels of the image and angle in radians, or ``None``.
        data: What steps say about each box beyond that, arrays of ``N`` rows by name, or ``None``. In JSON each is a field
            of its detection.
        labels: Name of each class of the model; empty where it has no names.

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
    labels: tuple[str, ...] = ()

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
        """Create detections of zero boxes, without masks or other extras."""
        return cls(
            xyxy=np.zeros((0, 4), np.float32),
            confidence=np.zeros(0, np.float32),
            class_id=np.zeros(0, np.int64),
        )

    @classmethod
    def from_supervision(cls, found: Any) -> Detections:
        """From anything with the fields of ``supervision.Detections``.

        Where it has no confidence each box gets 1.0, where it has no class the class 0.

        Raises:
            SpecMismatch: a field has another length than ``xyxy``, or is no array.
        """
        try:
            return cls(**fields_of(found))
        except (AttributeError, TypeError, ValueError) as error:
            raise SpecMismatch(
                f"This is not like supervision.Detections: {error}.", "It needs xyxy, confidence and class_id."
            ) from error

    def as_supervision(self, labels: Sequence[str] = ()) -> dict[str, Any]:
        """Keyword arguments for ``supervision.Detections(**...)``; arrays are shared, not copied.

        supervision's zones and lines take the id -1 of unconfirmed objects for an object: hand them
        ``found[found.tracker_id >= 0]``.

        Args:
            labels: Name of each class, which supervision's annotators show; by default the labels of the detections.
        """
        data: dict[str, Any] = dict(self.data or {})
        if self.obb is not None:
            data["xyxyxyxy"] = corners_of(self.obb)
        if self.keypoints is not None:
            data["keypoints"] = self.keypoints
        if labels or self.labels:
            data["class_name"] = np.array(_names(self.class_id, labels or self.labels), np.str_)
        shared = {name: getattr(self, name) for name in ("xyxy", "confidence", "class_id", "tracker_id", "mask")}
        return {**shared, "data": data}

    @property
    def names(self) -> tuple[str, ...]:
        """The class name of each box, or its number where the class has no name."""
        return _names(self.class_id, self.labels)

    def __len__(self) -> int:
        return len(self.xyxy)

    def __iter__(self) -> Iterator[Detections]:
        return (self[index : index + 1] for index in range(len(self)))

    def __getitem__(self, chosen: Chosen) -> Detections:
        """The boxes that an index, a slice, a mask or a list of indices chooses.

        Raises:
            IndexError: there is no such box.
        """
        rows = _rows(chosen, len(self))
        data = None if self.data is None else {name: array[rows] for name, array in self.data.items()}
        chosen_rows: dict[str, Any] = {name: array[rows] for name, array in self._arrays()}
        return replace(self, **chosen_rows, data=data)

    def __repr__(self) -> str:
        return f"Detections({_listed(self.names, self.confidence, bool(self.labels))})"

    def _arrays(self) -> list[tuple[str, npt.NDArray[Any]]]:
        named = ((name, getattr(self, name)) for name in self.__slots__ if name not in ("data", "labels"))
        return [(name, array) for name, array in named if array is not None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Classification:
    """Classes of one image, best first.

    Attributes:
        class_id: ``(K,)`` int64, index into the model's labels.
        confidence: ``(K,)`` float32, 0 to 1.
        labels: Name of each class of the model; empty where it has no names.
    """

    class_id: IntArray
    confidence: FloatArray
    labels: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each class found, or its number where it has no name."""
        return _names(self.class_id, self.labels)

    def __len__(self) -> int:
        return len(self.class_id)

    def __getitem__(self, chosen: Chosen) -> Classification:
        """The classes that an index, a slice, a mask or a list of indices chooses.

        Raises:
            IndexError: there is no such class.
        """
        rows = _rows(chosen, len(self))
        return replace(self, class_id=self.class_id[rows], confidence=self.confidence[rows])

    def __repr__(self) -> str:
        return f"Classification({_listed(self.names, self.confidence, bool(self.labels))})"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Masks:
    """``N`` masks of one image, each kept as the crop of its box: a hundred whole ones at 1080p are 200 MB.

    Attributes:
        xyxy: ``(N, 4)`` float32 pixels of the image, around each mask; zeros for an empty one.
        iou: ``(N,)`` float32, the model's own estimate of each mask's overlap with the object.
        crops: ``N`` boolean arrays, each as large as its box.
        frame_wh: Width and height of the image in pixels.
        low_res: ``(N, S/4, S/4)`` float32 logits in the model's square of ``S`` pixels, where they were asked for.
    """

    xyxy: FloatArray
    iou: FloatArray
    crops: tuple[BoolArray, ...]
    frame_wh: tuple[int, int]
    low_res: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.crops)

    def __repr__(self) -> str:
        width, height = self.frame_wh
        return f"Masks({_listed(['iou'] * len(self), self.iou, True)}; {width} x {height})"

    @property
    def mask(self) -> BoolArray:
        """``(N, H, W)`` in the size of the image, made anew at each call."""
        width, height = self.frame_wh
        full = np.zeros((len(self), height, width), np.bool_)
        for canvas, crop, box in zip(full, self.crops, self.xyxy.astype(int), strict=True):
            canvas[box[1] : box[3], box[0] : box[2]] = crop
        return full


def check_image(image: Image) -> None:
    """Raise ``SpecMismatch`` unless ``image`` is ``(H, W, 3)`` uint8 with at least one pixel."""
    shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", None)
    if shape is None or len(shape) != 3 or shape[2] != 3 or dtype != np.uint8 or 0 in shape:
        raise SpecMismatch(
            f"An image must be a (H, W, 3) uint8 array in BGR order, not {_described(image)}.",
            "edgecv.read_image(path or bytes) gives this form; for a PIL image use np.asarray(image)[..., ::-1].",
        )


def _described(value: object) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return type(value).__name__ if shape is None else f"shape {tuple(shape)} of {dtype}"


def _rows(chosen: Any, count: int) -> Any:
    """What chooses rows of an array; of one index, a slice, so that an array of one row comes out."""
    if not isinstance(chosen, int | np.integer) or isinstance(chosen, bool):
        return chosen
    if not -count <= chosen < count:
        raise IndexError(f"There is no number {chosen} among {count}.")
    return slice(int(chosen) % count, int(chosen) % count + 1)


def _names(class_id: IntArray, labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(label_of(labels, int(one)) for one in class_id)


def _listed(names: Sequence[str], scores: FloatArray, named: bool) -> str:
    """How many there are and the first of them, such as ``5: person 0.91, car 0.80, ...``; never a long text."""
    shown = [
        f"{'' if named else 'class '}{printable(name)[:_SHOWN_CHARACTERS]} {float(score):.2f}"
        for name, score in zip(names[:_SHOWN_ROWS], scores, strict=False)
    ]
    more = ["..."] if len(names) > _SHOWN_ROWS else []
    return f"{len(names)}: {', '.join([*shown, *more])}" if len(names) else "none"

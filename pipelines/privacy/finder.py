"""``BoxFinder``: where in an image somebody must not be recognised, or an error; never a silent nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgecv.errors import ConfigError, SessionError
from edgecv.model import Model, load
from edgecv.protocols import Tensors
from edgecv.results import Detections, FloatArray, Image
from edgecv.vision.class_names import class_ids

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from edgecv.choosing import LoadOptions

CONFIDENCE = 0.05  # a box too many hides a little more; a box too few shows somebody
_IOU = 0.9  # boxes that overlap less are all kept: each of them hides something
_MOST_BOXES = 10_000  # of one image; a model that finds more says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    model: Model
    wanted: frozenset[int] | None  # `None`: whatever it finds


class BoxFinder:
    """Finds boxes with one or two models, each from a low confidence on; close it at the end."""

    def __init__(self, confidence: float = CONFIDENCE) -> None:
        """``confidence``: the lowest that counts, 0 to 1."""
        self._confidence = confidence
        self._searches: list[_Search] = []

    def add(self, bundle: Path, classes: Sequence[str] | None, **options: Unpack[LoadOptions]) -> None:
        """Load one more model, whose boxes of these classes count; ``None``: all of them.

        Raises:
            ConfigError: it finds no boxes, or has no such class.
            EdgeCVError: as ``edgecv.load``.
        """
        model = load(bundle, **options)
        try:
            self._searches.append(_Search(model=model, wanted=_wanted(model, classes)))
        except BaseException:
            model.close()
            raise

    def find(self, image: Image) -> FloatArray:
        """The boxes ``(N, 4)`` of all models, ``xyxy`` in pixels.

        Raises:
            SessionError: a model failed, or what it gave cannot be used. The image must not be shown then.
        """
        found = [_boxes(search, image, self._confidence) for search in self._searches]
        return np.concatenate([np.zeros((0, 4), np.float32), *found])

    def close(self) -> None:
        """Free the models; a second call does nothing."""
        searches, self._searches = self._searches, []
        for search in searches:
            search.model.close()


def _wanted(model: Model, classes: Sequence[str] | None) -> frozenset[int] | None:
    if not isinstance(model, Model) or model.task == "classify":
        raise ConfigError(f"{model.name} finds no boxes.", "Give a model that detects, such as yolov8n.ecv.")
    return None if classes is None else class_ids(classes, model.labels)


def _boxes(search: _Search, image: Image, confidence: float) -> FloatArray:
    model = search.model
    feeds, transform = model.prepare(image)
    outputs = model.infer(feeds)
    _check_finite(model, outputs)
    # Every class of a box counts: the best one may be another than the one that must be hidden.
    found = model.decode(
        outputs, transform, confidence=confidence, iou=_IOU, max_detections=_MOST_BOXES, multi_label=True
    )
    if not isinstance(found, Detections) or not np.isfinite(found.xyxy).all():
        raise SessionError(f"{model.name} gave no boxes that can be used.")
    if len(found) >= _MOST_BOXES:
        raise SessionError(f"{model.name} gave more than {_MOST_BOXES} boxes.", "Raise --conf, or use another model.")
    if search.wanted is None:
        return found.xyxy
    return np.asarray(found.xyxy[np.isin(found.class_id, list(search.wanted))])


def _check_finite(model: Model, outputs: Tensors) -> None:
    """A model whose sums overflow finds nothing: no score that is no number passes a limit."""
    for name, values in outputs.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise SessionError(
                f"{model.name} gave values that are no numbers ({name}): what is in the image is unknown.",
                "Try another precision: --precision fp32.",
            )

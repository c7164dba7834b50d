"""What one call of a model asks for: ``confidence``, ``classes`` and the like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import msgspec
import numpy as np

from edgecv._internal.strict import check_number
from edgecv.results import Classification, Detections
from edgecv.specs import DecodeSpec
from edgecv.vision.class_names import class_ids


class Limits(TypedDict, total=False):
    """What a call keeps of what it finds; ``None`` stands for the bundle's own limit.

    Attributes:
        confidence: Lowest confidence kept, 0 to 1.
        iou: Boxes of one class that overlap more than this are one object, 0 to 1.
        max_detections: At most this many boxes.
        multi_label: Keep every class of a box that passes, not its best alone.
        classes: Names or numbers of the only classes kept; ``None`` for all of them.
    """

    confidence: float | None
    iou: float | None
    max_detections: int | None
    multi_label: bool
    classes: Sequence[str | int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one call asks of the decoder, and what it then keeps."""

    spec: DecodeSpec  # the decoder's limits
    multi_label: bool  # as in `Limits`
    wanted: frozenset[int] | None  # numbers of the classes that are kept; `None` for all of them
    most: int  # at most this many boxes are kept

    @classmethod
    def of(
        cls,
        spec: DecodeSpec,
        *,
        confidence: float | None = None,
        iou: float | None = None,
        max_detections: int | None = None,
        multi_label: bool = False,
        classes: Sequence[str | int] | None = None,
    ) -> Asked:
        """From the bundle's own limits and those of the call.

        Raises:
            ConfigError: a limit is out of its range, or the model has no such class.
        """
        given = {"confidence": confidence, "iou": iou, "max_detections": max_detections}
        changes = {name: value for name, value in given.items() if value is not None}
        for name, value in changes.items():
            if name == "max_detections":
                check_number(name, value, 1, whole=True)
            else:
                check_number(name, value, 0, 1, hint="Leave it out for the model's own.")
        most = max_detections or spec.max_detections
        if classes is not None:  # boxes of other classes shall not take the places of those wanted
            changes["max_detections"] = max(most, spec.max_detections)
        return cls(
            spec=msgspec.structs.replace(spec, **changes) if changes else spec,
            multi_label=multi_label,
            wanted=None if classes is None else class_ids(classes, spec.labels),
            most=most,
        )

    def chosen(self, found: Detections | Classification) -> Detections | Classification:
        """What is kept of what the decoder found."""
        if self.wanted is None:
            return found
        return found[np.isin(found.class_id, list(self.wanted))][: self.most]

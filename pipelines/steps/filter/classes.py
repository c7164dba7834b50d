"""Keeps only the detections of some classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from edgecv.pipelines.steps.options import Options, checked
from edgecv.results import IntArray, Result
from edgecv.vision.class_names import class_ids


class Classes(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``type = "classes"``: keep the detections and classes that are named.

    Attributes:
        keep: Names or numbers of classes.
    """

    gives_kinds: ClassVar[tuple[str, ...] | None] = ()

    keep: Annotated[tuple[str | int, ...], msgspec.Meta(min_length=1)]

    def build(self, labels: tuple[str, ...] = ()) -> ClassFilter:
        """The step for a model with these labels. Raises ``ConfigError``: the model has no such class."""
        return ClassFilter.from_names(checked(self).keep, labels)


@dataclass(frozen=True, slots=True)
class ClassFilter:
    """Step that keeps the detections and classes whose ``class_id`` is in ``wanted``."""

    wanted: frozenset[int]

    @classmethod
    def from_names(cls, classes: Sequence[str | int], labels: Sequence[str]) -> ClassFilter:
        """From names or numbers of classes.

        Raises ``ConfigError`` when the model has no such class, or ``classes`` is one string or empty.
        """
        return cls(class_ids(classes, labels))

    def __call__(self, result: Result) -> Result:
        """The result with the wanted classes only."""
        found, classes = result.detections, result.classification
        if found is not None:
            found = found[self._mask(found.class_id)]
        if classes is not None:
            classes = classes[self._mask(classes.class_id)]
        return replace(result, detections=found, classification=classes)

    def _mask(self, class_id: IntArray) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        return np.isin(class_id, list(self.wanted))

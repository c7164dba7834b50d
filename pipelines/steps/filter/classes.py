"""Keep only some classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Annotated

import msgspec
import numpy as np

from edgecv.errors import ConfigError
from edgecv.pipelines.steps.options import Options, checked
from edgecv.results import Classification, IntArray, Result


class Classes(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``type = "classes"``: keep the detections and classes that are named.

    Attributes:
        keep: Names or numbers of classes.
    """

    keep: Annotated[tuple[str | int, ...], msgspec.Meta(min_length=1)]

    def build(self, labels: tuple[str, ...] = ()) -> ClassFilter:
        """The step for a model with these labels.

        Raises:
            ConfigError: the model has no such class.
        """
        return ClassFilter.from_names(checked(self).keep, labels)


@dataclass(frozen=True, slots=True)
class ClassFilter:
    """Step that keeps the detections and classes whose ``class_id`` is in ``wanted``."""

    wanted: frozenset[int]

    @classmethod
    def from_names(cls, classes: Sequence[str | int], labels: Sequence[str]) -> ClassFilter:
        """From names or numbers of classes.

        Raises:
            ConfigError: the model has no such class, or ``classes`` is one string or empty.
        """
        if isinstance(classes, str) or not classes:
            raise ConfigError(f"classes must be a list with at least one class, not {classes!r}.")
        return cls(_every(classes, labels))

    def __call__(self, result: Result) -> Result:
        """The result with the wanted classes only."""
        found, classes = result.detections, result.classification
        if found is not None:
            found = found[self._mask(found.class_id)]
        if classes is not None:
            kept = self._mask(classes.class_id)
            classes = Classification(class_id=classes.class_id[kept], confidence=classes.confidence[kept])
        return replace(result, detections=found, classification=classes)

    def _mask(self, class_id: IntArray) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        return np.isin(class_id, list(self.wanted))


def class_id_of(given: str | int, labels: Sequence[str]) -> int:
    """The number of a class given by name or number.

    Raises:
        ConfigError: the model has no such class; the hint names the nearest.
    """
    if given in labels:
        return labels.index(str(given))
    is_number = given.isdecimal() if isinstance(given, str) else type(given) is int
    number = int(given) if is_number else -1
    if 0 <= number < len(labels) or (number >= 0 and not labels):
        return number
    close = get_close_matches(str(given), labels, n=1)
    raise ConfigError(
        f"The model has no class '{given}'.",
        f"Did you mean '{close[0]}'?" if close else f"It has {len(labels)}: {', '.join(labels[:10])} ...",
    )


def class_ids(classes: Sequence[str | int], labels: Sequence[str]) -> frozenset[int] | None:
    """The numbers of some classes; ``None`` stands for all of them, when none is given.

    Raises:
        ConfigError: the model has no such class.
    """
    return _every(classes, labels) if classes else None


def _every(classes: Sequence[str | int], labels: Sequence[str]) -> frozenset[int]:
    """The numbers of some classes; of a name that several classes have, all of them."""
    one_each = {class_id_of(given, labels) for given in classes}
    return frozenset(one_each | {number for number, label in enumerate(labels) if label in classes})

"""Classes of a model by name and by number."""

from __future__ import annotations

from collections.abc import Sequence

from edgecv._internal.strict import nearest
from edgecv.errors import ConfigError

_LISTED = 100  # a detector's classes are listed whole; of a thousand, the first hundred are


def label_of(labels: Sequence[str], class_id: int) -> str:
    """The name of a class, or its number when there is no name for it."""
    return labels[class_id] if 0 <= class_id < len(labels) else str(class_id)


def class_id_of(given: str | int, labels: Sequence[str]) -> int:
    """The number of a class given by name or number.

    Raises:
        ConfigError: the model has no such class; the hint names the nearest and lists those there are.
    """
    if given in labels:
        return labels.index(str(given))
    text = str(given)  # a number of NumPy, too
    number = int(text) if text.isdecimal() else -1
    if 0 <= number < len(labels) or (number >= 0 and not labels):
        return number
    more = " ..." if len(labels) > _LISTED else ""
    raise ConfigError(
        f"The model has no class '{given}'.",
        f"{nearest(text, labels)}It has {len(labels)}: {', '.join(labels[:_LISTED])}{more}",
    )


def class_ids(classes: Sequence[str | int], labels: Sequence[str]) -> frozenset[int]:
    """The numbers of some classes; of a name that several classes have, all of them.

    Raises:
        ConfigError: the model has no such class, or ``classes`` is one text, no list, or empty.
    """
    if isinstance(classes, str | int) or not len(classes):
        raise ConfigError(
            f"classes must be a list with at least one class, not {classes!r}.",
            'For example: classes=["person", "car"].',
        )
    one_each = {class_id_of(given, labels) for given in classes}
    return frozenset(one_each | {number for number, label in enumerate(labels) if label in classes})

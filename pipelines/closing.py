"""Closing many things: one that fails keeps no other from being closed."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def close_all(closes: Iterable[Callable[[], object]]) -> None:
    """Call each, then raise what the first one raised that failed."""
    errors = []
    for close in closes:
        try:
            close()
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)
    if errors:
        raise errors[0]

"""``retention``: how long files with images of a camera are kept."""

from __future__ import annotations

import re

from edgecv._internal.printable import printable
from edgecv.errors import ConfigError

_HOUR_S = 3600.0
_UNITS_S = {"h": _HOUR_S, "d": 24 * _HOUR_S}
_LONGEST_S = 100 * 366 * 24 * _HOUR_S


def retention_seconds(text: str) -> float | None:
    """``72h`` or ``30d`` in seconds; ``None`` of an empty text: nothing is said.

    Raises ``ConfigError`` for anything else.
    """
    if not text:
        return None
    match = re.fullmatch(r"([0-9]{1,7})([hd])", text)
    seconds = 0.0 if match is None else int(match[1]) * _UNITS_S[match[2]]
    if not 0 < seconds <= _LONGEST_S:
        raise ConfigError(
            f"'{printable(text)}' is no retention.",
            'Write hours or days: retention = "72h" or "30d", 100 years at most.',
        )
    return seconds

"""Whether this machine's clock follows a time server."""

from __future__ import annotations

import ctypes

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 512  # struct timex is 208 bytes on 64-bit Linux; zeroed, its `modes` say «only read»


def clock_is_synced() -> bool:
    """What the kernel says; ``False`` where it cannot be asked."""
    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError):
        return False
    state = int(adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
    return 0 <= state < _TIME_ERROR

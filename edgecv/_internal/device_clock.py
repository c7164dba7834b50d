"""Whether this machine's clock follows a time server, and clocks that do not jump with it."""

from __future__ import annotations

import ctypes
import time

from edgecv.protocols import Clock

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


def steady_ns() -> int:
    """Nanoseconds since the start of the system, sleep included; nobody can set this clock."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def clock_from_now() -> Clock:
    """UTC nanoseconds as of now, which go on steadily: later jumps of the system's clock do not reach them."""
    ahead_ns = time.time_ns() - steady_ns()
    return lambda: ahead_ns + steady_ns()

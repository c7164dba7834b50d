"""Frames at a given rate at most."""

from __future__ import annotations

_EARLY = 0.25  # of a period: frames do not arrive on the dot, and a late neighbour must not cost one


class RateLimit:
    """Says which frames to keep, so that there are at most ``fps`` per second on average."""

    def __init__(self, fps: float) -> None:
        """Keep ``fps`` frames per second; 0 keeps all."""
        self._period_ns = 1e9 / fps if fps else 0.0
        self._due_ns: float | None = None

    def keep(self, now_ns: int) -> bool:
        """Whether the frame that arrives now is kept."""
        if not self._period_ns or self._due_ns is None:
            self._due_ns = now_ns + self._period_ns
            return True
        if now_ns < self._due_ns - self._period_ns * _EARLY:
            return False
        self._due_ns = max(self._due_ns, now_ns - self._period_ns) + self._period_ns
        return True

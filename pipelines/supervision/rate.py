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


class Pace:
    """Holds back what arrives faster than ``fps``, but lets what was late catch up.

    A pipeline that reads a file would else run at the speed of the disk. A token bucket; a twentieth faster than ``fps``, so
    that a live camera, whose clock differs a little from ours, is never slowed down.
    """

    _FASTER = 1.05
    _BURST_S = 2.0

    def __init__(self, fps: float) -> None:
        """Let ``fps`` frames per second through; 0 lets all through."""
        self._period_s = 1 / (fps * self._FASTER) if fps else 0.0
        self._due_s: float | None = None

    def wait_s(self, now_s: float) -> float:
        """How long the frame that is to be read now has to wait."""
        due_s = now_s if self._due_s is None else max(self._due_s, now_s - self._BURST_S)
        self._due_s = due_s + self._period_s
        return max(0.0, due_s - now_s)

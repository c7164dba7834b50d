"""Images no faster than they are meant to be shown."""

from __future__ import annotations


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

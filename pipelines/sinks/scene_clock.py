"""Where in a recording a frame belongs."""

from __future__ import annotations

from dataclasses import dataclass

from edgecv.results import Frame


@dataclass(frozen=True, slots=True)
class SceneClock:
    """Seconds of the scene since a first frame; it keeps no picture in memory.

    Attributes:
        index: Position of the first frame in its source.
        monotonic_ns: When the first frame was captured.
        fps: Frames per second of the source; 0.0 takes the times of capture instead (cameras).
    """

    index: int
    monotonic_ns: int
    fps: float

    @classmethod
    def start(cls, frame: Frame, fps: float) -> SceneClock:
        """A clock that shows 0.0 at ``frame``."""
        return cls(frame.index, frame.monotonic_ns, fps)

    def time_s(self, frame: Frame) -> float:
        """Seconds from the first frame to this one; frames that were dropped count."""
        if self.fps:
            return (frame.index - self.index) / self.fps
        return (frame.monotonic_ns - self.monotonic_ns) / 1e9

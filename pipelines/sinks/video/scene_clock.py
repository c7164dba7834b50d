"""Where in a recording a frame belongs."""

from __future__ import annotations

from dataclasses import dataclass

from edgecv.results import Frame


@dataclass(frozen=True, slots=True)
class SceneClock:
    """Seconds of the scene since a first frame; it keeps no image in memory.

    ``fps`` is that of the source, for frames that have no position in it; 0.0 takes the times of capture.
    """

    index: int
    scene_ns: int
    fps: float

    @classmethod
    def start(cls, frame: Frame, fps: float) -> SceneClock:
        """A clock that shows 0.0 at ``frame``."""
        return cls(frame.index, frame.scene_ns, fps)

    def time_s(self, frame: Frame) -> float:
        """Seconds from the first frame to this one; frames that were dropped count."""
        if self.fps and frame.position_ns is None:
            return (frame.index - self.index) / self.fps
        return (frame.scene_ns - self.scene_ns) / 1e9

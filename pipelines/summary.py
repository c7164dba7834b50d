"""What a pipeline did, in numbers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgecv.protocols import Clock
from edgecv.results import Result
from edgecv.status import SinkCount
from edgecv.timing import Distribution, StageStats


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a pipeline did.

    Attributes:
        frames: Frames that went through the model.
        dropped: Frames that gave no result, by reason: ``latest`` (a newer one came first), ``step`` (a step said so).
        elapsed_s: From the first wait for a frame to the last result.
        fps: ``frames / elapsed_s``.
        stage_p50_ms: Median per stage.
        age_p50_ms: Median age of a result when it was ready.
        sinks: One count per sink.
    """

    frames: int
    dropped: Mapping[str, int]
    elapsed_s: float
    fps: float
    stage_p50_ms: Mapping[str, float]
    age_p50_ms: float
    sinks: tuple[SinkCount, ...]

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


class Tally:
    """Counts while a pipeline runs; used by its loop alone."""

    def __init__(self, clock: Clock = time.monotonic_ns) -> None:
        self._clock = clock
        self._start_ns = self._last_ns = 0
        self._stages = StageStats()
        self._ages = Distribution()
        self._dropped: Counter[str] = Counter()
        self.frames = 0

    def start(self) -> None:
        """The first frame is awaited from now on; a second call does nothing."""
        if not self._start_ns:
            self._start_ns = self._last_ns = self._clock()

    def frame_done(self, result: Result | None, timings_ms: Mapping[str, float]) -> None:
        """One more frame; ``None`` is one that a step dropped."""
        self.frames += 1
        self._last_ns = self._clock()
        self._stages.add(timings_ms)
        if result is None:
            self._dropped["step"] += 1
        else:
            self._ages.add(result.age_ms)

    def summary(self, captured_dropped: int, sinks: tuple[SinkCount, ...]) -> Summary:
        """The numbers so far."""
        elapsed_s = (self._last_ns - self._start_ns) / 1e9
        dropped = self._dropped + Counter({"latest": captured_dropped})
        return Summary(
            frames=self.frames,
            dropped=dict(dropped),
            elapsed_s=round(elapsed_s, 6),
            fps=round(self.frames / elapsed_s, 3) if elapsed_s else 0.0,
            stage_p50_ms=self._stages.percentile(50),
            age_p50_ms=round(self._ages.percentile(50), 3),
            sinks=sinks,
        )

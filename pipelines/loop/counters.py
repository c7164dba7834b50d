"""Counting while a pipeline runs."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence

from edgecv._internal.timing import Distribution, StageStats
from edgecv.pipelines.loop.source_reader import SourceReader
from edgecv.pipelines.summary import Summary
from edgecv.protocols import Clock
from edgecv.results import Frame
from edgecv.status import PipelineStatus, SinkCount, SourceStatus

_RECENT_S = 5.0
_RECENT_FRAMES = 512  # enough for 100 frames per second over that time


class SourceCounters:
    """Counts the frames of one source."""

    def __init__(self) -> None:
        self.frames = 0
        self.age_ms = 0.0
        self.size_wh = (0, 0)
        self.dropped_by_step = 0
        self._recent_ns: deque[int] = deque(maxlen=_RECENT_FRAMES)

    def add(self, frame: Frame, age_ms: float | None, now_ns: int) -> None:
        """One more frame; ``age_ms`` is ``None`` when a step dropped it."""
        self.frames += 1
        self.size_wh = (frame.image.shape[1], frame.image.shape[0])
        self._recent_ns.append(now_ns)
        if age_ms is None:
            self.dropped_by_step += 1
        else:
            self.age_ms = age_ms

    def fps(self, now_ns: int) -> float:
        """Frames per second over the last seconds."""
        recent = [at_ns for at_ns in self._recent_ns if now_ns - at_ns <= _RECENT_S * 1e9]
        span_s = (now_ns - recent[0]) / 1e9 if recent else 0.0
        return round((len(recent) - 1) / span_s, 2) if len(recent) > 1 and span_s else 0.0


class PipelineCounters:
    """Counts while a pipeline runs: added to by its loop, read from any thread."""

    def __init__(self, clock: Clock = time.monotonic_ns) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._start_ns = self._last_ns = 0
        self._stages = StageStats()
        self._ages = Distribution()
        self._sources: dict[str, SourceCounters] = {}
        self._gone: Counter[str] = Counter()  # what removed sources dropped
        self.frames = self.damaged = 0

    def start(self) -> None:
        """Start the clock; a second call does nothing."""
        if not self._start_ns:
            self._start_ns = self._last_ns = self._clock()

    def frame_done(self, frame: Frame, age_ms: float | None, timings_ms: Mapping[str, float]) -> None:
        """One more frame; ``age_ms`` is ``None`` when a step dropped it."""
        with self._lock:
            self.frames += 1
            self.damaged += frame.is_damaged
            self._last_ns = self._clock()
            self._stages.add(timings_ms)
            self._sources.setdefault(frame.source_id, SourceCounters()).add(frame, age_ms, self._last_ns)
            if age_ms is not None:
                self._ages.add(age_ms)

    def keep_drops(self, reader: SourceReader) -> None:
        """A source was removed; what it dropped stays in the summary."""
        with self._lock:
            self._gone += Counter(reader.dropped)

    def forget_frames(self, name: str) -> None:
        """The last frame of a source that was removed is through."""
        with self._lock:
            self._gone["step"] += self._sources.pop(name, SourceCounters()).dropped_by_step

    def summary(
        self,
        readers: Sequence[SourceReader],
        sinks: tuple[SinkCount, ...],
        counts: Mapping[str, Mapping[str, int]],
    ) -> Summary:
        """Summarise all that was done so far; ``counts`` is what steps counted, by source."""
        with self._lock:
            by_step = sum(counted.dropped_by_step for counted in self._sources.values())
            dropped = sum((Counter(reader.dropped) for reader in readers), self._gone + Counter(step=by_step))
            return Summary(
                frames=self.frames,
                dropped=dict(dropped),
                elapsed_s=round(self._elapsed_s(), 6),
                fps=self._fps(),
                stage_p50_ms=self._stages.percentile(50),
                age_p50_ms=round(self._ages.percentile(50), 3),
                age_p99_ms=round(self._ages.percentile(99), 3),
                sinks=sinks,
                never_live={c.name: reason for c in readers if (reason := c.never_live) is not None},
                damaged=self.damaged,
                counts=counts,
            )

    def status(
        self, running: bool, model: str, sources: Mapping[SourceReader, Mapping[str, int]], sinks: tuple[SinkCount, ...]
    ) -> PipelineStatus:
        """The numbers of this moment; ``sources`` gives what was counted at each."""
        with self._lock:
            sources_now = tuple(self._source(reader, counts) for reader, counts in sources.items())
            return PipelineStatus(
                running=running,
                model=model,
                elapsed_s=round(self._elapsed_s(self._clock() if running else None), 3),
                frames=self.frames,
                fps=round(sum(source.fps for source in sources_now), 2) if running else self._fps(),
                age_p50_ms=round(self._ages.percentile(50), 3),
                age_p99_ms=round(self._ages.percentile(99), 3),
                stage_p50_ms=self._stages.percentile(50),
                sources=sources_now,
                sinks=sinks,
            )

    def _source(self, reader: SourceReader, counts: Mapping[str, int]) -> SourceStatus:
        counted = self._sources.get(reader.name, SourceCounters())
        return SourceStatus(
            source_id=reader.name,
            health=reader.health(),
            frames=counted.frames,
            fps=counted.fps(self._clock()),
            age_ms=round(counted.age_ms, 3),
            size_wh=counted.size_wh,
            dropped={**reader.dropped, **({"step": counted.dropped_by_step} if counted.dropped_by_step else {})},
            counts=counts,
        )

    def _elapsed_s(self, now_ns: int | None = None) -> float:
        return ((now_ns or self._last_ns) - self._start_ns) / 1e9

    def _fps(self) -> float:
        elapsed_s = self._elapsed_s()
        return round(self.frames / elapsed_s, 3) if elapsed_s else 0.0

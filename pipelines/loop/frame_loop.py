"""The loop of a pipeline: frames from the sources, through model and steps, one result after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError

from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.pipelines.loop.counters import PipelineCounters
from edgecv.pipelines.loop.handover import SlotClosed, SlotPolicy
from edgecv.pipelines.loop.inference import Inference
from edgecv.pipelines.loop.inflight import MOST, OrderedInference
from edgecv.pipelines.loop.newest_reader import NewestReader
from edgecv.pipelines.loop.pace import Pace
from edgecv.pipelines.loop.scheduler import SourceScheduler
from edgecv.pipelines.loop.source_reader import CLOSE_TIMEOUT_S, POLL_S, SourceReader, hangs
from edgecv.pipelines.loop.step_chain import StepChain
from edgecv.pipelines.loop.work import Work
from edgecv.pipelines.source_config import SourceConfig
from edgecv.protocols import Gate, KeepsNewest
from edgecv.results import Result
from edgecv.status import SourceHealth


class FrameLoop:
    """Sources may be added and removed from any thread; results are taken by one alone.

    ``stopping`` is set to end after the frame in flight. ``on_repaint`` is called with the name of a source when a step gave one
    of its frames another image.
    """

    def __init__(self, inference: Inference, gates: Sequence[Gate], chain: StepChain, max_frames: int | None) -> None:
        self._inference, self._gates, self._max_frames = inference, tuple(gates), max_frames
        self.scheduler, self.chain, self.counters = SourceScheduler(), chain, PipelineCounters()
        self.stopping = self._ended = False
        self.on_repaint: Callable[[str], None] | None = None
        self.pace = Pace()
        self._in_flight = OrderedInference(inference.compute, 1)
        self._leaving: list[str] = []  # removed sources whose last frames may still be in flight
        self._kept: dict[str, Mapping[str, int]] = {}  # by removed source: what steps counted there

    @property
    def policy(self) -> SlotPolicy:
        """How frames come: ``latest`` where one source at least is live, for then no sink may hold them up."""
        return "latest" if "latest" in self._policies() else "lossless"

    def add(self, config: SourceConfig, on_change: Callable[[str, SourceHealth], None]) -> SourceReader:
        """Open one more source; errors as ``Pipeline.add_source``."""
        opened = config.open()
        try:
            name = self.scheduler.reserve(config.name, opened.source_id)
            keeps_newest = isinstance(opened, KeepsNewest) and config.slot_policy(opened.live) == "latest"
            reader = (NewestReader if keeps_newest else SourceReader)(
                opened,
                name,
                config,
                self._inference.prepare,
                gates=self._gates,
                max_frames=self._max_frames,
                changed=self.scheduler.changed,
                on_change=on_change,
            )
            self.scheduler.add(reader)
        except ConfigError:
            opened.close()
            raise
        self._suit_sources()
        self._ended = False
        return reader

    def begin_remove(self, name: str) -> SourceReader:
        """Let a source go; ``ConfigError`` when there is none of that name."""
        reader = self.scheduler.remove(name)
        reader.on_change = None
        reader.begin_close()
        self._suit_sources()
        return reader

    def end_remove(self, reader: SourceReader) -> None:
        """Wait until the source is released; ``SourceError`` when it hangs in a read."""
        released = reader.join(time.monotonic() + CLOSE_TIMEOUT_S)
        self.counters.keep_drops(reader)
        self._leaving.append(reader.name)
        if not released:
            raise hangs([reader])

    def start(self, tell: Callable[[Event], None]) -> None:
        """Begin to read the sources; ``tell`` is given what steps kept of sources that are no longer there."""
        for event in self.chain.orphans([reader.name for reader in self.scheduler.readers]):
            tell(event)
        self.counters.start()
        self.scheduler.start()

    def counts(self) -> dict[str, Mapping[str, int]]:
        """What steps counted, by source, also of removed ones; nothing for one at which nothing counts. From any thread."""
        names = (*tuple(self._leaving), *(reader.name for reader in self.scheduler.readers))
        now = {name: dict(counted) for name in names if (counted := self.chain.counts(name))}
        return {**{name: {} for name in names}, **self._kept, **now}

    def next(self, tell: Callable[[Event], None]) -> Result | None:
        """The next result that no step drops, or ``None`` at the end; ``tell`` is given the events of dropped frames.

        Raises what a model or step raised, and once all is through, what broke a source.
        """
        while not self.stopping:
            self._forget_removed()
            try:
                self._fill()
                if not self._in_flight:
                    self._raise_source_error()
                    return None
                computed = self._in_flight.pop()
            except CancelledError:  # closed from another thread
                return None
            result = self.chain(computed)
            if self.chain.repainted and self.on_repaint is not None:
                self.on_repaint(computed.frame.source_id)
            age_ms = None if result is None else result.age_ms
            self.counters.frame_done(computed.frame, age_ms, computed.timings_ms)
            if result is not None:
                return result
            for event in self.chain.left:
                tell(event)
        return None

    def close(self) -> None:
        """Let what is being computed end, drop the rest."""
        self._in_flight.close()

    def _fill(self) -> None:
        """Take frames until no more may be in flight; wait for one only when none is."""
        while self._wants_more() and not self._in_flight.full:
            start_ns = time.perf_counter_ns()
            work = self._take(wait=not self._in_flight)
            if work is None:
                return
            work.timer.add("wait", (time.perf_counter_ns() - start_ns) / 1e6)
            self._in_flight.put(work)

    def _wants_more(self) -> bool:
        begun = self.counters.frames + len(self._in_flight)
        return not self.stopping and not self._ended and (self._max_frames is None or begun < self._max_frames)

    def _take(self, wait: bool) -> Work | None:
        """The next frame worth a run; ``None`` when there is none yet (without ``wait``) or none any more."""
        try:
            while not self.stopping:
                if (early_s := self.pace.wait_s()) > 0 and not wait:
                    return None
                if early_s > 0:
                    time.sleep(min(early_s, POLL_S))
                    continue
                taken = self.scheduler.take(POLL_S if wait else 0.0)
                if taken is not None and taken[0].admits(taken[1]):
                    self.pace.took()
                    return taken[1]
                if taken is None and not wait:
                    return None
        except SlotClosed:
            self._ended = True
        return None

    def _raise_source_error(self) -> None:
        for reader in self.scheduler.readers:
            if reader.error is not None and not self.stopping:
                raise reader.error

    def _forget_removed(self) -> None:
        for name in [name for name in self._leaving if not self._in_flight.holds(name)]:
            if counted := self.chain.counts(name):
                self._kept = {**self._kept, name: dict(counted)}
            self._leaving.remove(name)
            self.chain.forget(name)
            self._inference.forget(name)
            self.counters.forget_frames(name)
            self.scheduler.free(name)

    def _policies(self) -> set[SlotPolicy]:
        return {reader.policy for reader in self.scheduler.readers}

    def _suit_sources(self) -> None:
        # A live source alone has one frame in flight, so that its results are fresh; where frames are plenty, two see more of them.
        self._in_flight.count = 1 if len(self.scheduler) == 1 and self._policies() == {"latest"} else MOST

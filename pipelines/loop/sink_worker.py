"""A sink behind a bounded queue and a thread of its own, so that it never works on the frame path."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgecv._internal.foreign import what_is_said
from edgecv.errors import EdgeCVError
from edgecv.events import Event, EventMedia
from edgecv.media.packets import Packet
from edgecv.pipelines.loop.handover import FrameSlot, SlotClosed, SlotPolicy
from edgecv.pipelines.loop.source_reader import POLL_S
from edgecv.protocols import (
    AppliesRetention,
    CountsHeldBack,
    CountsLost,
    GivesMedia,
    NonBlocking,
    Sink,
    TakesEvents,
    TakesMedia,
    TakesPackets,
    Ticks,
    WatchesStatus,
)
from edgecv.results import Result
from edgecv.status import PipelineStatus, SinkCount

log = logging.getLogger("edgecv.pipelines")

_QUEUED = 8  # results in waiting per sink; they share their images, 6 MB each at 1080p
_MOST_EVENTS = 4096  # that a result carries; a busy line of a stalled sink has no end of them
_EXPIRE_S = 30.0
_TICK_S = 1.0
_QUEUED_EVENTS = 256  # they are small, and no newer frame shall displace them


@dataclass(frozen=True, slots=True)
class CallableSink:
    """A plain function as a sink."""

    function: Callable[[Result], object]

    def emit(self, result: Result) -> None:
        """Call the function with one result."""
        self.function(result)

    def close(self) -> None:
        """Does nothing: a function holds nothing to release."""


class SinkWorker:
    """Feeds one sink; a failure is counted, logged once and kept for the end, and never reaches the loop.

    What the sink is too slow for is dropped, but not what steps had to say: the events go to the next result of their source.
    """

    def __init__(self, name: str, sink: Sink, policy: SlotPolicy = "lossless") -> None:
        self.name = name
        self._sink = sink
        self._slot: FrameSlot[Result] = FrameSlot(_QUEUED, policy, inherit=self._hand_on)
        self._events: deque[Event] = deque(maxlen=_QUEUED_EVENTS)
        self._emitted = self._failed = self._lost = self._events_lost = 0
        self._expire_s = 0.0  # when the sink next looks at the age of its files
        self._tick_s = 0.0  # when it next does what is due by the clock
        self._in_work: Result | None = None
        self._error: BaseException | None = None
        self._said = ""  # what it says, and where in the code of the application it arose
        self._thread = threading.Thread(target=self._run, name=f"edgecv-sink-{name}", daemon=True)

    @property
    def error(self) -> BaseException | None:
        """The first error the sink raised, or ``None``."""
        return self._error

    def attach(self, status: Callable[[], PipelineStatus]) -> None:
        """Tell the sink where to ask how the pipeline does, if it wants to know."""
        if isinstance(self._sink, WatchesStatus):
            self._sink.attach(status)

    def retain(self, source_id: str, longest_s: float) -> None:
        """Tell the sink how long files of a source may be kept, if it applies that."""
        if isinstance(self._sink, AppliesRetention):
            self._sink.retain(source_id, longest_s)

    def send_media(self, share: Callable[[EventMedia], None]) -> None:
        """Let the sink tell ``share`` of the files that it makes of events, if it makes any."""
        if isinstance(self._sink, GivesMedia):
            self._sink.on_media = share

    def take_media(self, media: EventMedia) -> None:
        """Tell the sink of a file that shows an event, if it wants to know; from any thread."""
        if isinstance(self._sink, TakesMedia):
            self._did(functools.partial(self._sink.take_media, media))

    @property
    def gives_media(self) -> bool:
        """Whether the sink makes files of events: the last of them at its end."""
        return isinstance(self._sink, GivesMedia)

    @property
    def awaits_media(self) -> bool:
        """Whether the sink wants to know of such files, and makes none itself."""
        return isinstance(self._sink, TakesMedia) and not self.gives_media

    @property
    def takes_packets(self) -> bool:
        """Whether the sink wants what cameras encoded."""
        return isinstance(self._sink, TakesPackets)

    def take_packet(self, source_id: str, packet: Packet) -> None:
        """Give the sink, if it wants such, one image as the camera encoded it; from a thread of the source."""
        if isinstance(self._sink, TakesPackets):
            self._did(functools.partial(self._sink.take_packet, source_id, packet))

    def drop_packets(self, source_id: str) -> None:
        """Let the sink forget what a camera encoded."""
        if isinstance(self._sink, TakesPackets):
            self._did(functools.partial(self._sink.drop_packets, source_id))

    def become(self, policy: SlotPolicy) -> None:
        """Whether the frames wait for the sink, or it loses what it is too slow for."""
        self._slot.policy = policy

    def start(self) -> None:
        """Begin to feed the sink."""
        self._thread.start()

    def offer(self, result: Result, stopping: Callable[[], bool]) -> None:
        """Queue a result; waits for room when the policy is lossless, until ``stopping`` says otherwise."""
        try:
            while not self._slot.put(result, POLL_S):
                if stopping():
                    self._slot.put_or_leave(result)
                    return
        except SlotClosed:
            self._lose([result])

    def offer_event(self, event: Event) -> None:
        """Queue an event that belongs to no frame; never waits, may be called from any thread."""
        if isinstance(self._sink, TakesEvents):
            self._events_lost += len(self._events) == _QUEUED_EVENTS  # the oldest goes
            self._events.append(event)

    def end(self) -> None:
        """Nothing more will be offered."""
        self._slot.close()

    def close(self, timeout_s: float) -> None:
        """Wait until the sink has taken what is queued and is closed.

        A sink that is not done by then is left behind with its thread; what it still held counts as lost.
        """
        self.end()
        if self._thread.ident is None:
            self._close_sink()
            return
        if self._thread is threading.current_thread():  # a sink that closes the pipeline ends once it returns
            return
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._lose([*self._slot.give_up(), *([self._in_work] if self._in_work is not None else [])])
            self._note(EdgeCVError(f"It did not finish within {timeout_s:.0f} s."))

    def count(self) -> SinkCount:
        """What became of the results so far."""
        return SinkCount(
            name=self.name,
            emitted=self._emitted,
            failed=self._failed,
            dropped=self._slot.dropped + self._lost + (self._sink.lost if isinstance(self._sink, CountsLost) else 0),
            error=self._said,
            events_lost=self._events_lost,
            held_back=self._sink.held_back if isinstance(self._sink, CountsHeldBack) else 0,
        )

    def _run(self) -> None:
        try:
            while True:
                self._expire()
                result = self._slot.get(POLL_S)
                self._emit_events()
                if result is not None:
                    self._emit(result)
                self._tick()
        except SlotClosed:
            self._emit_events()
        finally:
            self._slot.give_up()
            self._close_sink()

    def _expire(self) -> None:
        """Now and then, also while no camera gives a frame: what is too old must not wait for the next one."""
        if isinstance(self._sink, AppliesRetention) and time.monotonic() >= self._expire_s:
            self._expire_s = time.monotonic() + _EXPIRE_S
            self._did(self._sink.expire)

    def _tick(self) -> None:
        if isinstance(self._sink, Ticks) and time.monotonic() >= self._tick_s:
            self._tick_s = time.monotonic() + _TICK_S
            self._did(self._sink.tick)

    def _emit(self, result: Result) -> None:
        self._in_work = result
        if self._did(lambda: self._sink.emit(result)):
            self._emitted += 1
        else:
            self._failed += 1
        self._in_work = None

    def _hand_on(self, gone: Result, waiting: deque[Result], coming: Result) -> Result:
        """Give the events of a dropped result to the next one of its source, or to the one that comes if there is none."""
        if not gone.events:
            return coming
        for at, heir in enumerate(waiting):
            if heir.frame.source_id == gone.frame.source_id:
                waiting[at] = self._with_events(heir, gone)
                return coming
        return self._with_events(coming, gone)

    def _with_events(self, heir: Result, gone: Result) -> Result:
        events = (*gone.events, *heir.events)
        self._events_lost += max(0, len(events) - _MOST_EVENTS)
        return replace(heir, events=events[-_MOST_EVENTS:])

    def _lose(self, results: Sequence[Result]) -> None:
        self._lost += len(results)
        self._events_lost += sum(len(result.events) for result in results)

    def _emit_events(self) -> None:
        while self._events and isinstance(self._sink, TakesEvents):
            event, sink = self._events.popleft(), self._sink
            self._did(functools.partial(sink.emit_event, event))

    def _did(self, emit: Callable[[], object]) -> bool:
        try:
            emit()
        except BaseException as error:  # noqa: BLE001 - whatever a sink does, the frames go on; it is raised at the end
            self._note(error)
            return False
        return True

    def _close_sink(self) -> None:
        self._did(self._sink.close)

    def _note(self, error: BaseException) -> None:
        if self._error is None:
            self._error, self._said = error, what_is_said(error)
            log.warning("Sink %s failed, the frames go on: %s", self.name, self._said)


class DirectSink(SinkWorker):
    """A sink that never blocks: the loop calls it, and its failures are treated as those of the others."""

    def __init__(self, name: str, sink: Sink) -> None:
        super().__init__(name, sink)
        self._calling = threading.RLock()  # events come from any thread
        self._ended = False

    def start(self) -> None:
        """Does nothing: this sink has no thread to start."""

    def offer(self, result: Result, stopping: Callable[[], bool]) -> None:  # noqa: ARG002 - nobody waits here
        """Hand a result to the sink."""
        with self._calling:
            if self._ended:
                self._lose([result])
            else:
                self._emit(result)

    def offer_event(self, event: Event) -> None:
        """Hand an event that belongs to no frame to the sink."""
        with self._calling:
            super().offer_event(event)
            if not self._ended:
                self._emit_events()

    def close(self, timeout_s: float) -> None:  # noqa: ARG002 - nothing is queued
        """Close the sink; later results count as lost."""
        with self._calling:
            self._ended = True
        self._close_sink()


def worker_for(name: str, sink: Sink) -> SinkWorker:
    """What feeds this sink: a thread, or the loop itself where the sink says that it never blocks."""
    is_direct = isinstance(sink, NonBlocking) and sink.non_blocking
    return DirectSink(name, sink) if is_direct else SinkWorker(name, sink)

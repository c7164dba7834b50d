"""Where results and events go: the sinks, the functions of the app, and the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from edgecv.errors import EdgeCVError, SinkError, in_one_line
from edgecv.events import Event, EventMedia
from edgecv.pipelines.loop.frame_loop import FrameLoop
from edgecv.pipelines.loop.handover import SlotPolicy
from edgecv.pipelines.loop.sink_worker import SinkWorker, worker_for
from edgecv.pipelines.loop.source_reader import SourceReader
from edgecv.pipelines.packet_taps import PacketTaps
from edgecv.pipelines.source_config import SourceConfig
from edgecv.protocols import Sink
from edgecv.results import Result
from edgecv.status import PipelineStatus, SinkCount, SourceHealth

_TROUBLE = ("stale", "reconnecting", "failed")
_LONGEST_KEY = 200  # of an event
_LEAST_CLOSE_S = 5.0

log = logging.getLogger("edgecv.pipelines")


class Outlets:
    """Gives results and events to all who want them; ``workers`` feed the sinks."""

    def __init__(
        self,
        on_result: Callable[[Result], object] | None,
        on_event: Callable[[Event], object] | None,
        loop: FrameLoop | None = None,
    ) -> None:
        self.workers: list[SinkWorker] = []
        self._taps = None if loop is None else PacketTaps(self.workers, loop)
        self._on_result, self._on_event = on_result, on_event
        self._longest_s: dict[str, float] = {}  # by source: how long its files may be kept
        self._said: dict[str, str] = {}  # by source: its state that was told last
        self._logged: dict[str, set[tuple[str, str]]] = {}  # by source: trouble that the log was told of

    def add(self, name: str, sink: Sink, status: Callable[[], PipelineStatus]) -> None:
        """One more sink; ``status`` is for one that wants to know how the pipeline does."""
        worker = worker_for(name, sink)
        worker.attach(status)
        worker.send_media(self._share_media)
        for source_id, longest_s in self._longest_s.items():
            worker.retain(source_id, longest_s)
        self.workers.append(worker)
        if self._taps is not None:
            self._taps.open()

    def know(self, reader: SourceReader, config: SourceConfig) -> None:
        """One more source: how long files with its images may be kept, and whether sinks may have what it encoded."""
        longest_s = config.retention_s
        if longest_s is not None:
            self._longest_s[reader.name] = longest_s
            for worker in self.workers:
                worker.retain(reader.name, longest_s)
        if self._taps is not None:
            self._taps.know(reader, config)

    def start(self) -> None:
        """Begin to feed the sinks."""
        for worker in self.workers:
            worker.start()

    def become(self, policy: SlotPolicy) -> None:
        """Whether the frames wait for a sink, or it loses what it is too slow for."""
        for worker in self.workers:
            worker.become(policy)

    def deliver(self, result: Result, stopping: Callable[[], bool]) -> None:
        """Give a result to everyone; waits as ``SinkWorker.offer`` does."""
        for worker in self.workers:
            worker.offer(result, stopping)
        if self._on_result is not None:
            self._on_result(result)

    def tell(self, event: Event) -> None:
        """Give an event that travels without a frame to everyone; may be called from any thread."""
        for worker in self.workers:
            worker.offer_event(event)
        if self._on_event is not None:
            self._on_event(event)

    def _share_media(self, media: EventMedia) -> None:
        for worker in self.workers:
            worker.take_media(media)

    def source_changed(self, name: str, health: SourceHealth) -> None:
        """Tell the log and everyone how a source is now; may be called from any thread."""
        self.log(name, health)
        self.tell_health(name, health)

    def tell_health(self, name: str, health: SourceHealth) -> None:
        """Give an event to everyone that says how a source is now."""
        data = {
            "code": health.code,
            "error": health.error,
            "hint": health.hint,
            "reconnects": health.reconnects,
        }
        self.tell(
            Event(
                kind=f"source.{health.state}",
                time_ns=time.time_ns(),
                source_id=name,
                data={key: value for key, value in data.items() if value},
                priority="alarm" if health.state == "failed" else "event",
                coalesce_key=self._repetition_of(name, health),
            )
        )

    def _repetition_of(self, name: str, health: SourceHealth) -> str:
        """A key that further tries in the same state share: of them only the last matters. What began a state is history."""
        said = f"source/{name}/{health.state}/{health.since_ns}"[-_LONGEST_KEY:]
        before, self._said[name] = self._said.get(name), said
        return said if said == before else ""

    def log(self, name: str, health: SourceHealth) -> None:
        """Log each class of trouble of a source once, until it is live again."""
        if health.state == "live":
            self._logged.pop(name, None)
        elif health.state in _TROUBLE or (health.state == "connecting" and health.code):
            logged = self._logged.setdefault(name, set())
            if (health.state, health.code) not in logged:
                logged.add((health.state, health.code))
                log.warning("Source %s is %s: %s", name, health.state, in_one_line(health.error, health.hint))

    def counts(self) -> tuple[SinkCount, ...]:
        """What became of the results at each sink."""
        return tuple(worker.count() for worker in self.workers)

    def end(self) -> None:
        """Nothing more will be delivered. Sinks that wait for files of others end after those, in ``close``."""
        for worker in self.workers:
            if not worker.awaits_media:
                worker.end()

    def close(self, timeout_s: float) -> None:
        """Wait until the sinks have taken what is queued and are closed; ``timeout_s`` is for all of them together.

        First those that make files of events, which may be whole only now; those that wait for them have a few seconds in any case.
        """
        deadline_s = time.monotonic() + timeout_s
        for worker in sorted(self.workers, key=lambda worker: (not worker.gives_media, worker.awaits_media)):
            least_s = _LEAST_CLOSE_S if worker.awaits_media else 0.0
            worker.close(max(least_s, deadline_s - time.monotonic()))

    def check(self, frames: int) -> None:
        """Raise ``SinkError`` where a sink did not get all of the results of so many frames."""
        failed = [(worker.count(), worker.error) for worker in self.workers if worker.error is not None]
        if failed:
            first = failed[0][1]
            lost = " ".join(f"{c.name} lost {c.failed + c.dropped} of {frames} results: {c.error}" for c, _ in failed)
            raise SinkError(lost, first.hint if isinstance(first, EdgeCVError) else "") from first

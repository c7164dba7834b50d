"""``Pipeline``: sources, a model, steps and sinks in one loop."""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from types import TracebackType

from edgecv.errors import ConfigError, SinkError
from edgecv.events import Event
from edgecv.model import Model
from edgecv.pipelines.arguments import (
    SinkLike,
    as_sink,
    check_limits,
    check_model,
    check_sinks,
    hangs,
    new_files,
    remove_empty,
    sink_name,
)
from edgecv.pipelines.loop.counters import PipelineCounters
from edgecv.pipelines.loop.handover import SlotClosed
from edgecv.pipelines.loop.inference import Inference, Recall
from edgecv.pipelines.loop.inflight import MOST, OrderedInference
from edgecv.pipelines.loop.newest_reader import NewestReader
from edgecv.pipelines.loop.scheduler import SourceScheduler
from edgecv.pipelines.loop.signals import Signals
from edgecv.pipelines.loop.sink_worker import SinkWorker, worker_for
from edgecv.pipelines.loop.source_reader import CLOSE_TIMEOUT_S, POLL_S, SourceReader
from edgecv.pipelines.loop.step_chain import GateLike, StepChain, StepLike, build_gates, build_steps
from edgecv.pipelines.loop.work import Work
from edgecv.pipelines.sinks import open_sink
from edgecv.pipelines.source_config import SourceConfig, SourceLike, SourcesLike, as_config, read_sources
from edgecv.pipelines.steps.filter.classes import ClassFilter
from edgecv.pipelines.summary import Summary
from edgecv.protocols import KeepsNewest
from edgecv.results import Result
from edgecv.status import PipelineStatus, SinkCount, SourceHealth

_QUICK_CLOSE_S = 1.0  # what a source takes that does not hang
_SINK_CLOSE_TIMEOUT_S = 30.0  # for what is queued and the end of the file; all sinks together
_TROUBLE = ("stale", "reconnecting", "failed")

log = logging.getLogger("edgecv.pipelines")


class Pipeline:
    """Frames from one or many sources through a model and steps to sinks.

    Use it once, in any of three ways; each ends with sinks written, the sources released and no thread left::

        with edgecv.Pipeline("clip.mp4", model, sinks=["jsonl:out.jsonl"]) as pipeline:
            for result in pipeline: ...
        for result in edgecv.Pipeline(["rtsp://door/1", "rtsp://yard/1"], model): ...
        summary = edgecv.Pipeline({"door": "rtsp://10.0.0.7/1"}, model, sinks=[print]).run()

    Every source is read in a thread of its own (a camera in a process of its own) and every sink is fed in one, unless it says
    that it never blocks. The model runs in the thread that iterates, and in a second one where frames are many. Sources take
    turns. One that breaks does not stop the others; when all have ended and one of them broke, its error is raised.
    While it runs, SIGTERM and SIGHUP end the program as Ctrl-C does, with exit code 0, unless the program handles them itself.
    Sources and sinks given as objects are closed with the pipeline; the model is not.
    """

    def __init__(
        self,
        source: SourcesLike,
        model: Model | Recall,
        *,
        sinks: Sequence[SinkLike] = (),
        steps: Sequence[StepLike] = (),
        gates: Sequence[GateLike] = (),
        confidence: float | None = None,
        iou: float | None = None,
        classes: Sequence[str | int] | None = None,
        max_frames: int | None = None,
        on_result: Callable[[Result], object] | None = None,
        on_event: Callable[[Event], object] | None = None,
        overwrite: bool = False,
    ) -> None:
        """Open the sources and the sinks; frames are read from the first iteration on.

        Args:
            source: ``0``, ``clip.mp4``, ``images/``, ``rtsp://...`` or an object with ``read`` and ``close``; or many of them,
                as a list, or by name. ``SourceConfig`` says which frames of a source are used.
            model: What ``edgecv.load`` returned.
            sinks: ``jsonl:FILE``, ``video:FILE.mp4``, objects with ``emit`` and ``close``, or functions of a result;
                each works in a thread of its own and never slows the frames of a live source, but for one that says
                ``non_blocking = True``: the loop calls it.
            steps: Those of ``edgecv.pipelines.steps``, and functions ``Result -> Result | None``, between the model and the
                sinks, in order; ``None`` drops.
            gates: ``Motion`` of there, and functions ``Frame -> bool``, before the model; a frame for which one says
                ``False`` is not looked at.
            confidence: Lowest confidence kept, 0 to 1; the model's own by default.
            iou: Boxes of one class that overlap more than this are one object; the model's own by default.
            classes: Names or numbers of the classes to keep; all by default.
            max_frames: Stop after so many frames.
            on_result: Called with every result in the thread of the loop; what it raises ends the pipeline.
            on_event: Called with every event that belongs to no frame, such as a camera that went away, or whose frame a step
                dropped; from any thread; it must not block.
            overwrite: Replace existing files of sinks that are given as URIs.

        Raises:
            ConfigError: an argument does not fit; ``classes`` names what the model does not have; a sink's file exists.
            UnknownPlugin: no source or sink has that scheme.
            SourceError: a file is missing, empty or unreadable. A camera that is away is no error: it is waited for.
            SinkError: a sink's target cannot be written.
        """
        check_limits(max_frames, confidence, iou)
        check_model(model)
        sources = read_sources(source)
        filters = () if classes is None else (ClassFilter.from_names(classes, model.labels),)
        self._inference = Inference(model=model, confidence=confidence, iou=iou)
        self._gates = tuple(build_gates(gates))
        self._chain = StepChain((*filters, *build_steps(steps, model.labels)), self._gates, self._inference.age_ms)
        self._max_frames = max_frames
        self._on_result, self._on_event = on_result, on_event
        self._stopping = self._started = self._closed = self._entered = self._ended = self._reported = False
        self._left_behind: list[SourceReader] = []
        self._counters = PipelineCounters()
        self._logged: dict[str, set[tuple[str, str]]] = {}  # by source: trouble that the log was told of
        self._signals = Signals(self.stop)
        self._done = threading.Event()  # everything is closed
        self._closer: threading.Thread | None = None
        self._scheduler = SourceScheduler()
        self._in_flight = OrderedInference(self._inference.compute, 1)
        self._leaving: list[str] = []  # removed sources whose last frames may still be in flight
        self._workers: list[SinkWorker] = []
        self._closing = threading.Lock()
        # Of a pipeline that nobody runs or closes, before anything of it is opened: its cameras must not go on for ever.
        self._forgotten = weakref.finalize(self, _forgotten, self._scheduler, self._workers, self._chain)
        check_sinks(sources, sinks)
        made = new_files(sinks)
        try:
            for one in sources:
                self._add(one)
            self._add_sinks(sinks, overwrite)
        except BaseException:
            self.close()
            remove_empty(made)
            raise

    @property
    def summary(self) -> Summary:
        """What was done so far; final after the end."""
        return self._counters.summary(self._scheduler.readers, self._sink_counts())

    def status(self) -> PipelineStatus:
        """How sources, loop and sinks do at this moment; may be called from any thread."""
        sources = {reader: self._chain.counts(reader.name) for reader in self._scheduler.readers}
        running = self._started and not self._closed
        return self._counters.status(running, self._inference.model.name, sources, self._sink_counts())

    def add_source(self, source: SourceLike, name: str = "") -> str:
        """One more source, while it runs or before; may be called from any thread.

        Returns:
            Its name: ``name``, or the source's own.

        Raises:
            ConfigError: the name is taken, or the pipeline has ended; else as in the constructor.
        """
        if self._closed:
            raise ConfigError("This pipeline has ended.", "Make a new one for every run.")
        return self._add(as_config(source, name))

    def remove_source(self, name: str) -> None:
        """Release a source; the others go on, and with the last one the pipeline ends. May be called from any thread.

        Raises:
            ConfigError: there is no source of that name.
            SourceError: it did not return from a read in time; its thread is left behind.
        """
        reader = self._scheduler.remove(name)
        reader.on_change = None
        reader.begin_close()
        self._suit_sources()
        released = reader.join(time.monotonic() + CLOSE_TIMEOUT_S)
        self._counters.keep_drops(reader)
        self._leaving.append(name)
        if not released:
            raise hangs([reader])

    def run(self) -> Summary:
        """Work until the source ends, ``max_frames`` or ``stop()``.

        Raises:
            SourceError: a source broke in mid-way; what it and the others gave went to the sinks.
            SinkError: a sink lost results; ``summary`` says how many.
            SessionError: the runtime failed.
        """
        for _ in self:
            pass
        return self.summary

    def __iter__(self) -> Iterator[Result]:
        """Results in the order of the frames; raises as ``run``.

        A loop that is left early ends the pipeline, except inside ``with``: there the next loop goes on.
        """
        if self._closed:
            raise ConfigError("This pipeline has ended.", "Make a new one for every run.")
        return self._iterate()

    def stop(self) -> None:
        """End after the frame in flight. May be called from any thread, a signal handler or a callback."""
        self._stopping = True  # nothing but this: a signal handler must not take a lock

    def close(self) -> None:
        """End now: release the sources, let the sinks write what they hold. A second call waits for the first.

        Raises:
            Exception: what the ``close`` of a source or step raised; everything else was closed.
        """
        with self._closing:
            first, self._closed, self._stopping = not self._closed, True, True
            self._closer = threading.current_thread() if first else self._closer
        self._forgotten.detach()
        if not first:
            if self._closer is not threading.current_thread():
                self._done.wait(CLOSE_TIMEOUT_S + _SINK_CLOSE_TIMEOUT_S)
            return
        try:
            with self._signals.inside():
                self._close_all()
        finally:
            self._done.set()
        self._signals.deliver()

    def _close_all(self) -> None:
        atexit.unregister(self.close)
        deadline_s = time.monotonic() + CLOSE_TIMEOUT_S
        errors: list[BaseException] = []
        steps = (
            self._scheduler.begin_close,
            lambda: self._scheduler.join(_QUICK_CLOSE_S),
            self._end_workers,
            self._in_flight.close,
            self._close_workers,
            # A read that hangs must not keep what was found from being written: so it is waited for last.
            lambda: self._left_behind.extend(self._scheduler.join(deadline_s - time.monotonic())),
            self._chain.close,
            self._signals.restore,
        )
        for step in steps:
            try:
                step()
            except Exception as error:  # noqa: BLE001 - the others are closed, too; raised below
                errors.append(error)
        if errors:
            raise errors[0]

    def _end_workers(self) -> None:
        for worker in self._workers:
            worker.end()

    def _close_workers(self) -> None:
        deadline_s = time.monotonic() + _SINK_CLOSE_TIMEOUT_S
        for worker in self._workers:
            worker.close(max(0.0, deadline_s - time.monotonic()))

    def __enter__(self) -> Pipeline:
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if kind is None:
            self._report()

    def _iterate(self) -> Iterator[Result]:
        self._start()
        try:
            while (result := self._next()) is not None:
                yield result
        except GeneratorExit:
            if not self._entered:
                self.close()
            raise
        except BaseException:
            self.close()
            raise
        self.close()
        self._report()

    def _start(self) -> None:
        if self._started:
            return
        self._started = True
        self._forgotten.detach()
        # Threads are daemons, lest an abandoned iterator keeps the program from ending; this still ends them in order.
        atexit.register(self.close)
        self._signals.install()
        for worker in self._workers:
            worker.start()
        self._counters.start()
        self._scheduler.start()

    def _next(self) -> Result | None:
        """The next result that no step drops, or ``None`` at the end."""
        with self._signals.inside():
            return self._find_next()

    def _find_next(self) -> Result | None:
        while not self._stopping:
            self._forget_removed()
            try:
                self._fill()
                if not self._in_flight:
                    if not self._stopping:
                        self._raise_source_error()
                    return None
                computed = self._in_flight.pop()
            except (CancelledError, IndexError):  # closed from another thread
                return None
            result = self._chain(computed)
            self._counters.frame_done(computed.frame, None if result is None else result.age_ms, computed.timings_ms)
            if result is not None:
                self._deliver(result)
                return result
            for event in self._chain.left:
                self._tell_event(event)
        return None

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
        begun = self._counters.frames + len(self._in_flight)
        return not self._stopping and not self._ended and (self._max_frames is None or begun < self._max_frames)

    def _take(self, wait: bool) -> Work | None:
        """The next frame worth a run; ``None`` when there is none yet (without ``wait``) or none any more."""
        try:
            while not self._stopping:
                taken = self._scheduler.take(POLL_S if wait else 0.0)
                if taken is not None and taken[0].admits(taken[1]):
                    return taken[1]
                if taken is None and not wait:
                    return None
        except SlotClosed:
            self._ended = True
        return None

    def _raise_source_error(self) -> None:
        """Once everything is through: what broke a source."""
        for reader in self._scheduler.readers:
            if reader.error is not None:
                raise reader.error

    def _forget_removed(self) -> None:
        for name in [name for name in self._leaving if not self._in_flight.holds(name)]:
            self._leaving.remove(name)
            self._chain.forget(name)
            self._counters.forget_frames(name)
            self._scheduler.free(name)

    def _add(self, config: SourceConfig) -> str:
        opened = config.open()
        try:
            name = self._scheduler.reserve(config.name, opened.source_id)
        except ConfigError:
            opened.close()
            raise
        keeps_newest = isinstance(opened, KeepsNewest) and config.slot_policy(opened.live) == "latest"
        reader = (NewestReader if keeps_newest else SourceReader)(
            opened,
            name,
            config,
            self._inference.prepare,
            gates=self._gates,
            max_frames=self._max_frames,
            changed=self._scheduler.changed,
            on_change=_while_alive(self._source_changed),
        )
        try:
            self._scheduler.add(reader)
        except ConfigError:
            opened.close()
            raise
        self._suit_sources()
        self._ended = False
        self._log(name, reader.health())  # what it told before anyone listened
        return name

    def _suit_sources(self) -> None:
        """What depends on which sources there are: called when one comes or goes."""
        policies = {reader.policy for reader in self._scheduler.readers}
        # A live source alone has one frame in flight, so that its results are fresh; where frames are plenty, two see more of them.
        self._in_flight.count = 1 if len(self._scheduler) == 1 and policies == {"latest"} else MOST
        for worker in self._workers:
            worker.become("latest" if "latest" in policies else "lossless")

    def _add_sinks(self, sinks: Sequence[SinkLike], overwrite: bool) -> None:
        readers = self._scheduler.readers
        # A live source announces a rate that it seldom keeps: its results carry their own times.
        fps = readers[0].source.fps if len(readers) == 1 and not readers[0].source.live else 0.0
        for sink in sinks:
            opened = open_sink(sink, fps=fps, overwrite=overwrite) if isinstance(sink, str) else sink
            self._workers.append(worker_for(sink_name(sink), as_sink(opened)))
            self._workers[-1].attach(self.status)
        self._suit_sources()
        for reader in readers:  # what a source told before there was a sink
            if (health := reader.health()).state != "connecting" or health.code:
                self._tell_sinks(reader.name, health)

    def _sink_counts(self) -> tuple[SinkCount, ...]:
        return tuple(worker.count() for worker in self._workers)

    def _source_changed(self, name: str, health: SourceHealth) -> None:
        """Tell the log and the sinks; called from any thread."""
        self._log(name, health)
        self._tell_sinks(name, health)

    def _log(self, name: str, health: SourceHealth) -> None:
        """Each class of trouble of a source once, until it is live again."""
        if health.state == "live":
            self._logged.pop(name, None)
        elif health.state in _TROUBLE or (health.state == "connecting" and health.code):
            logged = self._logged.setdefault(name, set())
            if (health.state, health.code) not in logged:
                logged.add((health.state, health.code))
                log.warning("Source %s is %s: %s %s", name, health.state, health.error, health.hint)

    def _tell_sinks(self, name: str, health: SourceHealth) -> None:
        self._tell_event(
            Event(
                kind=f"source.{health.state}",
                time_ns=time.time_ns(),
                source_id=name,
                data={key: value for key in ("code", "error", "hint", "reconnects") if (value := getattr(health, key))},
                priority="alarm" if health.state == "failed" else "event",
            )
        )

    def _tell_event(self, event: Event) -> None:
        """Give an event that travels without a frame to the sinks that take such events, and to the app."""
        for worker in self._workers:
            worker.offer_event(event)
        if self._on_event is not None:
            self._on_event(event)

    def _deliver(self, result: Result) -> None:
        for worker in self._workers:
            worker.offer(result, lambda: self._stopping)
        if self._on_result is not None:
            self._on_result(result)

    def _report(self) -> None:
        """Raise what went wrong beside the loop, once."""
        if self._reported:
            return
        self._reported = True
        if self._left_behind:
            raise hangs(self._left_behind)
        failed = [(worker.count(), worker.error) for worker in self._workers if worker.error is not None]
        if failed:
            told = [
                f"{c.name} lost {c.failed + c.dropped} of {self._counters.frames} results: {c.error}" for c, _ in failed
            ]
            raise SinkError(" ".join(told), getattr(failed[0][1], "hint", "")) from failed[0][1]


def _while_alive(method: Callable[[str, SourceHealth], None]) -> Callable[[str, SourceHealth], None]:
    """A method for those who must not keep its object alive: threads of cameras run until the pipeline is closed."""
    held = weakref.WeakMethod(method)

    def call(name: str, health: SourceHealth) -> None:
        alive = held()
        if alive is not None:
            alive(name, health)

    return call


def _forgotten(scheduler: SourceScheduler, workers: Sequence[SinkWorker], chain: StepChain) -> None:
    """Say that a pipeline was never run, and release what it opened."""
    names = ", ".join(reader.name for reader in scheduler.readers)
    log.warning(
        "A Pipeline on %s was made and never run; its sources are released. Iterate over it, call run(), or close() it.",
        names or "no source",
    )
    # In a thread of its own: the garbage collector may have come in any thread, in that of a camera too.
    releasing = threading.Thread(target=_release, args=(scheduler, workers, chain), name="edgecv-release", daemon=True)
    try:
        releasing.start()
    except RuntimeError:  # the interpreter is ending
        _release(scheduler, workers, chain)


def _release(scheduler: SourceScheduler, workers: Sequence[SinkWorker], chain: StepChain) -> None:
    scheduler.begin_close()
    scheduler.join(_QUICK_CLOSE_S)
    for worker in workers:
        worker.close(_QUICK_CLOSE_S)
    chain.close()

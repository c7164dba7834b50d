"""``Pipeline``: sources, a model, steps and sinks in one loop."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

from edgecv.events import Event
from edgecv.model import Model
from edgecv.pipelines.arguments import (
    SinkLike,
    check_limits,
    check_model,
    check_sinks,
    new_files,
    remove_empty,
)
from edgecv.pipelines.changes import Changes
from edgecv.pipelines.fitting_model import FittingModel
from edgecv.pipelines.forgotten import release_forgotten, while_alive
from edgecv.pipelines.loop.frame_loop import FrameLoop
from edgecv.pipelines.loop.inference import Inference, Recall
from edgecv.pipelines.loop.outlets import Outlets
from edgecv.pipelines.loop.signals import Signals
from edgecv.pipelines.loop.source_reader import CLOSE_TIMEOUT_S, SourceReader, hangs
from edgecv.pipelines.loop.step_chain import GateLike, StepChain, build_gates, build_steps
from edgecv.pipelines.parts import SINK_CLOSE_TIMEOUT_S, close_parts, opened_sinks
from edgecv.pipelines.source_config import SourceConfig, SourceLike, SourcesLike, as_config, read_sources
from edgecv.pipelines.steps.exchange import StepLike
from edgecv.pipelines.steps.filter.classes import ClassFilter
from edgecv.pipelines.summary import Summary
from edgecv.results import Result
from edgecv.status import PipelineStatus


class Pipeline(Changes):
    """Frames from one or many sources through a model and steps to sinks.

    Use it once, in any of three ways; each ends with sinks written, the sources released and no thread left::

        with edgecv.Pipeline("clip.mp4", model, sinks=["jsonl:out.jsonl"]) as pipeline:
            for result in pipeline: ...
        for result in edgecv.Pipeline(["rtsp://door/1", "rtsp://yard/1"], model): ...
        summary = edgecv.Pipeline({"door": "rtsp://10.0.0.7/1"}, model, sinks=[print]).run()

    Every source is read in a thread of its own (a camera in a process of its own) and every sink is fed in one, so that it
    never slows the frames of a live source; a sink that says ``non_blocking = True`` is called by the loop. The model runs
    in the thread that iterates, and in a second one where frames are many. Sources take turns. One that breaks does not
    stop the others; when all have ended and one of them broke, its error is raised. While it runs, SIGTERM and SIGHUP end
    the program as Ctrl-C does, with exit code 0, unless the program handles them itself. Sources and sinks given as objects
    are closed with it; the model is not.
    """

    def __init__(
        self,
        source: SourcesLike,
        model: Model | FittingModel | Recall,
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
            source: ``0``, ``clip.mp4``, ``images/``, ``rtsp://...`` or an object with ``read`` and ``close``; or many of
                them, as a list, or by name. ``SourceConfig`` says which frames of a source are used.
            model: What ``edgecv.load`` returned, or a ``FittingModel``.
            sinks: ``jsonl:FILE``, ``video:FILE.mp4``, objects with ``emit`` and ``close``, or functions of a result.
            steps: Those of ``edgecv.pipelines.steps``, and functions ``Result -> Result | None``, in order; ``None`` drops.
            gates: ``Motion`` of there, and functions ``Frame -> bool``; a frame for which one says ``False`` is not looked
                at.
            confidence: Lowest confidence kept, 0 to 1; the model's own by default.
            iou: Boxes of one class that overlap more than this are one object; the model's own by default.
            classes: Names or numbers of the classes to keep; all by default.
            max_frames: Stop after so many frames.
            on_result: Called with every result in the thread of the loop; what it raises ends the pipeline.
            on_event: Called from any thread with every event whose frame a step dropped or that belongs to none, such as a
                camera that went away; it must not block.
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
        built = tuple(build_gates(gates))
        chain = StepChain(build_steps(steps, model.labels), built, self._inference.age_ms, filters)
        self._loop = FrameLoop(self._inference, built, chain, max_frames)
        self._outlets = Outlets(on_result, on_event, self._loop)
        self._started = self._closed = self._entered = self._reported = False
        self._left_behind: list[SourceReader] = []
        self._signals = Signals(self.stop)
        self._done = threading.Event()  # everything is closed
        self._closer: threading.Thread | None = None
        self._closing = threading.Lock()
        # Before anything is opened: cameras of a pipeline that nobody runs or closes must not go on for ever.
        self._forgotten = weakref.finalize(self, release_forgotten, self._loop.scheduler, self._outlets.workers, chain)
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
        return self._loop.counters.summary(self._loop.scheduler.readers, self._outlets.counts(), self._loop.counts())

    def status(self) -> PipelineStatus:
        """How sources, loop and sinks do at this moment; may be called from any thread."""
        sources = {reader: self._loop.chain.counts(reader.name) for reader in self._loop.scheduler.readers}
        running = self._started and not self._closed
        return self._loop.counters.status(running, self._inference.model.name, sources, self._outlets.counts())

    def tell(self, event: Event) -> None:
        """Give an event that belongs to no frame to the sinks that take such, and to ``on_event``; from any thread."""
        self._outlets.tell(event)

    def add_source(self, source: SourceLike, name: str = "") -> str:
        """Add a source, while it runs or before; may be called from any thread.

        Gives its name: ``name``, or the source's own.

        Raises:
            ConfigError: the name is taken, or the pipeline has ended; else as in the constructor.
        """
        self._check_open()
        return self._add(as_config(source, name))

    def remove_source(self, name: str) -> None:
        """Release a source; the others go on, and with the last one the pipeline ends. May be called from any thread.

        Raises:
            ConfigError: there is no source of that name.
            SourceError: it did not return from a read in time; its thread is left behind.
        """
        reader = self._loop.begin_remove(name)
        self._outlets.become(self._loop.policy)
        self._loop.end_remove(reader)

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
        self._check_open()
        return self._iterate()

    def stop(self) -> None:
        """End after the frame in flight. May be called from any thread, a signal handler or a callback."""
        self._loop.stopping = True  # nothing but this: a signal handler must not take a lock

    def close(self) -> None:
        """End now: release the sources, let the sinks write what they hold. A second call waits for the first.

        Raises what the ``close`` of a source or step raised; everything else was closed.
        """
        with self._closing:
            first, self._closed, self._loop.stopping = not self._closed, True, True
            self._closer = threading.current_thread() if first else self._closer
        self._forgotten.detach()
        if not first:
            if self._closer is not threading.current_thread():
                self._done.wait(CLOSE_TIMEOUT_S + SINK_CLOSE_TIMEOUT_S)
            return
        try:
            atexit.unregister(self.close)
            with self._signals.inside():
                close_parts(self._loop, self._outlets, self._signals, self._left_behind)
        finally:
            self._done.set()
        self._signals.deliver()

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
        self._outlets.start()
        self._loop.start(self._outlets.tell)

    def _next(self) -> Result | None:
        with self._signals.inside():
            result = self._loop.next(self._outlets.tell)
            if result is not None:
                self._outlets.deliver(result, lambda: self._loop.stopping)
            return result

    def _add(self, config: SourceConfig) -> str:
        reader = self._loop.add(config, while_alive(self._outlets.source_changed))
        reader.on_event = while_alive(self._outlets.tell)
        self._outlets.become(self._loop.policy)
        self._outlets.know(reader, config)
        self._outlets.log(reader.name, reader.health())  # what it told before anyone listened
        return reader.name

    def _add_sinks(self, sinks: Sequence[SinkLike], overwrite: bool) -> None:
        readers = self._loop.scheduler.readers
        for name, sink in opened_sinks(sinks, readers, overwrite):
            self._outlets.add(name, sink, self.status)
        self._outlets.become(self._loop.policy)
        for reader in readers:  # what a source told before there was a sink
            if (health := reader.health()).state != "connecting" or health.code:
                self._outlets.tell_health(reader.name, health)

    def _report(self) -> None:
        first, self._reported = not self._reported, True
        if first and self._left_behind:
            raise hangs(self._left_behind)
        if first:
            self._outlets.check(self._loop.counters.frames)

"""``Pipeline``: a source, a model, steps and sinks in one loop."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, cast

from edgecv.errors import ConfigError, SinkError, SourceError
from edgecv.model import Model
from edgecv.pipelines.capture import CLOSE_TIMEOUT_S, POLL_S, Capture, Captured
from edgecv.pipelines.inference import Inference
from edgecv.pipelines.lanes import Lanes
from edgecv.pipelines.outlet import CallableSink, Outlet
from edgecv.pipelines.signals import TerminateCleanly
from edgecv.pipelines.sinks import open_sink
from edgecv.pipelines.slot import SlotClosed, SlotPolicy
from edgecv.pipelines.sources import open_source
from edgecv.pipelines.steps.class_filter import ClassFilter
from edgecv.pipelines.summary import Summary, Tally
from edgecv.protocols import Sink, Source, Step
from edgecv.results import Result
from edgecv.timing import StageTimer
from edgecv.uris import parse_sink, parse_source

Policy = Literal["auto", "lossless", "latest"]
SinkLike = Sink | Callable[[Result], object] | str

_LANES = 2  # frames computed at once where none is dropped; a live source has one, so that its results are fresh
_SINK_CLOSE_TIMEOUT_S = 30.0  # for what is queued and the end of the file; all sinks together


class Pipeline:
    """Frames from a source through a model and steps to sinks.

    Use it once, in any of three ways; each ends with sinks written, the source released and no thread left::

        with edgecv.Pipeline("clip.mp4", model, sinks=["jsonl:out.jsonl"]) as pipeline:
            for result in pipeline: ...
        for result in edgecv.Pipeline("clip.mp4", model): ...
        summary = edgecv.Pipeline("clip.mp4", model, sinks=[print]).run()

    The source is read in a thread of its own and every sink is fed in one; the model runs in the thread that iterates.
    While it runs, SIGTERM ends the program as Ctrl-C does, with exit code 0, unless the program handles SIGTERM itself.
    Sources and sinks given as objects are closed with the pipeline; the model is not.
    """

    def __init__(
        self,
        source: str | int | Path | Source,
        model: Model,
        *,
        sinks: Sequence[SinkLike] = (),
        steps: Sequence[Step] = (),
        policy: Policy = "auto",
        confidence: float | None = None,
        iou: float | None = None,
        classes: Sequence[str | int] | None = None,
        max_frames: int | None = None,
        on_result: Callable[[Result], object] | None = None,
    ) -> None:
        """Open the source and the sinks; frames are read from the first iteration on.

        Args:
            source: ``0``, ``clip.mp4``, ``images/``, ``synthetic://`` ... or an object with ``read`` and ``close``.
            model: What ``edgecv.load`` returned.
            sinks: ``jsonl:FILE``, ``video:FILE.mp4``, objects with ``emit`` and ``close``, or functions of a result;
                each works in a thread of its own and never slows the frames of a live source.
            steps: Functions ``Result -> Result | None`` between the model and the sinks, in order; ``None`` drops.
            policy: ``lossless`` waits for the slower side, ``latest`` drops old frames; ``auto``: live sources drop.
            confidence: Lowest confidence kept, 0 to 1; the model's own by default.
            iou: Boxes of one class that overlap more than this are one object; the model's own by default.
            classes: Names or numbers of the classes to keep; all by default.
            max_frames: Stop after so many frames.
            on_result: Called with every result in the thread of the loop; what it raises ends the pipeline.

        Raises:
            ConfigError: an argument does not fit; ``classes`` names what the model does not have; a sink's file exists.
            UnknownPlugin: no source or sink has that scheme.
            SourceError: the source is missing, empty or unreadable.
            SinkError: a sink's target cannot be written.
        """
        _check(policy, max_frames)
        check_model(model)
        filters = () if classes is None else (ClassFilter.from_names(classes, model.labels),)
        self._inference = Inference(model=model, steps=(*filters, *steps), confidence=confidence, iou=iou)
        self._max_frames = max_frames
        self._on_result = on_result
        self._stopping = self._started = self._closed = self._entered = False
        self._left_behind = self._reported = False
        self._tally = Tally()
        self._sigterm = TerminateCleanly()
        _check_targets(source, sinks)
        opened = open_source(source) if isinstance(source, str | int | Path) else source
        slot_policy = _slot_policy(policy, opened)
        self._capture = Capture(opened, slot_policy, self._inference.prepare, max_frames)
        self._lanes = Lanes(self._inference.compute, _LANES if slot_policy == "lossless" else 1)
        self._ended = False
        self._source_error: SourceError | None = None
        self._outlets: list[Outlet] = []
        try:
            for sink in sinks:
                self._outlets.append(_outlet(sink, opened, slot_policy))
        except BaseException:
            self.close()
            raise

    @property
    def summary(self) -> Summary:
        """What was done so far; final after the end."""
        return self._tally.summary(self._capture.dropped, tuple(outlet.count() for outlet in self._outlets))

    def run(self) -> Summary:
        """Work until the source ends, ``max_frames`` or ``stop()``.

        Raises:
            SourceError: the source broke in mid-way; the results before went to the sinks.
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
        """End after the frame in work. May be called from any thread, a signal handler or a callback."""
        self._stopping = True  # nothing but this: a signal handler must not take a lock

    def close(self) -> None:
        """End now: release the source, let the sinks write what they hold. A second call does nothing."""
        if self._closed:
            return
        self._closed = self._stopping = True
        atexit.unregister(self.close)
        for outlet in self._outlets:
            outlet.end()
        self._left_behind = not self._capture.close()
        self._lanes.close()
        deadline = time.monotonic() + _SINK_CLOSE_TIMEOUT_S
        for outlet in self._outlets:
            outlet.close(max(0.0, deadline - time.monotonic()))
        self._sigterm.restore()

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
        # Threads are daemons, lest an abandoned iterator keeps the program from ending; this still ends them in order.
        atexit.register(self.close)
        self._sigterm.install()
        for outlet in self._outlets:
            outlet.start()
        self._tally.start()
        self._capture.start()

    def _next(self) -> Result | None:
        """The next result that no step drops, or ``None`` at the end."""
        while not self._stopping:
            self._fill()
            if not self._lanes:
                if self._source_error is not None:
                    raise self._source_error
                return None
            computed, timer = self._lanes.pop()
            result = self._inference.finish(computed)
            self._tally.frame_done(result, timer.as_ms())
            if result is not None:
                self._deliver(result)
                return result
        return None

    def _fill(self) -> None:
        """Put frames in work until the lanes are full; wait for one only when none is in work."""
        while self._wants_more() and not self._lanes.full:
            timer = StageTimer()
            with timer.stage("wait"):
                captured = self._take(wait=not self._lanes)
            if captured is None:
                return
            self._lanes.put(captured, timer)

    def _wants_more(self) -> bool:
        begun = self._tally.frames + len(self._lanes)
        return not self._stopping and not self._ended and (self._max_frames is None or begun < self._max_frames)

    def _take(self, wait: bool) -> Captured | None:
        """The next frame; ``None`` when there is none yet (without ``wait``) or none any more."""
        try:
            while not self._stopping:
                captured = self._capture.take(POLL_S if wait else 0.0)
                if captured is not None or not wait:
                    return captured
        except SlotClosed:
            self._ended = True
        except SourceError as error:  # raised by `_next` once the frames before it are through
            self._ended, self._source_error = True, error
        return None

    def _deliver(self, result: Result) -> None:
        for outlet in self._outlets:
            outlet.offer(result, lambda: self._stopping)
        if self._on_result is not None:
            self._on_result(result)

    def _report(self) -> None:
        """Raise what went wrong beside the loop, once."""
        if self._reported:
            return
        self._reported = True
        if self._left_behind:
            raise SourceError(
                f"The source did not return from a read within {CLOSE_TIMEOUT_S:.0f} s.",
                "Its thread is left behind until the program ends.",
                code="timeout",
            )
        failed = [(outlet.count(), outlet.error) for outlet in self._outlets if outlet.error is not None]
        if failed:
            told = [
                f"{c.name} lost {c.failed + c.dropped} of {self._tally.frames} results: {c.error}" for c, _ in failed
            ]
            raise SinkError(" ".join(told), getattr(failed[0][1], "hint", "")) from failed[0][1]


def check_model(model: Model) -> None:
    """Raise ``ConfigError`` for a model that has nothing to say about a frame by itself."""
    if model.task == "promptable-segment":
        raise ConfigError(
            f"{model.name} answers prompts; a pipeline has none.",
            "Use set_image and predict, or: edgecv predict BUNDLE IMAGE --point X,Y",
        )


def _check(policy: str, max_frames: int | None) -> None:
    if policy not in ("auto", "lossless", "latest"):
        raise ConfigError(f"There is no policy '{policy}'.", "Known: auto, lossless, latest.")
    if max_frames is not None and max_frames < 1:
        raise ConfigError(f"max_frames must be at least 1, not {max_frames}.")


def _check_targets(source: object, sinks: Sequence[SinkLike]) -> None:
    """Refuse to overwrite the video that is being read, or one sink's file by another."""
    taken = {Path(parse_source(source).path).resolve()} if isinstance(source, str | Path) else set()
    for uri in (parse_sink(sink) for sink in sinks if isinstance(sink, str)):
        target = Path(uri.path).resolve()
        if target in taken:
            raise ConfigError(f"{uri.name} is in use: by the source or another sink.", "Write to another file.")
        taken.add(target)


def _slot_policy(policy: Policy, source: Source) -> SlotPolicy:
    if policy == "auto":
        return "latest" if source.live else "lossless"
    return policy


def _outlet(sink: SinkLike, source: Source, policy: SlotPolicy) -> Outlet:
    if isinstance(sink, str):
        # A live source announces a rate that it seldom keeps: its results carry their own times.
        opened = open_sink(sink, fps=0.0 if source.live else source.fps)
        return Outlet(parse_sink(sink).name, opened, policy)
    if hasattr(sink, "emit"):
        return Outlet(type(sink).__name__, cast(Sink, sink), policy)
    if callable(sink):
        return Outlet(getattr(sink, "__name__", type(sink).__name__), CallableSink(sink), policy)
    raise ConfigError(f"{sink!r} is no sink.", "Give a URI such as jsonl:out.jsonl, a Sink, or a function of a result.")

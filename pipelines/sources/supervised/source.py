"""``SupervisedSource``: a live source that says how it is, and comes back by itself."""

from __future__ import annotations

import logging
import os
import random
import select
import threading
import time
from collections.abc import Callable

from edgecv import registry
from edgecv._internal.foreign import is_out_of_files
from edgecv.errors import SourceError
from edgecv.media.packets import Packet
from edgecv.pipelines.sources.live import checked_options
from edgecv.pipelines.sources.supervised import wire
from edgecv.pipelines.sources.supervised.failures import death, no_process, overdue
from edgecv.pipelines.sources.supervised.newest_frame import NewestFrame
from edgecv.pipelines.sources.supervised.retry import Outage, Retry
from edgecv.pipelines.sources.supervised.worker_process import WorkerProcess
from edgecv.pipelines.uris import Uri, parse_source
from edgecv.protocols import Clock
from edgecv.results import Frame
from edgecv.status import SourceHealth, SourceState

_CLOSE_S = 3.0  # a worker is gone after about one second
_READ_POLL_S = 0.1  # how soon a waiting `read` sees an interrupt that came from a signal handler
_STEADY_NS = 5_000_000_000
_NO_FAILURE = wire.Failed("", "", "")
_HANGS = wire.Failed("stale", "", "")
_DIED = wire.Failed("eof", "", "")
_LOG = logging.getLogger(__name__)


class SupervisedSource:
    """Reads a live source in a worker process, kills it when it hangs, and starts it again.

    ``read`` gives the newest frame, each at most once, and waits as long as it takes. A source that cannot be reached now
    is no error: ``health`` says why, and it is tried again for ever, unless a password, a decoder or a program is what is
    missing.

    Attributes:
        fps: Frames per second the camera announces, or the option ``fps`` when that is less; 0.0 while unknown.
        on_change: Called with every change of state or of the class of the error; like the next two from a thread of the
            source.
        wants: Asked for every frame that comes; one that it does not want is dropped.
        on_frame: Called when a frame can be taken.
        on_packet: Called with every image as the camera encoded it, from a thread of the source; must not block. Set it before
            the first frame or later: until then packets do not leave the worker.
    """

    live = True

    def __init__(
        self,
        uri: str | int | Uri,
        *,
        target: str | None = None,
        retry: Retry | None = None,
        draw: Callable[[], float] = random.random,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        """Begin to connect; errors as of ``open_source``, and ``SourceError`` when this program may open no more files.

        Args:
            target: ``module:class`` of the raw source; by default what the registry knows for the scheme.
            retry: When to try again.
            draw: Random numbers from 0 to 1, for the back-off.
            clock: Monotonic nanoseconds.
        """
        self._uri = parse_source(uri)
        self._target = target or registry.place("sources", self._uri.scheme)
        self._options = checked_options(self._uri, self._target)
        self._retry, self._draw, self._clock = retry or Retry(), draw, clock
        self.source_id = self._uri.name
        self.fps = 0.0
        self.on_change: Callable[[SourceHealth], None] | None = None
        self.wants: Callable[[], bool] | None = None
        self.on_frame: Callable[[], None] | None = None
        self.on_packet: Callable[[Packet], None] | None = None
        self._changed = threading.Condition()
        self._health = SourceHealth(state="connecting", since_ns=clock())
        self._frames = NewestFrame(self.source_id, self._changed)
        self._live_since_ns: int | None = None  # in the worker of now
        self._was_live = False
        self._interrupted = False
        self._closing = threading.Event()
        self._pipe_ends: tuple[int, ...] = self._pipe()
        self._wake_read, self._wake_write = self._pipe_ends
        self._thread = threading.Thread(target=self._supervise, name=f"edgecv-supervisor-{self.source_id}", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Frames that arrived and went unread because newer ones came."""
        return self._frames.dropped

    def health(self) -> SourceHealth:
        """How it is at this moment."""
        return self._health

    def read(self) -> Frame | None:
        """The newest frame that was not read yet; waits for one. ``None`` when the source ended, was closed or interrupted.

        Raises ``SourceError`` when trying again was given up.
        """
        with self._changed:
            while not self._frames.is_there and not self._is_over():
                self._changed.wait(_READ_POLL_S)
        if self._interrupted:
            return None
        frame = self.newest()
        if frame is not None or self._closing.is_set():
            return frame
        health = self._health
        if health.state == "failed":
            raise SourceError(health.error, health.hint, code=health.code)
        return None

    def newest(self) -> Frame | None:
        """The newest frame that was not taken yet, or ``None`` when there is none now; never waits."""
        return None if self._closing.is_set() else self._frames.take()

    def interrupt(self) -> None:
        """Let a ``read`` in another thread return ``None`` soon, and every later one at once."""
        self._interrupted = True
        # Without waiting for the lock: this may be a signal handler in the thread that holds it.
        if self._changed.acquire(blocking=False):
            self._changed.notify_all()
            self._changed.release()

    def close(self) -> None:
        """End the worker and everything it started; a second call does nothing."""
        self.begin_close()
        self.wait_closed(_CLOSE_S)

    def begin_close(self) -> None:
        """Begin to end; never waits, and a second call does nothing."""
        with self._changed:
            if self._closing.is_set():
                return
            self._closing.set()
            self._changed.notify_all()
            os.write(self._wake_write, b"x")

    def wait_closed(self, timeout_s: float) -> bool:
        """After ``begin_close``: wait until everything is released; ``False`` when it is not by then."""
        if self._thread is threading.current_thread():  # a listener that closes its source: it ends when that returns
            return True
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        with self._changed:
            self._frames.clear()  # one may have come in meanwhile, and it holds the shared memory
            pipe, self._pipe_ends = self._pipe_ends, ()
        for end in pipe:
            os.close(end)
        return True

    def _pipe(self) -> tuple[int, int]:
        try:
            return os.pipe()
        except OSError as error:
            failure = no_process(self.source_id, error)
            raise SourceError(failure.message, failure.hint, code=failure.code) from error

    def _is_over(self) -> bool:
        return self._interrupted or self._closing.is_set() or self._health.state in ("failed", "ended")

    def _supervise(self) -> None:
        try:
            self._keep_alive()
        except Exception as error:  # noqa: BLE001 - last resort of a thread: `read` raises it where the app can see it
            _LOG.exception("The supervisor of %s broke.", self.source_id)
            self._change("failed", wire.Failed("stale", f"The supervisor of {self.source_id} broke: {error!r}", ""))
        if self._closing.is_set():
            self._change("ended")

    def _keep_alive(self) -> None:
        outage = Outage(self._retry, self._clock() / 1e9, self._draw)
        while not self._closing.is_set():
            failure = self._try_once()
            if self._closing.is_set():
                return
            if failure is None:
                self._change("ended")
                return
            if self._was_steady():
                outage = Outage(self._retry, self._clock() / 1e9, self._draw)
            wait_s = outage.note(self._clock() / 1e9, final=failure.final)
            if wait_s is None:
                self._change("failed", failure)
                return
            self._change(self._state_after(failure), failure)
            self._sleep(wait_s)

    def _try_once(self) -> wire.Failed | None:
        """Run one worker to its end; ``None`` when the source ended or is being closed."""
        self._live_since_ns = None
        try:
            worker = WorkerProcess(self._target, self._uri, self._options)
        except OSError as error:
            return no_process(self.source_id, error)
        failure: wire.Failed | None = _HANGS
        try:
            failure = self._listen(worker)
        except OSError as error:
            if not is_out_of_files(error):
                raise
            failure = no_process(self.source_id, error)
        finally:
            # One that was live says goodbye to its camera, which may count its viewers; one that hangs cannot.
            code = worker.end(force=failure is _HANGS or self._live_since_ns is None)
        if failure is _HANGS:
            return overdue(self.source_id, self._options, self._live_since_ns is not None)
        return death(self._uri, self._options, worker.stderr, code) if failure is _DIED else failure

    def _listen(self, worker: WorkerProcess) -> wire.Failed | None:
        """Take frames until the worker says that it is over, says nothing in time, or dies."""
        base = self._frames.next_index
        due_ns = self._clock() + int(self._options.connect_s * 1e9)
        while not self._closing.is_set():
            worker.wait((due_ns - self._clock()) / 1e9, self._wake_read)
            worker.pass_packets(self.on_packet)
            try:
                for message in worker.receive():
                    if isinstance(message, wire.Ended):
                        return None
                    if isinstance(message, wire.Failed):
                        return message
                    if isinstance(message, wire.Opened):
                        self.fps = _lower_rate(message.fps, self._options.fps)
                        continue
                    due_ns = self._clock() + int(self._options.deadline_s * 1e9)
                    if isinstance(message, wire.ImageMessage):
                        self._take(worker, message, base + message.number)
            except EOFError:
                return _DIED
            if self._clock() >= due_ns:
                return _HANGS
        return None

    def _take(self, worker: WorkerProcess, image: wire.ImageMessage, index: int) -> None:
        is_wanted = self.wants is None or self.wants()
        self._frames.put(worker, image, index, is_wanted)
        if is_wanted and self.on_frame is not None:
            self.on_frame()
        if self._live_since_ns is None:
            self._live_since_ns = self._clock()
            self._change("live")

    def _state_after(self, failure: wire.Failed) -> SourceState:
        """Never live: still ``connecting``. A source that hangs stays ``stale`` until an attempt to reopen it fails."""
        if failure.code == "stale":
            return "stale"
        return "reconnecting" if self._was_live else "connecting"

    def _was_steady(self) -> bool:
        """Whether it was live for a while: a camera that gives one frame per connection shall not be hammered."""
        return self._live_since_ns is not None and self._clock() - self._live_since_ns >= _STEADY_NS

    def _change(self, state: SourceState, failure: wire.Failed = _NO_FAILURE) -> None:
        previous = self._health
        came_back = state == "live" and self._was_live
        self._was_live = self._was_live or state == "live"
        health = SourceHealth(
            state=state,
            since_ns=previous.since_ns if previous.state == state else self._clock(),
            code=failure.code,
            error=failure.message,
            hint=failure.hint,
            reconnects=previous.reconnects + came_back,
        )
        with self._changed:
            self._health = health
            self._changed.notify_all()
        if self.on_change is not None and (state, failure.code) != (previous.state, previous.code):
            try:
                self.on_change(health)
            except Exception:  # noqa: BLE001 - the app's function; the supervisor goes on
                _LOG.exception("on_change of %s raised.", self.source_id)

    def _sleep(self, duration_s: float) -> None:
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        poll.poll(duration_s * 1000)


def _lower_rate(announced: float, wanted: float) -> float:
    return min(announced, wanted) if announced and wanted else announced or wanted

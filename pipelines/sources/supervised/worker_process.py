"""Starting a worker, listening to it, and ending it for certain."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import site
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

import edgecv
from edgecv.media.packets import Packet
from edgecv.pipelines.sources.live import LiveOptions
from edgecv.pipelines.sources.supervised import wire
from edgecv.pipelines.sources.supervised.packet_line import PacketReceiver
from edgecv.pipelines.sources.supervised.ring import RingReader
from edgecv.pipelines.uris import Uri

_WORKER = "edgecv.pipelines.sources.supervised.worker"
_STDERR_BYTES = 4096  # the last words of a worker; the rest is thrown away
_POLL_S = 0.01
_GOODBYE_S = 0.7  # a little more than the worker gives its source
_TERMINATE_S = 0.3


class WorkerProcess:
    """One worker and everything it started, in a session of its own: Ctrl-C does not reach it, a kill reaches all of it."""

    def __init__(self, target: str, uri: Uri, options: LiveOptions) -> None:
        """Start the process and say what to open. Raises ``OSError``: the system has no process or descriptor left."""
        self.ring: RingReader | None = None
        self._packets: PacketReceiver | None = None
        self._stderr = bytearray()
        self._sending = threading.Lock()
        self.connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.connection.setblocking(False)
        try:
            # Not `DEVNULL`: subprocess of Python 3.10 loses its descriptor when there is none left for the pipe.
            with Path(os.devnull).open("wb") as nothing:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", _WORKER],
                    stdin=theirs.fileno(),
                    stdout=nothing,
                    stderr=subprocess.PIPE,
                    env=_environment(),
                    start_new_session=True,
                )
        except BaseException:
            self.connection.close()
            raise
        finally:
            theirs.close()
        assert self._process.stderr is not None
        self._errors = self._process.stderr.fileno()
        os.set_blocking(self._errors, False)
        with contextlib.suppress(OSError):  # it died at once: `receive` says so
            self.connection.send(json.dumps(msgspec.to_builtins(_start(target, uri, options))).encode())

    @property
    def stderr(self) -> str:
        """The end of what it wrote to standard error; it may hold credentials."""
        self._drain_errors()
        return self._stderr.decode(errors="replace")

    def wait(self, timeout_s: float, wake: int) -> None:
        """Return when the worker says something, ``wake`` can be read, or time is up."""
        reading = [self.connection.fileno(), wake, *([self._errors] if self._errors >= 0 else [])]
        reading += [] if self._packets is None or self._packets.is_over else [self._packets.descriptor]
        poll = select.poll()
        for descriptor in reading:
            poll.register(descriptor, select.POLLIN)
        poll.poll(max(0.0, timeout_s) * 1000)
        self._drain_errors()

    def receive(self) -> Iterator[wire.FromWorker]:
        """Every message that waits, except about memory, which is seen to here.

        Raises ``EOFError`` as ``wire.receive``, and ``OSError`` when this process has no descriptor left for the shared
        memory.
        """
        for message, descriptor in wire.receive(self.connection):
            if isinstance(message, wire.Ring):
                if descriptor is None:  # the kernel threw it away
                    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
                self.ring = RingReader(message, descriptor)
            else:
                yield message

    def pass_packets(self, take: Callable[[Packet], None] | None) -> None:
        """Ask for what the camera encoded, as soon as somebody takes it, and hand over what came; never waits.

        Once nobody takes it any more, the worker is hung up on: what it still has to say of that is never read.
        """
        if take is None:
            if self._packets is not None:
                self._packets.close()
                self._packets = None
            return
        if self._packets is None:
            self._packets, theirs = PacketReceiver.pair()
            try:
                with self._sending, contextlib.suppress(OSError):  # a worker that is gone: `receive` says so
                    socket.send_fds(self.connection, [wire.encode(wire.KeepPackets())], [theirs.fileno()])
            finally:
                theirs.close()
        for packet in self._packets.receive():
            take(packet)

    def give_back(self, image: wire.ImageMessage) -> None:
        """Let the worker write a slot again; one that is gone needs it no more."""
        with self._sending, contextlib.suppress(OSError):
            self.connection.send(wire.encode(wire.Release(image.slot)))

    def end(self, *, force: bool = False) -> int:
        """End it with all it started: politely unless ``force``, then by signal, within about a second.

        Gives its exit code, negative for a signal.
        """
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        if force or not self._exits_within(_GOODBYE_S):
            self._signal(signal.SIGTERM)
            self._exits_within(_TERMINATE_S)
        # Until the process is waited for, nobody else can have its number, nor its group's.
        self._signal(signal.SIGKILL)
        code = self._process.wait()
        self._drain_errors()
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._errors = -1
        if self._packets is not None:
            self._packets.close()
        with self._sending:  # a descriptor that is closed while another thread sends may be somebody else's by then
            self.connection.close()
        return code

    def _exits_within(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not self._has_exited():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _has_exited(self) -> bool:
        with contextlib.suppress(ChildProcessError):
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return True

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _drain_errors(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._errors >= 0:
                data = os.read(self._errors, _STDERR_BYTES)
                if not data:
                    self._errors = -1  # closed by the worker: the file itself is closed in `end`
                self._stderr = (self._stderr + data)[-_STDERR_BYTES:]


def _start(target: str, uri: Uri, options: LiveOptions) -> wire.Start:
    return wire.Start(
        target=target,
        scheme=uri.scheme,
        path=uri.path,
        options=dict(uri.options),
        separator=uri.separator,
        fps=options.fps,
        sys_path=sys.path.copy(),
        memory_bytes=options.memory_bytes,
        max_megapixels=options.most_pixels / 1e6,
    )


def _environment() -> dict[str, str]:
    """Ours, so that the worker finds this very EdgeCV and starts small; never with credentials."""
    root = str(Path(edgecv.__file__).resolve().parents[1])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    # A folder in PYTHONPATH goes before the standard library: site-packages must not.
    extra = [] if root in (*site.getsitepackages(), site.getusersitepackages()) else [root]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (*extra, *paths))),
        "PYTHONSAFEPATH": "1",  # the current folder holds the app's files, not ours (Python 3.11 and later)
        "OPENBLAS_NUM_THREADS": "1",  # numpy computes nothing here: no threads, no memory for them
    }

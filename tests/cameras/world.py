"""What tests of cameras need around them: servers, ports, processes, patience."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgecv.pipelines.sources.supervised.source import SupervisedSource
from edgecv.results import Frame
from edgecv.status import SourceHealth

SYSTEM_PYTHON = "/usr/bin/python3"
RTSP_SERVER = Path(__file__).with_name("rtsp_server.py")
PATIENCE_S = 20.0  # until something that must happen has failed; nothing waits that long when all is well


def wait_until(happened: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> float:
    """Wait for a condition; return how long it took."""
    start = time.monotonic()
    while not happened():
        assert time.monotonic() - start < patience_s, f"{what} did not happen within {patience_s:g} s"
        time.sleep(0.02)
    return time.monotonic() - start


class Diary:
    """Every change of health of a source, with the second it was told."""

    def __init__(self) -> None:
        self.entries: list[tuple[float, SourceHealth]] = []

    def __call__(self, health: SourceHealth) -> None:
        self.entries.append((time.monotonic(), health))

    @property
    def states(self) -> list[str]:
        return [health.state for _, health in self.entries]

    def has(self, state: str, code: str | None = None) -> bool:
        return any(h.state == state and code in (None, h.code) for _, h in list(self.entries))


def children(parent: int | None = None) -> list[int]:
    """Processes that a process started and that are not over."""
    found = subprocess.run(
        ["ps", "-o", "pid=,stat=", "--ppid", str(parent or os.getpid())],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    rows = [line.split() for line in found.stdout.splitlines()]
    return [int(pid) for pid, state in rows if not state.startswith("Z") and not _is_ps(pid)]


def workers() -> list[int]:
    """Worker processes of this process."""
    return [pid for pid in children() if b"supervised.worker" in _cmdline(pid)]


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def free_port() -> int:
    """A port where nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def next_frame(source: SupervisedSource) -> Frame:
    """The next frame, which must come in time."""
    alarm = threading.Timer(PATIENCE_S, source.interrupt)
    alarm.start()
    try:
        frame = source.read()
    finally:
        alarm.cancel()
        alarm.join()
    assert frame is not None, f"no frame: {source.health()}"
    return frame


def need_gstreamer(*, rtsp: bool = False) -> None:
    """Skip where GStreamer is absent; fail where it must not be (``CI=true``)."""
    absent = shutil.which("gst-launch-1.0") is None or (rtsp and not _has_rtsp_server())
    if absent:
        reason = "GStreamer or its RTSP server is not installed: sudo make system-deps"
        assert os.environ.get("CI") != "true", reason
        pytest.skip(reason)


class RtspServer:
    """A GStreamer RTSP server in a process that can be frozen, killed and started again on its port."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self._options = options
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/1"

    def start(self, *options: str) -> None:
        self._process = subprocess.Popen(
            [SYSTEM_PYTHON, str(RTSP_SERVER), str(self.port), *self._options, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait(PATIENCE_S)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@contextlib.contextmanager
def rtsp_server(*options: str) -> Iterator[RtspServer]:
    """A running server, gone at the end."""
    server = RtspServer(*options)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def _has_rtsp_server() -> bool:
    probe = "import gi; gi.require_version('GstRtspServer', '1.0')"
    if not Path(SYSTEM_PYTHON).exists():
        return False
    return subprocess.run([SYSTEM_PYTHON, "-c", probe], capture_output=True, timeout=30, check=False).returncode == 0


def _cmdline(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _is_ps(pid: str) -> bool:
    return _cmdline(int(pid)).startswith(b"ps\0")

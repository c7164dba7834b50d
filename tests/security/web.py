"""Raw HTTP for the attacks on the preview page and the metrics: real servers, real sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from edgecv.pipelines.preview.sink import PreviewSink
from edgecv.pipelines.sinks.metrics.sink import MetricsSink
from edgecv.status import PipelineStatus, SourceHealth, SourceStatus
from tests.integration.preview_scene import make_result

DEADLINE_S = 20.0
Server = PreviewSink | MetricsSink


def status() -> PipelineStatus:
    """One live source."""
    source = SourceStatus(
        source_id="door",
        health=SourceHealth(state="live", since_ns=0),
        frames=1,
        fps=1.0,
        age_ms=1.0,
        size_wh=(320, 240),
    )
    return PipelineStatus(
        running=True,
        model="yolo/int8",
        elapsed_s=1.0,
        frames=1,
        fps=1.0,
        age_p50_ms=1.0,
        age_p99_ms=1.0,
        stage_p50_ms={},
        sources=(source,),
        sinks=(),
    )


@contextmanager
def serving(kind: str, **options: object) -> Iterator[Server]:
    """``preview`` or ``metrics``, with something to show."""
    server: Server = PreviewSink(0, **options) if kind == "preview" else MetricsSink(0, **options)  # type: ignore[arg-type]
    try:
        server.attach(status)
        if isinstance(server, PreviewSink):
            server.emit(make_result(1))
        yield server
    finally:
        server.close()


def honest_path(server: Server) -> str:
    """What everybody may ask for."""
    return "/icon.svg" if isinstance(server, PreviewSink) else "/healthz"


def connect(server: Server, source: str = "127.0.0.1") -> socket.socket:
    """A connection from one of the addresses of loopback."""
    return socket.create_connection(("127.0.0.1", server.port), DEADLINE_S, (source, 0))


def say(server: Server, data: bytes, source: str = "127.0.0.1") -> bytes:
    """Send bytes; all that comes back until the server is done or has been silent for two seconds."""
    with connect(server, source) as client:
        with suppress(OSError):
            client.sendall(data)
        return listen_to(client)


def listen_to(client: socket.socket, silence_s: float = 2.0) -> bytes:
    """All that comes until the end, or until nothing came for a while."""
    client.settimeout(silence_s)
    heard = b""
    with suppress(OSError):
        while piece := client.recv(1 << 16):
            heard += piece
    return heard


def ask(server: Server, path: str, source: str = "127.0.0.1", **headers: str) -> tuple[int, float]:
    """The code of the answer to a request that is in order, and how long it took; 0 where none came."""
    lines = {"Host": "localhost", "Connection": "close", **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    begin_s = time.monotonic()
    with suppress(OSError), connect(server, source) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        answer = client.recv(64)
        return int(answer.split()[1]) if answer else 0, time.monotonic() - begin_s
    return 0, time.monotonic() - begin_s


def until(condition: Callable[[], object], what: str, seconds: float = DEADLINE_S) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.01)


def is_cut(client: socket.socket, within_s: float) -> bool:
    """Whether the server ends this connection in time; answers that come before are passed over."""
    end_s = time.monotonic() + within_s
    while (left_s := end_s - time.monotonic()) > 0:
        client.settimeout(left_s)
        try:
            if not client.recv(1 << 16):
                return True
        except TimeoutError:
            return False
        except OSError:
            return True
    return False

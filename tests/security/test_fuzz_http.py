"""Random, broken and hostile HTTP against the real servers in a process of their own.

Whatever comes: both are alive afterwards, answer an honest request, keep their memory, and write nothing to stderr.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

FUZZ_S = 100.0
SEED = 20261127
DEADLINE_S = 30.0
GROWTH_BYTES = 64 << 20  # of the memory of both servers together, from the first thousand cases on
_LEFT_OPEN = 80  # connections that the fuzzer has forgotten, but not closed
_TOKEN = "correct-horse-battery"

SERVERS = """
import sys
from pathlib import Path
from edgecv.pipelines.preview.sink import PreviewSink
from edgecv.pipelines.sinks.metrics.sink import MetricsSink
from edgecv.events import EventMedia
from tests.integration.events_history import spread, write_history, write_jpeg, write_mp4
from tests.integration.preview_scene import make_result
from tests.security.web import status

class Book:
    name, editable = "app.toml", True
    def reason(self): return ""
    def read(self): return "1", []
    def save(self, edit): pass

folder = Path(sys.argv[1])
events = list(spread(20))
files = [("snapshot", write_jpeg(folder / "media" / "a.jpg")), ("clip", write_mp4(folder / "media" / "a.mp4", 2))]
write_history(
    folder / "events.db",
    events,
    [EventMedia(keys=(events[0].key,), kind=kind, path=path, source_id=events[0].source_id) for kind, path in files],
)
page = {"events": folder / "events.db", "editor": Book()}
servers = [PreviewSink(0, **page), PreviewSink(0, token="correct-horse-battery", **page), MetricsSink(0)]
for server in servers:
    server.attach(status)
    server.emit(make_result(1))
print(*(server.port for server in servers), servers[0]._overview.document()["sources"][0]["key"], flush=True)
sys.stdin.readline()
for server in servers:
    server.close()
"""

# What the mutations start from: every route, every framing, and shapes on which servers have disagreed.
CORPUS = [
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text; version=1.0.0; escaping=x\r\n\r\n",
    b"GET /metrics?name[]=edgecv_fps&name[]=x HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n",
    b"GET /api/status?page=abc HTTP/1.1\r\nHost: localhost\r\nCookie: a=b; edgecv_preview_1=x\r\n\r\n",
    b"GET /stream/KEY?page=abc HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /image/KEY HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /api/shapes HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"PUT /api/shapes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n"
    b'{"version":"1","shapes":[]}',
    b"PUT /api/shapes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'8\r\n[[[[[[[[\r\n10\r\n{"a":1e999,"a":"\r\n0\r\n\r\n',
    b"POST /api/shapes HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
    b"GET /api/events?source=door&label=car&rule=exit&from_ms=1&to_ms=9999999999999 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /api/events?before=1795860930000000000-7&limit=-1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /api/events/choices HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /api/events/day?from_ms=0&to_ms=86400000&source=%ff%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /media/1/snapshot HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-9,20-29\r\n\r\n",
    b"GET /media/1/clip HTTP/1.1\r\nHost: localhost\r\nRange: bytes=-99999999999999999999\r\nIf-Range: x\r\n\r\n",
    b"HEAD /media/1/clip HTTP/1.1\r\nHost: localhost\r\nRange: bytes=5-1\r\n\r\n",
    b"GET /media/1/thumbnail HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /media/" + b"1" * 5000 + b"/clip HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /media/..%2f..%2fetc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"HEAD /stream/KEY HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /api/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer correct-horse-batterx\r\n\r\n",
    b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 27\r\n\r\ntoken=correct-horse-batterx",
    b"POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n8\r\ntoken=xx\r\n0\r\nT: x\r\n\r\n",
    b"POST /login HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 7\r\n\r\ntoken=x",
    b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / ",
    b"POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    b"POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding : chunked\r\n\r\nfffffffffffffffff\r\nx\r\n0\r\n\r\n",
    b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0x10\r\nContent-Length: +4\r\n\r\ntoken=xxxxxxxxxxxx",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://[::\r\nReferer: \xff\xfe\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: [::1]:99999\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n\x81\x05hello",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://localhost/%2e%2e/%00%ff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET /healthz\r\n",
    b"\r\n\r\n\r\nGET /healthz HTTP/1.1\nHost: localhost\n\n",
    b"GET /x HTTP/1.1\r\nHost: localhost\r\n folded: yes\r\n\tmore\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: localhost\r\nX: a\rb\x00c\x0b\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)),
]
SPICE = [
    *(bytes([byte]) for byte in b"\x00\r\n\t :;,/?#%@[]{}\"'\\\x7f\x80\xff"),
    b"\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Content-Length: -1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: evil.example\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Expect: 100-continue\r\n",
    b"0\r\n\r\n",
    b"ffffffff\r\n",
    b"%00%0d%0a",
    "ü€\U0001f600".encode(),
    b"x" * 300,
    b"x" * 20_000,
    b"A: b\r\n" * 150,
    b"HTTP/9.9",
    b"HTTP/1.0",
]


@dataclass
class Fuzzer:
    """One stream of random cases, the same for the same seed."""

    key: bytes
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))
    open_: deque[socket.socket] = field(default_factory=deque)
    latest: deque[bytes] = field(default_factory=lambda: deque(maxlen=200))

    def case(self) -> bytes:
        """A request of the corpus, or several, with up to eight things done to it."""
        data = b"".join(self.chance.choices(CORPUS, k=self.chance.choice((1, 1, 1, 2, 5)))).replace(b"KEY", self.key)
        for _ in range(self.chance.choice((0, 1, 1, 2, 4, 8))):
            data = self.mutated(data)
        return data

    def mutated(self, data: bytes) -> bytes:
        """One thing done to it."""
        at = self.chance.randrange(len(data) + 1)
        to = min(len(data), at + self.chance.choice((1, 1, 2, 8, 64)))
        kind = self.chance.randrange(6)
        if kind == 0:
            return data[:at] + self.chance.choice(SPICE) + data[at:]
        if kind == 1:
            return data[:at] + self.chance.choice(SPICE) + data[to:]
        if kind == 2:
            return data[:at] + data[to:]
        if kind == 3:
            return data[:at] + data[at:to] * self.chance.choice((2, 3, 50)) + data[to:]
        if kind == 4:
            return data[:at] + self.chance.randbytes(to - at) + data[to:]
        return data[: at or 1]

    def attack(self, port: int) -> None:
        """Send one case: at once or in pieces; read the answer, part of it or nothing; close, reset or walk away."""
        data = self.case()
        self.latest.append(data)
        client = socket.create_connection(
            ("127.0.0.1", port), DEADLINE_S, (f"127.0.0.{self.chance.randrange(1, 9)}", 0)
        )
        client.settimeout(DEADLINE_S)
        with suppress(OSError):
            if self.chance.random() < 0.2:
                cut = self.chance.randrange(len(data) + 1)
                client.sendall(data[:cut])
                time.sleep(0.002)
                client.sendall(data[cut:])
            else:
                client.sendall(data)
            if self.chance.random() < 0.3:
                client.shutdown(socket.SHUT_WR)
            if self.chance.random() < 0.5:
                client.settimeout(0.02)
                client.recv(self.chance.choice((1, 100, 1 << 16)))
        if self.chance.random() < 0.3:
            self.open_.append(client)
            if len(self.open_) > _LEFT_OPEN:
                self.open_.popleft().close()
        else:
            client.close()

    def close(self) -> None:
        """Close what was left open."""
        while self.open_:
            self.open_.pop().close()


@contextmanager
def servers(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[int], bytes, Path]]:
    """The three servers, their ports, the key of the image, and where their stderr goes."""
    errors = folder / "stderr"
    with errors.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVERS, str(folder)],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
        )
    try:
        assert process.stdout is not None
        *ports, key = process.stdout.readline().split()
        yield process, [int(port) for port in ports], key, errors
    finally:
        process.kill()
        process.wait(DEADLINE_S)


def check(process: subprocess.Popen[bytes], ports: list[int], errors: Path) -> None:
    """Alive, honest requests answered, silence on stderr."""
    assert process.poll() is None, errors.read_text()
    for port, path, token in zip(ports, ("/api/status", "/api/status", "/healthz"), ("", _TOKEN, ""), strict=True):
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S, ("127.0.0.99", 0)) as client:
            bearer = f"Authorization: Bearer {token}\r\n" if token else ""
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{bearer}Connection: close\r\n\r\n".encode())
            assert client.recv(12)[9:] == b"200", port
    assert errors.read_bytes() == b"", errors.read_text()[-3000:]


def memory_bytes(process: subprocess.Popen[bytes]) -> int:
    """Resident memory."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def threads(process: subprocess.Popen[bytes]) -> int:
    """How many there are."""
    return len(list(Path(f"/proc/{process.pid}/task").iterdir()))


@pytest.mark.slow
@pytest.mark.timeout(FUZZ_S + 120)
def test_no_bytes_end_the_servers_or_keep_others_out(tmp_path: Path) -> None:
    with servers(tmp_path) as (process, ports, key, errors):
        fuzzer = Fuzzer(key)
        cases, before_bytes, most_bytes = 0, 0, 0
        try:
            end_s = time.monotonic() + FUZZ_S
            while time.monotonic() < end_s:
                fuzzer.attack(ports[cases % len(ports)])
                cases += 1
                if cases % 250 == 0:
                    check(process, ports, errors)
                    most_bytes = max(most_bytes, memory_bytes(process))
                    assert threads(process) < 64
                if cases == 1000:
                    before_bytes = memory_bytes(process)
            check(process, ports, errors)
        except BaseException:
            (tmp_path / "latest").write_text("\n".join(map(repr, fuzzer.latest)))
            raise
        finally:
            fuzzer.close()
        print(f"{cases} cases, memory {before_bytes / 1e6:.0f} MB, at most {most_bytes / 1e6:.0f} MB")
        assert cases >= 1000
        assert most_bytes - before_bytes < GROWTH_BYTES
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.wait(DEADLINE_S) == 0
        assert errors.read_bytes() == b"", errors.read_text()[-3000:]

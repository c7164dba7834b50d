"""Attacks on the preview page and on the metrics over real sockets."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest

from edgecv.cli.app_config import read_app_file
from edgecv.errors import ConfigError
from edgecv.pipelines.preview.sink import PreviewSink
from edgecv.pipelines.preview.streams import MOST_STREAMS
from edgecv.pipelines.sinks import open_sink
from edgecv.pipelines.sinks.metrics.sink import MetricsSink
from edgecv.pipelines.web import server as web_server
from edgecv.status import Gauge, PipelineStatus
from tests.integration.preview_scene import make_result
from tests.security.web import (
    DEADLINE_S,
    Server,
    ask,
    connect,
    honest_path,
    is_cut,
    listen_to,
    say,
    serving,
    status,
    until,
)

TOKEN = "correct-horse-battery"
KINDS = ("preview", "metrics")
ELSEWHERE = "127.0.0.2"  # another visitor than 127.0.0.1
HEAD = "GET {path} HTTP/1.1\r\nHost: localhost\r\n"

# What a client may begin and never end.
UNFINISHED = {
    "nothing": "",
    "half a line": "GET /he",
    "half a head": HEAD,
    "half a body": "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\ntoken=",
    "half a chunk": "POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n50\r\ntoken=",
    "a whole request, then half a one": HEAD + "\r\n" + HEAD,
}


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving(request.param) as opened:
        yield opened


@pytest.fixture(scope="module", params=KINDS)
def asked(request: pytest.FixtureRequest) -> Iterator[Server]:
    """For tests that only ask."""
    with serving(request.param) as opened:
        yield opened


@pytest.fixture
def page() -> Iterator[PreviewSink]:
    with serving("preview") as opened:
        assert isinstance(opened, PreviewSink)
        yield opened


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of time, made short."""
    for name, limit_s in [("REQUEST_S", 0.6), ("_ANSWER_S", 0.6), ("_WATCH_S", 0.1)]:
        monkeypatch.setattr(web_server, name, limit_s)


def begin(server: Server, text: str, source: str = "127.0.0.1") -> socket.socket:
    client = connect(server, source)
    with suppress(OSError):  # hung up on at once
        client.sendall(text.format(path=honest_path(server)).encode())
    return client


# --- places ---


def test_unfinished_requests_keep_nobody_out_not_even_from_their_own_address(server: Server) -> None:
    with ExitStack() as stack:
        for text in UNFINISHED.values():
            for _ in range(web_server.LIMITS.per_visitor + 2):
                stack.enter_context(begin(server, text))
            assert ask(server, honest_path(server))[0] == 200
            assert ask(server, honest_path(server), ELSEWHERE)[0] == 200


def test_many_addresses_with_unfinished_requests_keep_nobody_out(server: Server) -> None:
    with ExitStack() as stack:
        for number in range(web_server.LIMITS.in_all + 12):
            stack.enter_context(begin(server, HEAD, f"127.0.1.{number % 50 + 1}"))
        assert ask(server, honest_path(server), ELSEWHERE)[0] == 200


def test_a_connection_that_is_served_is_not_cut_for_unfinished_ones(page: PreviewSink) -> None:
    with ExitStack() as stack:
        watcher = stack.enter_context(begin(page, f"GET /stream/{_key(page)} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
        assert watcher.recv(12) == b"HTTP/1.1 200"
        for _ in range(100):
            stack.enter_context(begin(page, HEAD))
        assert ask(page, "/icon.svg")[0] == 200
        assert page.watchers == 1
        page.emit(make_result(2))
        until(lambda: b"image/jpeg" in watcher.recv(1 << 16), "the stream goes on")


def test_one_address_never_takes_every_stream(page: PreviewSink) -> None:
    with ExitStack() as stack:
        for number in range(MOST_STREAMS):
            stack.enter_context(begin(page, f"GET /stream/{_key(page)} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
            until(lambda number=number: page.watchers == number + 1, "it watches")
        assert ask(page, f"/stream/{_key(page)}")[0] == 503
        assert ask(page, f"/stream/{_key(page)}", ELSEWHERE)[0] == 200


def test_a_gauge_that_hangs_takes_a_bounded_number_of_threads() -> None:
    going = threading.Event()
    gauge = Gauge(name="stuck", help="Never answers.", read=lambda: float(going.wait(DEADLINE_S)))
    with serving("metrics", gauges=[gauge]) as metrics, ExitStack() as stack:
        before = threading.active_count()
        try:
            for number in range(60):
                stack.enter_context(
                    begin(metrics, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", f"127.0.1.{number + 1}")
                )
            time.sleep(0.3)
            assert threading.active_count() == before + 1
            assert ask(metrics, "/healthz", ELSEWHERE)[0] == 200
        finally:
            going.set()


# --- time ---


@pytest.mark.usefixtures("quick")
def test_every_request_has_a_deadline_not_only_the_first_of_a_connection(server: Server) -> None:
    with ExitStack() as stack:
        clients = {kind: stack.enter_context(begin(server, text)) for kind, text in UNFINISHED.items()}
        deadline_s = time.monotonic() + 3.0
        late = [kind for kind, client in clients.items() if not is_cut(client, deadline_s - time.monotonic())]
    assert not late
    assert ask(server, honest_path(server))[0] == 200


@pytest.mark.usefixtures("quick")
def test_a_request_that_drips_has_the_same_deadline(server: Server) -> None:
    dripping = {}
    with ExitStack() as stack:
        for kind in ("half a line", "half a head", "half a body", "half a chunk"):
            dripping[kind] = stack.enter_context(begin(server, UNFINISHED[kind]))
        begin_s = time.monotonic()
        while dripping and time.monotonic() - begin_s < 4.0:
            time.sleep(0.05)
            for kind, client in tuple(dripping.items()):
                try:
                    client.sendall(b"x")
                except OSError:
                    del dripping[kind]
    assert not dripping


@pytest.mark.usefixtures("quick")
def test_a_connection_with_whole_requests_lives_on(server: Server) -> None:
    with connect(server) as client:
        for _ in range(4):  # twice the deadline
            client.sendall(f"GET {honest_path(server)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert listen_to(client, 0.3).startswith(b"HTTP/1.1 200")


@pytest.mark.usefixtures("quick")
def test_who_reads_no_answer_is_cut_and_nothing_of_it_is_kept(page: PreviewSink) -> None:
    result = make_result(3, size_wh=(960, 960))
    result.frame.image[:] = np.random.default_rng(0).integers(0, 255, result.frame.image.shape)
    page.emit(result)  # some 900 kB as an image
    asking = f"GET /image/{_key(page)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with ExitStack() as stack:
        clients = []
        for _ in range(10):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(DEADLINE_S)
            client.connect(("127.0.0.1", page.port))
            client.sendall(asking * 20)
            clients.append(client)
        until(lambda: _buffered_bytes(page) > 0, "answers wait")
        assert _buffered_bytes(page) < 10 * (1 << 18), "of each no more than a slice or two"
        assert ask(page, "/icon.svg")[0] == 200
        until(lambda: _buffered_bytes(page) == 0, "they are cut", 5.0)
        assert all(is_cut(client, 5.0) for client in clients)


def _buffered_bytes(page: PreviewSink) -> int:
    uvicorn = page._place._server.thread._server
    assert uvicorn is not None
    return sum(open_.transport.get_write_buffer_size() for open_ in list(uvicorn.server_state.connections))


# --- tokens ---


def test_wrong_tokens_of_others_slow_nobody_and_the_right_one_is_never_refused() -> None:
    with serving("preview", token=TOKEN) as page:
        for number in range(60):
            source = f"127.0.1.{number % 12 + 1}"
            assert ask(page, "/api/status", source, Authorization=f"Bearer wrong-{number}")[0] in (401, 429)
        code, took_s = ask(page, "/api/status", Authorization=f"Bearer {TOKEN}")
        assert code == 200
        assert took_s < 1.0
        session = _log_in(page)
        # From the address of the attacker, too: a proxy may stand between.
        assert ask(page, "/api/status", "127.0.1.1", Authorization=f"Bearer {TOKEN}")[0] == 200
        code, took_s = ask(page, "/api/status", "127.0.1.1", Cookie=session)
        assert code == 200
        assert took_s < 1.0


def test_guesses_of_one_address_at_once_are_slowed_all_the_same() -> None:
    with serving("preview", token=TOKEN) as page:
        for number in range(5):
            ask(page, "/api/status", Authorization=f"Bearer wrong-{number}")
        begin_s = time.monotonic()
        guesses = [
            threading.Thread(target=ask, args=(page, "/api/status"), kwargs={"Authorization": "Bearer no"})
            for _ in range(6)
        ]
        for guess in guesses:
            guess.start()
        for guess in guesses:
            guess.join(DEADLINE_S)
        assert time.monotonic() - begin_s >= 1.2, "0.2 s for each"


def test_who_waits_after_wrong_tokens_keeps_nobody_out() -> None:
    bearer = "GET /api/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer wrong\r\n\r\n"
    with serving("preview", token=TOKEN) as page, ExitStack() as stack:
        session = _log_in(page)
        for number in range(200):
            stack.enter_context(begin(page, bearer, f"127.0.1.{number % 10 + 1}"))
        for source in (ELSEWHERE, "127.0.1.1"):
            assert ask(page, "/api/status", source, Cookie=session)[0] == 200
            assert ask(page, "/api/status", source, Authorization=f"Bearer {TOKEN}")[0] == 200


def test_who_has_just_come_is_not_cut_for_the_next_one_from_the_same_address() -> None:
    bearer = "GET /api/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer wrong\r\n\r\n"
    with serving("preview", token=TOKEN) as page, ExitStack() as stack:
        session = _log_in(page)
        for number in range(200):
            stack.enter_context(begin(page, bearer, f"127.0.1.{number % 10 + 1}"))
        visitor = stack.enter_context(connect(page, "127.0.1.1"))
        for _ in range(8):
            stack.enter_context(connect(page, "127.0.1.1"))
        time.sleep(0.2)  # all of them are accepted
        visitor.sendall(f"GET /api/status HTTP/1.1\r\nHost: localhost\r\nCookie: {session}\r\n\r\n".encode())
        assert visitor.recv(64).split()[1] == b"200"


def _log_in(page: Server) -> str:
    form = f"token={TOKEN}"
    head = f"POST /login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(form)}\r\n\r\n"
    answer = say(page, (head + form).encode()).decode()
    assert answer.startswith("HTTP/1.1 303")
    return (
        answer.lower().partition("set-cookie: ")[2]
        and answer[answer.lower().index("set-cookie: ") + 12 :].split(";")[0]
    )


# --- names ---


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:9100", "127.0.0.1.evil.example", "localhost@evil", "localhost, evil", "192.168.1.7"],
)
def test_a_foreign_name_pointed_at_the_server_is_refused(asked: Server, host: str) -> None:
    for path in ("/metrics", "/healthz", "/", "/api/status", "/login"):
        assert ask(asked, path, Host=host)[0] in (400, 421)


@pytest.mark.parametrize(
    "head", ["", "Host: localhost\r\nHost: evil.example\r\n", "Host: evil.example\r\nHost: localhost\r\n"]
)
def test_a_request_without_a_name_or_with_two_is_refused(asked: Server, head: str) -> None:
    answer = say(asked, f"GET {honest_path(asked)} HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode())
    assert answer.split()[1] in (b"400", b"421")


@pytest.mark.parametrize("kind", KINDS)
def test_own_names_and_those_that_are_configured_are_believed(kind: str) -> None:
    with serving(kind, allowed_hosts=["cam.example"]) as server:
        for host in ("localhost", "LOCALHOST:1234", "127.0.0.1:9100", "[::1]:80", "cam.example", "Cam.Example:80"):
            assert ask(server, honest_path(server), Host=host)[0] == 200


def test_metrics_on_all_addresses_answer_to_numbers_and_the_name_of_the_machine() -> None:
    with serving("metrics", host="0.0.0.0") as metrics:
        for host in ("192.168.1.7:9100", socket.gethostname(), f"{socket.gethostname()}.local:9100"):
            assert ask(metrics, "/metrics", Host=host)[0] == 200
        assert ask(metrics, "/metrics", Host="evil.example")[0] == 421


def test_more_names_can_be_given_in_the_uri_and_in_app_toml(tmp_path: Path) -> None:
    metrics = open_sink("metrics:0?allowed_hosts=cam.example,%20cam")
    assert isinstance(metrics, MetricsSink)
    try:
        metrics.attach(status)
        assert ask(metrics, "/metrics", Host="cam")[0] == 200
    finally:
        metrics.close()
    with pytest.raises(ConfigError, match="no host name"):
        MetricsSink(0, allowed_hosts=["http://cam/"])
    app = tmp_path / "app.toml"
    app.write_text('[metrics]\nport = 0\nallowed_hosts = ["cam"]\n[preview]\nport = 0\nallowed_hosts = ["cam"]\n')
    file = read_app_file(app)
    assert file.metrics is not None and file.preview is not None
    assert file.metrics.allowed_hosts == file.preview.allowed_hosts == ["cam"]


def test_a_page_from_elsewhere_cannot_ask_anything(page: PreviewSink) -> None:
    for origin in ("http://evil.example", "null", "http://[", "http://localhost.evil.example", "\xff"):
        assert ask(page, "/api/status", Origin=origin)[0] == 403
        lines = f"Host: localhost\r\nConnection: close\r\nOrigin: {origin}\r\nContent-Length: 7\r\n\r\ntoken=x"
        assert say(page, f"POST /login HTTP/1.1\r\n{lines}".encode("latin-1")).split()[1] == b"403"


# --- shapes and sizes ---

LONG = "x" * 200_000
ODD = {
    "a long path": (f"GET /{LONG} HTTP/1.1\r\nHost: localhost\r\n\r\n", (400, 404, 414, 431)),
    "a long query": (f"GET {{path}}?{LONG} HTTP/1.1\r\nHost: localhost\r\n\r\n", (400, 414, 431)),
    "a long header": (HEAD + f"X: {LONG}\r\n\r\n", (400, 431)),
    "many headers": (HEAD + "X: 1\r\n" * 50_000 + "\r\n", (400, 431)),
    "a long name": (HEAD + f"{LONG}: 1\r\n\r\n", (400, 431)),
    "a folded header": (HEAD + "X: 1\r\n" + " more\r\n" * 50_000 + "\r\n", (400, 431)),
    "two lengths": (HEAD + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", (200, 400)),
    "a length and chunks": (HEAD + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (200, 400)),
    "a negative length": (HEAD + "Content-Length: -1\r\n\r\n", (200, 400)),
    "an upgrade": (HEAD + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n", (200,)),
    "http 2": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400, 405, 421, 505)),
    "connect": ("CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", (400, 404, 405, 501)),
    "another server's address": ("GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", (200, 404)),
    "a broken escape": ("GET /%ff%fe%zz%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", (404,)),
    "no http": ("\x16\x03\x01\x02\x00\x01\x00", (400,)),
    "a method nobody knows": ("ROB {path} HTTP/1.1\r\nHost: localhost\r\n\r\n", (405, 501)),
}


@pytest.mark.parametrize("shape", ODD)
def test_odd_requests_get_an_answer_or_an_end_and_nothing_is_logged(
    asked: Server, shape: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    text, codes = ODD[shape]
    with caplog.at_level(logging.INFO):
        with connect(asked) as client:
            with suppress(OSError):
                client.sendall(text.format(path=honest_path(asked)).encode("latin-1"))
                client.shutdown(socket.SHUT_WR)
            answer = listen_to(client)
        assert ask(asked, honest_path(asked))[0] == 200
    # Nothing at all where the rest of the request was still on its way: the end of the connection overtakes the answer.
    assert not answer.startswith(b"HTTP/") or int(answer.split()[1]) in codes, answer[:200]
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_a_body_without_end_is_cut(page: PreviewSink) -> None:
    with begin(page, "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n") as client:
        sent = 0
        with suppress(OSError):
            while sent < 64 << 20:
                client.sendall(b"x" * 65_536)
                sent += 65_536
    assert sent < 32 << 20


def test_a_broken_chunk_in_the_middle_of_an_answer_is_no_traceback(
    page: PreviewSink, caplog: pytest.LogCaptureFixture
) -> None:
    text = f"GET /stream/{_key(page)} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe"
    with begin(page, text) as client:
        assert client.recv(12) == b"HTTP/1.1 200"
        client.sendall(b"lloXXXX\r\n")
        assert is_cut(client, DEADLINE_S)
    until(lambda: page.watchers == 0, "it is let go")
    assert not caplog.records


def test_many_requests_in_one_piece_are_answered_in_turn(page: PreviewSink) -> None:
    asking = b"GET /icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = say(page, asking * 50 + asking.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert answer.count(b"HTTP/1.1 200") == 51


def test_only_the_path_that_is_served_decides_whether_a_token_is_needed() -> None:
    with serving("preview", token=TOKEN) as page:
        for target in (
            "/login/../api/status",
            "/api/status#/login",
            "/login%2F..%2Fapi/status",
            "//login",
            "@x/login",
            "/api/status?/login",
        ):
            code = say(page, f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()).split()[
                1
            ]
            assert code in (b"400", b"401"), target


def _key(page: PreviewSink) -> str:
    return page._overview.document()["sources"][0]["key"]


def test_an_accept_header_that_nobody_can_read_gets_the_plain_metrics(caplog: pytest.LogCaptureFixture) -> None:
    with serving("metrics") as metrics:
        for accept in ("application/openmetrics-text; version=x", "text/plain; version=1.x.0; escaping=\xff", ";;=,"):
            assert ask(metrics, "/metrics", Accept=accept)[0] == 200
    assert not caplog.records


def test_a_pipeline_that_breaks_its_status_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> PipelineStatus:
        raise RuntimeError("gone")

    with serving("metrics") as metrics:
        metrics.attach(broken)
        with caplog.at_level(logging.WARNING):
            assert [ask(metrics, "/healthz")[0] for _ in range(3)] == [500] * 3
    assert len(caplog.records) == 1

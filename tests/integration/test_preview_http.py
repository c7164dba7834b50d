"""The preview server over real sockets: what it serves, whom it refuses, and that watching costs only while somebody watches."""

from __future__ import annotations

import http.client
import json
import os
import pty
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgecv.errors import ConfigError, EdgeCVError, SinkError
from edgecv.events import Event
from edgecv.pipelines.preview.app import Site, build_app
from edgecv.pipelines.preview.overview import EventLog, Overview
from edgecv.pipelines.preview.painted import PaintedImages
from edgecv.pipelines.preview.sink import PreviewSink
from edgecv.pipelines.preview.streams import MOST_STREAMS, Streams
from edgecv.pipelines.sinks import open_sink
from edgecv.pipelines.web.access import Access
from edgecv.pipelines.web.address import HostNames, listen, resolve
from edgecv.pipelines.web.server import ServerThread
from edgecv.results import Result
from edgecv.status import Gauge, PipelineStatus
from tests.conftest import CHECKOUT
from tests.integration.preview_scene import DEADLINE_S, Scene, make_result, until

TOKEN = "correct-horse-battery"


@pytest.fixture
def sink() -> Iterator[PreviewSink]:
    opened = PreviewSink(0)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def idle_sink() -> Iterator[PreviewSink]:
    """For tests that only ask."""
    opened = PreviewSink(0, allowed_hosts=["cam.example"])
    yield opened
    opened.close()


@contextmanager
def running(**options: Any) -> Iterator[PreviewSink]:
    opened = PreviewSink(0, **options)
    try:
        yield opened
    finally:
        opened.close()


def request(
    sink: PreviewSink, path: str, method: str = "GET", body: str | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", sink.port, timeout=DEADLINE_S)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def status_of(sink: PreviewSink, **headers: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(request(sink, "/api/status", headers=headers)[2])
    return document


def key_of(sink: PreviewSink, name: str = "door") -> str:
    return next(source["key"] for source in status_of(sink)["sources"] if source["name"] == name)


@contextmanager
def watching(sink: PreviewSink, key: str, page: str = "me") -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", sink.port, timeout=DEADLINE_S)
    connection.request("GET", f"/stream/{key}?page={page}")
    answer = connection.getresponse()
    try:
        yield answer
    finally:
        answer.close()
        connection.close()


def next_image(stream: http.client.HTTPResponse) -> np.ndarray:
    """The next JPEG of a stream, decoded."""
    lines: list[bytes] = []
    while not lines or lines == [b"\r\n"]:  # until the head of the next one
        lines = []
        while (line := stream.readline()) != b"--edgecv-image\r\n":
            assert line, "the stream has ended"
            lines.append(line)
        assert stream.readline() == b"Content-Type: image/jpeg\r\n"
        assert stream.readline() == b"\r\n"
    jpeg = b"".join(lines)
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def preview_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("edgecv-preview", "edgecv-web"))]


# --- what it shows ---


def test_the_page_needs_nothing_from_elsewhere_and_every_part_of_it_is_served(idle_sink: PreviewSink) -> None:
    text = ""
    for path, kind in [
        ("/", "text/html"),
        ("/page.js", "text/javascript"),
        ("/page.css", "text/css"),
        ("/icon.svg", "image/svg+xml"),
        ("/login", "text/html"),
    ]:
        code, headers, body = request(idle_sink, path)
        assert (code, headers.get_content_type()) == (200, kind)
        text += body.decode()
    assert "://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "innerHTML" not in text


def test_the_status_holds_what_the_pipeline_and_the_gauges_say() -> None:
    def broken() -> float:
        raise OSError("no sensor")

    gauges = (
        Gauge(name="device_temperature_c", help="Of the processor.", read=lambda: 51.5),
        Gauge(name="sync_pending_events", help="Waiting for the cloud.", read=lambda: None),
        Gauge(name="broken", help="Cannot be read.", read=broken),
    )
    scene = Scene("door", "yard")
    scene.change("yard", "reconnecting", "timeout", "No answer within 5 s.", "Is the camera switched on?")
    with running(gauges=gauges, title="Shop") as sink:
        sink.attach(scene.status)
        sink.emit(make_result(1))
        sink.emit_event(Event(kind="source.lost", time_ns=5_000_000, source_id="yard", data={"code": "timeout"}))
        document = status_of(sink)
    door, yard = document["sources"]
    assert (document["title"], document["model"]) == ("Shop", "yolov8n/onnx-int8")
    assert (door["state"], yard["state"]) == ("live", "reconnecting")
    assert (yard["code"], yard["error"], yard["hint"]) == (
        "timeout",
        "No answer within 5 s.",
        "Is the camera switched on?",
    )
    assert door["dropped"] == {"latest": 7, "too_old": 2}
    assert door["counts"] == {"door.in": 0, "door.out": 2}
    assert (door["image_age_s"] is not None, yard["image_age_s"]) == (True, None)
    assert [gauge["value"] for gauge in document["gauges"]] == [51.5, None, None]
    assert [sink["error"] for sink in document["sinks"]] == ["", "No space left on device."]
    assert document["events"] == [
        {"kind": "source.lost", "time_ms": 5, "source": "yard", "priority": "event", "details": "code timeout"}
    ]


def test_without_a_pipeline_it_shows_what_was_emitted(sink: PreviewSink) -> None:
    sink.emit(make_result(1, "door"))
    sink.emit(make_result(2, "door"))
    (source,) = status_of(sink)["sources"]
    assert (source["name"], source["state"], source["frames"], source["size_wh"]) == ("door", "live", 2, [320, 240])


def test_events_are_bounded_and_the_newest_stands_first(sink: PreviewSink) -> None:
    for number in range(200):
        sink.emit_event(Event(kind=f"n{number}", time_ns=0, data={"text": "x" * 10_000}))
    events = status_of(sink)["events"]
    assert [event["kind"] for event in events[:2]] == ["n199", "n198"]
    assert len(events) <= 50
    assert max(len(event["details"]) for event in events) <= 200


def test_a_pipeline_that_cannot_be_asked_is_said_and_stops_no_image(sink: PreviewSink) -> None:
    asked = threading.Event()

    def hang() -> PipelineStatus:
        asked.wait(DEADLINE_S)
        raise EdgeCVError("gone")

    sink.emit(make_result(1))
    key = key_of(sink)
    sink.attach(hang)
    waiting = threading.Thread(target=lambda: request(sink, "/api/status"))
    waiting.start()
    with watching(sink, key) as stream:
        assert next_image(stream).shape == (240, 320, 3)
    asked.set()
    waiting.join(DEADLINE_S)
    code, _, body = request(sink, "/api/status")
    assert (code, json.loads(body)) == (503, {"problem": "gone"})


def test_the_stream_shows_frames_with_boxes(sink: PreviewSink) -> None:
    sink.emit(make_result(1))
    with watching(sink, key_of(sink)) as stream:
        first = next_image(stream)
        sink.emit(make_result(30))
        second = next_image(stream)
    assert np.abs(first.astype(int) - second).max() > 100
    assert np.abs(first.astype(int) - make_result(1).frame.image).max() > 100, "boxes are drawn"


def test_wide_frames_are_made_smaller_and_keep_their_shape() -> None:
    with running(width=160) as sink:
        sink.emit(make_result(1, size_wh=(640, 360)))
        with watching(sink, key_of(sink)) as stream:
            assert next_image(stream).shape == (90, 160, 3)


def test_a_single_image_can_be_had(sink: PreviewSink) -> None:
    sink.emit(make_result(1))
    code, headers, body = request(sink, f"/image/{key_of(sink)}")
    assert (code, headers.get_content_type()) == (200, "image/jpeg")
    assert cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR).shape == (240, 320, 3)
    assert request(sink, "/image/unknown")[0] == 404
    assert request(sink, "/stream/unknown")[0] == 404


# --- what it costs ---


def test_nothing_is_encoded_while_nobody_watches(sink: PreviewSink) -> None:
    for index in range(300):
        sink.emit(make_result(index))
    assert status_of(sink)["frames"] == 300
    assert sink.encoded == 0
    assert not [name for name in preview_threads() if "painter" in name]
    with watching(sink, key_of(sink)) as stream:
        next_image(stream)
        assert sink.encoded == 1
    until(lambda: sink.watchers == 0, "the watcher has left")
    for index in range(300):
        sink.emit(make_result(index))
    assert sink.encoded == 1


def test_a_frame_is_encoded_once_for_all_who_watch(sink: PreviewSink) -> None:
    sink.emit(make_result(1))
    key = key_of(sink)
    with ExitStack() as stack:
        streams = [stack.enter_context(watching(sink, key, f"page{number}")) for number in range(5)]
        for stream in streams:
            next_image(stream)
        sink.emit(make_result(2))
        for stream in streams:
            next_image(stream)
    assert sink.encoded == 2


def test_the_rate_is_limited() -> None:
    scene = Scene()
    with running(fps=2.0) as sink, scene.feeding(sink, fps=50):
        until(lambda: status_of(sink)["sources"], "frames came")
        with watching(sink, key_of(sink)) as stream:
            begin_s = time.monotonic()
            for _ in range(4):
                next_image(stream)
        assert time.monotonic() - begin_s >= 1.0


def test_watchers_are_bounded_and_a_place_becomes_free_again(sink: PreviewSink) -> None:
    sink.emit(make_result(1))
    key = key_of(sink)
    with ExitStack() as stack:
        for number in range(MOST_STREAMS):
            next_image(stack.enter_context(watching(sink, key, f"page{number}")))
        code, headers, _ = request(sink, f"/stream/{key}")
        assert (code, headers["Retry-After"]) == (503, "5")
        assert status_of(sink)["streams_full"] is True
    until(lambda: sink.watchers == 0, "all have left")
    with watching(sink, key) as stream:
        next_image(stream)


def test_the_status_says_which_streams_reach_a_page(sink: PreviewSink) -> None:
    sink.emit(make_result(1))
    key = key_of(sink)
    with watching(sink, key, "mine") as stream:
        next_image(stream)
        assert json.loads(request(sink, "/api/status?page=mine")[2])["watching"] == [key]
        assert json.loads(request(sink, "/api/status?page=other")[2])["watching"] == []
    until(lambda: not json.loads(request(sink, "/api/status?page=mine")[2])["watching"], "the stream has ended")


def test_a_watcher_who_reads_nothing_neither_stops_the_frames_nor_the_others() -> None:
    scene = Scene(size_wh=(640, 480))
    with running(fps=30.0, width=4096) as sink:
        sink.emit(make_result(0, size_wh=(640, 480)))
        key = key_of(sink)
        with socket.create_connection(("127.0.0.1", sink.port), DEADLINE_S) as stalled:
            stalled.sendall(f"GET /stream/{key} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            until(lambda: sink.watchers == 1, "the stalled one watches")
            with scene.feeding(sink), watching(sink, key) as stream:
                longest_ms = 0.0
                begin_s = time.monotonic()
                while time.monotonic() - begin_s < 1.0 or scene.index < 10:
                    start_s = time.perf_counter()
                    next_image(stream)
                    longest_ms = max(longest_ms, time.perf_counter() - start_s)
        assert longest_ms < 5.0


def connect_unread(port: int, path: str) -> socket.socket:
    """A client who asks and then reads nothing, with a small buffer."""
    stalled = socket.socket()
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stalled.settimeout(DEADLINE_S)
    stalled.connect(("127.0.0.1", port))
    stalled.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return stalled


def noise() -> Result:
    """Some 300 kB as JPEG: buffers fill soon."""
    result = make_result(0, size_wh=(640, 480))
    result.frame.image[:] = np.random.default_rng(0).integers(0, 255, result.frame.image.shape)
    return result


def test_who_takes_nothing_for_long_is_let_go_and_its_connection_is_cut() -> None:
    images, address = PaintedImages(fps=30.0, width=960), resolve("127.0.0.1", 0)
    listener = listen(address)
    server = ServerThread(listener)
    streams = Streams(images, server.abort, stalled_s=0.5)
    overview = Overview(images, EventLog(), ())
    access, hosts = Access(None), HostNames(address)
    server.start(
        build_app(
            Site(title="", cookie="c", instance="i", access=access, hosts=hosts, streams=streams, overview=overview)
        )
    )
    try:
        images.offer(noise())
        (channel,) = images.channels()
        with connect_unread(listener.getsockname()[1], f"/stream/{channel.key}") as stalled:
            until(lambda: len(streams) == 1, "it watches")

            def gone() -> bool:
                images.offer(noise())
                return len(streams) == 0

            until(gone, "the stalled watcher is let go")
            with suppress(ConnectionResetError):
                while stalled.recv(1 << 16):  # what was under way arrives, then the end
                    pass
    finally:
        streams.close()
        server.close()
        images.close()


# --- who may look ---


def log_in(sink: PreviewSink, token: str, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    form = {"Content-Type": "application/x-www-form-urlencoded", **headers}
    return request(sink, "/login", "POST", f"token={token}", form)


def test_without_the_token_nothing_is_shown() -> None:
    with running(token=TOKEN) as sink:
        sink.emit(make_result(1))
        assert request(sink, "/")[0] == 303
        for path in ("/api/status", "/stream/x", "/image/x", "/page.js", "/nothing"):
            assert request(sink, path)[0] == 401, path
        assert request(sink, "/api/status?token=" + TOKEN)[0] == 401, "never in a URL"
        assert sink.encoded == 0


def test_the_form_gives_a_session_that_is_not_the_token() -> None:
    with running(token=TOKEN) as sink:
        assert request(sink, "/login")[0] == 200
        code, headers, _ = log_in(sink, TOKEN)
        cookie = headers["Set-Cookie"]
        assert (code, headers["Location"]) == (303, "./"), "relative: a proxy may serve the page under a path"
        assert TOKEN not in str(headers)
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
        session = cookie.split(";")[0]
        assert request(sink, "/", headers={"Cookie": session})[0] == 200
        assert request(sink, "/api/status", headers={"Cookie": session})[0] == 200
        assert request(sink, "/api/status", headers={"Cookie": session[:-1] + "_"})[0] == 401
        assert str(sink.port) in session, "browsers share cookies between ports"


def test_programs_send_the_token_as_bearer() -> None:
    with running(token=TOKEN) as sink:
        assert request(sink, "/api/status", headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200
        assert request(sink, "/api/status", headers={"Authorization": "Bearer wrong"})[0] == 401
        assert request(sink, "/api/status", headers={"Authorization": f"Basic {TOKEN}"})[0] == 401


def test_wrong_tokens_soon_have_to_wait_and_the_right_one_is_never_refused() -> None:
    with running(token=TOKEN) as sink:
        session = log_in(sink, TOKEN)[1]["Set-Cookie"].split(";")[0]
        codes = [log_in(sink, f"wrong-{number}")[0] for number in range(5)]
        assert codes == [401] * 4 + [429]
        begin_s = time.monotonic()
        assert log_in(sink, "wrong-again")[0] == 429
        assert time.monotonic() - begin_s >= 0.2
        assert log_in(sink, TOKEN)[0] == 303
        assert request(sink, "/api/status", headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200
        assert request(sink, "/api/status", headers={"Authorization": "Bearer wrong"})[0] == 429
        assert request(sink, "/", headers={"Cookie": session})[0] == 200, "who is in stays in"


def test_a_huge_or_odd_login_is_a_wrong_token() -> None:
    with running(token=TOKEN) as sink:
        assert log_in(sink, "x" * 1_000_000)[0] == 401
        assert request(sink, "/login", "POST", "nonsense")[0] == 401
        assert log_in(sink, "<script>alert(1)</script>")[2].count(b"<script") == 0


def test_another_site_cannot_send_the_form() -> None:
    with running(token=TOKEN) as sink:
        assert log_in(sink, TOKEN, Origin="http://evil.example")[0] == 403
        assert log_in(sink, TOKEN, Origin=f"http://127.0.0.1:{sink.port}")[0] == 303


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "", "127.0.0.1.evil.example", "localhost@evil"])
def test_a_foreign_name_pointed_at_the_server_is_refused(idle_sink: PreviewSink, host: str) -> None:
    assert request(idle_sink, "/api/status", headers={"Host": host})[0] in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1", "[::1]:80", "cam.example"])
def test_its_own_names_are_believed(idle_sink: PreviewSink, host: str) -> None:
    assert request(idle_sink, "/api/status", headers={"Host": host})[0] == 200


def test_a_page_from_elsewhere_cannot_load_images_but_may_link_here(idle_sink: PreviewSink) -> None:
    sink = idle_sink
    sink.emit(make_result(1))
    key = key_of(sink)
    for site in ("cross-site", "same-site"):
        assert request(sink, f"/stream/{key}", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"})[0] == 403
    assert request(sink, "/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})[0] == 200
    assert sink.encoded == 0


@pytest.mark.parametrize("path", ["/", "/api/status", "/login", "/nothing", "/stream/x"])
@pytest.mark.parametrize("host", ["localhost", "evil.example"])
def test_every_answer_carries_the_headers_that_protect_it(idle_sink: PreviewSink, path: str, host: str) -> None:
    headers = request(idle_sink, path, headers={"Host": host})[1]
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Access-Control-Allow-Origin"] is None


def test_outside_loopback_a_token_must_be_given_where_nobody_could_read_a_new_one() -> None:
    for host in ("0.0.0.0", "::"):
        with pytest.raises(ConfigError, match="no token") as caught:
            PreviewSink(0, host)
        assert "token_file" in caught.value.hint


_OUTSIDE = """
import sys
from edgecv.pipelines.preview.sink import PreviewSink
sink = PreviewSink(0, "0.0.0.0")
print(sink.port, flush=True)
sys.stdin.readline()
sink.close()
"""


def test_on_a_terminal_a_new_token_is_shown_once_and_it_opens_the_page() -> None:
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", _OUTSIDE],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    try:
        os.close(theirs)
        assert child.stdin is not None and child.stdout is not None
        port = int(child.stdout.readline())
        said = os.read(ours, 4096).decode()
        token = said.split()[-1]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
        connection.request("GET", "/api/status")
        assert connection.getresponse().read() == b"A token is needed."
        connection.request("GET", "/api/status", headers={"Authorization": f"Bearer {token}"})
        assert connection.getresponse().status == 200
        connection.close()
        child.communicate("\n", timeout=DEADLINE_S)
        assert child.returncode == 0
    finally:
        child.kill()
        os.close(ours)


def test_a_token_comes_from_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    file = tmp_path / "token"
    with pytest.raises(ConfigError, match="cannot be read"):
        open_sink(f"preview:0?token_file={file}")
    file.write_text(TOKEN + "\n")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="others may read"):
        open_sink(f"preview:0?token_file={file}")
    file.chmod(0o600)
    sink = open_sink(f"preview:0?host=0.0.0.0&token_file={file}&title=Shop&fps=5&width=320&allowed_hosts=a.example,b")
    assert isinstance(sink, PreviewSink)
    try:
        assert status_of(sink, Authorization=f"Bearer {TOKEN}")["title"] == "Shop"
        assert status_of(sink, Authorization=f"Bearer {TOKEN}", Host="192.168.7.9:8080")["title"] == "Shop"
        assert request(sink, "/", headers={"Host": "evil.example"})[0] == 421
    finally:
        sink.close()


# --- beginning and end ---


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("preview:70000", "no port 70000"),
        ("preview:http", "has no port"),
        ("preview:0?fps=1000", "fps"),
        ("preview:0?width=5", "width"),
        ("preview:0?tokenfile=x", "no option 'tokenfile'"),
        ("preview:0?host=no.such.host.invalid", "no such address"),
        ("preview:0?allowed_hosts=http://x/", "no host name"),
    ],
)
def test_what_cannot_be_is_refused_at_once(uri: str, message: str) -> None:
    before = preview_threads()
    with pytest.raises(ConfigError, match=message):
        open_sink(uri)
    assert preview_threads() == before


def test_a_port_in_use_is_an_error_with_a_next_step(sink: PreviewSink) -> None:
    with pytest.raises(SinkError, match=str(sink.port)) as caught:
        PreviewSink(sink.port)
    assert "another port" in caught.value.hint.lower()


def test_closing_ends_streams_thread_and_port_even_with_a_stalled_watcher() -> None:
    before = preview_threads()
    sink = PreviewSink(0, fps=30.0)
    sink.emit(noise())
    key = key_of(sink)
    with connect_unread(sink.port, f"/stream/{key}"), watching(sink, key) as stream:
        until(lambda: sink.watchers == 2, "both watch")
        for _ in range(8):  # the one who reads gets these; the buffers of the other are full then
            sink.emit(noise())
            next_image(stream)
        begin_s = time.monotonic()
        sink.close()
        assert time.monotonic() - begin_s < 8.0
        while stream.readline():  # the stream comes to its end
            pass
    until(lambda: preview_threads() == before, "no thread is left")
    sink.close()
    with pytest.raises(SinkError, match="closed"):
        sink.emit(make_result(2))
    with pytest.raises(SinkError, match="closed"):
        sink.emit_event(Event(kind="x", time_ns=0))
    PreviewSink(sink.port).close()


def test_idle_connections_are_limited_and_the_oldest_go(sink: PreviewSink) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", sink.port), 2.0)) for _ in range(100)]
        for connection in idle[:36]:
            with suppress(ConnectionResetError):
                connection.settimeout(DEADLINE_S)
                assert connection.recv(1) == b""
        for connection in idle[36], idle[-1]:
            connection.sendall(b"GET /icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200"
        assert request(sink, "/")[0] == 200


@pytest.mark.parametrize("path", ["door", "/../x", "/a//b", "/a b", "/<x>", "//", "/."])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    if path == "//":
        PreviewSink(0, path=path).close()  # nothing but its end
        return
    with pytest.raises(ConfigError, match="cannot be served under"):
        PreviewSink(0, path=path)


def test_a_path_opens_nothing_that_needs_a_token() -> None:
    with running(token=TOKEN, path="/login") as sink:  # the name of a page that is open to all
        assert request(sink, "/login/api/status")[0] == 401
        assert request(sink, "/login/login/api/status")[0] == 401
        assert request(sink, "/login/page.css")[0] == 200
        assert request(sink, "/login/")[1]["Location"] == "login"

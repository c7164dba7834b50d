"""Cameras and videos that attack: bombs, bytes without end, redirects, playlists, secrets in URLs, texts that steer terminals."""

from __future__ import annotations

import hashlib
import io
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from edgecv.cloud_sync.sink import MqttSink
from edgecv.errors import CalibrationError, SinkError, SourceError
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.sinks import open_sink
from edgecv.pipelines.sinks.webhook.client import retry_after_s
from edgecv.pipelines.sources import open_source
from edgecv.pipelines.sources.live import LiveOptions
from edgecv.pipelines.sources.network.source import NetworkSource
from edgecv.pipelines.sources.supervised.source import SupervisedSource
from edgecv.pipelines.sources.y4m import Y4mReader
from edgecv.pipelines.uris import parse_source
from edgecv.quantize.calibration.video import video_frames
from edgecv.status import SourceHealth
from tests.cameras.hostile import (
    CHUNK,
    MULTIPART,
    Script,
    WorkersMemory,
    hostile,
    http,
    jpeg,
    jpeg_that_claims,
    part,
    rtsp,
    rtsp_ok,
    rtsp_redirect,
    vp8_that_grows,
    without_end,
)
from tests.cameras.mjpeg_server import mjpeg_server
from tests.cameras.scripted import TARGET
from tests.cameras.world import Diary, need_gstreamer, next_frame, wait_until
from tests.unit.pipelines.blob import BlobModel
from tests.unit.pipelines.made_results import made_result
from tests.unit.pipelines.receiver import write_secret

MOST_MB = 300.0  # an honest worker takes 60
BOMB_WH = (16000, 16000)


def _open(url: str) -> tuple[SupervisedSource, Diary]:
    source = SupervisedSource(url, draw=lambda: 0.0)
    source.on_change = diary = Diary()
    return source, diary


def _refusal(url: str, says: str) -> SourceError:
    """What a camera that gives no frame is refused with, read in this process."""
    with pytest.raises(SourceError, match=re.escape(says)) as caught:
        NetworkSource(url).read()
    assert caught.value.hint
    return caught.value


def _refusal_of_worker(url: str, says: str) -> SourceHealth:
    """The same for the worker of a camera, which took little memory."""
    with WorkersMemory() as memory:
        source, _ = _open(url)
        wait_until(lambda: source.health().error != "", says)
        health = source.health()
        source.close()
    assert says in health.error, health
    assert health.hint
    assert memory.peak_mb < MOST_MB
    return health


# --- bombs

PART = b"--cut\r\n\r\n\xff\xd8\xff\xdb\x00\x04ab\xff\xda\x00\x02"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (http(part(jpeg_that_claims(*BOMB_WH)), kind="multipart/x-mixed-replace"), "16000 x 16000 pixels"),
        (without_end(MULTIPART + PART), "more than 32768 KiB"),
        (without_end(b"HTTP/1.0 200 OK\r\n", b"X-Header: value\r\n" * 4096), "cannot be opened"),
        (http(vp8_that_grows(*BOMB_WH), kind="video/x-matroska"), "16000 x 16000 pixels"),
    ],
    ids=["jpeg", "part", "head", "vp8"],
)
def test_what_fills_the_memory_is_refused_before_it_does(script: Script, says: str) -> None:
    with hostile(script) as server:
        _refusal_of_worker(f"http://{server.host}/video", says)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (http(jpeg_that_claims(65500, 65500), kind="image/jpeg"), "65500 x 65500 pixels"),
        (http(part(jpeg_that_claims(8001, 8000))), "8001 x 8000 pixels"),
        (without_end(MULTIPART + b"--cut\r\nX-Header: "), "more than 256 KiB"),
        (without_end(MULTIPART, b"X-Header: value\r\n" * 4096), "more than 256 KiB"),
        (without_end(MULTIPART, b"\xff\xd8" * 4096), "without their ends"),
        (without_end(MULTIPART, part(jpeg()[:-2])), "without their ends"),
        (without_end(b"HTTP/1.0 200 OK\r\nX-Header: "), "cannot be opened"),
        (without_end(b"HTTP/1.0 ", b"2" * 65536), "cannot be opened"),
        (http(vp8_that_grows(*BOMB_WH, honest=0), kind="video/x-matroska"), "pixels"),
    ],
)
def test_the_neighbours_of_those_are_refused(script: Script, says: str) -> None:
    with hostile(script) as server:
        _refusal(f"http://{server.host}/video", says)


def test_a_camera_that_turns_hostile_fails_with_the_reason_and_others_go_on() -> None:
    turning = part(jpeg()) * 10 + part(jpeg_that_claims(*BOMB_WH)) * 3 + part(jpeg())
    with hostile(http(turning, kind="multipart/mixed")) as server, mjpeg_server() as good, WorkersMemory() as memory:
        other, _ = _open(f"http://{good.host}/video")
        first = next_frame(other).index
        source, diary = _open(f"http://{server.host}/video")
        wait_until(lambda: source.health().state == "failed", "giving up")
        assert "live" in diary.states
        assert "sends images of 16000 x 16000 pixels: more than 64 megapixels" in source.health().error
        assert "max_megapixels=" in source.health().hint
        with pytest.raises(SourceError, match="megapixels"):
            while source.read() is not None:
                pass
        assert next_frame(other).index > first
        assert other.health().state == "live"
        source.close()
        other.close()
    assert memory.peak_mb < MOST_MB


def test_the_limit_is_an_option_of_the_source() -> None:
    with mjpeg_server() as camera:
        camera.size_wh = (1024, 1024)
        says = "1024 x 1024 pixels: more than 1 megapixels"
        assert _refusal(f"http://{camera.host}/video?max_megapixels=1", says).code == "codec"
        camera.size_wh = (1000, 1000)
        source = NetworkSource(f"http://{camera.host}/video?max_megapixels=1")
        frame = source.read()
        assert frame is not None
        assert frame.image.shape == (1000, 1000, 3)
        source.close()


def test_resizing_a_narrow_image_makes_no_giant() -> None:
    with hostile(http(part(jpeg(size_wh=(2, 1000))) * 3, kind="multipart/mixed")) as server:
        _refusal(f"http://{server.host}/video?width=2000", "2000 x 1000000 pixels")


@pytest.mark.parametrize("how", ["python", "c++"])
def test_what_was_overlooked_ends_the_worker_only(how: str) -> None:
    with mjpeg_server() as camera, WorkersMemory() as memory:
        other, _ = _open(f"http://{camera.host}/video")
        first = next_frame(other).index
        source = SupervisedSource(f"scripted://?eat={how}&max_memory_mb=200", target=TARGET, draw=lambda: 0.0)
        source.on_change = diary = Diary()
        wait_until(lambda: diary.has("reconnecting", "memory"), "the end of the worker")
        told = next(health for _, health in diary.entries if health.code == "memory")
        wait_until(lambda: source.health().reconnects >= 1, "trying again")
        assert next_frame(other).index > first
        source.close()
        other.close()
    assert "needs more memory than 200 MB" in told.error
    assert "max_memory_mb=" in told.hint
    assert memory.peak_mb < MOST_MB


def test_an_answer_that_claims_gigabytes_ends_the_worker_only() -> None:
    """libav takes what the length of an RTSP answer claims."""
    claims = rtsp(
        rtsp_ok, lambda head: b"RTSP/1.0 200 OK\r\n" + head + b"Content-Length: 2000000000\r\n\r\n" + CHUNK * 50
    )
    with hostile(claims) as server, WorkersMemory() as memory:
        source, _ = _open(f"rtsp://{server.host}/1?connect_s=3")
        wait_until(lambda: source.health().error != "", "an error")
        source.close()
    assert memory.peak_mb < MOST_MB


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (b"YUV4MPEG2 W16000 H16000 F25:1\n", "16000 x 16000 pixels"),
        (b"YUV4MPEG2 W99999999999999999999 H1 F25:1\n", "pixels"),
        (b"YUV4MPEG2 W-5 H5 F25:1\n", "cannot be read"),
        (b"YUV4MPEG2 W64 H48 F" + b"9" * 200 + b":1\n", "changed their size|cannot be read"),
        (b"YUV4MPEG2 W64 H48 F25:1\n", "changed their size"),
        (b"YUV4MPEG2 " + b"W" * 10_000, "cannot be read"),
    ],
)
def test_a_pipe_that_claims_gigabytes_is_refused(header: bytes, says: str) -> None:
    payload = b"--edgecv\r\nContent-Length: 9000000000\r\n\r\n" + header + b"FRAME\n"
    reader = Y4mReader(io.BufferedReader(io.BytesIO(payload)), "gst:x", LiveOptions())
    with pytest.raises(SourceError, match=says):
        reader.read()


def test_a_pipeline_with_giant_images_fails_with_the_reason() -> None:
    need_gstreamer()
    source, _ = _open("gst:videotestsrc ! video/x-raw,width=1100,height=1000 ?max_megapixels=1")
    wait_until(lambda: source.health().error != "", "an error")
    assert "1100 x 1000 pixels: more than 1 megapixels" in source.health().error
    source.close()


# --- redirects


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_a_camera_does_not_send_us_elsewhere(status: str) -> None:
    with hostile(http(part(jpeg()))) as elsewhere:
        head = f"Location: http://{elsewhere.host}/video\r\n"
        with hostile(http(status=status, head=head)) as server:
            error = _refusal(
                f"http://me:hunter2@{server.host}/video", f"redirects to http://{elsewhere.host}: not followed"
            )
        assert elsewhere.requests == []
    assert "hunter2" not in f"{error} {error.hint}"


@pytest.mark.parametrize(
    "location",
    [
        "https://{here}/v",
        "http://localhost:{port}/v",
        "file:///etc/passwd",
        "http://{here}@{there}/",
        "//{there}/v",
        "",
        "http://[",
        "rtsp://{there}/1",
    ],
)
def test_another_scheme_or_host_is_elsewhere(location: str) -> None:
    with hostile(http()) as elsewhere, hostile(lambda _: (answer,)) as server:
        to = location.format(here=server.host, there=elsewhere.host, port=server.port)
        answer = f"HTTP/1.0 302 Found\r\nLocation: {to}\r\n\r\n".encode()
        _refusal(f"http://{server.host}/video", "not followed")
        assert elsewhere.requests == []


def test_a_redirect_within_the_camera_is_followed_and_a_circle_ends() -> None:
    def script(request: bytes) -> tuple[bytes, ...]:
        if b" /live " in request:
            return (MULTIPART, *[part(jpeg())] * 5)
        return (b"HTTP/1.0 302 Found\r\nLocation: " + (b"/circle" if b"circle" in request else b"live") + b"\r\n\r\n",)

    with hostile(script) as server:
        source = NetworkSource(f"http://{server.host}/video")
        assert source.read() is not None
        source.close()
        _refusal(f"http://{server.host}/circle", "redirects more than 5 times")


@pytest.mark.parametrize(
    "location", ["rtsp://{there}/1", "rtsp://{here}@{there}/1", "rtsp://localhost:{port}/1", "http://{there}/1"]
)
def test_rtsp_redirects_are_not_followed(location: str) -> None:
    with hostile(rtsp(rtsp_ok)) as elsewhere, hostile(rtsp(rtsp_ok, lambda head: redirect(head) + b"")) as server:
        to = location.format(here=server.host, there=elsewhere.host, port=server.port)
        redirect = rtsp_redirect(to)
        health = _refusal_of_worker(f"rtsp://me:hunter2@{server.host}/1", "not followed")
        assert elsewhere.requests == []
        assert len(server.requests) <= 6, "OPTIONS and DESCRIBE of at most three tries"
    assert "hunter2" not in f"{health}"


def test_an_rtsp_redirect_within_the_camera_is_followed() -> None:
    def script(request: bytes) -> Iterator[bytes]:
        if b"/live " in request:
            return rtsp(rtsp_ok, lambda head: b"RTSP/1.0 404 Not Found\r\n" + head + b"\r\n")(request)
        return rtsp(rtsp_ok, rtsp_redirect(f"rtsp://{server.host}/live"))(request)

    with hostile(script) as server:
        source, diary = _open(f"rtsp://{server.host}/1")
        wait_until(lambda: diary.has("connecting", "missing"), "the answer 404 of the second address")
        source.close()


# --- playlists


def _playlists(target: str) -> dict[str, str]:
    """Each kind of playlist, naming ``target``."""
    mpd = "urn:mpeg:dash:schema:mpd:2011"
    return {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{target}'\n",
        "dash": f'<?xml version="1.0"?><MPD xmlns="{mpd}" type="static" mediaPresentationDuration="PT9S"><Period>'
        f'<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="9"><BaseURL>{target}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 26\n",
    }


@pytest.mark.parametrize(
    "kind", ["video/mp4", "video/mp2t", "", "application/vnd.apple.mpegurl", "text/plain", "multipart/mixed"]
)
@pytest.mark.parametrize("name", ["hls", "concat", "dash", "sdp"])
def test_a_camera_with_a_playlist_opens_nothing(name: str, kind: str, clip: Path) -> None:
    with hostile(http(part(jpeg()))) as elsewhere:
        for target in (f"http://{elsewhere.host}/video.ts", str(clip))[: 2 if kind == "video/mp4" else 1]:
            with hostile(http(_playlists(target)[name].encode(), kind=kind)) as server:
                path = "/list.m3u8" if name == "hls" else "/video"
                _refusal(f"http://{server.host}{path}", f"http://{server.host}{path}")
        assert elsewhere.requests == []


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An honest video that a playlist names."""
    path = tmp_path_factory.mktemp("clip") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for index in range(10):
        writer.write(np.full((48, 64, 3), index * 20, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".sdp", ".mpd", ".ffconcat"])
@pytest.mark.parametrize("name", ["hls", "concat", "dash", "sdp"])
def test_a_file_that_is_a_playlist_opens_nothing(name: str, suffix: str, clip: Path) -> None:
    with hostile(http(clip.read_bytes(), kind="video/avi")) as elsewhere:
        for target in (clip.name, f"http://{elsewhere.host}/video.ts", f"tcp://{elsewhere.host}"):
            path = clip.with_name(f"{name}{suffix}")
            path.write_text(_playlists(target)[name])
            with pytest.raises(SourceError, match="is a text, no video") as caught:
                open_source(str(path))
            assert "Playlists" in caught.value.hint
            with pytest.raises(CalibrationError, match="is a text, no video"):
                video_frames(path, 2)
        assert elsewhere.requests == []


def test_a_playlist_behind_bytes_that_are_no_text_opens_nothing(clip: Path) -> None:
    path = clip.with_name("sdp-and-more.mp4")
    path.write_bytes(_playlists("x")["sdp"].encode() + b"\0" * 600)
    with pytest.raises(SourceError, match="cannot be read as a video"):
        open_source(str(path))


def test_honest_videos_are_read_as_before(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "threads;1")
    monkeypatch.chdir(clip.parent)
    (clip.parent / "concat:clip.avi").write_bytes(clip.read_bytes())
    for name in ("clip.avi", "concat:clip.avi"):
        source = open_source(f"./{name}")
        for _ in range(10):
            assert source.read() is not None
        assert source.read() is None


# --- honest cameras: what the client of our own must do as libav did


@pytest.mark.parametrize(
    "script",
    [
        http(*[part(jpeg())] * 5, kind="multipart/x-mixed-replace; boundary=cut"),
        http(*[jpeg()] * 5, kind="video/x-motion-jpeg"),
        http(*[b"--cut\r\n\r\n" + jpeg() + b"\r\n"] * 5),
        http(*[jpeg()[:-2] + b"\xff\xff\xd9"] * 5, kind="image/jpeg"),
        http(
            *[b"a\r\n" + jpeg()[:10] + b"\r\n" + f"{len(jpeg()) - 10:x}\r\n".encode() + jpeg()[10:] + b"\r\n"] * 5,
            kind="image/jpeg",
            head="Transfer-Encoding: chunked\r\n",
        ),
    ],
    ids=["multipart", "bare", "no type", "fill bytes", "HTTP/1.0 with chunks"],
)
def test_images_are_found_by_their_own_marks(script: Script) -> None:
    with hostile(script) as server:
        source = NetworkSource(f"http://{server.host}/video")
        frame = source.read()
        assert frame is not None
        assert np.abs(frame.image.astype(int) - 90).max() <= 2
        source.close()


def test_a_transport_stream_over_http_is_read() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="bgr24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with hostile(http(file.getvalue(), kind="video/mp2t")) as server:
        source = NetworkSource(f"http://{server.host}/video")
        frame = source.read()
        assert frame is not None
        assert frame.image.shape == (48, 64, 3)
        source.close()
        _refusal(f"http://{server.host}/video?max_megapixels=0.001", "64 x 48 pixels: more than 0.001 megapixels")


def _digest(request: bytes, algorithm: str, realm: str) -> bool:
    """Whether a request proves the password ``p/ss w`` of ``me`` (RFC 7616, section 3.4.1)."""
    said = dict(re.findall(r'(\w+)="?([^",\r]+)"?', request.decode().partition("Digest ")[2]))
    kind = {"MD5": "md5", "MD5-sess": "md5", "SHA-256": "sha256"}[algorithm]

    def hashed(*texts: str) -> str:
        return hashlib.new(kind, ":".join(texts).encode()).hexdigest()

    secret = hashed("me", realm, "p/ss w")
    if algorithm.endswith("-sess"):
        secret = hashed(secret, "abc", said.get("cnonce", ""))
    between = [said["nc"], said["cnonce"], "auth"] if "nc" in said else []
    return said.get("response") == hashed(secret, "abc", *between, hashed("GET", "/video?ch=1"))


@pytest.mark.parametrize("quality", ["", ', qop="auth,auth-int"'])
@pytest.mark.parametrize("algorithm", ["MD5", "MD5-sess", "SHA-256"])
def test_a_password_is_proven_by_digest(algorithm: str, quality: str) -> None:
    def script(request: bytes) -> tuple[bytes, ...]:
        if b"Digest" in request and _digest(request, algorithm, "cam, no. 1"):
            return (MULTIPART, *[part(jpeg())] * 5)
        return (
            b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=x\r\nConnection: close\r\n"
            + f'WWW-Authenticate: Digest realm="cam, no. 1", nonce="abc", algorithm={algorithm}{quality}\r\n\r\n'.encode(),
        )

    with hostile(script) as server:
        source = NetworkSource(f"http://me:p/ss w@{server.host}/video?ch=1")
        assert source.read() is not None
        source.close()
        assert not any(b"Authorization: Basic" in request for request in server.requests)


# --- secrets and texts

SECRETS = {
    name: f"S3CRET{number}"
    for number, name in enumerate(
        ("session", "sid", "code", "token", "key", "auth", "pwd", "signature", "pin", "X-Amz-Credential")
    )
}


def test_no_secret_of_a_url_is_said_anywhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    query = "&".join(f"{name}={secret}" for name, secret in SECRETS.items())
    with mjpeg_server() as camera:
        urls = [
            f"http://me:S3CRET-P@{camera.host}/video?ch=1&{query}",
            f"http://{camera.host}/gone;stok=S3CRET-S/v?{query}",
            f"http://{camera.host}/page?{query}",
        ]
        sinks = [
            f"jsonl:{tmp_path / 'out.jsonl'}",
            f"csv:{tmp_path / 'out.csv'}",
            f"record:{tmp_path / 'run.rec'}",
            f"snapshots:{tmp_path / 'shots'}?on=all&every_s=0",
            (metrics := open_sink("metrics:0")),
            (preview := open_sink("preview:0")),
            MqttSink(
                "mqtt://127.0.0.1:1", tenant="t", device="d", outbox=tmp_path / "outbox", drain_s=0.1, events="all"
            ),
        ]
        pipeline = Pipeline(urls, BlobModel(), sinks=sinks)
        told = []
        for number, result in enumerate(pipeline):
            told.append(repr(result.frame.source_id) + json.dumps(pipeline.status().as_dict()))
            if number == 20:
                told += _served(metrics, preview)
            sources = pipeline.status().sources
            if number >= 20 and all(source.health.error or source.frames for source in sources):
                pipeline.stop()
    said = "\n".join([*told, caplog.text])
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert camera.host in said
    assert "ch=1" in said
    assert {"out.jsonl", "out.csv"} <= {path.name for path in written}
    for text in (said, *(path.read_bytes().decode("latin-1") for path in written), *map(str, written)):
        assert "S3CRET" not in text


def _served(*sinks: object) -> list[str]:
    """All that the servers of a pipeline say about it."""
    said = []
    for sink in sinks:
        for path in ("/metrics", "/healthz", "/", "/api/status"):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{sink.port}{path}", timeout=20) as answer:
                    said.append(answer.read().decode())
            except urllib.error.HTTPError as error:
                said.append(error.read().decode())
    return said


def test_texts_of_a_camera_steer_no_terminal(caplog: pytest.LogCaptureFixture) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u202eevil\x9b31m"
    for script in (
        http(status=f"403 {evil}"),
        http(kind=f"text/{evil}"),
        http(status="302 Found", head=f"Location: http://{evil}/\r\n"),
        lambda _: (f"HTTP/1.0 {evil}\r\n\r\n".encode(),),
        http(status="401 No", head=f'WWW-Authenticate: Digest realm="{evil}", nonce="{evil}"\r\n'),
    ):
        with hostile(script) as server, pytest.raises(SourceError) as caught:
            NetworkSource(f"http://me:pass@{server.host}/video").read()
        said = f"{caught.value}{caught.value.hint}{caught.value.code}"
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202e]", said)
    assert "\x1b" not in caplog.text
    assert "\x1b" not in parse_source(f"images/{evil}/*.png").name


def test_the_name_of_an_image_steers_no_terminal(tmp_path: Path) -> None:
    (tmp_path / "\x1b[2Jevil.png").write_bytes(b"no image")
    with pytest.raises(SourceError):
        (pipeline := Pipeline(f"{tmp_path}/", BlobModel())).run()
    health = pipeline.status().sources[0].health
    assert health.state == "failed"
    assert "evil.png" in health.error
    assert "\x1b" not in health.error + health.hint


def test_the_last_words_of_a_worker_steer_no_terminal() -> None:
    source = SupervisedSource("scripted://?die=1", target=TARGET, draw=lambda: 0.0)
    wait_until(lambda: source.health().error != "", "its death")
    assert "\x1b" not in source.health().error
    assert "[2J" in source.health().error
    source.close()


# --- webhooks


def test_a_receiver_that_answers_without_end_is_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its answer is not read to the end, its text steers no terminal, and the token stays here."""
    write_secret(tmp_path / "token", "S3CRET")
    sent = []

    def endless(_: bytes) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        for _ in range(2000):
            sent.append(1)
            yield CHUNK

    scripts: list[tuple[Script, bool]] = [
        (endless, True),
        (lambda _: (b"HTTP/1.1 \x1b[2J\x1b]0;owned\x07 no\r\n\r\n",), False),
        (http(status="429 No", head="Retry-After: Mon, 01 Jan 99999999999999999999 00:00:00 GMT\r\n"), False),
    ]
    for script, is_taken in scripts:
        with hostile(script) as server:
            sink = open_sink(
                f"webhook:http://{server.host}/hook?token_file={tmp_path / 'token'}&events=all&drain_s=1&linger_s=0&retry_s=0.1"
            )
            sink.emit(made_result(0.0))
            if is_taken:
                wait_until(lambda sink=sink: sink.delivered == 1, "delivery")
                sink.close()
            else:
                wait_until(lambda server=server: len(server.requests) >= 2, "trying again")
                with pytest.raises(SinkError) as caught:
                    sink.close()
                assert "\x1b" not in f"{caught.value}{caught.value.hint}{caplog.text}"
                assert "S3CRET" not in f"{caught.value}{caught.value.hint}{caplog.text}"
    assert len(sent) < 200, "64 KiB are read, the rest stays where it is"


def test_a_date_that_no_calendar_has_is_no_date() -> None:
    assert retry_after_s("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", datetime.now(timezone.utc)) == 0.0

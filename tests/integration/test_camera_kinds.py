"""Network cameras that are not the usual kind: snapshots, MJPEG without its formalities, recorders that play what they stored."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgecv.errors import ConfigError, SourceError
from edgecv.media.video_writer import VideoWriter
from edgecv.pipelines.sources.network.source import NetworkSource
from edgecv.pipelines.sources.supervised.source import SupervisedSource
from edgecv.pipelines.uris import parse_source
from tests.cameras.hostile import hostile, http, jpeg
from tests.cameras.world import PATIENCE_S, need_gstreamer, rtsp_server

HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=cut\r\n\r\n"


def frame_of(source: NetworkSource) -> np.ndarray:
    frame = source.read()
    assert frame is not None
    assert np.abs(frame.image.astype(int) - 90).max() <= 2
    return frame.image


@pytest.mark.parametrize(
    ("first", "before"),
    [
        (b"", b"\r\n--cut\r\nContent-Type: image/jpeg\r\n\r\n"),
        (b"Content-Type: image/jpeg\r\n\r\n", b"\r\n--cut\r\nContent-Type: image/jpeg\r\n\r\n"),
        (b"--cut\nContent-Type: image/jpeg\n\n", b"\n--cut\nContent-Type: image/jpeg\n\n"),
        (b"--cut\r\n\r\n", b"\r\n--cut\r\n\r\n"),
        (b"--cut\r\nContent-Type: application/octet-stream\r\n\r\n", b"--cut\r\n\r\n"),
    ],
    ids=["no first boundary", "no first boundary but a head", "LF alone", "no part types", "no end of line"],
)
def test_mjpeg_is_read_by_the_images_own_marks_as_soon_as_they_end(first: bytes, before: bytes) -> None:
    """Without a length: each image comes when its last byte has, and not with the next one."""
    sent: list[float] = []

    def script(_: bytes) -> Iterator[bytes]:
        yield HEAD
        for number in range(3):
            sent.append(time.monotonic())
            yield (before if number else first) + jpeg()
            time.sleep(0.7)

    with hostile(script) as server:
        source = NetworkSource(f"http://{server.host}/video")
        for number in range(3):
            frame_of(source)
            assert time.monotonic() - sent[number] < 0.5
        source.close()


def test_an_address_of_one_image_is_asked_again() -> None:
    with hostile(http(jpeg(), kind="image/jpeg", head=f"Content-Length: {len(jpeg())}\r\n")) as server:
        source = NetworkSource(f"http://{server.host}/snapshot.jpg?ch=1&every_s=0.2")
        begun_s = time.monotonic()
        for _ in range(4):
            frame_of(source)
        took_s = time.monotonic() - begun_s
        source.close()
        assert 0.5 <= took_s < 3
        assert len(server.requests) == 4
        assert all(b"GET /snapshot.jpg?ch=1 HTTP" in request for request in server.requests)
        frame_of(source := NetworkSource(f"http://{server.host}/snapshot.jpg"))
        begun_s = time.monotonic()
        frame_of(source)
        source.close()
        assert 0.8 <= time.monotonic() - begun_s < 3, "each second, where nobody says"


def test_snapshots_of_a_supervised_camera_never_reconnect() -> None:
    with hostile(http(jpeg(), kind="image/jpeg")) as server:
        source = SupervisedSource(f"http://{server.host}/snapshot.jpg?every_s=0.1", draw=lambda: 0.0)
        for _ in range(5):
            assert source.read() is not None
        assert source.health().state == "live"
        assert source.health().reconnects == 0
        source.close()


def test_a_stream_that_ends_after_many_images_is_no_snapshot() -> None:
    with hostile(http(jpeg(), jpeg(), kind="image/jpeg")) as server:
        source = NetworkSource(f"http://{server.host}/video")
        frame_of(source)
        frame_of(source)
        with pytest.raises(SourceError, match="ended the stream"):
            source.read()
        source.close()


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("rtsp://cam/1?every_s=2", "fps="),
        ("http://cam/x.jpg?every_s=10", "deadline_s="),
        ("http://cam/x?every_s=-1", ""),
    ],
)
def test_an_interval_that_makes_no_sense_is_refused(uri: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        NetworkSource.check(parse_source(uri))
    assert hint in caught.value.hint


def test_a_recorder_s_playback_runs_to_its_end(tmp_path: Path) -> None:
    need_gstreamer(rtsp=True)
    writer = VideoWriter(tmp_path / "clip.mkv", 10)
    for number in range(30):
        writer.write(np.full((96, 128, 3), 60 + number, np.uint8), number / 10)
    writer.close()
    with rtsp_server("--file", str(tmp_path / "clip.mkv")) as server:
        source = SupervisedSource(server.url, draw=lambda: 0.0)
        frames, until_s = 0, time.monotonic() + PATIENCE_S
        while source.read() is not None and time.monotonic() < until_s:
            frames += 1
        assert 5 <= frames <= 30, "the newest at each time"
        assert source.health().state == "ended", source.health()
        source.close()

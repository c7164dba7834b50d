"""A camera that speaks MJPEG over HTTP."""

from __future__ import annotations

import pytest

from edgecv.errors import ConfigError, SourceError
from edgecv.pipelines.sources import open_source
from edgecv.pipelines.sources.supervised.source import SupervisedSource
from tests.cameras.mjpeg_server import MjpegServer, mjpeg_server
from tests.cameras.world import Diary, next_frame, wait_until


def _open(url: str) -> tuple[SupervisedSource, Diary]:
    source = open_source(url)
    assert isinstance(source, SupervisedSource)
    source.on_change = diary = Diary()
    return source, diary


def test_the_image_may_change_its_size_in_mid_stream() -> None:
    with mjpeg_server() as server:
        source, diary = _open(f"http://{server.host}/video")
        assert next_frame(source).image.shape == (48, 64, 3)
        server.size_wh = (322, 242)
        wait_until(lambda: next_frame(source).image.shape == (242, 322, 3), "the larger image")
        server.size_wh = (32, 24)
        wait_until(lambda: next_frame(source).image.shape == (24, 32, 3), "the smaller image")
        source.close()
    assert diary.states == ["live", "ended"], "no new connection was needed"


def test_a_pause_is_stale_and_its_end_is_live() -> None:
    with mjpeg_server() as server:
        source, _ = _open(f"http://{server.host}/video?deadline_s=1")
        next_frame(source)
        server.paused = True
        wait_until(lambda: source.health().state == "stale", "staleness")
        server.paused = False
        wait_until(lambda: source.health().state == "live", "coming back")
        source.close()


def test_the_end_of_a_stream_is_an_error_and_a_new_try() -> None:
    with mjpeg_server() as server:
        source, diary = _open(f"http://{server.host}/short")
        wait_until(lambda: diary.has("reconnecting", "eof"), "the end")
        wait_until(lambda: source.health().reconnects >= 1, "coming back")
        source.close()


def test_the_password_is_encoded_and_the_query_goes_to_the_camera() -> None:
    with mjpeg_server() as server:
        source, _ = _open(f"http://me:p/ss?w@rd9@{server.host}/secret?channel=2&fps=50&camera.fps=7&x=%20")
        next_frame(source)
        source.close()
        assert server.seen[-1] == "/secret?channel=2&fps=7&x=%20"
        assert source.source_id == f"http://{server.host}/secret?channel=2&fps=7&x=%20"


def _refusal(server: MjpegServer, path: str) -> SourceError:
    source, _ = _open(f"http://me:hunter2@{server.host}{path}")
    with pytest.raises(SourceError) as caught:
        source.read()
    source.close()
    assert "hunter2" not in f"{caught.value} {caught.value.hint} {source.health()}"
    return caught.value


def test_a_wrong_password_is_given_up() -> None:
    with mjpeg_server() as server:
        assert _refusal(server, "/secret").code == "auth"
        assert len(server.seen) <= 6, "three tries, each asked again with the password"


def test_a_page_is_no_camera() -> None:
    with mjpeg_server() as server:
        source, diary = _open(f"http://{server.host}/page")
        wait_until(lambda: diary.has("connecting", "codec"), "the answer")
        source.close()


def test_a_transport_is_for_rtsp_only() -> None:
    with pytest.raises(ConfigError, match="transport"):
        open_source("http://cam/video?transport=udp")
    with pytest.raises(ConfigError, match="host"):
        open_source("rtsp:///1")

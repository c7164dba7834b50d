"""A real RTSP server that is killed, frozen, restarted with another image, and refuses the password."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from edgecv.errors import ConfigError, SourceError
from edgecv.pipelines.sources import open_source
from edgecv.pipelines.sources.supervised.source import SupervisedSource
from tests.cameras.world import (
    PATIENCE_S,
    Diary,
    RtspServer,
    free_port,
    need_gstreamer,
    next_frame,
    rtsp_server,
    wait_until,
    workers,
)

NOISE_S = 2.0  # what a busy machine may add to a time that is promised


@pytest.fixture(autouse=True)
def gstreamer() -> None:
    need_gstreamer(rtsp=True)


def _open(url: str) -> tuple[SupervisedSource, Diary]:
    source = open_source(url)
    assert isinstance(source, SupervisedSource)
    source.on_change = diary = Diary()
    return source, diary


def test_a_camera_through_freezing_death_and_another_image() -> None:
    """One story, because a server takes a second to start: live, frozen, thawed, killed, back on its port but larger."""
    with rtsp_server() as server:
        source, diary = _open(f"{server.url}?deadline_s=1.5")
        try:
            frames = [next_frame(source) for _ in range(10)]
            assert {frame.image.shape for frame in frames} == {(120, 160, 3)}
            assert all(frame.image.max() > 200 for frame in frames), "the white ball is in every image"
            assert source.fps == 20.0

            server.freeze()
            took_s = wait_until(lambda: source.health().state == "stale", "staleness")
            assert took_s < 1.5 + 1.0 + NOISE_S
            server.thaw()
            took_s = wait_until(lambda: source.health().state == "live", "coming back after the freeze")
            assert took_s < 5.0 + NOISE_S
            assert next_frame(source).index > frames[-1].index

            server.kill()
            wait_until(lambda: source.health().state == "reconnecting", "noticing the death")
            server.start("--size", "320x240")
            took_s = wait_until(lambda: source.health().state == "live", "coming back after the death")
            assert took_s < 5.0 + NOISE_S
            wait_until(lambda: next_frame(source).image.shape == (240, 320, 3), "the larger image")
            assert source.health().reconnects >= 2
            assert "stale" in diary.states
        finally:
            source.close()
    assert not workers()


def test_a_second_viewer_sees_a_whole_image_before_the_next_key_frame() -> None:
    """The server sends a key frame to whoever joins, else one every five seconds: it must not be thrown away."""
    with rtsp_server() as server:
        first, _ = _open(server.url)
        next_frame(first)
        second, _ = _open(server.url)
        took_s = wait_until(lambda: second.health().state == "live", "the second viewer being live")
        image = next_frame(second).image
        first.close()
        second.close()
    assert took_s < 4.0
    assert ((image > 60) & (image < 200)).mean() < 0.1, "a white ball on black, and no grey where an image is missing"


def test_options_resize_and_thin_out() -> None:
    with rtsp_server() as server:
        source, _ = _open(f"{server.url}?width=80&fps=5")
        frames = [next_frame(source) for _ in range(4)]
        source.close()
    assert {frame.image.shape for frame in frames} == {(60, 80, 3)}
    assert frames[-1].monotonic_ns - frames[0].monotonic_ns > 0.45e9


def test_a_password_that_is_right_and_one_that_is_wrong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with rtsp_server("--user", "me", "--password", "p/ss?w@rd9") as server:
        host = server.url.removeprefix("rtsp://")
        source, _ = _open(f"rtsp://me:p/ss?w@rd9@{host}")
        next_frame(source)
        source.close()

        secret = tmp_path / "camera.secret"
        secret.write_text("p/ss?w@rd9\n")
        secret.chmod(0o600)
        source, _ = _open(f"rtsp://me@{host}?password_file={secret}")
        next_frame(source)
        source.close()

        source, diary = _open(f"rtsp://me:hunter2@{host}")
        wait_until(lambda: bool(workers()), "a worker")
        listing = subprocess.run(["ps", "axww"], capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout
        with pytest.raises(SourceError) as caught:
            source.read()
        source.close()
    assert caught.value.code == "auth"
    assert caught.value.hint
    assert diary.has("failed", "auth")
    told = f"{caught.value} {caught.value.hint} {[h for _, h in diary.entries]} {source.source_id} {caplog.text}"
    assert "hunter2" not in told
    assert "supervised.worker" in listing
    assert "hunter2" not in listing


@pytest.mark.parametrize("userinfo", ["", "me:hunter2@"])
def test_a_password_file_needs_a_user_and_no_other_password(tmp_path: Path, userinfo: str) -> None:
    secret = tmp_path / "camera.secret"
    secret.write_text("p")
    secret.chmod(0o600)
    with pytest.raises(ConfigError, match="a user and no password") as caught:
        open_source(f"rtsp://{userinfo}127.0.0.1/1?password_file={secret}")
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("url", "code", "hint"),
    [
        ("rtsp://127.0.0.1:{port}/1", "refused", "port"),
        ("rtsp://no-such-camera.invalid/1", "dns", "IP address"),
        ("http://127.0.0.1:{port}/video", "refused", "port"),
    ],
)
def test_what_cannot_be_reached_says_why_and_is_tried_on(url: str, code: str, hint: str) -> None:
    source, diary = _open(url.format(port=free_port()))
    wait_until(lambda: diary.has("connecting", code), code)
    assert hint in source.health().hint
    source.close()


def test_a_stream_that_the_camera_does_not_have_is_missing() -> None:
    with rtsp_server() as server:
        source, diary = _open(server.url.removesuffix("1") + "nine")
        wait_until(lambda: diary.has("connecting", "missing"), "the answer 404")
        source.close()


def test_one_dead_camera_does_not_stop_another() -> None:
    with rtsp_server() as server:
        absent, _ = _open(f"rtsp://127.0.0.1:{free_port()}/1")
        present, _ = _open(server.url)
        start = time.monotonic()
        for _ in range(5):
            next_frame(present)
        assert time.monotonic() - start < PATIENCE_S
        assert absent.health().state == "connecting"
        absent.close()
        present.close()


def test_a_camera_that_comes_later_is_found() -> None:
    server = RtspServer()
    source, diary = _open(server.url)
    try:
        wait_until(lambda: diary.has("connecting", "refused"), "nobody listening")
        server.start()
        took_s = wait_until(lambda: source.health().state == "live", "finding it")
        assert took_s < 5.0 + NOISE_S
    finally:
        source.close()
        server.kill()

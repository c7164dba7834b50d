"""The parts of supervision that need no process: waits, rates, and images from a pipe."""

from __future__ import annotations

import io

import numpy as np
import pytest

from edgecv.errors import SourceError
from edgecv.pipelines.sources.live import LiveOptions
from edgecv.pipelines.sources.network.address import NetworkOptions, camera_url, host_port
from edgecv.pipelines.sources.network.source import _size
from edgecv.pipelines.sources.pace import Pace
from edgecv.pipelines.sources.supervised.rate import RateLimit
from edgecv.pipelines.sources.supervised.retry import Outage, Retry
from edgecv.pipelines.sources.y4m import Y4mReader
from edgecv.pipelines.uris import parse_source


def _waits(draw: float, times_s: list[float]) -> list[float | None]:
    outage = Outage(Retry(), 0.0, lambda: draw)
    return [outage.note(now_s, final=False) for now_s in times_s]


def test_waits_double_up_to_three_seconds_in_the_first_minute() -> None:
    assert _waits(1.0, [0, 1, 2, 4, 8, 30, 59]) == [0.5, 1.0, 2.0, 3.0, 3.0, 3.0, 3.0]


def test_waits_grow_to_thirty_seconds_afterwards() -> None:
    assert _waits(1.0, [0, 1, 2, 4, 61, 70, 80, 99, 999, 9999]) == [
        0.5,
        1.0,
        2.0,
        3.0,
        6.0,
        12.0,
        24.0,
        30.0,
        30.0,
        30.0,
    ]


def test_waits_are_drawn_from_nothing_to_the_limit() -> None:
    assert _waits(0.0, [0, 1, 2]) == [0.0, 0.0, 0.0]
    assert _waits(0.5, [0, 1, 2]) == [0.25, 0.5, 1.0]


def test_many_failures_do_not_overflow() -> None:
    assert _waits(1.0, [float(day * 86400) for day in range(3000)])[-1] == 30.0


def test_three_final_errors_in_a_row_are_given_up_and_others_never() -> None:
    outage = Outage(Retry(), 0.0, lambda: 0.0)
    finals = [True, True, False, True, True, True]
    assert [outage.note(0.0, final=final) is None for final in finals] == [False] * 5 + [True]


@pytest.mark.parametrize(
    ("arriving", "wanted", "kept"), [(25, 10, 10), (30, 15, 15), (30, 29, 29), (10, 30, 10), (25, 0, 25)]
)
def test_a_rate_keeps_as_many_frames_as_it_says(arriving: int, wanted: int, kept: int) -> None:
    limit = RateLimit(wanted)
    count = sum(limit.keep(round(number * 1e9 / arriving)) for number in range(10 * arriving))
    assert count == pytest.approx(10 * kept, abs=2)


def test_a_rate_survives_jitter_and_pauses() -> None:
    limit = RateLimit(10)
    jittered = [number * 100_000_000 + (-20_000_000, 20_000_000)[number % 2] for number in range(1, 101)]
    assert sum(limit.keep(now_ns) for now_ns in jittered) >= 99
    after_pause = [60_000_000_000 + number * 20_000_000 for number in range(50)]
    assert sum(limit.keep(now_ns) for now_ns in after_pause) <= 12, "no burst makes up for a pause"


def test_a_pace_holds_back_a_file_and_never_a_camera() -> None:
    pace, now_s = Pace(30.0), 0.0
    for _ in range(300):
        now_s += pace.wait_s(now_s)
    assert now_s == pytest.approx(10 / 1.05, rel=0.01)
    pace = Pace(30.0)
    assert all(pace.wait_s(number / 30) == 0 for number in range(300))
    assert all(pace.wait_s(10 + 1.5) == 0 for _ in range(40)), "a camera may catch up after a pause"
    assert Pace(0.0).wait_s(5.0) == 0.0


def _part(payload: bytes) -> bytes:
    head = f"\r\n--edgecv\r\nContent-Type: application/x-yuv4mpeg\r\nContent-Length: {len(payload)}\r\n\r\n"
    return head.encode() + payload


def _reader(stream: bytes) -> Y4mReader:
    return Y4mReader(io.BufferedReader(io.BytesIO(stream)), "gst:x", LiveOptions())


def _header(size_wh: tuple[int, int]) -> bytes:
    return f"YUV4MPEG2 C420 W{size_wh[0]} H{size_wh[1]} Ip F25:1 A1:1\n".encode()


def _grey(size_wh: tuple[int, int], luma: int, *, padded: bool = False) -> bytes:
    """A grey image as ``y4menc`` of GStreamer 1.24 (packed) or 1.22 (padded) writes it."""
    width, height = size_wh

    def up(value: int, step: int) -> int:
        return -(-value // step) * step

    half = (width + 1) // 2
    luma_stride, chroma_stride, rows = (up(width, 4), up(half, 4), up(height, 2)) if padded else (width, half, height)
    y_plane = np.full((rows, luma_stride), 7, np.uint8)
    y_plane[:height, :width] = luma
    chroma = np.full((2 * ((height + 1) // 2), chroma_stride), 77, np.uint8)
    chroma[:, :half] = 128
    return b"FRAME\n" + y_plane.tobytes() + chroma.tobytes()


@pytest.mark.parametrize("padded", [False, True], ids=["packed", "padded"])
@pytest.mark.parametrize("size_wh", [(64, 48), (66, 48), (64, 49), (67, 49), (65, 50), (2, 2), (1, 1)])
def test_images_of_any_size_are_read_from_either_generation(size_wh: tuple[int, int], padded: bool) -> None:
    first = _grey(size_wh, 126, padded=padded)
    second = _header((32, 16)) + _grey((32, 16), 235, padded=padded)
    reader = _reader(_part(_header(size_wh) + first) + _part(first) + _part(second) + b"\r\n")
    images = [reader.read() for _ in range(4)]
    assert images[3] is None
    shapes = [image.shape for image in images if image is not None]
    assert shapes == [(size_wh[1], size_wh[0], 3)] * 2 + [(16, 32, 3)]
    for image, level in zip(images, (128, 128, 255), strict=False):
        assert image is not None
        assert np.abs(image.astype(int) - level).max() <= 1
    assert reader.fps == 25.0


def test_an_image_of_another_size_is_never_taken_for_one_of_the_old() -> None:
    stream = _part(_header((64, 48)) + _grey((64, 48), 100)) + _part(_grey((80, 60), 100))
    reader = _reader(stream)
    assert reader.read() is not None
    with pytest.raises(SourceError, match="size") as caught:
        reader.read()
    assert caught.value.code == "eof"


WHOLE = _header((64, 48)) + _grey((64, 48), 100)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (_part(WHOLE)[:-1], "eof"),
        (_part(_grey((64, 48), 100)), "codec"),
        (_part(b"YUV4MPEG2 W64\n"), "codec"),
        (_part(b"YUV4MPEG2 W64 H99999999 F1:1\nFRAME\n"), "codec"),
        (_part(b"YUV4MPEG2 " + bytes(1000)), "codec"),
        (b"<html>" * 1000, "codec"),
        (b"Content-Length: 99999999999999\r\n\r\n", "codec"),
        (b"--edgecv\r\n\r\n", "codec"),
    ],
)
def test_a_pipe_that_breaks_or_sends_something_else_is_an_error(data: bytes, code: str) -> None:
    with pytest.raises(SourceError) as caught:
        _reader(data).read()
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("uri", "host", "port", "url"),
    [
        ("rtsp://cam/1", "cam", 554, "rtsp://cam/1"),
        ("rtsp://me:pw@cam:8554/1?channel=2", "cam", 8554, "rtsp://me:pw@cam:8554/1?channel=2"),
        ("rtsp://me:p%40w@cam/1", "cam", 554, "rtsp://me:p%40w@cam/1"),
        ("rtsp://me:p@w@cam/1", "cam", 554, "rtsp://me:p%40w@cam/1"),
        ("rtsp://me:p/w?x=1@cam/1", "cam", 554, "rtsp://me:p%2Fw%3Fx=1@cam/1"),
        ("rtsp://me:50%@cam/1", "cam", 554, "rtsp://me:50%25@cam/1"),
        ("http://[fe80::1]:81/v", "fe80::1", 81, "http://[fe80::1]:81/v"),
        ("https://cam/v", "cam", 443, "https://cam/v"),
        ("http://cam:port/v", "", 0, "http://cam:port/v"),
    ],
)
def test_a_camera_is_called_by_a_well_formed_url(uri: str, host: str, port: int, url: str) -> None:
    parsed = parse_source(uri)
    assert host_port(parsed) == (host, port)
    assert camera_url(parsed, NetworkOptions()) == url


def test_one_side_alone_keeps_the_proportions() -> None:
    assert _size(LiveOptions(), 1920, 1080) == (1920, 1080)
    assert _size(LiveOptions(width=640), 1920, 1080) == (640, 360)
    assert _size(LiveOptions(height=360), 1920, 1080) == (640, 360)
    assert _size(LiveOptions(width=100, height=90), 1920, 1080) == (100, 90)

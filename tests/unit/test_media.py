"""Images and videos: what is damaged says so; what is recorded survives a kill."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv._internal.output_files import open_target
from edgecv.errors import ConfigError, SinkError, SourceError
from edgecv.media.images import list_images, read_image
from edgecv.media.video_reader import VideoReader
from edgecv.media.video_writer import VideoWriter

DEADLINE_S = 60


def noise(index: int, size_wh: tuple[int, int] = (64, 48)) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 255, (size_wh[1], size_wh[0], 3), np.uint8)


def write_avi(path: Path, frames: int = 60) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for index in range(frames):
        writer.write(noise(index))
    writer.release()
    return path


def write_mp4(path: Path, frames: int = 60, gap_s: float = 0.1) -> Path:
    writer = VideoWriter(path, 10)
    for index in range(frames):
        writer.write(noise(index), index * gap_s)
    writer.close()
    return path


def read_all(path: Path) -> tuple[int, SourceError | None]:
    reader = VideoReader(path)
    count = 0
    try:
        while reader.read() is not None:
            count += 1
    except SourceError as error:
        assert reader.read() is None, "raised once"
        return count, error
    return count, None


def test_an_image_is_read_as_bgr(tmp_path: Path) -> None:
    blue = np.zeros((20, 30, 3), np.uint8)
    blue[..., 0] = 255
    path = tmp_path / "bläu.png"
    path.write_bytes(cv2.imencode(".png", blue)[1].tobytes())
    assert (read_image(path) == blue).all()


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("missing.jpg", None, "missing"),
        ("empty.jpg", b"", "eof"),
        ("text.jpg", b"not an image", "codec"),
        ("half.jpg", cv2.imencode(".jpg", noise(0))[1].tobytes()[:1500], "codec"),
        ("header.jpg", b"\xff\xd8\xff", "codec"),
        ("half.png", cv2.imencode(".png", noise(0))[1].tobytes()[:1500], "codec"),
    ],
)
def test_a_bad_image_is_an_error_with_its_name(tmp_path: Path, name: str, content: bytes | None, code: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=name) as caught:
        read_image(path)
    assert caught.value.code == code
    assert caught.value.hint


def test_a_whole_jpeg_with_a_trailer_is_read(tmp_path: Path) -> None:
    path = tmp_path / "motion.jpg"
    path.write_bytes(cv2.imencode(".jpg", noise(0))[1].tobytes() + b"\xff\xda trailer of a phone")
    assert read_image(path).shape == (48, 64, 3)


def test_images_of_a_folder_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "c.txt"):
        (tmp_path / name).touch()
    (tmp_path / "d.jpg").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.jpg", "b.PNG"]


@pytest.mark.parametrize("make", [False, True])
def test_a_folder_that_is_missing_or_has_no_images_is_an_error(tmp_path: Path, make: bool) -> None:
    folder = tmp_path / "images"
    if make:
        folder.mkdir()
    with pytest.raises(SourceError) as caught:
        list_images(folder)
    assert caught.value.code == "missing"


@pytest.mark.parametrize(
    ("write", "name"), [(write_avi, "clip.avi"), (write_mp4, "clip.mp4")], ids=["avi", "fragmented-mp4"]
)
def test_a_whole_video_is_read_to_its_end(tmp_path: Path, write: object, name: str) -> None:
    path = write(tmp_path / name)  # type: ignore[operator]
    assert read_all(path) == (60, None)
    assert VideoReader(path).fps == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize("part", [0.3, 0.5, 0.9])
@pytest.mark.parametrize(
    ("write", "name"), [(write_avi, "clip.avi"), (write_mp4, "clip.mp4")], ids=["avi", "fragmented-mp4"]
)
def test_a_cut_video_gives_what_it_has_and_then_an_error(tmp_path: Path, write: object, name: str, part: float) -> None:
    path = write(tmp_path / name)  # type: ignore[operator]
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    count, error = read_all(path)
    assert 0.5 * part * 60 < count < 60
    if name == "clip.avi":  # its header promises 60; a fragmented file cut between two fragments is whole, only shorter
        assert error is not None
        assert error.code == "eof"
        assert f"{count} of 60" in error.message


def test_a_hole_in_the_middle_of_a_video_is_an_error(tmp_path: Path) -> None:
    path = write_avi(tmp_path / "clip.avi")
    data = bytearray(path.read_bytes())
    third = len(data) // 3
    data[third : 2 * third] = bytes(third)
    path.write_bytes(data)
    count, error = read_all(path)
    assert 10 < count < 60
    assert error is not None
    assert error.code in ("codec", "eof")


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [("missing.mp4", None, "missing"), ("empty.mp4", b"", "eof"), ("text.mp4", b"no video" * 99, "codec")],
)
def test_what_is_no_video_is_an_error(tmp_path: Path, name: str, content: bytes | None, code: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=name) as caught:
        VideoReader(path)
    assert caught.value.code == code
    assert caught.value.hint


def test_a_folder_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not a file"):
        VideoReader(tmp_path)


def test_a_video_keeps_its_times(tmp_path: Path) -> None:
    path = write_mp4(tmp_path / "slow.mp4", frames=20, gap_s=0.5)
    capture = cv2.VideoCapture(str(path))
    times_ms = []
    while capture.read()[0]:
        times_ms.append(capture.get(cv2.CAP_PROP_POS_MSEC))
    assert np.allclose(times_ms, np.arange(20) * 500, atol=2)
    assert read_all(path) == (20, None), "an uneven frame rate is no damage"


def test_images_of_other_and_odd_sizes_are_fitted(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "mixed.mp4", 10)
    for index, size_wh in enumerate([(65, 47), (65, 47), (20, 90), (200, 10)]):
        writer.write(noise(index, size_wh), index / 10)
    writer.close()
    reader = VideoReader(tmp_path / "mixed.mp4")
    shapes = []
    while (image := reader.read()) is not None:
        shapes.append(image.shape)
    assert shapes == [(48, 66, 3)] * 4


class Mpeg4Writer(VideoWriter):
    """The writer as it is where PyAV was built without x264."""

    def _codec_name(self) -> str:
        return "mpeg4"


def test_without_x264_the_video_is_mpeg4(tmp_path: Path) -> None:
    writer = Mpeg4Writer(tmp_path / "out.mp4", 29.97)
    for index in range(40):
        writer.write(noise(index), index / 29.97)
    writer.close()
    assert read_all(tmp_path / "out.mp4") == (40, None)


def test_times_that_do_not_grow_are_moved_on(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "still.mp4", 10)
    for index in range(5):
        writer.write(noise(index), 0.0)
    writer.close()
    assert read_all(tmp_path / "still.mp4")[0] == 5


def test_a_video_without_images_leaves_no_file(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "none.mp4", 10)
    assert (tmp_path / "none.mp4").exists(), "reserved"
    writer.close()
    writer.close()
    assert not (tmp_path / "none.mp4").exists()
    with pytest.raises(SinkError, match="closed"):
        writer.write(noise(0), 0)


_RECORD_AND_DIE = """
import os, signal, sys
import numpy as np
from edgecv.media.video_writer import VideoWriter
writer = VideoWriter(sys.argv[1], 10)
for index in range(45):
    writer.write(np.full((48, 64, 3), index * 5, np.uint8), index / 10)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_recording_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "killed.mp4"
    died = subprocess.run([sys.executable, "-c", _RECORD_AND_DIE, str(path)], timeout=DEADLINE_S, check=False)
    assert died.returncode == -9
    count, _ = read_all(path)
    assert count >= 30, "all but the last fragment of a second"


@pytest.mark.parametrize(
    ("name", "fps", "error"),
    [("out.avi", 10, ConfigError), ("out.mp4", 0, ConfigError), ("no/such/folder/out.mp4", 10, SinkError)],
)
def test_a_video_that_cannot_be_written_is_refused_at_once(tmp_path: Path, name: str, fps: int, error: type) -> None:
    with pytest.raises(error) as caught:
        VideoWriter(tmp_path / name, fps)
    assert caught.value.hint or fps == 0
    assert not list(tmp_path.iterdir())


def test_an_existing_target_is_kept_unless_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(ConfigError, match=r"out\.mp4"):
        VideoWriter(path, 10)
    assert path.read_bytes() == b"precious"
    with pytest.raises(ConfigError, match="not replaced"):
        VideoWriter(path, 10, overwrite=True)
    assert path.read_bytes() == b"precious", "it is no video"
    path.unlink()
    for _ in range(2):
        writer = VideoWriter(path, 10, overwrite=True)
        writer.write(noise(0), 0)
        writer.close()
    assert read_all(path)[0] == 1


def test_a_folder_is_no_target(tmp_path: Path) -> None:
    with pytest.raises(SinkError):
        open_target(tmp_path, overwrite=True)

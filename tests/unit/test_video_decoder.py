"""Videos as they come: interlaced, damaged, turned, with sound, in odd colours, and what OpenCV may read in place of PyAV."""

from __future__ import annotations

import gc
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from edgecv.errors import SourceError
from edgecv.media.opencv_video import OpenCvVideo
from edgecv.media.video_reader import VideoReader

CASES = Path(__file__).parents[3] / "shared" / "cases" / "run"
needs_cases = pytest.mark.skipif(not CASES.exists(), reason="../shared/cases is not here")


def encode(
    path: Path,
    images: list[np.ndarray],
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    times: list[int] | None = None,
    **colour: int,
) -> Path:
    """A video at 10 frames per second of BGR images, near to lossless; ``times`` in hundredths of a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options or ({"crf": "4"} if codec == "libx264" else {}))
        stream.width, stream.height, stream.pix_fmt = images[0].shape[1], images[0].shape[0], pix_fmt
        stream.codec_context.time_base = Fraction(1, 100)
        for name, value in colour.items():
            setattr(stream.codec_context, name, value)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(
                format=pix_fmt,
                dst_colorspace=colour.get("colorspace"),
                dst_color_range=colour.get("color_range"),
            )
            frame.pts, frame.time_base = times[number] if times else number * 10, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def quarters(size_wh: tuple[int, int] = (64, 48)) -> np.ndarray:
    """Upper left red, upper right green, lower left blue, lower right grey."""
    width, height = size_wh
    image = np.full((height, width, 3), 128, np.uint8)
    image[: height // 2, : width // 2] = (30, 40, 200)
    image[: height // 2, width // 2 :] = (40, 180, 60)
    image[height // 2 :, : width // 2] = (190, 50, 40)
    return image


def read_all(path: Path) -> tuple[list[np.ndarray], list[float], SourceError | None, VideoReader]:
    reader = VideoReader(path)
    images, times = [], []
    try:
        while (image := reader.read()) is not None:
            images.append(image)
            times.append(round(reader.position_s, 3))
    except SourceError as error:
        return images, times, error, reader
    return images, times, None, reader


@needs_cases
def test_interlaced_video_shows_what_was_filmed() -> None:
    images, _, error, _ = read_all(CASES / "interlaced.mp4")
    assert (len(images), error) == (12, None)
    assert all(image.max() > 150 and image.std() > 10 for image in images)


@needs_cases
def test_damage_in_the_middle_is_passed_and_counted() -> None:
    images, times, error, reader = read_all(CASES / "hole.mp4")
    assert len(images) == 145
    assert times[-1] == 5.96, "what stands behind the damage keeps its place"
    assert reader.unreadable == 5
    assert error is not None
    assert error.code == "codec"
    assert "145 of 150 announced frames: 5 could not be decoded" in error.message


@needs_cases
def test_sound_that_is_longer_than_the_image_is_no_damage() -> None:
    images, times, error, _ = read_all(CASES / "sound_longer.mkv")
    assert (len(images), error) == (150, None)
    assert times[-1] == pytest.approx(5.983)


@pytest.mark.parametrize("part", [0.3, 0.6])
def test_matroska_that_is_cut_is_told(tmp_path: Path, part: float) -> None:
    images = [np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8) for number in range(60)]
    path = encode(tmp_path / "clip.mkv", images, options={"g": "5"})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    found, _, error, _ = read_all(path)
    assert 0.5 * part * 60 < len(found) < 60
    assert error is not None
    assert error.code == "eof"


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        (".mp4", "libx264", "yuv420p"),
        (".mp4", "libx264", "yuv444p"),
        (".mp4", "libx264", "yuv422p10le"),
        (".mkv", "libx264", "yuvj420p"),
        (".ts", "mpeg2video", "yuv420p"),
        (".mov", "png", "rgba"),
        (".avi", "mjpeg", "yuvj422p"),
        (".mkv", "ffv1", "bgr0"),
        (".webm", "libvpx-vp9", "yuv420p"),
        (".h264", "libx264", "yuv420p"),
    ],
)
def test_containers_and_pixels_of_all_kinds_give_the_same_colours(
    tmp_path: Path, suffix: str, codec: str, pix_fmt: str
) -> None:
    options = {"q:v": "2"} if codec in ("mpeg2video", "mjpeg") else None
    try:
        path = encode(tmp_path / f"clip{suffix}", [quarters()] * 8, codec, pix_fmt, options)
    except (av.error.FFmpegError, ValueError) as error:
        pytest.skip(f"this PyAV cannot write it: {error}")
    images, times, error, _ = read_all(path)
    assert (len(images), error) == (8, None)
    assert times == pytest.approx([number / 10 for number in range(8)], abs=0.011 if suffix != ".h264" else 9)
    assert times == sorted(times)
    for x, y in ((16, 12), (48, 12), (16, 36), (48, 36)):
        assert np.abs(images[4][y, x].astype(int) - quarters()[y, x]).max() <= 8


@pytest.mark.parametrize(("colorspace", "color_range"), [(1, 1), (1, 2), (5, 1), (5, 2)])
def test_the_colours_are_those_that_the_file_names(tmp_path: Path, colorspace: int, color_range: int) -> None:
    """BT.709 and BT.601, limited and full range."""
    path = encode(
        tmp_path / "clip.mp4", [quarters()] * 4, "libx264", "yuv420p", colorspace=colorspace, color_range=color_range
    )
    images, _, _, _ = read_all(path)
    for x, y in ((16, 12), (48, 12), (16, 36), (48, 36)):
        assert np.abs(images[2][y, x].astype(int) - quarters()[y, x]).max() <= 8


def test_a_grey_video_and_a_gif_are_read(tmp_path: Path) -> None:
    grey = encode(tmp_path / "grey.mkv", [quarters()] * 3, "ffv1", "gray")
    assert read_all(grey)[0][0].shape == (48, 64, 3)
    gif = encode(tmp_path / "a.gif", [quarters()] * 3, "gif", "rgb8")
    images, _, error, _ = read_all(gif)
    assert (len(images), error) == (3, None)


# a, b, c, d of libavutil/display.h: where right and down of the stored image are shown
MATRICES = {
    "turned right": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "turned left": ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
    "upside down": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "mirrored": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "transposed": ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_a_phone_s_video_is_upright(tmp_path: Path, name: str) -> None:
    matrix, shown = MATRICES[name]
    path = encode(tmp_path / "clip.mp4", [quarters()] * 4)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # ISO/IEC 14496-12, 8.3.2: the matrix of a track header of version 0
    for place, value in zip((0, 4, 12, 16), matrix, strict=True):
        data[at + place : at + place + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    images, _, _, _ = read_all(path)
    wanted = shown(quarters())
    assert images[2].shape == wanted.shape
    assert images[2].flags.c_contiguous
    assert np.abs(images[2].astype(int) - wanted)[8:16, 8:16].max() <= 8
    assert np.abs(images[2].astype(int) - wanted)[-16:-8, -16:-8].max() <= 8


def test_a_frame_that_was_read_is_free_without_a_garbage_collection(tmp_path: Path) -> None:
    """Each one in waiting takes a megabyte and more, and the next collection is hundreds of frames away."""
    path = encode(tmp_path / "clip.mp4", [np.full((48, 64, 3), shade, np.uint8) for shade in range(60)])
    reader = VideoReader(path)
    gc.collect()
    gc.disable()
    try:
        read = 0
        while reader.read() is not None:
            read += 1
        kept = sum(type(one).__name__ == "VideoFrame" for one in gc.get_objects())
    finally:
        gc.enable()
        reader.close()
    assert read == 60
    assert kept <= 3, "the array of an image refers to its frame"


def test_uneven_times_are_those_of_the_file(tmp_path: Path) -> None:
    times = [0, 4, 30, 35, 120, 121, 400]
    path = encode(tmp_path / "clip.mkv", [quarters()] * 7, times=times)
    images, found, error, _ = read_all(path)
    assert (len(images), error) == (7, None)
    assert found == pytest.approx([time / 100 for time in times], abs=0.002)


def test_a_size_that_changes_in_mid_stream_is_followed(tmp_path: Path) -> None:
    parts = [
        encode(tmp_path / f"{size[0]}.ts", [quarters(size)] * 10, options={"g": "5"}) for size in ((64, 48), (128, 96))
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    images, times, _, _ = read_all(joined)
    assert {image.shape for image in images} == {(48, 64, 3), (96, 128, 3)}
    assert len(images) >= 18
    assert times == sorted(set(times)), "they always grow"


def with_sound(path: Path, *, cover: bool = False, video: bool = False) -> Path:
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        shown = container.add_stream("mjpeg" if cover else "libx264", rate=10) if cover or video else None
        if shown is not None:
            shown.width, shown.height, shown.pix_fmt = 64, 48, "yuvj420p" if cover else "yuv420p"
            frame = av.VideoFrame.from_ndarray(quarters(), format="bgr24")
            if cover:
                shown.disposition = av.stream.Disposition.attached_pic
            frame.pts = 0
            container.mux(shown.encode(frame))
            container.mux(shown.encode())
        noise = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        noise.sample_rate, noise.pts = 8000, 0
        container.mux(sound.encode(noise))
        container.mux(sound.encode())
    return path


@pytest.mark.parametrize("cover", [False, True])
def test_sound_alone_is_no_video_even_with_a_cover(tmp_path: Path, cover: bool) -> None:
    with pytest.raises(SourceError, match="no video, only sound") as caught:
        VideoReader(with_sound(tmp_path / "song.mp4", cover=cover))
    assert caught.value.code == "codec"


@pytest.fixture(params=["libx264", "mpeg2video"])
def growing(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A stream whose frames become larger than 0.01 megapixels in its middle."""
    parts = (
        encode(tmp_path / f"{size[0]}.ts", [quarters(size)] * 10, request.param, options={"g": "5"})
        for size in ((64, 48), (640, 480))
    )
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    return joined


def test_a_frame_above_the_limit_is_refused(growing: Path) -> None:
    reader = VideoReader(growing, max_megapixels=0.01)
    with pytest.raises(SourceError, match=r"above the limit of 0\.01 megapixels"):
        while reader.read() is not None:
            pass
    with pytest.raises(SourceError, match=r"above the limit of 0\.01 megapixels"):
        VideoReader(growing.with_name("640.ts"), max_megapixels=0.01).read()


_AGAIN_AND_AGAIN = """
import sys
from edgecv.errors import SourceError
from edgecv.media.video_reader import VideoReader
for _ in range(300):
    reader = VideoReader(sys.argv[1], max_megapixels=0.01)
    try:
        while reader.read() is not None:
            pass
    except SourceError:
        reader.close()
print("whole")
"""


@pytest.mark.slow
def test_refusing_large_frames_never_ends_the_process(growing: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _AGAIN_AND_AGAIN, str(growing)], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.stdout == "whole\n", done.stderr[-2000:]


@pytest.mark.parametrize("content", [b"\0" * 4096, b"\x00\x00\x00\x18ftypmp42" + b"\0" * 99, b"RIFF\x10\0\0\0AVI LIST"])
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        VideoReader(path)
    assert caught.value.code == "codec"


_WITHOUT_PYAV = """
import sys
sys.modules["av"] = None
from edgecv.media.video_reader import VideoReader
reader, count = VideoReader(sys.argv[1]), 0
while reader.read() is not None:
    count += 1
print(count, type(reader).__name__)
"""


def test_without_pyav_opencv_reads(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for level in (0, 0, 90, 120):  # it may begin black
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_PYAV, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split()[0] == "4", done.stderr


def test_opencv_s_black_images_are_refused(tmp_path: Path) -> None:
    """What its conversion gives when it fails, for every frame, is an image of zeros."""
    path = tmp_path / "black.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(12):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    with pytest.raises(SourceError, match="12 images that are black") as caught:
        OpenCvVideo(path)
    assert "edgecv[video]" in caught.value.hint

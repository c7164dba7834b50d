"""The demo's images on disk: calibration images, a labelled data set in YOLO form, a clip.

Different seeds give different images. Training draws from seeds of its own (``benchmarks/lab/demo_training/train.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecv._internal.extras import opencv
from edgecv.benchmarks.demo.scene import LABELS, LabelledFrame, clip, render_scene
from edgecv.errors import SinkError
from edgecv.results import Image

SIZE_WH = (640, 480)
_JPEG_QUALITY = 92


def write_images(folder: Path, count: int, seed: int, size_wh: tuple[int, int] = SIZE_WH) -> tuple[Path, ...]:
    """Write ``count`` images without labels, as calibration wants them; the folder is made when it is missing.

    Raises:
        SinkError: a file cannot be written.
    """
    return tuple(path for path, _ in _write_frames(folder, count, seed, size_wh))


def write_dataset(folder: Path, count: int, seed: int, size_wh: tuple[int, int] = SIZE_WH) -> Path:
    """Write ``count`` labelled images in YOLO form: ``images/``, ``labels/`` and ``data.yaml``.

    Returns:
        Path of the ``data.yaml``; its ``train`` and ``val`` are the same images.

    Raises:
        SinkError: a file cannot be written.
    """
    labels = _made(folder / "labels")
    for path, frame in _write_frames(folder / "images", count, seed, size_wh):
        _write(labels / f"{path.stem}.txt", "".join(f"{line}\n" for line in _yolo_lines(frame, size_wh)).encode())
    names = "".join(f"  {index}: {label}\n" for index, label in enumerate(LABELS))
    description = folder / "data.yaml"
    _write(description, f"path: .\ntrain: images\nval: images\nnames:\n{names}".encode())
    return description


def write_clip(path: Path, frames: int, seed: int, size_wh: tuple[int, int] = SIZE_WH, fps: float = 25.0) -> None:
    """Write ``scene.clip`` as a video (``.mp4``: MPEG-4 part 2, ``.avi``: Motion JPEG); its folder is made when it is missing.

    Raises:
        SinkError: the video cannot be written.
    """
    cv2 = opencv()
    _made(path.parent)
    codec = cv2.VideoWriter.fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    writer: Any = cv2.VideoWriter(str(path), codec, fps, size_wh)
    if not writer.isOpened():
        raise SinkError(f"{path} cannot be written as a video.", "Choose an .mp4 or .avi in a folder with space.")
    try:
        for frame in clip(frames, size_wh, seed, fps):
            writer.write(frame.image)
    finally:
        writer.release()


def labelled_frames(count: int, seed: int, size_wh: tuple[int, int] = SIZE_WH) -> Iterator[LabelledFrame]:
    """``count`` images; the first ones of a longer series are those of a shorter one."""
    for index in range(count):
        yield render_scene([seed, index], size_wh)


def _write_frames(
    folder: Path, count: int, seed: int, size_wh: tuple[int, int]
) -> Iterator[tuple[Path, LabelledFrame]]:
    _made(folder)
    for index, frame in enumerate(labelled_frames(count, seed, size_wh)):
        path = folder / f"{index:05d}.jpg"
        _write_jpeg(path, frame.image)
        yield path, frame


def _write_jpeg(path: Path, image: Image) -> None:
    cv2 = opencv()
    done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        raise SinkError(f"OpenCV could not encode {path.name} as JPEG.")
    _write(path, encoded.tobytes())


def _yolo_lines(frame: LabelledFrame, size_wh: tuple[int, int]) -> Sequence[str]:
    """``class x y w h``: centre and size in parts of the image."""
    scale = np.array(size_wh, np.float64)
    center, size = (frame.xyxy[:, :2] + frame.xyxy[:, 2:]) / 2 / scale, (frame.xyxy[:, 2:] - frame.xyxy[:, :2]) / scale
    rows = zip(frame.class_id, np.concatenate([center, size], axis=1), strict=True)
    return [f"{class_id} " + " ".join(f"{value:.6f}" for value in row) for class_id, row in rows]


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(folder, error) from error
    return folder


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: OSError) -> SinkError:
    return SinkError(f"{path} cannot be written: {error.strerror or error}.", "Choose a folder with space.")

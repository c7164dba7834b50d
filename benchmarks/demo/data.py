"""The demo's images on disk: calibration images, a labelled data set in YOLO form, a clip with its truth.

Different seeds give different images. Training draws from seeds of its own (``benchmarks/lab/demo_training/train.py``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecv._internal.extras import opencv
from edgecv.benchmarks.demo.scene import LABELS, LabelledFrame, clip, render_scene
from edgecv.errors import SinkError
from edgecv.results import FloatArray, Image, IntArray

SIZE_WH = (640, 480)
_JPEG_QUALITY = 92


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameTruth:
    """What is in one frame of a clip: ``xyxy (N, 4)`` float32 in pixels, ``class_id (N,)``."""

    index: int
    xyxy: FloatArray
    class_id: IntArray


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
        _write_text(labels / f"{path.stem}.txt", "".join(f"{line}\n" for line in _yolo_lines(frame, size_wh)))
    names = "".join(f"  {index}: {label}\n" for index, label in enumerate(LABELS))
    description = folder / "data.yaml"
    _write_text(description, f"path: .\ntrain: images\nval: images\nnames:\n{names}")
    return description


def write_clip(path: Path, frames: int, seed: int, size_wh: tuple[int, int] = SIZE_WH, fps: float = 25.0) -> Path:
    """Write a video (``.mp4``: MPEG-4 part 2, ``.avi``: Motion JPEG) and beside it its truth.

    Args:
        path: The video; its folder is made when it is missing.
        frames: How many.
        seed: As in ``scene.clip``.
        size_wh: Width and height in pixels.
        fps: Frames per second.

    Returns:
        Path of the truth, for ``read_truth``: one JSON line per frame.

    Raises:
        SinkError: the video cannot be written.
    """
    cv2 = opencv()
    _made(path.parent)
    codec = cv2.VideoWriter.fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    writer: Any = cv2.VideoWriter(str(path), codec, fps, size_wh)
    if not writer.isOpened():
        raise SinkError(f"{path} cannot be written as a video.", "Choose an .mp4 or .avi in a folder with space.")
    lines = []
    try:
        for index, frame in enumerate(clip(frames, size_wh, seed, fps)):
            writer.write(frame.image)
            lines.append(_truth_line(index, frame))
    finally:
        writer.release()
    truth = path.with_suffix(".truth.jsonl")
    _write_text(truth, "".join(lines))
    return truth


def read_truth(path: Path) -> tuple[FrameTruth, ...]:
    """The truth of a clip, frame by frame."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return tuple(
        FrameTruth(
            index=row["index"],
            xyxy=np.array(row["xyxy"], np.float32).reshape(-1, 4),
            class_id=np.array(row["class_id"], np.int64),
        )
        for row in rows
    )


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


def _truth_line(index: int, frame: LabelledFrame) -> str:
    row = {"index": index, "xyxy": frame.xyxy.tolist(), "class_id": frame.class_id.tolist()}
    return json.dumps(row) + "\n"


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(folder, error) from error
    return folder


def _write_text(path: Path, text: str) -> None:
    _write(path, text.encode())


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: OSError) -> SinkError:
    return SinkError(f"{path} cannot be written: {error.strerror or error}.", "Choose a folder with space.")

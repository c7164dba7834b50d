"""Ultralytics ``YOLO(export).predict(source=video, stream=True)``, measured in this process.

``python -m edgecv.benchmarks.lab peer_predict EXPORT VIDEO [--frames 300] [--threads 2]`` prints one JSON document.

The results are taken from the generator and counted, nothing else. The clock starts with the first result: loading, the warm-up
and the first frame do not count against Ultralytics.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from edgecv.benchmarks.lab.peers.ultralytics_environment import open_yolo
from edgecv.benchmarks.memory import read_memory
from edgecv.errors import SourceError

_OPENVINO_FOLDER = "model_openvino_model"  # by this ending Ultralytics knows the format
_STAGES = ("preprocess", "inference", "postprocess")


class Predicted(msgspec.Struct, frozen=True, kw_only=True):
    """What one run gave.

    Attributes:
        frames: Frames that were timed, all but the first.
        elapsed_s: From the first result to the last.
        fps: ``frames / elapsed_s``.
        counts: Boxes of each result, the first included: that the peer does its work.
        cpu_ms: Processor time of the process per timed frame; a busy machine disturbs it less than ``fps``.
        stage_p50_ms: Medians of what Ultralytics itself says of its stages.
        rss_bytes: Resident memory at the end.
        pss_bytes: The same, shared pages divided.
        peak_rss_bytes: The most resident memory.
    """

    frames: int
    elapsed_s: float
    fps: float
    counts: tuple[int, ...]
    cpu_ms: float
    stage_p50_ms: dict[str, float]
    rss_bytes: int
    pss_bytes: int
    peak_rss_bytes: int


def predict(model: Path, video: Path, frames: int, threads: int, torch_threads: int = 0) -> Predicted:
    """Run the export over the first ``frames`` frames of a video.

    Raises:
        SourceError: the video has fewer than two frames.
        MissingDependency: ultralytics is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        yolo = open_yolo(_named(model, Path(folder)), threads, torch_threads)
        found = yolo.predict(source=str(video), stream=True, verbose=False, device="cpu")
        boxes: list[int] = []
        stages: list[dict[str, float]] = []
        marks: list[tuple[float, float]] = []
        for result in islice(found, frames):
            marks.append((time.perf_counter(), time.process_time()))
            boxes.append(len(result.boxes))
            stages.append(result.speed)
    if len(marks) < 2:
        raise SourceError(f"{video} has {len(marks)} frames: too few to time.", "Give another video.", code="eof")
    return _outcome(marks, boxes, stages)


def _named(model: Path, folder: Path) -> Path:
    """The export under a name by which Ultralytics knows its format."""
    if not model.is_dir():
        return model
    link = folder / _OPENVINO_FOLDER
    link.symlink_to(model.resolve())
    return link


def _outcome(marks: list[tuple[float, float]], counts: list[int], stages: list[dict[str, float]]) -> Predicted:
    frames = len(marks) - 1
    elapsed_s, cpu_s = (last - first for first, last in zip(marks[0], marks[-1], strict=True))
    memory = read_memory()
    return Predicted(
        frames=frames,
        elapsed_s=round(elapsed_s, 4),
        fps=round(frames / elapsed_s, 3),
        counts=tuple(counts),
        cpu_ms=round(cpu_s / frames * 1e3, 2),
        stage_p50_ms={name: round(median(stage[name] for stage in stages), 3) for name in _STAGES},
        rss_bytes=memory.rss_bytes,
        pss_bytes=memory.pss_bytes,
        peak_rss_bytes=memory.peak_rss_bytes,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m edgecv.benchmarks.lab peer_predict", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("export", type=Path, help="folder of an OpenVINO export, an .onnx or a .tflite")
    parser.add_argument("video", type=Path)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--torch-threads", type=int, default=0, help="0: the number that Ultralytics chooses")
    given: Any = parser.parse_args()
    found = predict(given.export, given.video, given.frames, given.threads, given.torch_threads)
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")

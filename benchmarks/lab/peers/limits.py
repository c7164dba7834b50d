"""How far each stage of EdgeCV is from what this machine allows: the time it takes, and the least time it could take.

``python -m edgecv.benchmarks.lab peer_limits BUNDLE VIDEO [--threads 2] [--frames 100]`` prints one JSON document.

The limits are measured, too: of the inference by the int8 peak, of decoding by the video library alone, of the rest by the bytes
that must at least be read and written, at the rate at which this machine copies memory.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np

from edgecv._internal.extras import require
from edgecv.benchmarks.lab.peers.int8_peak import Peak, int8_peak
from edgecv.benchmarks.lab.peers.multiply_adds import multiply_adds
from edgecv.errors import SourceError
from edgecv.media.video_reader import VideoReader
from edgecv.model import Model, load
from edgecv.results import Image

_WARMUP = 5
_COPY_BYTES = 64_000_000
_COPIES = 10
_VARIANT = "openvino-int8"


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of a frame, alone on the machine.

    Attributes:
        name: Which.
        measured_ms: Median of what EdgeCV takes.
        limit_ms: The least time.
        how: Where the limit comes from.
    """

    name: str
    measured_ms: float
    limit_ms: float
    how: str

    @property
    def distance(self) -> float:
        """How many times the limit it takes."""
        return self.measured_ms / self.limit_ms if self.limit_ms else float("inf")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """All stages, and what their limits are computed from.

    Attributes:
        stages: In the order of a frame.
        multiply_adds: Of one run of the network.
        peak: The int8 peak.
        copied_bytes_per_s: Bytes read and written per second by one thread that copies memory.
    """

    stages: tuple[Stage, ...]
    multiply_adds: int
    peak: Peak
    copied_bytes_per_s: float


def measure_limits(bundle: Path, video: Path, threads: int, frames: int) -> Limits:
    """Measure the stages and their limits in this process.

    Raises:
        EdgeCVError: the bundle has no INT8 variant for OpenVINO, or the video too few frames.
    """
    rate = copied_bytes_per_s()
    decode_ms = _decode_alone_ms(video, frames)
    with load(bundle, runtime="openvino", precision="int8", threads=threads) as model:
        times = _times_ms(model, video, frames)
        sizes = _sizes(model, video)
    peak, work = int8_peak(threads), multiply_adds(bundle / _VARIANT / "model.xml")
    return Limits(
        stages=stages_of(times, decode_ms, sizes, rate, work / peak.per_s * 1e3),
        multiply_adds=work,
        peak=peak,
        copied_bytes_per_s=rate,
    )


def stages_of(
    times: dict[str, float], decode_ms: float, sizes: dict[str, int], bytes_per_s: float, inference_ms: float
) -> tuple[Stage, ...]:
    """The table: measured milliseconds by stage beside the limits.

    Args:
        times: Measured, of ``read``, ``prepare``, ``infer`` and ``decode``.
        decode_ms: Of the video library alone.
        sizes: Bytes that ``prepare`` must read and write, and that ``decode`` must read.
        bytes_per_s: At which this machine copies.
        inference_ms: Multiply-adds over the int8 peak.
    """
    by_bytes = {name: size / bytes_per_s * 1e3 for name, size in sizes.items()}
    rows = (
        ("read a frame", "read", decode_ms, "libavcodec decodes alone, without turning the picture into BGR"),
        (
            "resize",
            "prepare",
            by_bytes["prepare"],
            "the frame is read and the input written once, as fast as memory is copied",
        ),
        ("inference", "infer", inference_ms, "multiply-adds of the network over the int8 peak"),
        ("boxes", "decode", by_bytes["decode"], "the outputs are read once, as fast as memory is copied"),
    )
    return tuple(
        Stage(name=name, measured_ms=round(times[key], 3), limit_ms=round(limit, 4), how=how)
        for name, key, limit, how in rows
    )


def copied_bytes_per_s() -> float:
    """Bytes read and written per second while one thread copies an array that no cache holds; the best of ten."""
    source, target = np.ones(_COPY_BYTES, np.uint8), np.zeros(_COPY_BYTES, np.uint8)
    return 2 * _COPY_BYTES / (min(_ms(lambda: np.copyto(target, source)) for _ in range(_COPIES)) / 1e3)


def _decode_alone_ms(video: Path, frames: int) -> float:
    """Per frame, of the whole decoder: with its threads a single frame's time would say little."""
    with require("av", "video").open(str(video)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        pictures = container.decode(stream)
        next(pictures)
        start, done = time.perf_counter(), 0
        for done, _ in enumerate(pictures, start=1):
            if done == frames:
                break
    if not done:
        raise SourceError(f"{video} has too few frames.", "Give another video.", code="eof")
    return (time.perf_counter() - start) * 1e3 / done


def _times_ms(model: Model, video: Path, frames: int) -> dict[str, float]:
    """Medians of each stage, one frame after the other; of reading the mean, for the same reason."""
    reader = VideoReader(video)
    rows: list[tuple[float, ...]] = []
    while len(rows) < frames + _WARMUP:
        start = time.perf_counter()
        image = reader.read()
        if image is None:
            break
        rows.append((time.perf_counter() - start, *_model_times(model, image)))
    reader.close()
    if len(rows) <= _WARMUP:
        raise SourceError(f"{video} has {len(rows)} frames: too few.", "Give another video.", code="eof")
    read, prepare, infer, decode = zip(*rows[_WARMUP:], strict=True)
    return {
        "read": sum(read) / len(read) * 1e3,
        "prepare": median(prepare) * 1e3,
        "infer": median(infer) * 1e3,
        "decode": median(decode) * 1e3,
    }


def _model_times(model: Model, image: Image) -> tuple[float, float, float]:
    marks = [time.perf_counter()]
    feeds, transform = model.prepare(image)
    marks.append(time.perf_counter())
    outputs = model.infer(feeds)
    marks.append(time.perf_counter())
    model.decode(outputs, transform)
    marks.append(time.perf_counter())
    return marks[1] - marks[0], marks[2] - marks[1], marks[3] - marks[2]


def _sizes(model: Model, video: Path) -> dict[str, int]:
    reader = VideoReader(video)
    image = reader.read()
    reader.close()
    if image is None:
        raise SourceError(f"{video} has no frames.", "Give another video.", code="eof")
    feeds, _ = model.prepare(image)
    outputs = model.infer(feeds)
    return {"prepare": image.nbytes + _bytes(feeds), "decode": _bytes(outputs)}


def _bytes(arrays: Any) -> int:
    return sum(int(array.nbytes) for array in arrays.values())


def _ms(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m edgecv.benchmarks.lab peer_limits", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("video", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=100)
    given = parser.parse_args()
    found = measure_limits(given.bundle, given.video, given.threads, given.frames)
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")

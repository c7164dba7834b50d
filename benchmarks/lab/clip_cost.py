"""What ``clips:`` costs while nothing happens: network cameras with and without it, in alternating pairs of separate processes.

``python -m edgecv.benchmarks.lab clip_cost URL [URL ...] [--pairs 9] [--seconds 30] [--fps 5] [--json]``

One URL is enough for several cameras (``--cameras 4``). From a checkout, a camera of 1080p is ``/usr/bin/python3
tests/cameras/rtsp_server.py PORT --size 1920x1080 --fps 25 --gop 50 --kbit 4000 --pattern snow``. The model finds nothing and costs
nothing: what is left is reading, decoding and handing over. Of each run counts the processor time of the process and its workers,
after they settled, and their proportional memory.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import psutil

from edgecv.benchmarks.lab.figures import print_figures
from edgecv.benchmarks.lab.process_tree import tree_pss_bytes
from edgecv.errors import ConfigError
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.source_config import SourceConfig
from edgecv.results import Detections, Image
from edgecv.vision.geometry import ImageTransform

CPU_LIMIT = 0.03  # of a core, for each camera
MEMORY_LIMIT_MB = 40.0  # of each camera
_SETTLE_S = 12.0  # until the workers run and the rings are full


class NothingFinder:
    """A model that finds nothing, at once."""

    name = "nothing/none"
    labels = ("thing",)
    task = "detect"

    def prepare(self, image: Image) -> tuple[dict[str, Any], ImageTransform]:
        """Give a network that does not exist no inputs, and the transform that changes nothing."""
        size_wh = (image.shape[1], image.shape[0])
        return {}, ImageTransform(scale_xy=(1.0, 1.0), offset_xy=(0.0, 0.0), frame_wh=size_wh)

    def infer(self, feeds: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - the model's signature
        """Compute nothing, so that only cameras and clips take time."""
        return {}

    def decode(self, outputs: Any, transform: ImageTransform, **_: Any) -> Detections:  # noqa: ARG002 - as above
        """Say that there is nothing in the image."""
        return Detections(
            xyxy=np.zeros((0, 4), np.float32), confidence=np.zeros(0, np.float32), class_id=np.zeros(0, np.int64)
        )


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run: cores in use, and proportional memory."""

    cores: float
    pss_mb: float


def run_cameras(urls: Sequence[str], folder: str) -> None:
    """Run until the end of the process; ``folder`` is that of the clips, empty for none."""
    sources = {f"camera-{number}": url for number, url in enumerate(urls, 1)}
    sinks = [f"clips:{folder}"] if folder else []
    model: Any = NothingFinder()
    Pipeline([SourceConfig(url, name) for name, url in sources.items()], model, sinks=sinks).run()


def measured(urls: Sequence[str], seconds: float, *, clips: bool) -> Cost:
    """Start the cameras in a process of its own, and look at it for so long. Raises ``ConfigError``: it ended early."""
    with tempfile.TemporaryDirectory() as folder:
        code = f"from {__spec__.name} import run_cameras; import sys; run_cameras(sys.argv[2:], sys.argv[1])"
        command = [sys.executable, "-c", code, f"{folder}/clips" if clips else "", *urls]
        process = subprocess.Popen(command, start_new_session=True)
        try:
            time.sleep(_SETTLE_S)
            before_s, began_s = _cpu_s(process.pid), time.monotonic()
            time.sleep(seconds)
            cores = (_cpu_s(process.pid) - before_s) / (time.monotonic() - began_s)
            pss_mb = tree_pss_bytes(process.pid) / 1e6
            if process.poll() is not None:
                raise ConfigError("The cameras ended before the time was over.", "Can they be reached?")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    return Cost(cores, pss_mb)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """About 95 % for the median, by the ranks of the binomial: 2nd and 8th of nine; below nine the least and the largest."""
    ordered = sorted(values)
    cut = 1 if len(ordered) >= 9 else 0
    return ordered[cut], ordered[-1 - cut]


def _cpu_s(pid: int) -> float:
    """Processor time of a process and everything below it."""
    top = psutil.Process(pid)
    total = 0.0
    for process in (top, *top.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m edgecv.benchmarks.lab clip_cost", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("urls", nargs="+", metavar="URL")
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--fps", type=float, default=5.0, help="frames a second that the model is given of each")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    given = parser.parse_args()
    if given.cameras < 1 or given.pairs < 1 or given.seconds <= 0:
        parser.error("at least one camera, one pair and a time above 0 are needed")
    joined = [f"{url}{'&' if '?' in url else '?'}fps={given.fps:g}" for url in given.urls]
    urls = [joined[at % len(joined)] for at in range(given.cameras)]
    rows = []
    for number in range(given.pairs):
        order = (False, True) if number % 2 == 0 else (True, False)
        costs = {clips: measured(urls, given.seconds, clips=clips) for clips in order}
        rows.append((costs[False], costs[True]))
    more = [(after.cores - before.cores) / given.cameras for before, after in rows]
    memory = [(after.pss_mb - before.pss_mb) / given.cameras for before, after in rows]
    low, high = interval(more)
    figures = {
        "pairs": given.pairs,
        "cores_without": round(median(before.cores for before, _ in rows) / given.cameras, 4),
        "cores_with": round(median(after.cores for _, after in rows) / given.cameras, 4),
        "more_cores_a_camera": round(median(more), 4),
        "interval": [round(low, 4), round(high, 4)],
        "each_pair": [round(value, 4) for value in more],
        "more_mb_a_camera": round(median(memory), 1),
        "most_mb_a_camera": round(max(memory), 1),
        "cpu_met": high <= CPU_LIMIT,
        "memory_met": max(memory) <= MEMORY_LIMIT_MB,
    }
    print_figures(figures, given.json)

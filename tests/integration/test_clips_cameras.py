"""Clips of real cameras: RTSP and MJPEG servers, a camera that comes back larger, a process that is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from edgecv.media.annex_b import nal_units
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.source_config import SourceConfig
from edgecv.results import Result
from tests.cameras.mjpeg_server import mjpeg_server
from tests.cameras.world import PATIENCE_S, need_gstreamer, rtsp_server, wait_until
from tests.conftest import CHECKOUT
from tests.unit.pipelines.blob import BlobModel
from tests.unit.pipelines.test_clip_files import units

FPS, GOP_S = 20, 1.0
MASK = [[(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]]


class Run:
    """A pipeline with clips in a thread; ``happen`` lets a step say that something happened."""

    def __init__(self, source: SourceConfig, folder: Path, options: str, *, paints: bool = False) -> None:
        self._paints = paints
        self._due: list[str] = []
        self.images = 0
        self.media: list[Path] = []
        self.pipeline = Pipeline(
            source, BlobModel(), sinks=[f"clips:{folder}?free_mb=0&{options}", self], steps=[self._step]
        )
        self._thread = threading.Thread(target=self.pipeline.run)

    def __enter__(self) -> Run:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.pipeline.stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def happen(self, kind: str) -> None:
        self._due.append(kind)
        wait_until(lambda: not self._due, "a frame for the event")

    def emit(self, result: Result) -> None: ...

    def take_media(self, media: Any) -> None:
        self.media.append(media.path)

    def close(self) -> None: ...

    def _step(self, result: Result) -> Result:
        self.images += 1
        if self._paints:
            result = replace(result, frame=result.frame.with_image(np.zeros_like(result.frame.image)))
        return result.with_event(self._due.pop()) if self._due else result


def viewed(url: str, seen: list[bytes], stop: threading.Event) -> None:
    """A second viewer of the same stream, by libav alone."""
    with av.open(url, options={"rtsp_transport": "tcp"}) as container:
        for packet in container.demux(video=0):
            seen.extend(nal_units(bytes(packet)))
            if stop.is_set():
                return


def shown(path: Path) -> tuple[list[float], tuple[int, int], np.ndarray]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert not any(frame.is_corrupt for frame in frames)
    return [frame.time for frame in frames], (frames[0].width, frames[0].height), frames[-1].to_ndarray(format="bgr24")


@pytest.mark.parametrize("more", [(), pytest.param(("--b-frames",), marks=pytest.mark.slow)], ids=["plain", "b-frames"])
def test_a_clip_is_what_the_camera_sent_from_a_key_frame_before_the_pre_roll(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    need_gstreamer(rtsp=True)
    seen: list[bytes] = []
    stop = threading.Event()
    with rtsp_server("--size", "320x240", "--gop", str(round(FPS * GOP_S)), *more) as server:
        viewer = threading.Thread(target=viewed, args=(server.url, seen, stop))
        viewer.start()
        try:
            # The model gets few and small frames; the clip has all images, as large as they came.
            config = SourceConfig(f"{server.url}?width=64&fps=5", name="door")
            with Run(config, tmp_path, "pre_s=2&post_s=1") as run:
                wait_until(lambda: run.images > 0, "the first frame")
                time.sleep(4.5)  # a scene before the event: that is what is measured
                run.happen("line.crossed")
                wait_until(lambda: bool(run.media), "the clip")
        finally:
            stop.set()
            viewer.join(PATIENCE_S)
    (path,) = run.media
    document = json.loads(path.with_suffix(".json").read_text())
    times, size, _ = shown(path)
    assert (document["original"], size) == (True, (320, 240))
    offset_s = document["events"][0]["offset_s"]
    assert 2.0 <= offset_s <= 2.0 + GOP_S + 0.3, "one key frame early at most, and never late"
    assert times[-1] == pytest.approx(offset_s + 1.0, abs=0.3)
    assert np.diff(times).max() < 3 / FPS, "no image is missing"
    kept = [unit for unit in units(path) if unit[0] & 0x1F in (1, 5)]
    assert len(kept) >= 3.0 * FPS - 5
    assert set(kept) <= set(seen), "nothing was encoded again"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["mask", "step"])
def test_of_a_camera_that_is_masked_or_painted_over_no_original_is_kept(tmp_path: Path, how: str) -> None:
    need_gstreamer(rtsp=True)
    with rtsp_server("--size", "320x240", "--gop", "20") as server:
        config = SourceConfig(server.url, name="door", mask=MASK if how == "mask" else ())
        with Run(config, tmp_path, "pre_s=1&post_s=1", paints=how == "step") as run:
            _film(run)
    (path,) = run.media
    assert json.loads(path.with_suffix(".json").read_text())["original"] is False
    with av.open(str(path)) as container:
        assert max(frame.to_ndarray(format="bgr24").max() for frame in container.decode(video=0)) < 16


@pytest.mark.slow
def test_the_images_of_an_mjpeg_camera_become_a_clip_that_browsers_play(tmp_path: Path) -> None:
    with mjpeg_server() as server:
        server.size_wh = (320, 240)
        config = SourceConfig(f"http://{server.host}/video?width=64", name="yard")
        with Run(config, tmp_path, "pre_s=1&post_s=1&fps=10") as run:
            _film(run)
    (path,) = run.media
    times, size, _ = shown(path)
    assert size == (320, 240), "as large as the camera sent them"
    assert times[-1] == pytest.approx(2.0, abs=0.4)
    assert len(times) <= 2.4 * 10 + 2


@pytest.mark.slow
def test_a_camera_that_comes_back_larger_begins_another_clip(tmp_path: Path) -> None:
    need_gstreamer(rtsp=True)
    with rtsp_server("--size", "160x120", "--gop", "10") as server:
        config = SourceConfig(f"{server.url}?deadline_s=1.5", name="door")
        with Run(config, tmp_path, "pre_s=1&post_s=8") as run:
            wait_until(lambda: run.images > 30, "frames")
            run.happen("line.crossed")
            server.kill()
            server.start("--size", "320x240", "--gop", "10")
            before = run.images
            wait_until(lambda: run.images > before + 40, "frames of the larger image")
            run.happen("zone.left")
            wait_until(lambda: bool(run.media), "the clip of before")
    assert {shown(path)[1] for path in run.media} == {(160, 120), (320, 240)}


PROGRAM = """
import sys, time
from edgecv.pipelines.pipeline import Pipeline
from tests.unit.pipelines.blob import BlobModel
url, folder = sys.argv[1:]
began = time.monotonic()
def step(result):
    return result.with_event("line.crossed") if time.monotonic() - began > 3 else result
Pipeline(url, BlobModel(), steps=[step], sinks=[f"clips:{folder}?pre_s=1&post_s=60&longest_s=120&free_mb=0"]).run()
"""


@pytest.mark.slow
def test_after_kill_9_the_clip_can_be_read_and_gets_its_name_at_the_next_start(tmp_path: Path) -> None:
    need_gstreamer(rtsp=True)
    folder = tmp_path / "clips"
    with rtsp_server("--size", "320x240", "--gop", "20") as server:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, server.url, str(folder)], cwd=CHECKOUT)
        try:
            wait_until(lambda: any(part.stat().st_size > 40_000 for part in folder.glob("*.part")), "a growing clip")
        finally:
            process.kill()
            process.wait(PATIENCE_S)
        (part,) = folder.glob("*.part")
        assert len(shown(part)[0]) >= FPS
        with Run(SourceConfig(server.url, name="door"), folder, "pre_s=1") as run:
            wait_until(lambda: bool(run.media), "the clip of before the kill")
    (path,) = folder.glob("2*.mp4")
    assert path.name == part.name.removesuffix(".part")
    assert len(shown(path)[0]) >= FPS
    assert not list(folder.glob("*.part"))


def _film(run: Run) -> None:
    wait_until(lambda: run.images > 0, "the first frame")
    time.sleep(2.0)
    run.happen("line.crossed")
    wait_until(lambda: bool(run.media), "the clip")

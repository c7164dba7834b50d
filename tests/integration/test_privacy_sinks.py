"""No pixel below a mask gets into any sink, recording or preview: fuzzed polygons, real sinks, images read back.

The scene is grey and holds one secret colour, below the mask alone. What no codec touched must be exactly black there. What one
did touch must have no colour left anywhere: a single unmasked pixel of the secret would show (``MOST_COLOUR``).
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.preview.painted import channel_key
from edgecv.pipelines.preview.sink import PreviewSink
from edgecv.pipelines.recording.replay import open_replay
from edgecv.pipelines.source_config import SourceConfig
from edgecv.results import Image, Result
from tests.cameras.mjpeg_server import MjpegServer, mjpeg_server
from tests.conftest import CHECKOUT
from tests.models import write_bundle
from tests.unit.pipelines.blob import DEADLINE_S, BlobModel
from tests.unit.pipelines.masked_scenes import (
    MOST_COLOUR,
    MOST_COLOUR_OF_VIDEO,
    SECRET,
    Corners,
    below,
    fuzzed_mask,
    is_hidden_exactly,
    scene,
    secret_pixels,
)

SIZES = [(96, 72)] * 3 + [(72, 96)] * 2  # what comes: the camera is turned in the middle
LOSSLESS = "record:exact.rec?frames=png"
LOSSY = [
    "record:lossy.rec",
    "segments:mp4?draw=0",
    "segments:mkv?draw=0&format=mkv",
    "segments:drawn",
    "snapshots:shots?on=all&every_s=0&max_per_minute=6000",
    "snapshots:drawn-shots?on=all&every_s=0&max_per_minute=6000&draw=1&quality=100",
    "video:out.mp4",
]


def coloured(path: Path, image: Image) -> int:
    """How many pixels of a stored image still show the secret."""
    return secret_pixels(image, MOST_COLOUR_OF_VIDEO if path.suffix in (".mp4", ".mkv") else MOST_COLOUR)


def images_in(folder: Path) -> Iterator[tuple[Path, Image]]:
    """Every image and every frame of a video below a folder, as stored."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".png", ".jpg"):
            image = cv2.imread(str(path))
            assert image is not None, path
            yield path, image
        elif path.suffix in (".mp4", ".mkv"):
            with av.open(str(path)) as container:
                yield from ((path, frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0))


def shown(page: PreviewSink, source: str) -> Image:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=DEADLINE_S)
    try:
        connection.request("GET", f"/image/{channel_key(source)}")
        image = cv2.imdecode(np.frombuffer(connection.getresponse().read(), np.uint8), cv2.IMREAD_COLOR)
    finally:
        connection.close()
    assert image is not None
    return image


def check(folder: Path, mask: list[Corners], least: int) -> int:
    """Look at every image below a folder; how many there were."""
    count = 0
    for path, image in images_in(folder):
        count += 1
        assert coloured(path, image) == 0, (path, mask)
        if path.suffix == ".png":
            assert is_hidden_exactly(image, below(mask, image.shape[1::-1])), (path, mask)
    assert count >= least, "every sink wrote"
    return count


def test_the_measure_sees_a_single_pixel_after_every_codec(tmp_path: Path) -> None:
    secret = np.zeros((72, 96), np.bool_)
    secret[40, 50] = True
    video = tmp_path / "in"
    video.mkdir()
    for number in range(5):
        cv2.imwrite(str(video / f"{number}.png"), scene(secret))
    out = tmp_path / "out"
    out.mkdir()
    sinks = [sink.replace(":", f":{out}/", 1) for sink in LOSSY]
    Pipeline(str(video), BlobModel(), sinks=sinks, confidence=1.0).run()
    seen: dict[str, int] = {}
    for path, image in images_in(out):
        top = path.relative_to(out).parts[0]
        seen[top] = max(seen.get(top, 0), coloured(path, image))
    assert len(seen) == len(LOSSY)
    assert all(seen.values()), f"a pixel of the secret is missed: {seen}"


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 40))])
def test_files_are_masked_in_every_sink(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)
    mask = fuzzed_mask(rng)
    frames = tmp_path / "in"
    frames.mkdir()
    for number, size_wh in enumerate(SIZES):
        cv2.imwrite(str(frames / f"{number}.png"), scene(below(mask, size_wh)))
    out = tmp_path / "out"
    out.mkdir()
    sinks = [sink.replace(":", f":{out}/", 1) for sink in (LOSSLESS, *LOSSY)]
    page = PreviewSink(0, width=64, fps=30)
    pipeline = Pipeline(SourceConfig(str(frames), "door", mask=mask), BlobModel(), sinks=[*sinks, page], confidence=1.0)
    seen = 0
    for result in pipeline:
        assert is_hidden_exactly(result.frame.image, below(mask, result.frame.image.shape[1::-1]))
        assert secret_pixels(shown(page, "door")) == 0
        seen += 1
    assert seen == len(SIZES)
    check(out, mask, least=len(SIZES) * (len(LOSSY) + 1))
    again = out / "again.mp4"
    open_replay(out / "exact.rec", sinks=[f"video:{again}"]).run()
    check(again.parent, mask, least=1)


class SecretCamera(MjpegServer):
    """Its images hold the secret where the mask is, some way in: a JPEG spreads colour over 16 pixels at the camera."""

    def __init__(self) -> None:
        super().__init__()
        self.mask: list[Corners] = []
        self._made: dict[tuple[int, int], bytes] = {}

    def image(self, number: int) -> bytes:
        size_wh = self.size_wh
        if size_wh not in self._made:
            secret = cv2.erode(below(self.mask, size_wh).astype(np.uint8), np.ones((33, 33), np.uint8), borderValue=1)
            image = scene(secret.astype(np.bool_))
            self._made[size_wh] = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        return self._made[size_wh]


def test_a_camera_is_masked_before_anything_has_its_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.cameras.mjpeg_server.MjpegServer", SecretCamera)
    mask = [[(0.1, 0.1), (0.6, 0.15), (0.5, 0.8), (0.15, 0.9)], [(0.7, 0.0), (1.0, 0.0), (1.0, 0.5)]]
    with mjpeg_server() as server:
        assert isinstance(server, SecretCamera)
        server.mask, server.size_wh = mask, (256, 192)
        assert secret_pixels(cv2.imdecode(np.frombuffer(server.image(0), np.uint8), cv2.IMREAD_COLOR)) > 1000
        sinks = [sink.replace(":", f":{tmp_path}/", 1) for sink in (LOSSLESS, *LOSSY)]
        page = PreviewSink(0)
        source = SourceConfig(f"http://{server.host}/video", "door", mask=mask)
        sizes: list[tuple[int, ...]] = []

        def look(result: Result) -> None:
            assert secret_pixels(result.frame.image) == 0
            assert secret_pixels(shown(page, "door")) == 0
            sizes.append(result.frame.image.shape[:2])
            if len(sizes) == 4:
                server.size_wh = (192, 256)

        def happens(result: Result) -> Result:
            return result.with_event("seen")

        clips = f"clips:{tmp_path}/clips?free_mb=0"
        pipeline = Pipeline(
            source, BlobModel(), sinks=[*sinks, page, clips], steps=[happens], confidence=1.0, on_result=look
        )
        for _ in pipeline:
            if sizes.count((256, 192)) >= 4:
                pipeline.stop()
    found = [coloured(path, image) for path, image in images_in(tmp_path)]
    assert list((tmp_path / "clips").glob("*.mp4")), "the camera's own images are in no clip"
    assert len(found) > 20
    assert not any(found)
    assert {(256, 192), (192, 256)} <= set(sizes)


def edgecv(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgecv", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def masked_app(folder: Path, mask: list[Corners]) -> Path:
    """A folder with a model, images and an ``app.toml`` that masks them."""
    write_bundle(folder / "tiny.ecv")
    (folder / "in").mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"in/{number}.png"), scene(below(mask, (96, 72))))
    corners = json.dumps([[list(corner) for corner in one] for one in mask])
    (folder / "app.toml").write_text(
        f"""
        sinks = ["record:out/run.rec?frames=png", "segments:out/segments", "snapshots:out/shots?on=all&every_s=0"]
        [model]
        bundle = "tiny.ecv"
        confidence = 1.0
        [[sources]]
        name = "door"
        uri = "in/"
        mask = {corners}
        """
    )
    (folder / "out").mkdir()
    return folder


def test_a_run_of_an_app_with_a_mask(tmp_path: Path) -> None:
    mask = fuzzed_mask(np.random.default_rng(5), least=2)
    folder = masked_app(tmp_path, mask)
    done = edgecv(folder, "run", "--config", "app.toml", "--save", "out/saved.mp4")
    assert done.returncode == 0, done.stderr
    check(folder / "out", mask, least=12)


@pytest.mark.slow
def test_record_and_replay_and_the_same_source_by_hand(tmp_path: Path) -> None:
    mask = fuzzed_mask(np.random.default_rng(6), least=2)
    folder = masked_app(tmp_path, mask)
    for command in (
        ["record", "--config", "app.toml", "--out", "out/made.rec", "--frames", "png"],
        ["record", "--config", "app.toml", "--source", "in/", "--out", "out/by-hand.rec", "--frames", "png"],
        ["replay", "out/made.rec", "--save", "out/replayed.mp4"],
        ["run", "--config", "app.toml", "--source", "in/", "--save", "out/same.mp4"],
    ):
        done = edgecv(folder, *command)
        assert done.returncode == 0, done.stderr
    check(folder / "out", mask, least=21)


@pytest.mark.parametrize("command", [["run"], pytest.param(["record", "--out", "x.rec"], marks=pytest.mark.slow)])
def test_another_source_than_the_masked_one_is_refused(tmp_path: Path, command: list[str]) -> None:
    folder = masked_app(tmp_path, [[(0.1, 0.1), (0.5, 0.1), (0.5, 0.5)]])
    (folder / "other").mkdir()
    done = edgecv(folder, *command, "--config", "app.toml", "--source", "other/")
    assert done.returncode == 2, done.stderr
    assert "mask" in done.stderr
    assert not list((folder / "out").iterdir())


def test_the_secret_colour_is_far_from_grey() -> None:
    assert max(SECRET) - min(SECRET) > 10 * MOST_COLOUR_OF_VIDEO

"""``edgecv grid``: one picture of any source, with axes, lines and zones, and never a pixel under a mask."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.pipelines.pipeline import Pipeline
from edgecv.results import Image
from tests.cameras.world import free_port, need_gstreamer, rtsp_server
from tests.command_line import run_here
from tests.conftest import SHARED, names_in
from tests.unit.pipelines.blob import BlobModel

YELLOW = (0, 215, 255)
APP = """
[[sources]]
name = "cam"
uri = "pictures/"
mask = [[[0.0, 0.0], [0.5, 0.0], [0.5, 0.5], [0.0, 0.5]]]

[[steps]]
python = "trackers:mine"

[[steps]]
type = "line"
name = "door"
points = [[100, 300], [500, 300]]
classes = ["person"]
state = "door.json"

[[steps]]
type = "zone"
name = "yard"
points = [[0.5, 0.6], [0.9, 0.6], [0.9, 0.9], [0.5, 0.9]]
units = "relative"
sources = ["other"]

[[steps]]
type = "crowd"
name = "many"
zone = "yard"
least = 3
classes = ["person"]

[[steps]]
type = "crowd"
name = "corner"
points = [[0.1, 0.8], [0.3, 0.8], [0.3, 0.95], [0.1, 0.95]]
units = "relative"
least = 3

[[sources]]
name = "other"
uri = "other.png"
"""


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    before, mask = Path.cwd(), os.umask(0o022)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        os.umask(mask)


def grid(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    with inside(folder):
        return run_here("grid", *arguments)


def picture(path: Path, color: tuple[int, int, int], hidden: tuple[int, int, int]) -> None:
    image = np.full((576, 768, 3), color, np.uint8)
    image[:288, :384] = hidden
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), image)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    picture(tmp_path / "pictures/1.png", (90, 90, 90), (13, 240, 77))
    picture(tmp_path / "other.png", (90, 90, 90), (90, 90, 90))
    (tmp_path / "app.toml").write_text(APP)
    return tmp_path


def read(path: Path) -> Image:
    image: Image = cv2.imread(str(path))
    return image


def has_line(image: Image) -> bool:
    return (image[300, 150:480] == YELLOW).all(axis=1).mean() > 0.9


def has_area_of_rule(image: Image) -> bool:
    return (image[round(0.88 * 576), round(0.1 * 768)] == YELLOW).all()


def has_zone(image: Image) -> bool:
    return (image[round(0.75 * 576), round(0.5 * 768)] == YELLOW).all()


def test_lines_and_zones_of_the_source_are_drawn_in(app: Path) -> None:
    done = grid(app, "--config", "app.toml", "--source", "cam", "--out", "cam.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "cam.png: 768 x 576 pixels of cam\n"
    image = read(app / "cam.png")
    assert (has_line(image), has_zone(image)) == (True, False), "the zone is for the other source"
    assert has_area_of_rule(image)
    done = grid(app, "other", "--config", "app.toml", "--out", "other-grid.png")
    assert done.returncode == 0, done.stderr
    image = read(app / "other-grid.png")
    assert (has_line(image), has_zone(image)) == (True, True)
    assert "door.json" not in names_in(app), "the totals are not touched"


def test_what_a_mask_covers_is_never_in_the_picture(app: Path) -> None:
    pictures = []
    for number, hidden in enumerate(((13, 240, 77), (200, 10, 255))):
        picture(app / "pictures/1.png", (90, 90, 90), hidden)
        for source in ("cam", "pictures/"):  # by its name and by its address
            done = grid(app, source, "--config", "app.toml", "--out", f"{number}.png", "--force")
            assert done.returncode == 0, done.stderr
            pictures.append(read(app / f"{number}.png"))
    assert all((one == pictures[0]).all() for one in pictures[1:])
    done = grid(app, "pictures/1.png", "--config", "app.toml", "--out", "new.png")
    assert (done.returncode, "would have no mask" in done.stderr) == (2, True)
    assert "new.png" not in names_in(app)


def test_nothing_is_replaced_without_force(app: Path) -> None:
    (app / "grid.jpg").write_bytes(b"mine")
    done = grid(app, "other.png")
    assert (done.returncode, "grid.jpg exists" in done.stderr) == (2, True)
    assert (app / "grid.jpg").read_bytes() == b"mine"
    assert grid(app, "other.png", "--force").returncode == 0
    assert read(app / "grid.jpg").shape == (576, 768, 3)
    before = (app / "other.png").read_bytes()
    done = grid(app, "other.png", "--out", "other.png", "--force")
    assert (done.returncode, "the source itself" in done.stderr) == (2, True)
    assert (app / "other.png").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "There is no source"),
        (("--config", "app.toml"), "Name one of cam, other"),
        (("cam", "--source", "other", "--config", "app.toml"), "two sources"),
        (("other.png", "--out", "grid.gif"), "no picture"),
        (("other.png", "--out", "no/grid.jpg"), "does not exist"),
        (("nothing.mp4",), "nothing.mp4"),
    ],
)
def test_wrong_usage_is_refused(app: Path, arguments: tuple[str, ...], message: str) -> None:
    done = grid(app, *arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "grid.jpg" not in names_in(app)


def test_a_camera_that_does_not_answer_is_said_and_not_waited_for_for_ever(tmp_path: Path) -> None:
    done = grid(tmp_path, f"rtsp://127.0.0.1:{free_port()}/1", "--timeout-s", "3")
    assert done.returncode == 1
    assert "gave no frame within 3 s: " in done.stderr
    assert "next: " in done.stderr
    assert names_in(tmp_path) == []


def test_a_camera_is_waited_for_and_its_picture_is_private(tmp_path: Path) -> None:
    need_gstreamer(rtsp=True)
    with rtsp_server() as server:
        done = grid(tmp_path, server.url, "--out", "cam.png")
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / "cam.png").shape == (120, 160, 3)
    assert (tmp_path / "cam.png").stat().st_mode & 0o777 == 0o600


def test_files_and_recordings_are_sources_like_any_other(tmp_path: Path) -> None:
    clip = "synthetic://?frames=3&width=320&height=240"
    Pipeline(clip, BlobModel(), sinks=[f"record:{tmp_path / 'a.rec'}", f"video:{tmp_path / 'a.mp4'}"]).run()
    for source in ("a.rec", "a.mp4"):
        done = grid(tmp_path, source, "--force")
        assert done.returncode == 0, done.stderr
        assert read(tmp_path / "grid.jpg").shape == (240, 320, 3)


def test_a_street_keeps_its_size(tmp_path: Path) -> None:
    video = SHARED / "data/vtest.avi"
    if not video.exists():
        pytest.skip("../shared/data/vtest.avi is not on this machine")
    done = grid(video.parent, video.name, "--out", str(tmp_path / "street.png"))
    assert done.stdout.endswith("street.png: 768 x 576 pixels of vtest.avi\n"), done.stderr
    first = read(tmp_path / "street.png").astype(int)
    _, frame = cv2.VideoCapture(str(video)).read()
    assert np.median(np.abs(first - frame)) == 0, "most of the scene is as it was"

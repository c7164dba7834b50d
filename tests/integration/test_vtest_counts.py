"""Counts of people in ``vtest.avi`` against a truth that was labelled by eye before a counter ran: ``tests/fixtures/vtest``."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from edgecv.bundles.bundle import Bundle
from edgecv.pipelines.steps import Confidence, Line, Track
from edgecv.results import Result
from tests.command_line import run_here
from tests.conftest import CHECKOUT, SHARED
from tests.unit.pipelines.recorded import at_s, street

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TRUTH = CHECKOUT / "tests/fixtures/vtest"
SCENE = tomllib.loads((TRUTH / "scene.toml").read_text(encoding="utf-8"))
LABELS = ("person", *map(str, range(1, 80)))
NEAR = 10  # frames between a crossing and its event: it is told after `settle_s`
APP = """
max_frames = {frames}
sinks = ["jsonl:{out}"]
[model]
bundle = "{bundle}"
precision = "fp32"
confidence = 0.1
[[sources]]
name = "square"
uri = "{video}"
policy = "every_nth"
nth = {nth}
[[steps]]
type = "track"
confirm = {confirm}
[[steps]]
type = "confidence"
least = 0.4
[[steps]]
type = "line"
name = "path"
classes = ["person"]
points = {line}
[[steps]]
type = "zone"
name = "junction"
classes = ["person"]
points = {zone}
"""


def labelled(last: int) -> list[tuple[int, str]]:
    """Frame and direction of each crossing up to a frame."""
    with (TRUTH / "crossings.csv").open(encoding="utf-8") as file:
        rows = [(int(row["frame"]), row["direction"]) for row in csv.DictReader(file)]
    return [row for row in rows if row[0] <= last]


def errors(found: list[tuple[int, str]], truth: list[tuple[int, str]]) -> dict[str, int]:
    """By how much the count of each direction is wrong."""
    counted, wanted = (Counter(direction for _, direction in rows) for rows in (found, truth))
    return {direction: abs(counted[direction] - wanted[direction]) for direction in ("in", "out")}


def counted(nth: int, first: int) -> list[tuple[int, str]]:
    """Crossings that the steps count in every nth of the first 400 frames, on what YOLOv8n found there."""
    line = Line(name="path", points=SCENE["line"]["points"], classes=["person"])
    steps = [step.build(LABELS) for step in (Track(), Confidence(least=0.4), line)]
    found = []
    for index, detections in list(enumerate(street()))[first::nth]:
        result: Result = Result(frame=at_s(index / 10, index), labels=LABELS, detections=detections)
        for step in steps:
            result = step(result)
        found += [(index, str(event.data["direction"])) for event in result.events if event.kind == "line.crossed"]
    return found


def test_the_truth_holds_together() -> None:
    totals = Counter(direction for _, direction in labelled(SCENE["last_frame"]))
    assert (totals["in"], totals["out"]) == (SCENE["line"]["in"], SCENE["line"]["out"])
    with (TRUTH / "zone.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["frame"]) for row in rows] == list(range(0, 600, 10))
    assert max(int(row["inside"]) for row in rows) <= SCENE["zone"]["peak"]


def test_ten_frames_per_second_count_each_crossing_of_forty_seconds_at_its_time() -> None:
    found, truth = counted(1, 0), labelled(399)
    assert [direction for _, direction in found] == [direction for _, direction in truth]
    assert all(0 <= at - frame <= NEAR for (at, _), (frame, _) in zip(found, truth, strict=True))


@pytest.mark.parametrize("first", [0, 1, 2])
def test_three_frames_per_second_miss_two_crossings_each_way_at_most(first: int) -> None:
    assert max(errors(counted(3, first), labelled(399)).values()) <= 2


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("nth", "most"), [(1, 1), (3, 2)])
def test_an_app_counts_sixty_seconds(trained: Bundle, tmp_path: Path, nth: int, most: int) -> None:
    video, out = (SHARED / "data/vtest.avi").resolve(), tmp_path / "out.jsonl"
    if not video.is_file():
        pytest.skip("../shared/data/vtest.avi is not on this machine")
    places = {name: json.dumps(SCENE[name]["points"]) for name in ("line", "zone")}
    confirm = 2 if nth == 1 else 1  # as docs/steps.md says for cameras below five frames per second
    text = APP.format(frames=600 // nth, out=out, bundle=trained.path, video=video, nth=nth, confirm=confirm, **places)
    (tmp_path / "app.toml").write_text(text, encoding="utf-8")
    done = run_here("run", "--config", tmp_path / "app.toml", "--json")
    assert done.returncode == 0, done.stderr
    crossings, peak = told(out)
    assert max(errors(crossings, labelled(SCENE["last_frame"])).values()) <= most
    assert abs(peak - SCENE["zone"]["peak"]) <= most


def told(path: Path) -> tuple[list[tuple[int, str]], int]:
    """Crossings in a file of JSON lines, and the most people inside the zone."""
    crossings: list[tuple[int, str]] = []
    inside = peak = 0
    for text in path.read_text(encoding="utf-8").splitlines():
        row: dict[str, Any] = json.loads(text)
        for event in row.get("events", ()):
            if event["kind"] == "line.crossed":
                crossings.append((row["index"], event["data"]["direction"]))
            inside += {"zone.entered": 1, "zone.left": -1}.get(event["kind"], 0)
        peak = max(peak, inside)
    return crossings, peak

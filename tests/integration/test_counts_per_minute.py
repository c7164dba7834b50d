"""From app.toml to counts per minute in SQL, as docs/steps.md shows it."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pytest

from edgecv.cli.app_config import check_app, read_app_file
from edgecv.events import Event
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.steps import Line, Track
from edgecv.results import Detections, Result
from edgecv.vision.geometry import ImageTransform
from tests.conftest import CHECKOUT, SHARED
from tests.documents import Block, blocks
from tests.unit.cloud_sync.store_support import ask, event, store
from tests.unit.pipelines.blob import BlobModel
from tests.unit.pipelines.recorded import LABELS, street

DEADLINE_S = 300
FRAMES = 400  # for which detections are recorded


def shown() -> list[Block]:
    """The blocks of the section "Counts per minute" of docs/steps.md, in order."""
    text = (CHECKOUT / "docs/steps.md").read_text().splitlines()
    begin = text.index("## Counts per minute")
    end = next(at for at in range(begin + 1, len(text)) if text[at].startswith("## "))
    found = [(int(block.place.rpartition(":")[2]), block) for block in blocks(CHECKOUT / "docs/steps.md")]
    return [block for number, block in found if begin < number <= end]


def app() -> str:
    return next("\n".join(block.lines) for block in shown() if block.language == "toml")


def queries() -> dict[str, list[str]]:
    """The words of each command line that is shown, by its program."""
    lines = [line for block in shown() if block.is_shell for line in block.lines]
    return {line.split()[0]: shlex.split(line) for line in lines}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def turns(folder: Path, source: str, **counts: str) -> tuple[Counter[str], dict[str, int]]:
    """Let a square wander through a line; its crossings by direction as events tell them, and the totals of the summary."""
    told: list[Event] = []

    def slow(result: Result) -> Result:
        told.extend(result.events)
        return result

    door = Line(name="door", points=[[160, 0], [160, 240]], anchor="center", settle_s=0)
    options = "&".join(f"{name}={value}" for name, value in counts.items())
    pipeline = Pipeline(
        {"cam": source},
        BlobModel(),
        steps=[Track(confirm=1), door, slow],
        sinks=[f"counts:{folder / 'counts.csv'}?{options}"],
    )
    summary = pipeline.run()
    return Counter(f"door.{one.data['direction']}" for one in told), dict(summary.counts["cam"])


def summed(rows: list[dict[str, str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for row in rows:
        total[row["counter"]] += int(row["count"])
    return total


def test_the_rows_of_a_run_add_up_to_its_totals(tmp_path: Path) -> None:
    clip = "synthetic://?frames=200&width=320&height=240&fps=10"
    Pipeline(clip, BlobModel(), sinks=[f"video:{tmp_path / 'clip.mp4'}"]).run()
    told, totals = turns(tmp_path, str(tmp_path / "clip.mp4"), every_s="5")
    assert sum(told.values()) >= 3
    rows = read(tmp_path / "counts.csv")
    assert summed(rows) == told == Counter(totals)
    places = [row["position_s"] for row in rows if row["counter"] == "door.in"]
    assert places == [f"{start:.3f}" for start in range(0, 20, 5)], "an interval where nothing happened, too"
    assert {row["frames"] for row in rows} == {"50"}


def test_a_live_source_loses_no_count_and_its_intervals_lie_on_whole_seconds(tmp_path: Path) -> None:
    told, totals = turns(tmp_path, "synthetic://?frames=100&width=320&height=240&fps=40&live=1", every_s="1")
    rows = read(tmp_path / "counts.csv")
    assert summed(rows) == told == Counter({name: count for name, count in totals.items() if count})
    starts = sorted({row["start"] for row in rows})
    assert 2 <= len(starts) <= 6
    assert all(start.endswith("Z") and len(start) == len("2026-11-28T05:17:00Z") for start in starts)
    assert sum(int(row["frames"]) for row in rows if row["counter"] == "door.in") <= 100


def test_the_application_of_the_documentation_is_short() -> None:
    assert len([line for line in app().splitlines() if line]) <= 25


def test_the_lines_of_the_documentation_give_counts_per_minute(tmp_path: Path) -> None:
    (example,) = [block for block in shown() if block.language == "csv"]
    (tmp_path / "counts.csv").write_text("\r\n".join([*example.lines, ""]))
    expected = [
        ("2026-11-28T05:17:00Z", "entrance.in", 3),
        ("2026-11-28T05:17:00Z", "entrance.out", 1),
        ("2026-11-28T05:18:00Z", "entrance.in", 0),
    ]
    if shutil.which("sqlite3"):
        done = subprocess.run(
            queries()["sqlite3"], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S, check=True
        )
        assert done.stdout.splitlines() == ["|".join(map(str, row)) for row in expected]
    sql = queries()["duckdb"][2].replace("'counts.csv'", f"'{tmp_path / 'counts.csv'}'")
    rows = duckdb.sql(sql).fetchall()
    assert [(f"{start:%Y-%m-%dT%H:%M:%SZ}", counter, n) for start, counter, n in rows] == expected


def test_the_store_gives_counts_per_minute_by_the_query_of_the_documentation(tmp_path: Path) -> None:
    crossed = {"source_id": "door", "counter": "gate", "direction": "in", "total": 3}
    entered = {"source_id": "door", "counter": "yard", "how": "crossed", "total": 1, "inside": 1}
    store(
        tmp_path,
        [
            event(1, crossed, kind="edgecv.event.line.crossed"),
            event(2, {**crossed, "total": 4}, kind="edgecv.event.line.crossed"),
            event(3, entered, kind="edgecv.event.zone.entered"),
        ],
    )
    rows = ask(tmp_path, queries()["edgecv"][2])
    assert [(row["camera"], row["counter"], row["direction"], row["n"]) for row in rows] == [
        ("door", "gate", "in", 2),
        ("door", "yard", "entered", 1),
    ]
    assert all(str(row["minute"])[17:19] == "00" for row in rows)


class Street(BlobModel):
    """What YOLOv8n saw in the frames of ``vtest.avi``, one after the other."""

    labels = LABELS

    def __init__(self) -> None:
        super().__init__()
        self._found, self._prepared = street(), 0

    def prepare(self, image: npt.NDArray[np.uint8]) -> tuple[dict[str, npt.NDArray[Any]], ImageTransform]:
        self._prepared += 1
        whole = ImageTransform(scale_xy=(1.0, 1.0), offset_xy=(0.0, 0.0), frame_wh=(image.shape[1], image.shape[0]))
        return {"mask": np.array([self._prepared - 1])}, whole

    def infer(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        return dict(feeds)

    def decode(self, outputs: Mapping[str, npt.NDArray[Any]], transform: ImageTransform, **_: object) -> Detections:
        return self._found[int(outputs["mask"][0])]


def test_people_of_a_street_are_counted_per_interval(tmp_path: Path) -> None:
    """The application of the documentation, with a line and a video of this machine in place of the camera."""
    video = SHARED / "data/vtest.avi"
    if not video.exists():
        pytest.skip("../shared/data/vtest.avi is not on this machine")
    text = app().replace("counts.csv?every_s=60", f"{tmp_path / 'counts.csv'}?every_s=10")
    text = text.replace("rtsp://viewer@10.0.0.7/1?password_file=door.secret", str(video))
    text = text.replace("[[100, 300], [500, 300]]", "[[345, 340], [345, 170]]")
    (tmp_path / "app.toml").write_text(text.replace("entrance.json", str(tmp_path / "entrance.json")))
    described = check_app(read_app_file(tmp_path / "app.toml"), "app.toml")
    pipeline = Pipeline(
        described.file.sources, Street(), steps=described.steps, sinks=described.file.sinks, max_frames=FRAMES
    )
    totals = pipeline.run().counts["door"]
    assert totals["entrance.in"] + totals["entrance.out"] >= 5
    rows = read(tmp_path / "counts.csv")
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE counts (position_s REAL, counter TEXT, count INT)")
        cells = [(row["position_s"], row["counter"], row["count"]) for row in rows]
        database.executemany("INSERT INTO counts VALUES (?, ?, ?)", cells)
        assert dict(database.execute("SELECT counter, sum(count) FROM counts GROUP BY counter")) == totals
        starts = [start for (start,) in database.execute("SELECT DISTINCT position_s FROM counts ORDER BY 1")]
    assert starts == [0.0, 10.0, 20.0, 30.0]
    assert json.loads((tmp_path / "entrance.json").read_text())["sources"]["door"] == {
        "in": totals["entrance.in"],
        "out": totals["entrance.out"],
    }

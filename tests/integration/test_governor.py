"""The governor on a running pipeline: sensors are files in a folder, everything else is real."""

from __future__ import annotations

import json
import time
from pathlib import Path

from edgecv.cli.governor import governed
from edgecv.devices.governor.watch import FrameWatch
from edgecv.devices.roots import Roots
from edgecv.devices.sensors.sensors import Sensors
from edgecv.model import Model
from edgecv.pipelines.pipeline import Pipeline
from tests.command_line import run_here
from tests.models import write_bundle

LIVE = "synthetic://?width=64&height=64&live=1&fps=30"
DEADLINE_S = 30.0


def hot_board(folder: Path, degrees_c: float) -> Sensors:
    """Sensors of a board with one zone, which slows down at 80 C."""
    zone = folder / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True, exist_ok=True)
    files = {"type": "cpu-thermal", "temp": f"{degrees_c * 1e3:.0f}"}
    files |= {"trip_point_0_type": "passive", "trip_point_0_temp": "80000"}
    for name, text in files.items():
        (zone / name).write_text(text + "\n")
    names = ("proc", "sys", "dev", "etc")
    return Sensors(Roots(**{name: folder / name for name in names}))


def test_a_hot_board_gets_fewer_frames_and_the_sinks_are_told(tmp_path: Path) -> None:
    bundle, out = write_bundle(tmp_path / "tiny.ecv"), tmp_path / "out.jsonl"
    watch = FrameWatch()
    began, paces = time.monotonic(), []
    with Model.load(bundle.path, threads=1) as model:
        pipeline = Pipeline(LIVE, model, sinks=[f"jsonl:{out}"], on_result=watch.on_result)
        with pipeline, governed(pipeline, watch, hot_board(tmp_path, 85.0)):
            for _ in pipeline:
                paces.append(pipeline.pace)
                if paces[-1] is not None or time.monotonic() - began > DEADLINE_S:
                    break
    assert paces[0] is None
    assert 5 < (paces[-1] or 0) < 30
    events = [row for row in map(json.loads, out.read_text().splitlines()) if row.get("event")]
    told = [row for row in events if "governor" in json.dumps(row)]
    assert len(told) == 1
    assert "near the limit of 80 C" in json.dumps(told[0])


def test_run_takes_the_governor_from_the_command_line_and_from_the_file(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny.ecv")
    source = ("--source", "synthetic://?frames=3&width=64&height=64")
    assert run_here("run", bundle.path, *source, "--governor", "auto").returncode == 0
    wrong = run_here("run", bundle.path, *source, "--governor", "maybe")
    assert wrong.returncode == 2
    assert "auto" in wrong.stderr
    config = tmp_path / "app.toml"
    config.write_text(f'governor = "auto"\n[model]\nbundle = "{bundle.path}"\n[[sources]]\nuri = "{source[1]}"\n')
    assert run_here("run", "--config", config).returncode == 0


def test_without_a_governor_nothing_is_paced(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny.ecv")
    with Model.load(bundle.path, threads=1) as model:
        pipeline = Pipeline("synthetic://?frames=3&width=64&height=64", model)
        with pipeline, governed(pipeline, None):
            assert len(list(pipeline)) == 3
    assert pipeline.pace is None


def test_a_zone_that_vanishes_ends_neither_the_governor_nor_the_run(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny.ecv")
    sensors = hot_board(tmp_path, 70.0)
    watch = FrameWatch()
    with Model.load(bundle.path, threads=1) as model:
        pipeline = Pipeline(LIVE + "&frames=50", model, on_result=watch.on_result)
        with pipeline, governed(pipeline, watch, sensors):
            for number, _ in enumerate(pipeline):
                if number == 5:
                    (tmp_path / "sys/class/thermal/thermal_zone0/temp").unlink()
    assert pipeline.pace is None

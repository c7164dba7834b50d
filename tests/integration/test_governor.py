"""The governor on a running pipeline: sensors are files in a folder, everything else is real."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec
import pytest

from edgecv.bundles.bundle import Bundle
from edgecv.bundles.manifest import MANIFEST, dump_manifest
from edgecv.cli.governor import governed
from edgecv.devices.governor.loop import Governor, Seams
from edgecv.devices.governor.models import CheaperModels
from edgecv.devices.governor.rules import Sample
from edgecv.devices.governor.watch import FrameWatch
from edgecv.devices.roots import Roots
from edgecv.devices.sensors.sensors import Sensors
from edgecv.devices.tuning.cells import Cell, CellResult
from edgecv.devices.tuning.machine import this_machine
from edgecv.devices.tuning.record import SCHEMA, TuneRecord, key_of, write_record
from edgecv.events import Event
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
        with pipeline, governed(pipeline, watch, sensors=hot_board(tmp_path, 85.0)):
            for _ in pipeline:
                paces.append(pipeline.pace)
                if paces[-1] is not None or time.monotonic() - began > DEADLINE_S:
                    break
    assert paces[0] is None
    assert 5 < (paces[-1] or 0) < 30
    events = [row for row in map(json.loads, out.read_text().splitlines()) if row.get("event")]
    told = [row for row in events if "governor" in json.dumps(row)]
    assert len(told) == 1
    assert "near the limit of 80 °C" in json.dumps(told[0], ensure_ascii=False)


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
        with pipeline, governed(pipeline, watch, sensors=sensors):
            for number, _ in enumerate(pipeline):
                if number == 5:
                    (tmp_path / "sys/class/thermal/thermal_zone0/temp").unlink()
    assert pipeline.pace is None


@pytest.fixture
def gated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle of two variants; its INT8 passed a gate."""
    monkeypatch.setenv("EDGECV_CACHE", str(tmp_path / "cache"))
    made = write_bundle(tmp_path / "tiny.ecv")
    float32, int8 = made.variants
    variants = (float32, msgspec.structs.replace(int8, metrics={"f1_50": 0.981}))
    (made.path / MANIFEST).write_bytes(dump_manifest(msgspec.structs.replace(made.manifest, variants=variants)))
    return Bundle.open(made.path)


def tuned(bundle: Bundle, times_ms: dict[str, float | None]) -> None:
    """As if `edgecv tune` had measured these times on this device."""
    results = [
        CellResult(
            cell=Cell(variant=name, precision=name.removeprefix("onnx-"), runtime="onnxruntime", threads=1),
            stage="final" if ms else "refused",
            median_ms=ms,
        )
        for name, ms in sorted(times_ms.items(), key=lambda item: item[1] or 1e9)
    ]
    key = key_of(bundle, this_machine())
    write_record(
        TuneRecord(
            schema=SCHEMA,
            name=bundle.name,
            key=key,
            measured_at="2026-11-27T00:00:00+00:00",
            elapsed_s=1.0,
            budget_s=90.0,
            results=tuple(results),
        )
    )


def test_a_cheaper_variant_runs_while_it_is_too_hot_and_no_frame_is_lost(
    gated: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    tuned(gated, {"onnx-fp32": 2.0, "onnx-int8": 1.0})
    told: list[Event] = []
    now, degrees_c, ran, indices = 0.0, 85.0, [], []
    with Model.load(gated.path, precision="fp32") as model, CheaperModels.of(model, {"precision": "fp32"}) as models:
        pipeline = Pipeline("synthetic://?frames=200&width=64&height=64", model)

        def swap(number: int) -> object:
            taken, swapped = models.take(number)
            pipeline.replace_model(taken)
            return swapped

        seams = Seams(
            sample=lambda: Sample(temperature_c=degrees_c + now % 2),
            fps=lambda: 30.0,
            pace=lambda _: None,  # the frames of the test shall not take minutes
            tell=told.append,
            models=models.count,
            model=swap,
        )
        governor = Governor(seams, 80.0, clock=lambda: now)
        with pipeline:
            for result in pipeline:
                ran.append(result.model)
                indices.append(result.frame.index)
                degrees_c = 85.0 if len(ran) < 70 else 55.0
                for _ in range(11):
                    now += 1.0
                    governor.step()
    assert indices == list(range(200))
    order = [name for name, before in zip(ran, [None, *ran], strict=False) if name != before]
    assert order == ["tiny/onnx-fp32", "tiny/onnx-int8", "tiny/onnx-fp32"]
    down, up = [event.data for event in told if "model" in event.data]
    assert down["model"] == {
        "from": "onnx-fp32",
        "to": "onnx-int8",
        "accuracy": {"onnx-fp32": {}, "onnx-int8": {"f1_50": 0.981}},
    }
    assert (up["model"]["from"], up["model"]["to"]) == ("onnx-int8", "onnx-fp32")
    assert any("onnx-int8 (F1@0.5 0.981) instead of onnx-fp32" in line for line in caplog.messages)


@pytest.mark.parametrize(
    ("times_ms", "count"),
    [
        ({"onnx-fp32": 2.0, "onnx-int8": 1.9}, 1),  # hardly cheaper
        ({"onnx-fp32": 2.0, "onnx-int8": None}, 1),  # it did not pass on this device
        ({"onnx-fp32": 2.0, "onnx-int8": 1.0}, 2),
    ],
)
def test_a_rung_is_what_was_measured_here_and_is_clearly_cheaper(
    gated: Bundle, times_ms: dict[str, float | None], count: int
) -> None:
    tuned(gated, times_ms)
    with Model.load(gated.path, precision="fp32") as model, CheaperModels.of(model, {"precision": "fp32"}) as models:
        assert models.count == count


def test_without_a_tuning_there_is_no_model_rung_and_that_is_said_once(
    gated: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    with Model.load(gated.path, precision="fp32") as model, CheaperModels.of(model, {}) as models:
        assert models.count == 1
    assert len([line for line in caplog.messages if f"edgecv tune {gated.path}" in line and "governor" in line]) == 1


def test_a_variant_that_cannot_be_loaded_ends_the_rungs_and_not_the_governor(
    gated: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    tuned(gated, {"onnx-fp32": 2.0, "onnx-int8": 1.0})
    now = 0.0
    with Model.load(gated.path, precision="fp32") as model, CheaperModels.of(model, {}) as models:
        (gated.path / "onnx-int8/model.onnx").write_bytes(b"damaged")
        seams = Seams(
            sample=lambda: Sample(temperature_c=85.0 + now % 2),
            fps=lambda: 30.0,
            pace=lambda _: None,
            tell=lambda _: None,
            models=models.count,
            model=lambda number: models.take(number)[1],
        )
        governor = Governor(seams, 80.0, clock=lambda: now)
        for _ in range(600):
            now += 1.0
            governor.step()
    said = [line for line in caplog.messages if "cannot go on with a cheaper model" in line]
    assert len(said) == 1
    assert governor.rung >= 36, "the pace went on falling"

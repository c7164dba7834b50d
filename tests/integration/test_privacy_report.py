"""``edgecv privacy report``: what app.toml says of each camera, where its images go, and what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgecv import registry
from edgecv.cli.app_config import AppFile
from edgecv.cli.privacy import report
from edgecv.errors import ConfigError
from edgecv.pipelines.privacy.report import Outlet, camera_privacy, report_lines, sink_outlet
from edgecv.pipelines.source_config import SourceConfig
from tests.integration.test_privacy_sinks import edgecv

APP = """
sinks = ["segments:clips", "jsonl:results.jsonl?every=day&keep=6", "record:all.rec", "webhook:https://me:secret@site.example/in"]
[model]
bundle = "x.ecv"
[[sources]]
name = "door"
uri = "rtsp://viewer:hunter2@10.0.0.7/1"
purpose = "counts visitors"
retention = "72h"
mask = [[[0, 0], [0.5, 0], [0.5, 1], [0, 1]]]
[[sources]]
name = "yard"
uri = "usb://0"
[preview]
port = 8080
host = "0.0.0.0"
token_file = "token"
[mqtt]
url = "mqtts://me:secret@broker.example"
tenant = "acme"
device = "door-1"
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("app")
    (folder / "app.toml").write_text(APP)
    return folder


def test_the_report_as_json(app: Path) -> None:
    done = edgecv(app, "privacy", "report", "app.toml", "--json")
    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stdout + done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    door, yard = document["cameras"]
    assert (door["purpose"], door["retention"], door["polygons"]) == ("counts visitors", "72h", 1)
    assert door["masked_percent"] == pytest.approx(50, abs=0.2)
    assert door["images"] == ["segments:clips", "record:all.rec", "preview:8080"]
    assert [name.split(":")[0] for name in door["data"]] == ["jsonl", "webhook", "mqtt"]
    leaving = " ".join(door["leaves"])
    assert len(door["leaves"]) == 3
    assert all(place in leaving for place in ("0.0.0.0", "broker.example", "webhook"))
    assert [line.split()[0] for line in door["warnings"]] == ["jsonl:results.jsonl", "record:all.rec"]
    assert "168 h" in door["warnings"][0]
    assert yard["polygons"] == yard["masked_percent"] == 0
    assert "purpose" in yard["warnings"][0]
    assert "retention" in yard["warnings"][1]
    assert document["warnings"] == 4


def test_the_report_in_words(app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(app / "app.toml")
    said = capsys.readouterr()
    assert "about 50.1 % of the image" in said.out
    assert "mask       none" in said.out
    assert "4 warnings" in said.err


def test_home_assistant_gets_images_where_it_takes_snapshots(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for snapshots, place in (("true", "images"), ("false", "data")):
        (tmp_path / "app.toml").write_text(f"{APP}[home_assistant]\nsnapshots = {snapshots}\n")
        report(tmp_path / "app.toml", json=True)
        door = json.loads(capsys.readouterr().out)["cameras"][0]
        assert "home_assistant" in door[place]
        assert any("home_assistant" in line and "broker.example" in line for line in door["leaves"])


def test_a_new_table_is_thought_of() -> None:
    # Where a table lets images or data go somewhere, `_outlets` in edgecv/cli/privacy.py must tell.
    silent = {"model", "sources", "gates", "steps", "max_frames", "governor"}
    told = {"sinks", "preview", "metrics", "mqtt", "home_assistant"}
    assert set(AppFile.__struct_fields__) <= silent | told


def test_every_sink_of_edgecv_is_known_and_of_others_the_worst_is_assumed() -> None:
    built_in = [name for name in registry.names("sinks") if registry.place("sinks", name).startswith("edgecv.")]
    contents = {name: sink_outlet(f"{name}:9").content for name in built_in}
    assert "unknown" not in contents.values()
    foreign = sink_outlet("acme:somewhere")
    assert (foreign.content, foreign.keeps) == ("unknown", True)
    assert foreign.leaves
    camera = camera_privacy(SourceConfig("synthetic://", "door", purpose="tests"), [foreign])
    assert camera.images == ("acme:somewhere",)
    assert len(camera.warnings) == 1


def test_a_camera_with_all_that_is_needed_has_no_warning() -> None:
    outlets = [sink_outlet("segments:clips"), sink_outlet("snapshots:shots?keep_hours=5"), sink_outlet("preview:8080")]
    camera = camera_privacy(SourceConfig("synthetic://", "door", purpose="counts visitors", retention="30d"), outlets)
    assert camera.warnings == camera.leaves == ()
    assert "  leaves     nothing leaves this device" in list(report_lines([camera]))


@pytest.mark.parametrize(
    ("sink", "warns"),
    [
        ("jsonl:x?every=hour&keep=10", False),
        ("jsonl:x?every=day&keep=10", True),
        ("jsonl:x", True),
        ("jsonl:-", False),
        ("video:x.mp4", True),
        ("record:x.rec", True),
        ("segments:x", False),
    ],
)
def test_where_a_retention_is_not_applied_is_said(sink: str, warns: bool) -> None:
    source = SourceConfig("synthetic://", "door", purpose="tests", retention="24h")
    assert bool(camera_privacy(source, [sink_outlet(sink)]).warnings) == warns


def test_the_options_of_a_sink_are_those_of_the_sink() -> None:
    assert sink_outlet("segments:x?keep_hours=2").longest_s == 7200
    assert sink_outlet("preview:8080?host=0.0.0.0").leaves
    assert sink_outlet("metrics:9100") == Outlet(name="metrics:9100", content="numbers")
    with pytest.raises(ConfigError):
        sink_outlet("segments:x?keep_hours=no")


def test_a_webhook_gets_images_only_where_it_attaches_them() -> None:
    contents = [
        sink_outlet(f"webhook:https://site.example/in?template=ntfy&snapshot={how}").content
        for how in ("none", "name", "attach")
    ]
    assert contents == ["data", "data", "images"]

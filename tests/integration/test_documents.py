"""What the documents show works as it stands there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from edgecv import registry
from edgecv._internal.strict import read_struct
from edgecv.cli.app_config import AppFile, check_app
from tests.conftest import CHECKOUT
from tests.models import write_bundle
from tests.unit.test_media import write_mp4

DEADLINE_S = 90
EXAMPLES = CHECKOUT / "docs/examples"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    environment = {"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def test_the_five_lines_of_the_readme_run(tmp_path: Path) -> None:
    script = (EXAMPLES / "five_lines.py").read_text()
    assert script in (CHECKOUT / "README.md").read_text(), "the README shows the example that is tested"
    write_bundle(tmp_path / "yolov8n.ecv")
    write_mp4(tmp_path / "clip.mp4", frames=5)
    done = run(tmp_path, str(EXAMPLES / "five_lines.py"))
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines() if line[0].isdigit()] == list("01234")


def test_two_cameras_run(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny.ecv").path
    script = EXAMPLES / "two_cameras.py"
    assert len(script.read_text().splitlines()) <= 60
    camera = "synthetic://?frames=60&live=1&fps=30"
    done = run(tmp_path, str(script), str(bundle), camera, camera)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert {row["source_id"] for row in rows if "event" not in row} == {"door", "yard"}
    assert "door is live" in done.stdout


def test_the_application_of_the_documents_is_valid() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", (CHECKOUT / "docs/app.md").read_text(), re.DOTALL)
    document = msgspec.toml.decode(text)
    app = check_app(read_struct(document, AppFile, "docs/app.md"), "docs/app.md")
    assert [source.result_name for source in app.file.sources] == ["door", "yard"]
    assert len(app.steps) == 3
    shown = {name for table in ("model", "preview", "metrics", "mqtt", "home_assistant") for name in document[table]}
    assert {"bundle", "threads", "port", "token_file", "tenant", "ack"} <= shown
    assert set(document) == set(AppFile.__struct_fields__), "every table of the file is shown"
    for table in ("model", "preview", "metrics", "mqtt", "home_assistant"):
        kind = type(getattr(app.file, table))
        assert set(document[table]) == set(kind.__struct_fields__), f"every option of [{table}] is shown"


@pytest.mark.parametrize("kind", ["sources", "sinks"])
def test_every_source_and_sink_is_documented(kind: str) -> None:
    text = (CHECKOUT / "docs/app.md").read_text()
    missing = [name for name in registry.names(kind) if f"`{name}:" not in text]
    assert set(missing) <= {"file", "images"}, "those are named by what they read"


def test_the_systemd_unit_starts_what_there_is() -> None:
    unit = (EXAMPLES / "edgecv.service").read_text()
    (command,) = re.findall(r"^ExecStart=\S+/edgecv (.*)$", unit, re.MULTILINE)
    assert command == "run --config app.toml"


def test_the_systemd_unit_tunes_every_bundle_once_and_starts_where_that_fails(tmp_path: Path) -> None:
    unit = (EXAMPLES / "edgecv.service").read_text()
    (start,) = re.findall(r"^ExecStart=(\S+)", unit, re.MULTILINE)
    (before,) = re.findall(r"^ExecStartPre=(.*)$", unit, re.MULTILINE)
    assert before.startswith("-"), "a bundle that cannot be measured runs all the same"
    assert before.count(start) == 1
    assert "Environment=EDGECV_CACHE=" in unit
    limit_s = int(re.findall(r"timeout (\d+) ", before)[0])
    assert limit_s < 60 * int(re.findall(r"^TimeoutStartSec=(\d+)min$", unit, re.MULTILINE)[0])

    write_bundle(tmp_path / "desk/tiny.ecv")
    program = tmp_path / "edgecv"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={CHECKOUT} exec {sys.executable} -m edgecv "$@" --budget 2\n')
    program.chmod(0o755)
    command = shlex.split(before.removeprefix("-").replace(start, str(program)).replace("$$", "$"))
    environment = {**os.environ, "EDGECV_CACHE": str(tmp_path / "cache")}

    def tune() -> str:
        done = subprocess.run(
            command, cwd=tmp_path / "desk", env=environment, capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert "It was measured at" not in tune()
    (kept,) = (tmp_path / "cache").rglob("*.json")
    first = kept.read_bytes()
    assert "It was measured at" in tune()
    assert kept.read_bytes() == first

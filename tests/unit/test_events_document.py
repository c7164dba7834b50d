"""docs/events.md: its lines give what they promise, and its table is that of the file."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from edgecv.events import Event
from tests.conftest import CHECKOUT
from tests.integration.events_history import crossing, write_history

TEXT = (CHECKOUT / "docs/events.md").read_text(encoding="utf-8")
LINES = [line for line in TEXT.splitlines() if line.startswith("sqlite3 ")]
T0_NS = 1_795_860_930_000_000_000  # 2026-11-28T10:15:30Z


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    stale = Event(kind="source.stale", time_ns=T0_NS, source_id="door", data={"error": "No frame within 5 s."})
    write_history(tmp_path / "events.db", [*(crossing(n, T0_NS + n * 20 * 10**9) for n in range(12)), stale])
    return tmp_path


def run(line: str, folder: Path) -> str:
    if shutil.which("sqlite3") is None:
        pytest.skip("needs the program sqlite3")
    done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("line", LINES)
def test_each_line_runs(folder: Path, line: str) -> None:
    run(line, folder)


def test_the_first_line_counts_per_minute(folder: Path) -> None:
    shown = run(LINES[0].replace("-box", "-csv"), folder).splitlines()
    assert shown[:2] == ["2026-11-28T10:15,entrance,in,1", "2026-11-28T10:15,exit,out,1"]
    assert sum(int(line.rpartition(",")[2]) for line in shown) == 12


def test_the_table_lists_the_columns_of_the_file(folder: Path) -> None:
    section = TEXT.split("## The table `events`")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?`) \| (\w+) \|", section, re.MULTILINE)
    documented = {name: kind.upper() for names, kind in rows for name in re.findall(r"`(\w+)`", names)}
    with closing(sqlite3.connect(folder / "events.db")) as db:
        there = {row[1]: row[2] for row in db.execute("PRAGMA table_info(events)")}
    assert documented == there

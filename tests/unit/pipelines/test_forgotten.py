"""Pipelines that are never run, and programs that may open too few files: a message each, and an end."""

from __future__ import annotations

import gc
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecv.pipelines.pipeline import Pipeline
from tests.cameras.world import PATIENCE_S, is_running, wait_until, workers
from tests.conftest import CHECKOUT
from tests.unit.pipelines.blob import BlobModel, assert_no_threads


@pytest.fixture
def silent_camera() -> Iterator[str]:
    """Accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/1?connect_s=60"


def test_a_pipeline_that_is_dropped_unrun_releases_its_camera_and_says_so(
    silent_camera: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = Pipeline({"door": silent_camera}, BlobModel(), sinks=[f"jsonl:{tmp_path / 'out.jsonl'}"])
    wait_until(lambda: bool(workers()), "the worker")
    with caplog.at_level(logging.WARNING, logger="edgecv.pipelines"):
        del pipeline
        gc.collect()
        wait_until(lambda: not workers(), "the end of the worker")
    assert [text for text in caplog.messages if "door was made and never run" in text and "run()" in text]
    wait_until(lambda: not _threads(), "the end of its threads")


def _threads() -> bool:
    try:
        assert_no_threads()
    except AssertionError:
        return True
    return False


def test_one_that_is_closed_or_run_says_nothing(silent_camera: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Pipeline(silent_camera, BlobModel()).close()
        with Pipeline(silent_camera, BlobModel()):
            pass
        Pipeline("synthetic://?frames=3", BlobModel()).run()
        gc.collect()
    assert not [text for text in caplog.messages if "never run" in text]
    assert not workers()


_FORGETS = """
import sys
from edgecv.pipelines.pipeline import Pipeline
from tests.cameras.world import wait_until, workers
from tests.unit.pipelines.blob import BlobModel
pipeline = Pipeline({"door": sys.argv[1]}, BlobModel())
wait_until(lambda: bool(workers()), "the worker")
print(workers()[0])
"""


def test_a_program_that_ends_without_running_it_says_so_and_leaves_no_worker(silent_camera: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FORGETS, silent_camera],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "door was made and never run" in done.stderr
    wait_until(lambda: not is_running(int(done.stdout)), "the end of the worker")


_FEW_FILES = """
import json, os, resource, sys, time
from edgecv.errors import SourceError
from edgecv.pipelines.sources.supervised.retry import Retry
from edgecv.pipelines.sources.supervised.source import SupervisedSource
from tests.cameras.scripted import TARGET

def outcome():
    try:
        source = SupervisedSource("scripted://?rate=50", target=TARGET, retry=Retry(first_s=0.05))
    except SourceError as error:
        return [str(error.message), error.hint]
    try:
        end = time.monotonic() + 30
        while time.monotonic() < end and source.health().state == "connecting" and not source.health().code:
            time.sleep(0.01)
        health = source.health()
        return [health.state if health.state == "live" else health.error, health.hint]
    finally:
        source.close()

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True:
        held.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
found = []
while not found or found[-1][0] != "live":
    found.append(outcome())
    os.close(held.pop())
print(json.dumps(found))
"""


def test_a_camera_that_finds_no_file_descriptor_says_how_to_allow_more_and_lives_with_enough() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FEW_FILES],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *short, enough = json.loads(done.stdout)
    assert len(short) > 3
    assert enough[0] == "live"
    for message, hint in short:
        assert "Too many open files" in message, (message, hint)
        assert "64 files" in hint
        assert "ulimit -n" in hint


def test_the_command_line_says_how_to_allow_more_files(tmp_path: Path) -> None:
    code = (
        "import errno, os, sys; from edgecv.cli.app import explain;"
        "sys.exit(explain(OSError(errno.EMFILE, os.strerror(errno.EMFILE), 'x.jpg')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 1
    assert "Too many files are open" in done.stderr
    assert "ulimit -n" in done.stderr

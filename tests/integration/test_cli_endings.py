"""How the program ends: signals at any moment, errors in words, one JSON document."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgecv.bundles.manifest import MANIFEST
from edgecv.errors import SinkError
from tests.conftest import CHECKOUT
from tests.models import write_bundle

DEADLINE_S = 30


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgecv", *arguments]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*arguments: str, program: tuple[str, str] = ("-m", "edgecv")) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *program, *arguments]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


@pytest.mark.parametrize(
    ("signals", "code"),
    [
        ([signal.SIGINT], 130),
        ([signal.SIGTERM], 0),
        ([signal.SIGTERM, signal.SIGTERM], 0),
        ([signal.SIGINT, signal.SIGINT, signal.SIGINT], 130),
        ([signal.SIGHUP], 0),
    ],
    ids=["ctrl-c", "sigterm", "sigterm-twice", "ctrl-c-thrice", "hangup"],
)
def test_a_run_that_signals_end_still_reports(tmp_path: Path, signals: list[signal.Signals], code: int) -> None:
    bundle = write_bundle(tmp_path / "tiny.ecv").path
    out = tmp_path / "results.jsonl"
    program = start("run", str(bundle), "--source", "synthetic://?frames=0&live=1", "--out", f"jsonl:{out}", "--json")
    deadline = time.monotonic() + DEADLINE_S
    while not (out.exists() and out.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    for number in signals:
        program.send_signal(number)
        time.sleep(0.02)
    stdout, stderr = program.communicate(timeout=DEADLINE_S)
    assert program.returncode == code, stderr
    assert json.loads(stdout)["frames"] > 0
    assert "Traceback" not in stderr


def wait_for_results(out: Path, size: int = 0) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not (out.exists() and out.stat().st_size > size) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert out.stat().st_size > size


def test_a_run_under_nohup_outlives_its_terminal_and_says_at_sigterm_what_a_sink_lost(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny.ecv").path
    out = tmp_path / "results.jsonl"
    arguments = [
        "run",
        bundle,
        "--source",
        "synthetic://?frames=0&live=1",
        "--out",
        f"jsonl:{out}",
        "--out",
        "jsonl:/dev/full",
    ]
    command = ["nohup", sys.executable, "-m", "edgecv", *map(str, arguments), "--force"]
    program = subprocess.Popen(
        command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for_results(out)
    program.send_signal(signal.SIGHUP)
    wait_for_results(out, out.stat().st_size + 1000)
    program.send_signal(signal.SIGTERM)
    _, stderr = program.communicate(timeout=DEADLINE_S)
    assert program.returncode == 0, stderr
    assert re.search(r"jsonl:/dev/full lost (\d+) of \1 results \(\1 failed, .*No space left on device", stderr), stderr


def test_a_service_goes_on_with_its_file_after_a_restart_and_a_clip_does_not(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny.ecv").path
    for source, codes, rows in (("synthetic://?frames=0&live=1", [0, 0], 10), ("synthetic://?frames=9", [0, 2], 5)):
        out, config = tmp_path / f"{rows}.csv", tmp_path / "app.toml"
        config.write_text(
            f'sinks = ["jsonl:{out}", "counts:{out}.counts?every_s=1"]\nmax_frames = 5\n'
            f'[model]\nbundle = "{bundle}"\n[[sources]]\nuri = "{source}"\n'
        )
        assert [run("run", "--config", str(config)).returncode for _ in codes] == codes
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert len([line for line in lines if "event" not in line]) == rows


@pytest.mark.parametrize("delay_s", [0.3, 0.6])
def test_sigterm_while_it_starts_is_a_clean_end(tmp_path: Path, delay_s: float) -> None:
    bundle = write_bundle(tmp_path / "tiny.ecv").path
    program = start("run", str(bundle), "--source", "synthetic://?frames=0&live=1")
    time.sleep(delay_s)
    program.send_signal(signal.SIGTERM)
    _, stderr = program.communicate(timeout=DEADLINE_S)
    assert program.returncode == 0, stderr


# What compiled modules and callbacks of the garbage collector do with an exception that surfaces inside them. Another signal
# comes while the interpreter takes itself apart.
_SIGNAL_WITHIN_AN_IMPORT = """
import os, signal, sys
from edgecv.errors import SinkError
class Module:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), signal.SIG{signal})
            except BaseException as error:
                {then}
class Last:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIG{signal}):
        kill(pid, number)
sys.meta_path.insert(0, Module())
sys.modules["last"] = Last()
from edgecv.cli.entry import main
main()
"""


def run_with_a_signal(name: str, module: str, then: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = _SIGNAL_WITHIN_AN_IMPORT.format(signal=name, module=module, then=then)
    return run(*arguments, program=("-c", program))


@pytest.mark.parametrize(
    "then", ['raise ImportError("initialization failed") from error', "pass"], ids=["becomes-an-error", "is-lost"]
)
@pytest.mark.parametrize(("name", "code"), [("TERM", 0), ("INT", 130)])
def test_a_signal_within_an_import_ends_it_too(tmp_path: Path, name: str, code: int, then: str) -> None:
    bundle = write_bundle(tmp_path / "tiny.ecv").path
    live = ("--source", "synthetic://?frames=0&live=1")
    done = run_with_a_signal(name, "onnxruntime", then, "run", str(bundle), *live)
    assert done.returncode == code, done.stderr
    assert "rror" not in done.stderr


def test_a_signal_that_was_lost_ends_ingest_too(tmp_path: Path) -> None:
    arguments = ("ingest", "--mqtt", "mqtt://127.0.0.1:9", "--db", str(tmp_path / "db"))
    done = run_with_a_signal("TERM", "edgecv.cloud_sync.ingest.ingest", "pass", *arguments)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_goes_wrong_after_a_signal_is_still_said(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny.ecv").path
    then = 'raise SinkError("The disk is full.")'
    done = run_with_a_signal("TERM", "onnxruntime", then, "run", str(bundle), "--source", "synthetic://?frames=3")
    assert done.returncode == SinkError("").exit_code != 0
    assert "The disk is full." in done.stderr


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ('"latency_ms": 0', "latency_ms"),
        ('"confidence": 7', "confidence"),
        ('"name": "\\u001b[31mred"', "name or label"),
        ('"size_wh": [1000000, 1000000]', "size_wh"),
    ],
    ids=["latency", "confidence", "escape", "size"],
)
def test_impossible_values_of_a_bundle_are_named(tmp_path: Path, damage: str, message: str) -> None:
    bundle = write_bundle(tmp_path / "tiny.ecv").path
    key = damage.partition(":")[0].strip('"')
    document = json.loads((bundle / MANIFEST).read_text())
    value = json.loads("{" + damage + "}")[key]
    first = document["variants"][0]
    place = {"latency_ms": first, "confidence": document["decode"], "size_wh": first}
    place.get(key, document)[key] = value
    (bundle / MANIFEST).write_text(json.dumps(document))
    done = run("info", str(bundle))
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_brackets_in_a_path_are_shown_as_they_are(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "o[v2].ecv").path
    done = run("info", str(bundle))
    assert done.returncode == 0, done.stderr
    assert "o[v2].ecv" in done.stdout

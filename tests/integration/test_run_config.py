"""``edgecv run --config app.toml``: a whole application from one strict file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.models import write_bundle

DEADLINE_S = 60


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "tiny.ecv").path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgecv", "run", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def write(folder: Path, text: str) -> str:
    (folder / "app.toml").write_text(text)
    return "app.toml"


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_several_cameras_steps_and_sinks(tmp_path: Path, bundle: Path) -> None:
    config = write(
        tmp_path,
        f"""
        sinks = ["jsonl:results.jsonl"]

        [model]
        bundle = "{bundle}"
        threads = 1

        [[sources]]
        name = "door"
        uri = "synthetic://?frames=12"

        [[sources]]
        name = "yard"
        uri = "synthetic://?frames=12"
        policy = "every_nth"
        nth = 4
        """,
    )
    done = run(tmp_path, "--config", config, "--json")
    assert done.returncode == 0, done.stderr
    assert Counter(row["source_id"] for row in rows(tmp_path / "results.jsonl")) == {"door": 12, "yard": 3}
    assert json.loads(done.stdout)["dropped"] == {"every_nth": 9}


def test_counts_are_in_the_progress_line_and_in_the_report(tmp_path: Path, bundle: Path) -> None:
    config = write(
        tmp_path,
        f"""
        [model]
        bundle = "{bundle}"
        threads = 1

        [[sources]]
        name = "cam"
        uri = "synthetic://?frames=75&fps=25&live=1"

        [[steps]]
        type = "track"

        [[steps]]
        type = "line"
        name = "door"
        points = [[10, 100], [200, 100]]
        """,
    )
    done = run(tmp_path, "--config", config, "--max-frames", "3", "--json")
    assert json.loads(done.stdout)["counts"] == {"cam": {"door.in": 0, "door.out": 0}}, done.stderr
    done = run(tmp_path, "--config", config)
    progress = [line for line in done.stderr.splitlines() if line.startswith("cam frame")]
    assert progress, done.stderr
    assert progress[0].endswith(" ms; door in 0, out 0")
    assert "\n  cam: door in 0, out 0\n" in done.stderr


def test_options_of_the_command_line_win(tmp_path: Path, bundle: Path) -> None:
    config = write(
        tmp_path,
        """
        max_frames = 50
        [model]
        bundle = "nowhere.ecv"
        [[sources]]
        uri = "nowhere.mp4"
        """,
    )
    arguments = [str(bundle), "--config", config, "--source", "synthetic://?frames=9", "--max-frames", "5", "--json"]
    done = run(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] == 5


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[modell]\nbundle = 'x'", "app.toml has no option 'modell'", "Did you mean 'model'?"),
        ("[model]\nthread = 3", "model has no option 'thread'", "Did you mean 'threads'?"),
        ("[[sources]]\nuri='a.mp4'\nmaxage=3", "sources has no option 'maxage'", "Did you mean 'max_age_ms'?"),
        ("[[sources]]\nuri='a.mp4'\npolicy='newest'", "newest", ""),
        ("[[sources]]\nuri='a.mp4'\n[[sources]]\nuri='a.mp4'", "two sources named 'a.mp4'", "name of its own"),
        ("[[gates]]\nspeed=3", "table in 'gates' without a type", "Known:"),
        ("sinks=['segments:x?keep_g=1']", "segments:x has no option 'keep_g'", "Did you mean 'keep_gb'?"),
        ("[[steps]]\ntype='trakc'", "no step named 'trakc'", "Known:"),
        (
            "[[steps]]\ntype='zone'\nname='yard'\npoints=[[0,0],[9,0],[9,9]]",
            "'yard' needs tracked objects",
            "step 'track' before it",
        ),
        ("[model\n", "app.toml is no TOML", ""),
        ("[preview]\nport = 99999", "is wrong", ""),
        ("[mqtt]\nurl='mqtt://localhost'", "is wrong", ""),
    ],
)
def test_what_is_misspelt_is_refused_before_anything_opens(tmp_path: Path, text: str, message: str, hint: str) -> None:
    done = run(tmp_path, "--config", write(tmp_path, text))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert hint in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["app.toml"]


TO_A_BROKER = ("x.ecv", "--source", "0", "--mqtt", "mqtt://localhost", "--tenant", "t", "--device", "d")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no bundle"),
        (["x.ecv"], "no source"),
        (["--config", "missing.toml"], "missing.toml cannot be read"),
        (["x.ecv", "--source", "0", "--preview-host", "0.0.0.0"], "--preview PORT"),
        (["x.ecv", "--source", "0", "--tenant", "t"], "--tenant is for --mqtt"),
        (["x.ecv", "--source", "0", "--mqtt", "mqtt://localhost"], "needs --tenant and --device"),
        ([*TO_A_BROKER, "--platform", "azure"], "no topic for the acknowledgement"),
        ([*TO_A_BROKER, "--platform", "azur"], "no platform 'azur'"),
        ([*TO_A_BROKER, "--wire", "json"], "--wire json has no place"),
        (
            [*TO_A_BROKER, "--ack", "broker", "--platform", "thingsboard", "--wire", "zlib"],
            "does not go with --wire zlib",
        ),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr


@pytest.mark.parametrize("platform", ["aws", "thingsboard"])
def test_the_weaker_promise_is_said_at_the_start(tmp_path: Path, platform: str) -> None:
    done = run(tmp_path, *TO_A_BROKER, "--ack", "broker", "--platform", platform)
    assert "nobody says whether it is stored" in done.stderr

"""Boards whose files are torn, unreadable, of the wrong kind or gone: nothing of the room raises."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from edgecv.devices.describe import describe
from edgecv.devices.doctor.doctor import diagnose
from edgecv.devices.profiles import profile_of
from edgecv.devices.sensors.sensors import Sensors
from tests.boards import NAMES, Laid, around, lay_out

SEEDS = [pytest.param(seed, marks=pytest.mark.slow if seed else ()) for seed in range(30)]


def _tear(path: Path, chance: random.Random) -> None:
    """Do one of the things that a kernel, a driver or a container does to a file."""
    content = path.read_bytes()
    what = chance.choice(["cut", "empty", "noise", "minus", "gone", "folder", "unreadable", "loop", "long"])
    path.unlink()
    if what == "cut":
        path.write_bytes(content[: chance.randint(0, len(content))])
    elif what == "noise":
        path.write_bytes(chance.randbytes(chance.randint(1, 40)))
    elif what == "minus":
        path.write_bytes(b"-" + content)
    elif what == "folder":
        path.mkdir()
    elif what == "unreadable":
        path.symlink_to("/proc/self/mem")
    elif what == "loop":
        path.symlink_to(path)
    elif what == "long":
        path.write_bytes(b"9" * 5000)
    elif what == "empty":
        path.touch()


def _look(laid: Laid) -> None:
    device = laid.detect()
    assert device.effective_cpus >= 1
    assert all(isinstance(text, str) for pair in describe(device) for text in pair)
    json.dumps(device.as_dict(), allow_nan=False)
    profile_of(device)
    with Sensors.of(device, laid.roots) as sensors:
        for _ in range(2):
            json.dumps(sensors.read().as_dict(), allow_nan=False)
    for finding in diagnose(device, around(laid, device)):
        assert finding.level == "ok" or "\n" not in finding.fix


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", NAMES)
def test_torn_files_are_no_error(name: str, seed: int, tmp_path: Path) -> None:
    chance = random.Random(f"{name} {seed}")
    laid = lay_out(name, tmp_path)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink())
    for part in (0.1, 0.5):
        for path in chance.sample(files, max(1, int(len(files) * part))):
            if path.is_file() and not path.is_symlink():
                _tear(path, chance)
        _look(laid)

"""Mutated checkpoints and pickles: every one is read or refused, none runs anything, none takes much memory."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edgecv.converters.checkpoints.checkpoint import read_checkpoint
from edgecv.converters.checkpoints.weights import read_weights
from edgecv.errors import UnsupportedSource
from tests.security.hostile_checkpoints import edited

CORPUS = Path(__file__).with_name("corpus") / "checkpoints"
SECONDS = 120
# Of the reader itself it needs a tenth; the rest is torch and ultralytics.
LIMIT_KIB = 1 << 20

FUZZ = """
import io, os, pickle, pickletools, random, resource, sys, time, zipfile
from pathlib import Path
import torch
from edgecv.converters.checkpoints.checkpoint import read_checkpoint
from edgecv.converters.checkpoints.weights import read_weights
from edgecv.converters.families.ultralytics_import import tasks
from edgecv.errors import UnsupportedSource
tasks()
sources, seconds, seed, keep = [Path(p) for p in sys.argv[4:]], float(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
wanted = torch.nn.Linear(4, 4).state_dict()
rng = random.Random(seed)
ends = {"read": 0, "refused": 0}
read_pickles = {}
for source in sources:
    with zipfile.ZipFile(source) as archive:
        read_pickles[source] = {name: archive.read(name) for name in archive.namelist()}
OPCODES = [code.code.encode("latin1") for code in pickletools.opcodes]
NAMES = [b"posix system", b"builtins eval", b"builtins getattr", b"torch.hub load", b"subprocess Popen"]
GLOBALS = [b"c" + name.replace(b" ", b"\\n") + b"\\n" for name in NAMES]

def mutated(raw):
    raw = bytearray(raw)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(max(1, len(raw)))
        kind = rng.randrange(6)
        if kind == 0:
            raw[at:at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            raw[at:at + 1] = rng.choice(OPCODES)
        elif kind == 2:
            del raw[at:at + rng.randint(1, 40)]
        elif kind == 3:
            other = rng.randrange(max(1, len(raw)))
            raw[at:at] = raw[other:other + rng.randint(1, 200)]
        elif kind == 4:
            raw[at:at] = rng.choice(GLOBALS) + b"(X\\x0c\\x00\\x00\\x00touch marker" + b"tR"
        else:
            raw[at:at + 4] = rng.choice([b"\\xff\\xff\\xff\\xff", b"\\xff\\xff\\xff\\x7f", b"\\x00\\x00\\x00\\x00"])
    return bytes(raw)

end = time.monotonic() + seconds
case = Path("case.pt")
while time.monotonic() < end:
    members = dict(read_pickles[rng.choice(sources)])
    described = next(name for name in members if name.endswith("data.pkl"))
    how = rng.randrange(4)
    if how < 3:
        members[described] = mutated(members[described])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    case.write_bytes(mutated(buffer.getvalue()) if how == 3 else buffer.getvalue())
    for read in (read_checkpoint, lambda path: read_weights(path, wanted)):
        try:
            read(case)
            ends["read"] += 1
        except UnsupportedSource:
            ends["refused"] += 1
        except BaseException:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"seed-{seed}-{sum(ends.values())}.pt").write_bytes(case.read_bytes())
            raise
    if os.path.exists("marker"):
        sys.exit("a command ran")
print(ends, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120)
def test_mutated_checkpoints_are_read_or_refused(tmp_path: Path) -> None:
    small = edited(tmp_path / "small.pt", lambda _network: None)
    torch.save(torch.nn.Linear(4, 4).state_dict(), tmp_path / "weights.pt")
    torch.save({"state_dict": torch.nn.Linear(4, 4).state_dict(), "n": {"a": [1, (2, 3)]}}, tmp_path / "more.pt")
    seed = random.SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            FUZZ,
            str(SECONDS),
            str(seed),
            str(CORPUS),
            *(str(p) for p in (small, tmp_path / "weights.pt", tmp_path / "more.pt")),
        ],
        capture_output=True,
        text=True,
        timeout=SECONDS + 90,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, (seed, done.stderr[-2000:])
    assert int(done.stdout.split()[-1]) < LIMIT_KIB, (seed, done.stdout)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.pt")), ids=lambda path: path.name)
def test_what_a_fuzzer_found_is_refused(path: Path) -> None:
    for read in (read_checkpoint, lambda path: read_weights(path, torch.nn.Linear(4, 4).state_dict())):
        try:
            read(path)
        except UnsupportedSource as error:
            assert error.hint

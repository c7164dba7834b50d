"""What a user's type checker sees: examples that must pass `mypy --strict`, and mistakes in them that it must find."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import CHECKOUT

ROOMS = ("converters", "quantize", "pipelines", "devices", "cloud_sync", "benchmarks")
HERE = Path(__file__).parent
EXAMPLES = (CHECKOUT / "docs/examples/five_lines.py", HERE / "service.py", HERE / "step.py")


def _package(folder: Path) -> Path:
    """The package with its rooms in it, as it is installed (docs/adr/0001)."""
    package = folder / "edgecv"
    package.mkdir(parents=True)
    for path in (*(CHECKOUT / "edgecv").iterdir(), *(CHECKOUT / room for room in ROOMS)):
        (package / path.name).symlink_to(path)
    return folder


def test_examples_pass_a_strict_type_checker_and_their_mistakes_do_not(tmp_path: Path) -> None:
    expected = {
        f"{path.name}:{number}"
        for path in EXAMPLES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if ")  # E" in line
    }
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--no-error-summary"),
            *("--config-file", os.devnull, "--cache-dir", str(CHECKOUT / ".cache/typing"), "--hide-error-context"),
            *map(str, EXAMPLES),
        ],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(_package(tmp_path / "package"))},
    )
    errors = [line.split(": error: ")[0] for line in done.stdout.splitlines() if ": error: " in line]
    found = {Path(place).name for place in errors}
    assert found == expected, done.stdout + done.stderr

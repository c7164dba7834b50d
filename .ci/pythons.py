"""The run-time tests in every Python that EdgeCV supports: ``make test-pythons``.

Each Python has a virtual environment of its own in ``.cache/pythons``, into which the built wheel is installed with the extras of a
device, in the newest releases that the package index has for that Python. Interpreters are looked for on ``PATH`` and among
those of pyenv; none is downloaded. Arguments choose some, such as ``3.10 3.13``.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import time
from pathlib import Path

from device_tests import CHECKOUT, built_wheel, copy_tests, pytest_command, requirements

HOME = CHECKOUT / ".cache/pythons"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
NOT_FOUND = 77  # the code by which test programs say that they cannot run here


def main() -> int:
    """Test in each; the exit code is 1 if a test failed, and 77 if a Python was not found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "pythons", nargs="*", metavar="VERSION", help=f"Only these of {', '.join(PYTHONS)}. Default: all."
    )
    chosen = parser.parse_args().pythons or list(PYTHONS)
    if unknown := set(chosen) - set(PYTHONS):
        parser.error(f"not supported: {', '.join(sorted(unknown))}")
    copy_tests(HOME / "checkout")
    verdicts = {version: _verdict(version) for version in chosen}
    for version, (_, text) in verdicts.items():
        print(f"Python {version}: {text}")
    return max((code for code, _ in verdicts.values()), key=(0, NOT_FOUND, 1).index)


def _verdict(version: str) -> tuple[int, str]:
    interpreter = find(version)
    if interpreter is None:
        return NOT_FOUND, f"not found. Put a python{version} on PATH, or run: pyenv install {version}"
    began_s = time.monotonic()
    python = _environment(version, interpreter)
    done = subprocess.run(pytest_command(python), cwd=HOME / "checkout", stdin=subprocess.DEVNULL, check=False)
    verdict = "passed" if done.returncode == 0 else f"failed with code {done.returncode}"
    return int(done.returncode != 0), f"{verdict} in {(time.monotonic() - began_s) / 60:.1f} min ({interpreter})"


def find(version: str) -> str | None:
    """The path of an interpreter of this version, which has ``venv``; ``None`` if there is none."""
    kept = sorted((Path.home() / ".pyenv/versions").glob(f"{version}.*/bin/python{version}"))
    places = [shutil.which(f"python{version}"), *map(str, reversed(kept))]
    return next((place for place in places if place and _works(place, version)), None)


def _works(interpreter: str, version: str) -> bool:
    """Whether it starts and is what its name says: pyenv puts scripts on PATH that only start what is chosen there."""
    code = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([interpreter, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip() == version


def _environment(version: str, interpreter: str) -> str:
    folder, wheel = HOME / version, str(built_wheel())
    python = str(folder / "bin/python")
    if not (folder / "bin/pip").exists():
        subprocess.run([interpreter, "-m", "venv", str(folder)], check=True)
    pip = [python, "-m", "pip", "install", "-q", "--only-binary", ":all:", "--no-compile"]
    subprocess.run([*pip, *requirements(wheel)], check=True)
    subprocess.run([*pip, "--no-deps", "--force-reinstall", wheel], check=True)
    return python


if __name__ == "__main__":
    raise SystemExit(main())

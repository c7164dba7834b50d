"""Run EdgeCV on an emulated arm64 Debian 12, from nothing: ``make test-arm64``, as root.

Everything lies in ``.cache/arm64`` and serves the next run, too: the Debian (``root``), what pip has downloaded (``pip``) and the
converted bundles (``bundles``; delete one to have it converted anew). The steps, each with its minutes:

1. ``root``: debootstrap makes the root (``guest.py``).
2. ``install``: pip installs the built wheel with the extras of a device, from wheels for aarch64 alone. Nothing is
   compiled.
3. ``tests``: the run-time tests in ``ON_ARM64`` of ``device_tests.py`` pass.
4. ``verify``: every ONNX and TFLite variant agrees with its golden vectors, on both processors that qemu pretends to be.
5. ``device``: ``edgecv devices`` and ``edgecv doctor`` work.
6. ``clip``: ``edgecv run`` sends a clip to a mosquitto of this machine, and ``edgecv ingest`` stores every frame of it.

No time of an emulated model is reported: it would say nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from device_tests import CHECKOUT, ON_ARM64, built_wheel, copy_tests, pytest_command, requirements
from guest import DESK, HOME, PROCESSORS, ROOT, guest, make_root, run

NOT_ROOT = 77  # the code by which test programs say that they cannot run here
VENV = "/opt/edgecv/.venv"
SITE = ROOT / VENV.lstrip("/") / "lib/python3.11/site-packages"
GLIBC = 36  # Debian 12 has 2.36
SHARED = CHECKOUT / "../shared"
IMAGENET = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--color", "rgb")
FRAMES = 12
WAIT_S = 60.0
TEST_LIMIT_S = 900  # of one test: emulation makes each ten times as long


def main() -> int:
    """Do the chosen steps in their order; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"Only these of {', '.join(STEPS)}. Default: all.")
    chosen = parser.parse_args().steps or list(STEPS)
    if unknown := set(chosen) - set(STEPS):
        parser.error(f"no step is called {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        print("Only root can make and enter a root file system. Run: sudo make test-arm64", file=sys.stderr)
        return NOT_ROOT
    HOME.mkdir(parents=True, exist_ok=True)
    for name in (name for name in STEPS if name in chosen):
        began_s = time.monotonic()
        STEPS[name]()
        print(f"== {name}: done in {(time.monotonic() - began_s) / 60:.1f} min", flush=True)
    return 0


def install() -> None:
    """The wheel and the packages for aarch64; EdgeCV itself each time, the others when they are missing."""
    wheel = built_wheel()
    shutil.copy(wheel, ROOT / "opt")
    python, inside = f"{VENV}/bin/python", f"/opt/{wheel.name}"
    if not (SITE / "pip").exists():
        guest(["python3", "-m", "venv", "--without-pip", VENV])
        _unpack([*requirements(str(wheel)), "pip"])
    pip = [python, "-m", "pip", "install", "-q", "--only-binary", ":all:", "--no-compile"]
    guest([*pip, *requirements(inside)])
    guest([*pip, "--no-deps", "--force-reinstall", inside])
    guest([python, "-m", "pip", "check"])
    where = "import edgecv, platform; print(platform.machine(), edgecv.__file__)"
    origin = guest([python, "-c", where], capture=True).stdout
    assert origin.startswith(f"aarch64 {VENV}/"), f"not the wheel, or not arm64: {origin}"
    guest([python, "-c", "import sys, importlib.util as u; sys.exit(u.find_spec('torch') is not None)"])


def _unpack(wanted: list[str]) -> None:
    """Unpack the wheels for aarch64 with this machine's pip, which emulation does not slow down.

    What a package asks for on aarch64 alone is missing afterwards: the guest's own pip looks at each, and adds it.
    """
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in range(17, GLIBC + 1)]
    chosen = ["--only-binary=:all:", "--implementation=cp", "--python-version=3.11", *platforms]
    options = ["-q", "--no-compile", f"--target={SITE}", *chosen]
    run([sys.executable, "-m", "pip", "install", *options, "--platform=manylinux2014_aarch64", *wanted])


def tests() -> None:
    """The run-time tests; the checkout's code is not there, so the wheel runs."""
    copy_tests(DESK / "checkout")
    command = pytest_command(f"{VENV}/bin/python", ON_ARM64, "-o", f"timeout={TEST_LIMIT_S}", "--durations=15")
    guest(["env", "--chdir=/desk/checkout", *command])


def bundles() -> list[Path]:
    """A detector, and a classifier, in every precision and for every CPU class; this machine converts them once."""
    detector = [SHARED / "models/yolov8n-coco.pt", "--imgsz", "320", "--calib", SHARED / "data/coco128-train/images"]
    classifier = [SHARED / "models/resnet20-cifar10.onnx", "--calib", SHARED / "data/cifar10-jpeg/calibration"]
    return [
        _converted("yolov8n-coco", [*detector, "--to", "onnx", "--to", "tflite"]),
        _converted("resnet20-cifar10", [*classifier, *IMAGENET, "--to", "onnx"]),  # an .onnx has no way to TFLite
    ]


def _converted(name: str, source: list[str | Path]) -> Path:
    path = HOME / f"bundles/{name}.ecv"
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        options = ["--int8", "--fp16", "--target", "all", "--out", path]
        run([str(word) for word in (sys.executable, "-m", "edgecv", "convert", *source, *options)], cwd=CHECKOUT)
    return path


def _bring(bundle: Path) -> None:
    """The bundle on the guest's desk, unless it lies there."""
    there = DESK / bundle.name
    if not there.exists() or (there / "bundle.json").read_bytes() != (bundle / "bundle.json").read_bytes():
        shutil.rmtree(there, ignore_errors=True)
        shutil.copytree(bundle, there)


def verify() -> None:
    """Golden vectors of every variant, on a core with 8-bit dot products and on one without."""
    for bundle in bundles():
        _bring(bundle)
        for processor in PROCESSORS:
            answer = guest(
                [f"{VENV}/bin/edgecv", "verify", bundle.name, "--json"], processor=processor, ok=[0, 1], capture=True
            )
            rows = json.loads(answer.stdout)["variants"]
            for row in rows:
                print(
                    f"{processor}: {bundle.stem} {row['variant']}: {row['status']} {row['cosine']} {row['reason']}",
                    flush=True,
                )
            assert rows and all(row["status"] == "ok" for row in rows), f"{bundle.name} differs on {processor}"


def device() -> None:
    """What the guest is, and what the doctor finds there: nothing that fails."""
    guest([f"{VENV}/bin/edgecv", "devices"])
    described = json.loads(guest([f"{VENV}/bin/edgecv", "devices", "--json"], capture=True).stdout)
    assert described["arch"] == "aarch64", described["arch"]
    assert described["cpu"]["cpu_class"].startswith("arm64"), described["cpu"]
    findings = json.loads(guest([f"{VENV}/bin/edgecv", "doctor", "--json"], ok=[0, 1], capture=True).stdout)["findings"]
    for one in findings:
        print(f"{one['level']:5} {one['id']}: {one['what']}")
    assert not [one for one in findings if one["level"] == "fail"]
    tried = [one for one in findings if one["id"] in ("runtime-onnxruntime", "runtime-litert")]
    assert len(tried) == 2, "both runtimes are tried"
    # The doctor gives a runtime 10 s, which emulation beside other work may not keep; `verify` and `clip` prove that both compute.
    assert all(one["level"] == "ok" or "no answer within" in one["what"] for one in tried), tried


def clip() -> None:
    """A clip through the detector in the guest, over a broker of this machine, into the landing database of this machine."""
    (bundle, _), store, outbox = bundles(), HOME / "store", DESK / "outbox"
    _bring(bundle)
    shutil.copy(SHARED / "data/vtest.avi", DESK / "clip.avi")
    for old in (store, outbox):
        shutil.rmtree(old, ignore_errors=True)
    with _broker() as url, _ingest(url, store):
        command = [
            f"{VENV}/bin/edgecv",
            "run",
            bundle.name,
            "--source",
            "clip.avi",
            "--track",
            "--max-frames",
            str(FRAMES),
        ]
        guest([*command, "--mqtt", url, "--tenant", "acme", "--device", "arm", "--outbox", "outbox"])
        _wait(lambda: _stored(store) == FRAMES, f"{FRAMES} results in the landing database")
    with closing(sqlite3.connect(store / "landing.db")) as db:
        people = db.execute("SELECT count(*) FROM events WHERE data LIKE '%person%'").fetchone()[0]
    assert people > 0, "no frame of the street has a person"
    print(f"{FRAMES} results arrived, {people} of them with people")


@contextmanager
def _broker() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = HOME / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_type error\n")
    with _process(["mosquitto", "-c", str(config)]):
        _wait(lambda: _listens(port), "mosquitto listens")
        yield f"mqtt://127.0.0.1:{port}"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def _ingest(url: str, store: Path) -> Iterator[None]:
    with _process([sys.executable, "-m", "edgecv", "ingest", "--mqtt", url, "--db", str(store)]):
        yield


def _stored(store: Path) -> int:
    if not (store / "landing.db").exists():
        return 0
    with closing(sqlite3.connect(f"file:{store / 'landing.db'}?mode=ro", uri=True, timeout=5)) as db:
        return int(db.execute("SELECT count(*) FROM events WHERE type = 'edgecv.result'").fetchone()[0])


@contextmanager
def _process(command: list[str]) -> Iterator[None]:
    process = subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(WAIT_S)


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise SystemExit(f"Not within {WAIT_S:.0f} s: {what}.")
        time.sleep(0.1)


STEPS: dict[str, Callable[[], object]] = {
    "root": make_root,
    "install": install,
    "tests": tests,
    "verify": verify,
    "device": device,
    "clip": clip,
}

if __name__ == "__main__":
    raise SystemExit(main())

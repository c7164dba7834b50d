"""EdgeCV beside other tools on one video: same model, input and threads, a process each, in turns (``make bench-peers``).

``python -m edgecv.benchmarks.lab peers [--quick] [--bundle B.ecv] [--rounds 5] [--frames 160] [--doc docs/benchmarks.md]``

The environments of the peers are made in ``.cache/peers`` when they are missing; so are EdgeCV's bundle and Ultralytics' INT8 ONNX,
which takes some minutes once and is no part of the measurement.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from edgecv.benchmarks.lab.peers.document import section, write_document
from edgecv.benchmarks.lab.peers.environments import HERE, PINS, prepare
from edgecv.benchmarks.lab.peers.figures import Figures, machine_in_words, versions_here
from edgecv.benchmarks.lab.peers.judged import judged
from edgecv.benchmarks.lab.peers.limits import Limits
from edgecv.benchmarks.lab.peers.rounds import Summary, run_rounds
from edgecv.benchmarks.lab.peers.sides import Files, Plan, Side, all_sides
from edgecv.benchmarks.lab.peers.ultralytics_environment import keep_to_cpus
from edgecv.benchmarks.lab.peers.with_boxes import write_with_boxes
from edgecv.benchmarks.lab.process_tree import run_measured
from edgecv.benchmarks.machine.processor_time import read_processor_time, shares_between
from edgecv.benchmarks.process import call_module
from edgecv.cli.console import note, print_json
from edgecv.errors import EdgeCVError

_CHECKOUT = Path(__file__).resolve().parents[3]
_SHARED = _CHECKOUT.parent / "shared"
_CACHE = _CHECKOUT / ".cache/peers"
_PREPARE_TIMEOUT_S = 2400.0
_LAB = (sys.executable, "-m", "edgecv.benchmarks.lab")


def _files(given: argparse.Namespace) -> Files:
    """The models; what is missing is made."""
    bundle = given.bundle.absolute()
    if not bundle.exists():
        formats = ("--int8", "--to", "all", "--calib", str(given.calib / "images"))
        _make(
            "EdgeCV's bundle",
            bundle,
            (sys.executable, "-m", "edgecv", "convert", str(given.checkpoint), *formats, "--out"),
        )
    if not given.onnx_export.exists():
        command = (*_LAB, "peer_onnx", str(given.checkpoint), str(given.calib))
        _make("Ultralytics' INT8 ONNX", given.onnx_export.absolute(), command)
    return Files(
        bundle=bundle,
        video=given.video.absolute(),
        openvino=given.openvino_export.absolute(),
        onnx=given.onnx_export.absolute(),
        litert=given.litert_export.absolute(),
        with_boxes=write_with_boxes(bundle, given.environments.absolute() / "with_boxes.xml"),
    )


def _make(what: str, out: Path, command: tuple[str, ...]) -> None:
    """Run a command that writes ``out``, its last argument.

    Raises:
        EdgeCVError: it wrote nothing.
    """
    note(f"making {out}: this takes some minutes, once")
    done = run_measured((*command, str(out)), timeout_s=_PREPARE_TIMEOUT_S)
    if done.code != 0 or not out.exists():
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise EdgeCVError(f"{what} could not be made: {reason}", f"Run it alone: {shlex.join((*command, str(out)))}")


def _limits(given: argparse.Namespace, files: Files) -> tuple[Limits | None, str]:
    numbers = ("--threads", str(given.threads), "--frames", str(min(given.frames, 100)))
    try:
        answer = call_module("edgecv.benchmarks.lab", "peer_limits", str(files.bundle), str(files.video), *numbers)
    except EdgeCVError as error:
        return None, error.message
    return msgspec.json.decode(answer, type=Limits), ""


def _measure(given: argparse.Namespace) -> Figures:
    environments = prepare((HERE, *PINS), given.environments.absolute(), install=not given.no_install)
    files = _files(given)
    started, start_s = datetime.now(timezone.utc), time.monotonic()
    keep_to_cpus(given.threads)  # every side has the same processors, on a larger machine, too
    plan = Plan(frames=given.frames, threads=given.threads, app_seconds=given.app_seconds)
    sides = [side for side in all_sides(files, plan, environments) if _wanted(side, given.only)]
    before = read_processor_time()
    limits, reason = _limits(given, files)
    summaries = run_rounds(sides, given.rounds, given.minutes * 60 - (time.monotonic() - start_s), note)
    shares = shares_between(before, read_processor_time())
    return Figures(
        started=f"{started:%Y-%m-%d %H:%M} UTC",
        machine=machine_in_words(len(os.sched_getaffinity(0))),
        versions=versions_here(),
        pins=dict(PINS),
        command=given.said,
        frames=given.frames,
        threads=given.threads,
        rounds=_rounds(summaries),
        minutes=round((time.monotonic() - start_s) / 60, 1),
        foreign_share=None if shares is None else round(shares.foreign + shares.stolen, 4),
        summaries=summaries,
        verdicts=judged(summaries),
        limits=limits,
        limits_reason=reason,
    )


def _wanted(side: Side, only: list[str]) -> bool:
    return not only or any(word.lower() in f"{side.group} {side.name}".lower() for word in only)


def _rounds(summaries: list[Summary]) -> int:
    return max((len(one.rounds_fps) for one in summaries), default=0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m edgecv.benchmarks.lab peers", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="one round with few frames: whether everything runs")
    parser.add_argument("--frames", type=int, help="frames per run; slow sides get a fifth (default 160, quick 20)")
    parser.add_argument("--rounds", type=int, help="at most so many (default 5, quick 1)")
    parser.add_argument("--minutes", type=float, default=12.0, help="no round begins that would end later, after three")
    parser.add_argument("--app-seconds", type=int, help="of each run of benchmark_app (default 4, quick 1)")
    parser.add_argument("--threads", type=int, default=2, help="of every side, and processors that it may use")
    parser.add_argument("--only", action="append", default=[], help="sides whose group or name has this in it")
    parser.add_argument("--bundle", type=Path, default=_CACHE / "yolov8n.ecv", help="converted when it is missing")
    parser.add_argument("--video", type=Path, default=_SHARED / "data/vtest.avi")
    parser.add_argument("--environments", type=Path, default=_CACHE, help="folder of the peers' environments")
    parser.add_argument(
        "--no-install", action="store_true", help="make no environment; sides without one have no figures"
    )
    parser.add_argument("--openvino-export", type=Path, default=_SHARED / "peers/ultralytics-openvino-int8")
    parser.add_argument("--onnx-export", type=Path, default=_CACHE / "ultralytics_int8.onnx")
    parser.add_argument("--litert-export", type=Path, default=_SHARED / "peers/ultralytics-tflite-full-integer.tflite")
    parser.add_argument("--checkpoint", type=Path, default=_SHARED / "models/yolov8n-coco.pt")
    parser.add_argument("--calib", type=Path, default=_SHARED / "data/coco128-train")
    parser.add_argument("--doc", type=Path, help="write the tables into this document, such as docs/benchmarks.md")
    parser.add_argument("--out", type=Path, help="write everything here as JSON")
    parser.add_argument("--from", dest="record", type=Path, help="measure nothing: take the figures of such a file")
    parser.add_argument("--json", action="store_true", help="the same on stdout instead of the tables")
    return parser.parse_args()


def _with_defaults(given: argparse.Namespace) -> argparse.Namespace:
    frames, rounds, seconds = (20, 1, 1) if given.quick else (160, 5, 4)
    given.frames = given.frames or frames
    given.rounds = given.rounds or rounds
    given.app_seconds = given.app_seconds or seconds
    given.said = shlex.join(("python", "-m", "edgecv.benchmarks.lab", "peers", *sys.argv[1:]))
    return given


def main() -> None:
    given: Any = _with_defaults(_arguments())
    figures = msgspec.json.decode(given.record.read_bytes(), type=Figures) if given.record else _measure(given)
    if given.out:
        given.out.write_bytes(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")
    if given.doc:
        write_document(given.doc, figures)
    if given.json:
        print_json(msgspec.to_builtins(figures))
    else:
        print(section(figures))

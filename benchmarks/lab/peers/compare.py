"""EdgeCV beside Ultralytics on one video: frame rates, memory, and what the pipeline costs over the bare session.

``python -m edgecv.benchmarks.lab peers --bundle B.ecv --video vtest.avi [--frames 300]
[--rounds 5] [--threads 2] [--out FILE.json]``

Ultralytics' INT8 OpenVINO export, and what its INT8 ONNX is made from (checkpoint, calibration images), come from ``../shared``
unless said otherwise; the ONNX is made once and kept in ``.cache/``. A table goes to stdout, everything to ``--out``.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from edgecv.benchmarks.lab.peers.comparison import (
    ONNX_PEER,
    OPENVINO_PEER,
    PSS_LIMIT_MB,
    Comparison,
    Side,
    compare,
    our_sides,
    peer_side,
)
from edgecv.benchmarks.lab.peers.ultralytics_environment import keep_to_cpus
from edgecv.benchmarks.lab.pipeline_overhead import OVERHEAD_LIMIT, OverheadTask, PipelineOverhead, overhead_in_child
from edgecv.benchmarks.lab.process_tree import run_measured
from edgecv.cli.console import note, print_json, print_table
from edgecv.errors import EdgeCVError
from edgecv.version import __version__

_CHECKOUT = Path(__file__).resolve().parents[3]
_SHARED = _CHECKOUT / "../shared"
_EXPORT_TIMEOUT_S = 900.0
_PACKAGES = ("ultralytics-opencv-headless", "torch", "openvino", "onnxruntime", "ai-edge-litert", "numpy")


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one call measured, with what it ran on.

    Attributes:
        started: When, UTC.
        machine: CPU and how many CPUs were used.
        load: The machine's one-minute load before and after: about 0 before, else measure again.
        versions: Of the tools that took part.
        arguments: Of the call.
        comparison: The sides and the ratios.
        overheads: What the pipeline costs, per runtime.
    """

    started: str
    machine: str
    load: tuple[float, float]
    versions: dict[str, str]
    arguments: dict[str, str]
    comparison: Comparison
    overheads: dict[str, PipelineOverhead]


def _sides(given: argparse.Namespace) -> list[Side]:
    numbers = {"frames": given.frames, "threads": given.threads}
    sides = our_sides(given.bundle, given.video, runtimes=given.runtime or (), **numbers)
    numbers["torch_threads"] = given.torch_threads
    if OPENVINO_PEER not in given.without:
        sides.append(peer_side(OPENVINO_PEER, given.openvino_export, given.video, **numbers))
    if ONNX_PEER not in given.without:
        numbers["frames"] = given.onnx_frames or max(20, given.frames // 5)  # it is slow: its rate needs no more
        sides.append(peer_side(ONNX_PEER, _onnx_export(given), given.video, **numbers))
    return sides


def _onnx_export(given: argparse.Namespace) -> Path:
    """Ultralytics' INT8 ONNX, made when it is not there."""
    out: Path = given.onnx_export
    if out.exists():
        return out
    note(f"making {out} with Ultralytics")
    program = ("-m", "edgecv.benchmarks.lab", "peer_onnx")
    command = [sys.executable, *program, str(given.checkpoint), str(given.calib), str(out)]
    done = run_measured(command, timeout_s=_EXPORT_TIMEOUT_S)
    if done.code != 0 or not out.exists():
        raise EdgeCVError(
            f"Ultralytics' INT8 ONNX could not be made: {(done.stderr.strip().splitlines() or ['?'])[-1]}",
            f"Run it alone: {' '.join(command)}",
        )
    return out


def _overheads(given: argparse.Namespace, runtimes: list[str]) -> dict[str, PipelineOverhead]:
    found: dict[str, PipelineOverhead] = {}
    for runtime in runtimes:
        found[runtime] = overhead_in_child(
            OverheadTask(
                bundle=str(given.bundle),
                video=str(given.video),
                runtime=runtime,
                threads=given.threads,
                frames=min(given.frames, 60),
                rounds=given.rounds,
            )
        )
        note(f"overhead with {runtime}: {found[runtime].overhead:.1%}")
    return found


def _render(figures: Figures) -> None:
    sides = figures.comparison.sides
    print_table(
        "medians",
        ("side", "fps", "peak PSS MB", "peak RSS MB"),
        [(name, f"{s.fps:.1f}", f"{s.peak_pss_mb:.0f}", f"{s.peak_rss_mb:.0f}") for name, s in sides.items()],
    )
    ratios = [
        (f"{r.ours} / {peer}", f"{r.ratio:.2f} (rounds {r.round_ratio:.2f})", f">= {r.target}", _said(r.met))
        for peer, r in figures.comparison.against.items()
    ]
    memory = [
        (f"PSS of {name}", f"{s.peak_pss_mb:.0f} MB", f"<= {PSS_LIMIT_MB:.0f} MB", _said(s.peak_pss_mb <= PSS_LIMIT_MB))
        for name, s in sides.items()
        if name.startswith("edgecv/")
    ]
    overheads = [
        (f"overhead, {name}", f"{o.overhead:.1%}", f"<= {OVERHEAD_LIMIT:.0%}", _said(o.overhead <= OVERHEAD_LIMIT))
        for name, o in figures.overheads.items()
    ]
    print_table("targets", ("what", "measured", "target", "met"), [*ratios, *memory, *overheads])


def _said(met: bool) -> str:
    return "yes" if met else "no"


def _versions() -> dict[str, str]:
    found = {"edgecv": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _measure(given: argparse.Namespace) -> Figures:
    started, load = datetime.now(timezone.utc).isoformat(timespec="seconds"), os.getloadavg()[0]
    keep_to_cpus(given.threads)  # every side has the same CPUs, on a larger machine too
    sides = _sides(given)
    comparison = compare(sides, given.rounds)
    runtimes = [side.name.partition("/")[2] for side in sides if side.name.startswith("edgecv/")]
    return Figures(
        started=started,
        machine=f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs of {os.cpu_count()}",
        load=(round(load, 2), round(os.getloadavg()[0], 2)),
        versions=_versions(),
        arguments={name: str(value) for name, value in vars(given).items()},
        comparison=comparison,
        overheads={} if given.no_overhead else _overheads(given, runtimes),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m edgecv.benchmarks.lab peers", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--video", type=Path, default=_SHARED / "data/vtest.avi")
    parser.add_argument("--frames", type=int, default=300, help="frames per run")
    parser.add_argument("--onnx-frames", type=int, help="frames per run of the slow peer; a fifth by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--threads", type=int, default=2, help="CPUs that each side may use, and threads of our session"
    )
    parser.add_argument("--torch-threads", type=int, default=0, help="of the peers; 0: what Ultralytics chooses")
    parser.add_argument("--runtime", action="append", help="only this one of ours; may be repeated")
    parser.add_argument("--without", action="append", default=[], choices=[OPENVINO_PEER, ONNX_PEER])
    parser.add_argument("--no-overhead", action="store_true", help="leave the pipeline overhead out")
    parser.add_argument("--openvino-export", type=Path, default=_SHARED / "peers/ultralytics-openvino-int8")
    parser.add_argument("--onnx-export", type=Path, default=_CHECKOUT / ".cache/peers/ultralytics_int8.onnx")
    parser.add_argument("--checkpoint", type=Path, default=_SHARED / "models/yolov8n-coco.pt")
    parser.add_argument("--calib", type=Path, default=_SHARED / "data/coco128-train")
    parser.add_argument("--out", type=Path, help="write everything here as JSON")
    parser.add_argument("--json", action="store_true", help="the same on stdout instead of the tables")
    given: Any = parser.parse_args()
    figures = _measure(given)
    if given.out:
        given.out.write_bytes(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")
    if given.json:
        print_json(msgspec.to_builtins(figures))
    else:
        _render(figures)

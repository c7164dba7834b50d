"""The conversion matrix at real size: every source x format x precision, converted, replayed and measured; the table writes itself.

``python -m edgecv.benchmarks.lab matrix [--out docs/conversion-matrix.md] [--only PATTERN] [--calib DIR] [--resume]``

The table is written after every command, so that a run that is stopped leaves what it reached. ``--resume`` keeps the cells of
earlier runs that were made with the versions at hand; ``record_of`` says where they are kept.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import signal
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from fnmatch import fnmatch
from pathlib import Path

import msgspec

from edgecv._internal.atomic import new_file
from edgecv.benchmarks.lab.matrix.cells import (
    FORMATS,
    Cell,
    Outcome,
    cells_of,
    conversions,
    matrix_sources,
    run_conversion,
)
from edgecv.errors import ConfigError, EdgeCVError
from edgecv.specs import PRECISIONS
from edgecv.version import __version__

_CHECKOUT = Path(__file__).resolve().parents[3]
TABLE = _CHECKOUT / "docs/conversion-matrix.md"
_RECORD = _CHECKOUT / "benchmarks/lab/records/conversion-matrix.json"
_SHARED = _CHECKOUT / "../shared"
_PACKAGES = (
    "torch",
    "ultralytics-opencv-headless",
    "onnxruntime",
    "openvino",
    "nncf",
    "ai-edge-litert",
    "litert-torch",
)
_COLUMNS = (
    "source",
    "format",
    "precision",
    "status",
    "MB",
    "/ fp32",
    "ms, 1 thread",
    "/ fp32",
    "cosine with source",
    "INT8 against float",
    "convert s",
    "peak RSS GB",
)


def all_cells(shared: Path) -> tuple[Cell, ...]:
    """Every cell, smallest source first: what is broken everywhere shows early."""
    return tuple(cell for source in matrix_sources(shared.resolve()) for cell in cells_of(source))


def chosen_cells(cells: Sequence[Cell], pattern: str) -> tuple[Cell, ...]:
    """Cells whose name (``resnet18 tflite int8``) fits the pattern of ``fnmatch``.

    Raises:
        ConfigError: none does.
    """
    chosen = tuple(cell for cell in cells if fnmatch(cell.name, pattern))
    if not chosen:
        raise ConfigError(f"No cell fits '{pattern}'.", "Such as --only 'resnet18 *' or --only '* tflite int8'.")
    return chosen


def run_matrix(
    cells: Sequence[Cell], wanted: Sequence[Cell], out: Path, calibration: Path, known: Mapping[str, Outcome]
) -> dict[str, Outcome]:
    """Run the ``wanted`` cells that are not ``known``; the table lists all ``cells``.

    The table and the record of outcomes are written after each command.
    """
    outcomes = dict(known)
    _write(cells, outcomes, out)
    for conversion in conversions([cell for cell in wanted if cell.name not in known]):
        made = run_conversion(conversion, calibration, date.today().isoformat())
        stamp = {"made_with": versions(), "machine": machine()}
        found = {name: msgspec.structs.replace(outcome, **stamp) for name, outcome in made.items()}
        for name, outcome in found.items():
            print(f"{name}: {outcome.status} {outcome.reason} ({outcome.wall_s:.0f} s)", file=sys.stderr, flush=True)
        outcomes.update(found)
        _write(cells, outcomes, out)
    return outcomes


def record_of(out: Path) -> Path:
    """Where the outcomes behind a table are kept: beside it, and for the tracked table in ``benchmarks/lab/records/``."""
    return _RECORD if out.resolve() == TABLE else out.with_suffix(".json")


def known_outcomes(out: Path) -> dict[str, Outcome]:
    """Outcomes of earlier runs with the versions at hand; those that failed or were too slow are tried again."""
    path = record_of(out)
    if not path.exists():
        return {}
    try:
        read = msgspec.json.decode(path.read_bytes(), type=dict[str, Outcome])
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} is damaged: {error}.", "Remove it, or run without --resume.") from error
    now = versions()
    return {
        name: outcome
        for name, outcome in read.items()
        if outcome.made_with == now and outcome.status in ("ok", "refused")
    }


def versions() -> str:
    """Of EdgeCV, Python and the packages that convert."""
    found = [f"edgecv {__version__}", f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def table(cells: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> str:
    """The document: where and with what it was made, how many cells of each status, and a row per cell."""
    statuses = [outcomes[cell.name].status if cell.name in outcomes else "not run" for cell in cells]
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
    reasons = [f"- **{name}**: {_plain(outcome.reason)}" for name, outcome in _reasoned(cells, outcomes)]
    lines = [
        "# Conversion matrix",
        "",
        "Written by `python -m edgecv.benchmarks.lab matrix`; nothing here is filled by hand.",
        "",
        f"{len(cells)} cells ({' '.join(FORMATS)} x {' '.join(PRECISIONS)} per source): {counts}. "
        f"Last written {date.today().isoformat()}.",
        "",
        f"{_machines(outcomes)} Versions: {versions()}.",
        "",
        "`edgecv convert --fp32 --fp16 --int8 --to all`, in a process of its own and followed by `edgecv verify`, fills the cells "
        "of a source; cells of a source with another time were filled by a command of their own. Time and memory are those of "
        "the whole command. "
        f"A `.yaml` or a bare name has random weights (seed 0) and {_images(outcomes)} images: its INT8 is judged by the "
        "cosine of its raw outputs and proves the plumbing, not an accuracy. "
        "Latencies were read at conversion beside whatever else the machine did: compare ratios.",
        "",
        _row(_COLUMNS),
        _row(["---"] * len(_COLUMNS)),
        *(_row(_cells_of_row(cell, outcomes.get(cell.name))) for cell in cells),
    ]
    if reasons:
        lines += ["", "## Reasons", "", *reasons]
    return "\n".join(lines) + "\n"


def _write(cells: Sequence[Cell], outcomes: Mapping[str, Outcome], out: Path) -> None:
    """Both files, each whole or as it was before."""
    record = record_of(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for path, content in (
            (record, msgspec.json.format(msgspec.json.encode(outcomes))),
            (out, table(cells, outcomes).encode()),
        ):
            with new_file(path) as file:
                file.write(content)
    except OSError as error:
        raise EdgeCVError(f"{out} cannot be written: {error.strerror}.", "Choose another with --out.") from error


def _images(outcomes: Mapping[str, Outcome]) -> str:
    """How many images the cells with random weights got."""
    return (
        " or ".join(str(count) for count in sorted({outcome.images for outcome in outcomes.values()} - {0})) or "some"
    )


def _machines(outcomes: Mapping[str, Outcome]) -> str:
    """Where the cells were run; with several machines, how many cells each."""
    counts = Counter(outcome.machine or "not recorded" for outcome in outcomes.values())
    if len(counts) > 1:
        return f"Machines: {'; '.join(f'{machine} ({count} cells)' for machine, count in counts.most_common())}."
    return f"Machine: {next(iter(counts), machine())}."


def _reasoned(cells: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> list[tuple[str, Outcome]]:
    found = [(cell.name, outcomes[cell.name]) for cell in cells if cell.name in outcomes]
    return [(name, outcome) for name, outcome in found if outcome.reason]


def _cells_of_row(cell: Cell, outcome: Outcome | None) -> list[str]:
    head = [cell.source.name, cell.format, cell.precision]
    if outcome is None:
        return [*head, "not run", *[""] * (len(_COLUMNS) - 4)]
    cost = [f"{outcome.wall_s:.0f}", f"{outcome.peak_rss_bytes / 1e9:.2f}"]
    if outcome.status != "ok":
        return [*head, outcome.status, *[""] * (len(_COLUMNS) - 6), *cost]
    agreement = ", ".join(f"{name} {value:.3f}" for name, value in outcome.agreement.items())
    return [
        *head,
        outcome.status,
        f"{outcome.size_bytes / 1e6:.2f}",
        f"{outcome.size_ratio:.2f}",
        f"{outcome.latency_ms:.1f}",
        f"{outcome.latency_ratio:.2f}",
        f"{outcome.source_cosine:.6f}",
        f"{outcome.recipe}: {agreement}" if agreement else "",
        *cost,
    ]


def _row(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"


def _plain(text: str) -> str:
    """On one line, and no markup."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def machine() -> str:
    """CPU, cores, memory and system of this machine."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return (
        f"{_cpu_name()}, {os.cpu_count()} cores, {memory_bytes / 1e9:.0f} GB, {platform.system()} {platform.machine()}"
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown CPU"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m edgecv.benchmarks.lab matrix", description=__doc__)
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument(
        "--only", default="*", help="run only cells whose name fits, such as 'resnet18 *' or '* tflite int8'"
    )
    parser.add_argument("--calib", type=Path, default=_SHARED / "data/coco128-train", help="calibration images")
    parser.add_argument(
        "--shared", type=Path, default=_SHARED, help="folder with models/ and data/ of the trained ones"
    )
    parser.add_argument("--resume", action="store_true", help="keep what earlier runs have done")
    given = parser.parse_args()
    # The conversion in work must not outlive a run that is told to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    cells = all_cells(given.shared)
    wanted = chosen_cells(cells, given.only)
    known = known_outcomes(given.out) if given.resume else {}
    outcomes = run_matrix(cells, wanted, given.out.resolve(), given.calib.resolve(), known)
    bad = [name for name, outcome in outcomes.items() if outcome.status not in ("ok", "refused")]
    if bad:
        raise EdgeCVError(f"{len(bad)} cells failed: {', '.join(bad)}.", f"The reasons are in {given.out}.")

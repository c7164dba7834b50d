"""The cells of the conversion matrix: source x format x precision, each one ``edgecv convert`` in a process of its own."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from edgecv import registry
from edgecv.benchmarks.process_tree import Measured, run_measured

FORMATS = ("onnx", "openvino", "tflite")
PRECISIONS = ("fp32", "fp16", "int8")
TIMEOUT_S = 3600.0

_YOLO_TASKS = ("-cls", "", "-seg", "-pose", "-obb")
_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
_SAMS = ("mobile_sam", "sam2.1_t", "sam_b", "sam_l", "sam_h")

Status = Literal["ok", "refused", "failed", "timed out"]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A model of the matrix.

    Attributes:
        name: What the table calls it.
        argument: ``SOURCE`` of ``edgecv convert``.
        options: Further options.
        calibration: Folder of its calibration pictures; empty for the one of all.
        random: Whether its weights are random.
    """

    name: str
    argument: str
    options: tuple[str, ...] = ()
    calibration: str = ""
    random: bool = False


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One conversion."""

    source: Source
    format: str
    precision: str

    @property
    def name(self) -> str:
        """Key of the cell, such as ``resnet18 tflite int8``."""
        return f"{self.source.name} {self.format} {self.precision}"


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a cell.

    Attributes:
        status: ``ok``: converted, and its golden vectors replay; ``refused``: EdgeCV said no for a reason that is expected of
            this cell; ``failed``: anything else; ``timed out``.
        reason: Why it is not ``ok``, on one line.
        wall_s: Of the conversion.
        peak_rss_bytes: Of the conversion's process tree.
        size_bytes: Of the variant.
        size_ratio: Size over that of the fp32 variant.
        latency_ms: One thread.
        latency_ratio: Latency over that of the fp32 variant.
        source_cosine: Float variant against the source, the lowest of all outputs and pictures.
        agreement: What the INT8 gate found.
        recipe: Of INT8.
        day: When it was run, ``YYYY-MM-DD``.
    """

    status: Status
    reason: str = ""
    wall_s: float = 0.0
    peak_rss_bytes: int = 0
    size_bytes: int = 0
    size_ratio: float = 0.0
    latency_ms: float = 0.0
    latency_ratio: float = 0.0
    source_cosine: float = 0.0
    agreement: dict[str, float] = {}
    recipe: str = ""
    day: str = ""


def matrix_sources(shared: Path) -> tuple[Source, ...]:
    """Every source at its real size, smallest first; ``shared`` holds the trained models."""
    yolos = [_random_source(f"yolov8{scale}{task}.yaml") for scale in "nsmlx" for task in _YOLO_TASKS]
    resnets = [_random_source(name) for name in _RESNETS]
    sams = [_random_source(name) for name in _SAMS if name in registry.names("families")]
    trained = [
        Source(
            name="resnet20-cifar10.onnx",
            argument=str(shared / "models/resnet20-cifar10.onnx"),
            calibration=str(shared / "data/cifar10-jpeg/calibration"),
        ),
        Source(name="yolov8n-coco.pt", argument=str(shared / "models/yolov8n-coco.pt")),
    ]
    # By scale, the classifiers among the detectors of about their cost.
    return (
        trained[0],
        yolos[0],
        *resnets[:1],
        trained[1],
        *yolos[1:5],
        *resnets[1:3],
        *yolos[5:10],
        *resnets[3:],
        *sams[:1],
        *yolos[10:],
        *sams[1:],
    )


def cells_of(source: Source) -> Iterator[Cell]:
    """Every format and precision of a source."""
    for model_format in FORMATS:
        for precision in PRECISIONS:
            yield Cell(source=source, format=model_format, precision=precision)


def run_cell(cell: Cell, calibration: Path, day: str, timeout_s: float = TIMEOUT_S) -> Outcome:
    """Convert, replay the golden vectors, and read the figures from the bundle."""
    with tempfile.TemporaryDirectory(prefix="edgecv-matrix-") as work:
        out = Path(work) / "cell.ecv"
        converted = run_measured(_command(cell, calibration, out), timeout_s=timeout_s)
        figures: dict[str, Any] = {
            "wall_s": round(converted.wall_s, 1),
            "peak_rss_bytes": converted.peak_rss_bytes,
            "day": day,
        }
        if converted.code is None:
            return Outcome(status="timed out", reason=f"not done after {timeout_s:.0f} s", **figures)
        if converted.code != 0:
            return _not_converted(cell, converted, figures)
        verified = run_measured([*_EDGECV, "verify", str(out), "--json"], timeout_s=timeout_s)
        if verified.code != 0:
            return Outcome(status="failed", reason=f"edgecv verify: {_verify_reason(verified)}", **figures)
        summary = json.loads(converted.stdout)
        if _lacks(cell, summary):
            return Outcome(status="refused", reason="no INT8 recipe passes and is faster: another precision", **figures)
        return Outcome(status="ok", **figures, **_figures(cell, summary))


_EDGECV = (sys.executable, "-m", "edgecv")


def _random_source(name: str) -> Source:
    return Source(name=name, argument=name, options=("--random-weights",), random=True)


def _command(cell: Cell, calibration: Path, out: Path) -> list[str]:
    source = cell.source
    pictures = source.calibration or str(calibration)
    return [
        *(*_EDGECV, "convert", source.argument, *source.options, f"--{cell.precision}", "--to", cell.format),
        *("--calib", pictures, "--out", str(out), "--json"),
    ]


def _not_converted(cell: Cell, done: Measured, figures: dict[str, Any]) -> Outcome:
    reason = error_line(done.stderr)
    own = reason.startswith("error: ")
    if own and any(expected(cell) and words in reason for expected, words in _REFUSALS):
        return Outcome(status="refused", reason=reason.removeprefix("error: "), **figures)
    return Outcome(status="failed", reason=f"exit code {done.code}: {reason}", **figures)


# Which cells may be refused, and words of the reason that they must give.
_REFUSALS: tuple[tuple[Callable[[Cell], bool], str], ...] = (
    (lambda cell: cell.format == "tflite" and cell.source.argument.endswith(".onnx"), "cannot be converted to TFLite"),
    (lambda cell: cell.format == "tflite" and cell.source.name == "sam_h", "a .tflite holds 2"),
    (lambda cell: cell.format == "onnx" and cell.source.name == "sam_h", "larger than the 2 GiB"),
    (lambda cell: cell.precision == "int8" and cell.source.random, "No INT8 recipe keeps the accuracy"),
)


def error_line(stderr: str) -> str:
    """EdgeCV's own error if there is one, else the last line that was said."""
    lines = [line.strip() for line in re.split(r"[\r\n]", stderr) if line.strip()]
    own = [line for line in lines if line.startswith("error: ")]
    return (own or lines or ["it said nothing"])[-1]


def _verify_reason(done: Measured) -> str:
    try:
        rows = json.loads(done.stdout)["variants"]
    except ValueError:
        return error_line(done.stderr)
    return "; ".join(f"{row['variant']} {row['status']}: {row['reason']}" for row in rows if row["status"] != "ok")


def _lacks(cell: Cell, summary: dict[str, Any]) -> bool:
    """Whether the ladder of INT8 ended at another precision."""
    return cell.precision not in {variant["precision"] for variant in summary["variants"]}


def _figures(cell: Cell, summary: dict[str, Any]) -> dict[str, Any]:
    by_precision = {variant["precision"]: variant for variant in summary["variants"]}
    base, made = by_precision["fp32"], by_precision[cell.precision]
    found = {
        "size_bytes": made["bytes"],
        "size_ratio": round(made["bytes"] / base["bytes"], 4),
        "latency_ms": made["latency_ms"],
        "latency_ratio": round(made["latency_ms"] / base["latency_ms"], 4),
        "recipe": made["recipe"],
    }
    if cell.precision == "int8":
        return {**found, "agreement": made["metrics"], "source_cosine": base["metrics"]["source_cosine"]}
    return {**found, "source_cosine": made["metrics"]["source_cosine"]}

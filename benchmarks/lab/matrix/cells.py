"""The cells of the conversion matrix: source x format x precision.

One command in a process of its own fills the cells of a source: ``edgecv convert --fp32 --fp16 --int8 --to all``.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from edgecv import registry
from edgecv.benchmarks.lab.process_tree import Measured, run_measured
from edgecv.media.image_files import IMAGE_SUFFIXES
from edgecv.quantize.calibration.calibration_set import MINIMUM_IMAGES
from edgecv.specs import PRECISIONS

FORMATS = ("onnx", "openvino", "tflite")
TIMEOUT_S = 3600.0  # per format
RANDOM_IMAGES = MINIMUM_IMAGES  # random weights prove the plumbing

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
        calibration: Folder of its calibration images; empty for the one of all.
        random: Whether its weights are random.
    """

    name: str
    argument: str
    options: tuple[str, ...] = ()
    calibration: str = ""
    random: bool = False


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One source in one format and precision."""

    source: Source
    format: str
    precision: str

    @property
    def name(self) -> str:
        """Key of the cell, such as ``resnet18 tflite int8``."""
        return f"{self.source.name} {self.format} {self.precision}"


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """One command, and the cells of one source that it fills."""

    source: Source
    cells: tuple[Cell, ...]

    @property
    def formats(self) -> tuple[str, ...]:
        """What the command writes."""
        return tuple(dict.fromkeys(cell.format for cell in self.cells))

    @property
    def precisions(self) -> tuple[str, ...]:
        """What the command is asked for."""
        return tuple(dict.fromkeys(cell.precision for cell in self.cells))

    def smaller(self) -> tuple[Conversion, ...]:
        """A command for each format; for one format, a command for each precision; nothing for a single cell."""
        for key in ("format", "precision"):
            groups: dict[str, list[Cell]] = {}
            for cell in self.cells:
                groups.setdefault(getattr(cell, key), []).append(cell)
            if len(groups) > 1:
                return tuple(Conversion(source=self.source, cells=tuple(cells)) for cells in groups.values())
        return ()


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a cell.

    Attributes:
        status: ``ok``: converted, and its golden vectors replay; ``refused``: EdgeCV said no for a reason that is expected of
            this cell; ``failed``: anything else; ``timed out``.
        reason: Why it is not ``ok``, on one line.
        wall_s: Of the command, which fills other cells, too.
        peak_rss_bytes: Of the command's process tree.
        size_bytes: Of the variant.
        size_ratio: Size over that of the fp32 variant.
        encoder_ratio: The same of the encoder alone, where the model has one.
        latency_ms: One thread.
        latency_ratio: Latency over that of the fp32 variant.
        source_cosine: Float variant against the source, the lowest of all outputs and images.
        agreement: What the INT8 gate found.
        recipe: Of INT8.
        images: With random weights: how many images it got.
        day: When it was run, ``YYYY-MM-DD``.
        made_with: Versions of EdgeCV and of what it converts with.
        machine: Where it was run.
    """

    status: Status
    reason: str = ""
    wall_s: float = 0.0
    peak_rss_bytes: int = 0
    size_bytes: int = 0
    size_ratio: float = 0.0
    encoder_ratio: float = 0.0
    latency_ms: float = 0.0
    latency_ratio: float = 0.0
    source_cosine: float = 0.0
    agreement: dict[str, float] = {}
    recipe: str = ""
    images: int = 0
    day: str = ""
    made_with: str = ""
    machine: str = ""


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


def conversions(cells: Sequence[Cell]) -> tuple[Conversion, ...]:
    """The commands that fill the cells, in their order."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.source.name, []).append(cell)
    return tuple(Conversion(source=group[0].source, cells=tuple(group)) for group in found.values())


def run_conversion(
    conversion: Conversion, calibration: Path, day: str, timeout_s: float = TIMEOUT_S
) -> dict[str, Outcome]:
    """Convert, replay the golden vectors, and read the figures from the bundle: what came of each cell by its name.

    When the command as a whole fails, each format gets one of its own, and then each precision: what is wrong with one may not
    hide the others.
    """
    formats = conversion.formats
    with tempfile.TemporaryDirectory(prefix="edgecv-matrix-") as work:
        out = Path(work) / "cell.ecv"
        images = _images(conversion.source, calibration, Path(work))
        done = run_measured(_command(conversion, images, out), timeout_s=timeout_s * len(formats))
        cost: dict[str, Any] = {
            "wall_s": round(done.wall_s, 1),
            "peak_rss_bytes": done.peak_rss_bytes,
            "images": RANDOM_IMAGES if conversion.source.random else 0,
            "day": day,
        }
        if done.code == 0:
            verified = run_measured([*_EDGECV, "verify", str(out), "--json"], timeout_s=timeout_s)
            return _outcomes(conversion, json.loads(done.stdout), verified, cost)
    smaller = conversion.smaller()
    if not smaller:
        return {cell.name: _not_converted(cell, done, cost) for cell in conversion.cells}
    return {name: found for one in smaller for name, found in run_conversion(one, calibration, day, timeout_s).items()}


_EDGECV = (sys.executable, "-m", "edgecv")


def _random_source(name: str) -> Source:
    return Source(name=name, argument=name, options=("--random-weights",), random=True)


def _images(source: Source, calibration: Path, work: Path) -> Path:
    """The folder to calibrate with."""
    chosen = Path(source.calibration) if source.calibration else calibration
    if not source.random or not chosen.is_dir():
        return chosen
    some = work / "images"
    some.mkdir()
    paths = sorted(path for path in chosen.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    for at, path in enumerate(paths[:: max(1, len(paths) // RANDOM_IMAGES)][:RANDOM_IMAGES]):
        shutil.copy(path, some / f"{at}-{path.name}")  # names may repeat in the folders of classes
    return some


def _command(conversion: Conversion, images: Path, out: Path) -> list[str]:
    source = conversion.source
    formats = [word for name in conversion.formats for word in ("--to", name)]
    return [
        *(*_EDGECV, "convert", source.argument, *source.options),
        *(*(f"--{name}" for name in conversion.precisions), *formats),
        *("--keep-going", "--calib", str(images), "--out", str(out), "--json"),
    ]


def _outcomes(
    conversion: Conversion, summary: dict[str, Any], verified: Measured, cost: dict[str, Any]
) -> dict[str, Outcome]:
    """What came of each cell of a command that wrote a bundle."""
    reasons = {(one["format"], one["precision"]): one["message"] for one in summary["failures"]}
    found = {}
    for cell in conversion.cells:
        made = {row["precision"]: row for row in summary["variants"] if row["format"] == cell.format}
        reason = reasons.get((cell.format, cell.precision), reasons.get((cell.format, "fp32")))
        if reason is not None:
            outcome = _refused_or_failed(cell, reason, reason, cost)
        elif cell.precision not in made:
            outcome = _absent(cell, cost)
        elif verdict := _verdict(verified, made[cell.precision]["name"]):
            outcome = Outcome(status="failed", reason=f"edgecv verify: {verdict}", **cost)
        else:
            outcome = Outcome(status="ok", **cost, **_figures(cell, made))
        found[cell.name] = outcome
    return found


def _absent(cell: Cell, cost: dict[str, Any]) -> Outcome:
    """Nothing failed, and yet there is no such variant: only a search may end in something else."""
    if cell.precision == "int8":
        return Outcome(status="refused", reason="no INT8 recipe keeps the accuracy: another precision", **cost)
    return Outcome(status="failed", reason="the bundle does not hold it", **cost)


def _not_converted(cell: Cell, done: Measured, cost: dict[str, Any]) -> Outcome:
    """The command wrote nothing."""
    if done.code is None:
        return Outcome(status="timed out", reason=f"not done after {done.wall_s:.0f} s", **cost)
    reason = error_line(done.stderr)
    own = reason.removeprefix("error: ") if reason.startswith("error: ") else ""
    return _refused_or_failed(cell, own, f"exit code {done.code}: {reason}", cost)


def _refused_or_failed(cell: Cell, own: str, reason: str, cost: dict[str, Any]) -> Outcome:
    if any(expected(cell) and words in own for expected, words in _REFUSALS):
        return Outcome(status="refused", reason=own, **cost)
    return Outcome(status="failed", reason=reason, **cost)


# Which cells may be refused, and words of the reason that they must give.
_REFUSALS: tuple[tuple[Callable[[Cell], bool], str], ...] = (
    (lambda cell: cell.format == "tflite" and cell.source.argument.endswith(".onnx"), "cannot be converted to TFLite"),
    (lambda cell: cell.format == "tflite" and cell.source.name == "sam_h", "a .tflite holds 2"),
    (
        lambda cell: cell.format == "onnx" and cell.source.name == "sam_h" and cell.precision != "fp32",
        "larger than the 2 GiB",
    ),
    (lambda cell: cell.precision == "int8" and cell.source.random, "No INT8 recipe keeps the accuracy"),
)


def error_line(stderr: str) -> str:
    """EdgeCV's own error if there is one, else the last line that was said."""
    lines = [line.strip() for line in re.split(r"[\r\n]", stderr) if line.strip()]
    own = [line for line in lines if line.startswith("error: ")]
    return (own or lines or ["it said nothing"])[-1]


def _verdict(done: Measured, variant: str) -> str:
    """What is wrong with a variant when its golden vectors are replayed; empty for nothing."""
    if done.code is None:
        return f"not done after {done.wall_s:.0f} s"
    try:
        rows = json.loads(done.stdout)["variants"] if done.code in (0, 1) else []
    except ValueError:
        rows = []
    row = next((row for row in rows if row["variant"] == variant), None)
    if row is None:
        return error_line(done.stderr)
    return "" if row["status"] == "ok" else f"{row['status']}: {row['reason']}"


def _figures(cell: Cell, made: dict[str, Any]) -> dict[str, Any]:
    base, own = made["fp32"], made[cell.precision]
    found = {
        "size_bytes": own["bytes"],
        "size_ratio": round(own["bytes"] / base["bytes"], 4),
        "latency_ms": own["latency_ms"],
        "latency_ratio": round(own["latency_ms"] / base["latency_ms"], 4),
        "recipe": own["recipe"],
    }
    if "encoder" in own["parts"]:
        found["encoder_ratio"] = round(own["parts"]["encoder"] / base["parts"]["encoder"], 4)
    if cell.precision == "int8":
        return {**found, "agreement": own["metrics"], "source_cosine": base["metrics"]["source_cosine"]}
    return {**found, "source_cosine": own["metrics"]["source_cosine"]}

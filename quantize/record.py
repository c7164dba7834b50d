"""``quantization.json``: what was tried, what each attempt gave, what was chosen and why. The report is drawn from it alone."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import msgspec

from edgecv.bundles.manifest import MAX_MANIFEST_BYTES
from edgecv.errors import BundleError, EdgeCVError

SCHEMA = 1
QUANTIZATION, REPORT = "quantization.json", "report.html"  # in a bundle


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Read strictly: an unknown or missing key names itself."""


class Check(_Record, frozen=True, kw_only=True):
    """One figure of the gate against its limits; ``limited`` is false where it is shown but decides nothing."""

    metric: str
    value: float
    least: float
    most: float
    passed: bool
    limited: bool = True

    @classmethod
    def of(cls, metric: str, value: float, *, least: float, most: float = 1.0) -> Check:
        """Hold a figure against its limits: it must lie between ``least`` and ``most``."""
        return cls(metric=metric, value=value, least=least, most=most, passed=bool(least <= value <= most))


class ClassLoss(_Record, frozen=True, kw_only=True):
    """What one class lost: AP50-95 (detectors) or recall (classifiers) of float and INT8, 0 to 1, over ``count`` labels."""

    label: str
    float_score: float
    int8_score: float
    count: int


class Labelled(_Record, frozen=True, kw_only=True):
    """What INT8 loses against labels."""

    metric: str  # `map50_95`, `top1` or `mask_iou`
    images: int  # how many images
    float_score: float  # 0 to 1
    int8_score: float  # 0 to 1
    drop: float  # `float_score - int8_score` in points (hundredths)
    low: float  # lower end of the drop's paired 95 % bootstrap interval, in points
    high: float  # upper end
    more: dict[str, float] = {}  # further figures by name, such as `float_map50` and `int8_map50`
    classes: tuple[ClassLoss, ...] = ()  # worst first


class LayerLoss(_Record, frozen=True, kw_only=True):
    """One layer or block: signal to quantization noise at its output in dB, and milliseconds that leaving it float costs."""

    name: str
    sqnr_db: float
    float_cost_ms: float | None = None


class LayerRounding(_Record, frozen=True, kw_only=True):
    """One layer whose weights were rounded before the export.

    ``nearest_error`` is the squared error of its outputs with each weight at its nearest step, ``error`` with the rounding,
    both as a part of the variance. ``reason`` says why a layer was left to its quantizer.
    """

    name: str
    nearest_error: float | None = None
    error: float | None = None
    reason: str = ""


class BoxRow(_Record, frozen=True, kw_only=True):
    """One detection in frame pixels."""

    xyxy: tuple[float, float, float, float]
    confidence: float
    label: str


class WorstImage(_Record, frozen=True, kw_only=True):
    """A held-out image on which INT8 strays furthest; ``jpeg`` is a small copy, ``scale`` its pixels per frame pixel."""

    name: str
    agreement: float
    jpeg: bytes
    scale: float
    float_boxes: tuple[BoxRow, ...]
    int8_boxes: tuple[BoxRow, ...]


class Attempt(_Record, frozen=True, kw_only=True):
    """One recipe that was tried."""

    recipe: str  # its name
    checks: tuple[Check, ...] = ()  # figures of the gate
    labelled: Labelled | None = None  # against labels, where `--data` was given
    passed: bool  # whether it may be written
    reason: str = ""  # why not, in words; or, where speed counted, that it is not faster than float
    latency_ms: float | None = None  # one thread, on this machine; `None` where it was not timed
    bytes: int = 0  # size of its files; 0 where none were written


class FormatRecord(_Record, frozen=True, kw_only=True):
    """One format: its float variant, the attempts in the order they were made, the one that was chosen (empty: none)."""

    format: str
    float_latency_ms: float
    float_bytes: int
    attempts: tuple[Attempt, ...]
    chosen: str
    layers: tuple[LayerLoss, ...] = ()
    worst: tuple[WorstImage, ...] = ()
    notes: tuple[str, ...] = ()  # what was not proven, and what is left to do


class CalibrationRecord(_Record, frozen=True, kw_only=True):
    """Facts of the calibration set, and what was noticed about it (warnings, in words); ``seed`` splits it again alike."""

    images: int
    held_out: int
    sha256: str
    source: str
    seed: int = 0
    warnings: tuple[str, ...] = ()
    facts: dict[str, float] = {}


class ThresholdRecord(_Record, frozen=True, kw_only=True):
    """The bundle's confidence: before and after, and why."""

    before: float
    after: float
    reason: str


class QuantizationRecord(_Record, frozen=True, kw_only=True):
    """The content of ``quantization.json``: how each format was quantized."""

    schema: int = SCHEMA
    model: str
    source: str
    task: str
    calibration: CalibrationRecord
    formats: tuple[FormatRecord, ...]
    threshold: ThresholdRecord | None = None
    machine: str = ""
    by_speed: bool = False  # the model was converted on the device that it is for, so its speed there counted
    tools: dict[str, str] = {}


def write_record(record: QuantizationRecord, path: Path) -> None:
    """Write ``quantization.json``; infinite figures become the largest that JSON can hold.

    Raises:
        EdgeCVError: a figure is not a number, or the file cannot be written.
    """
    data = msgspec.json.format(msgspec.json.encode(_finite(msgspec.to_builtins(record), "record")), indent=1)
    write_result(path, data + b"\n")


def write_result(path: Path, data: bytes) -> None:
    """Write a file of the bundle.

    Raises:
        EdgeCVError: it cannot be written.
    """
    try:
        path.write_bytes(data)
    except OSError as error:
        raise EdgeCVError(
            f"{path} cannot be written: {error.strerror}.", "Is there space, and may you write?"
        ) from error


def parse_record(data: bytes, path: Path) -> QuantizationRecord:
    """The record of a ``quantization.json`` that was read from ``path``.

    Raises:
        BundleError: it is too large, damaged, or newer than this EdgeCV.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{path} is larger than any record.", "Do not use this bundle; ask whoever made it.")
    try:
        schema = msgspec.json.decode(data, type=_Schema).schema
        if schema > SCHEMA:
            raise BundleError(f"{path} has schema {schema}, newer than this EdgeCV reads.", "Update EdgeCV.")
        return msgspec.json.decode(data, type=QuantizationRecord)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path} is damaged: {error}.", "Convert the model again.") from error


class _Schema(msgspec.Struct):
    schema: int


def _finite(value: Any, place: str) -> Any:
    """The value with infinities replaced; ``place`` is its path, for the error."""
    if isinstance(value, dict):
        return {key: _finite(each, f"{place}.{key}") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each, f"{place}[{at}]") for at, each in enumerate(value)]
    if not isinstance(value, float) or math.isfinite(value):
        return value
    if math.isnan(value):
        raise EdgeCVError(f"{place} is not a number.", "A measurement failed: convert again with other images.")
    return math.copysign(sys.float_info.max, value)

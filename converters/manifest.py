"""What lies in a bundle beside its models: ``bundle.json``, the records of INT8, golden vectors and the model card."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from edgecv._internal.progress import one_step
from edgecv.bundles.bundle import describe_file
from edgecv.bundles.manifest import MANIFEST, SCHEMA, Calibration, Manifest, dump_manifest
from edgecv.converters.float_variants import Built, Job, each_once
from edgecv.converters.golden_vectors import write_golden
from edgecv.converters.model_card import write_model_card
from edgecv.quantize.calibration.calibration_set import CalibrationSet
from edgecv.quantize.record import (
    QUANTIZATION,
    REPORT,
    CalibrationRecord,
    QuantizationRecord,
    ThresholdRecord,
    write_record,
)
from edgecv.quantize.report.report import write_report
from edgecv.quantize.sensitivity import SENSITIVITY, Sensitivity
from edgecv.version import __version__

_TOOLS = (
    "numpy",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "litert-torch",
    "torch",
    "torchvision",
    "ultralytics-opencv-headless",
    "ultralytics",
)


def write_documents(name: str, job: Job, built: Sequence[Built]) -> None:
    """Write everything but the models, ``bundle.json`` last."""
    threshold = _threshold(built)
    manifest = _manifest(name, job, built, threshold)
    extras = dict.fromkeys((*_records(manifest, job, built, threshold), *_documents(job, manifest, built)))
    manifest = msgspec.structs.replace(manifest, extras=tuple(describe_file(job.folder, path) for path in extras))
    (job.folder / MANIFEST).write_bytes(dump_manifest(manifest))


def _documents(job: Job, manifest: Manifest, built: Sequence[Built]) -> tuple[Path, ...]:
    examples = {one.variant.name: one.example for one in built}
    pairs = [(variant, examples[variant.name]) for variant in manifest.variants]
    with one_step(job.progress, "Writing golden vectors and model card"):
        return write_golden(job.folder, pairs), write_model_card(job.folder, manifest)


def _threshold(built: Sequence[Built]) -> ThresholdRecord | None:
    """The confidence of a bundle, which has one: that of the first INT8 variant in the order that was asked for."""
    return next((one.threshold for one in built if one.threshold is not None), None)


def _records(manifest: Manifest, job: Job, built: Sequence[Built], threshold: ThresholdRecord | None) -> Iterator[Path]:
    """Parity and recipes; of INT8 what was tried, the report, and the sensitivity if it was asked for."""
    yield from (one.extra for one in built)
    formats = tuple(one.record for one in built if one.record is not None)
    if job.calibration is None or not formats:
        return
    record = QuantizationRecord(
        model=manifest.name,
        source=manifest.source.file,
        task=manifest.decode.task,
        calibration=_calibration_record(job.calibration, job.request.int8.seed),
        formats=formats,
        threshold=threshold,
        machine=f"{platform.machine()} {platform.system()}",
        by_speed=job.request.int8.by_speed,
        tools=manifest.tools,
    )
    write_record(record, job.folder / QUANTIZATION)
    write_report(record, job.folder / REPORT)
    yield from (job.folder / QUANTIZATION, job.folder / REPORT)
    if job.request.int8.analyze:
        variants = tuple(one.sensitivity for one in built if one.sensitivity is not None)
        path = job.folder / SENSITIVITY
        path.write_bytes(msgspec.json.format(msgspec.json.encode(Sensitivity(variants=variants)), indent=2) + b"\n")
        yield path


def _calibration_record(images: CalibrationSet, seed: int) -> CalibrationRecord:
    return CalibrationRecord(
        images=len(images),
        held_out=len(images.held_out),
        sha256=images.sha256,
        source=Path(images.source).name,  # the folder it lies in is the user's own business
        seed=seed,
        warnings=images.warnings,
        facts=dict(images.facts),
    )


def _manifest(name: str, job: Job, built: Sequence[Built], threshold: ThresholdRecord | None) -> Manifest:
    images, decode = job.calibration, job.source.spec.decode
    return Manifest(
        schema=SCHEMA,
        name=name,
        family=job.source.family,
        preprocess=job.source.spec.preprocess.rule,
        decode=msgspec.structs.replace(decode, confidence=threshold.after) if threshold is not None else decode,
        variants=each_once(one.variant for one in built),
        source=job.source.origin,
        licence=job.source.licence,
        calibration=Calibration(images=len(images), held_out=len(images.held_out), sha256=images.sha256)
        if images is not None
        else None,
        assumptions=job.source.assumptions,
        tools={"edgecv": __version__, **_tool_versions()},
    )


def _tool_versions() -> dict[str, str]:
    found = {}
    for name in _TOOLS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

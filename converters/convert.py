"""``edgecv.convert``: export → parity → quantize → gate → bundle. Nothing is written unless everything holds."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecv import registry
from edgecv.atomic import check_target, new_folder
from edgecv.bundle import (
    MANIFEST,
    SCHEMA,
    SUFFIX,
    Bundle,
    Calibration,
    Manifest,
    ModelFiles,
    Variant,
    describe_file,
    dump_manifest,
)
from edgecv.converters.parity import check_parity
from edgecv.converters.source import SourceModel, SourceOptions
from edgecv.errors import ConfigError, UnsupportedSource
from edgecv.media import read_image
from edgecv.model import Model
from edgecv.progress import Progress, silent
from edgecv.protocols import Array
from edgecv.quantize.calibration import CalibrationSet, open_calibration
from edgecv.quantize.gate import Detector, GateReport, check_teacher, compare, detect_all, refusal
from edgecv.quantize.recipes import LADDERS, QuantizeRecipe
from edgecv.results import Detections, Image
from edgecv.runtimes.measure import Request, median_latency_ms
from edgecv.specs import RuntimeOptions, TensorSpec
from edgecv.version import __version__
from edgecv.vision.letterbox import fit

PARITY_PICTURES = 3
_TOOLS = ("numpy", "onnx", "onnxruntime", "torch", "ultralytics-opencv-headless", "ultralytics")
_RUNTIME_OF: Mapping[str, str] = {"onnx": "onnxruntime"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Job:
    """What every step needs to know."""

    source: SourceModel
    calibration: CalibrationSet | None
    folder: Path
    progress: Progress


def convert(
    source: str | Path,
    *,
    formats: Sequence[str] = ("onnx",),
    precision: str = "int8",
    calibration: str | Path | None = None,
    out: str | Path | None = None,
    imgsz: int | tuple[int, int] | None = None,
    force: bool = False,
    trust_pickle: bool = False,
    progress: Progress = silent,
) -> Bundle:
    """Convert a model to a bundle.

    Args:
        source: A YOLOv8 detection checkpoint (``.pt``) or ``.onnx``.
        formats: What to write; ``edgecv plugins`` lists the exporters.
        precision: ``fp32``, or ``int8``, which writes the float variant beside the INT8 one.
        calibration: Folder of images or ``data.yaml``; needed for ``int8``.
        out: Folder to write, ``NAME.ecv`` here by default.
        imgsz: Input size in pixels, one number or ``(width, height)``; the source's own by default.
        force: Replace an existing ``out``.
        trust_pickle: Run the code in a checkpoint that needs it.
        progress: Called as long steps go on.

    Returns:
        The bundle that was written.

    Raises:
        ConfigError: an argument is wrong, or ``out`` exists or cannot be written.
        UnsupportedSource: the source cannot be converted.
        CalibrationError: the images prove nothing.
        ParityError: the export computes something else than the source.
        AccuracyGateError: no INT8 recipe keeps the accuracy; its ``report`` has the figures.
    """
    path = Path(source)
    _check_source(path)
    target = Path(out) if out is not None else Path(path.stem + SUFFIX)
    _check_request(precision, formats, calibration)
    check_target(target, force)
    options = SourceOptions(size_wh=_size_wh(imgsz), trust_pickle=trust_pickle)
    images = open_calibration(calibration, progress) if calibration is not None else None
    progress("Reading the model", 0, 1)
    opened = _open_source(path, options)
    progress("Reading the model", 1, 1)
    with new_folder(target, force) as folder:
        job = _Job(source=opened, calibration=images, folder=folder, progress=progress)
        variants = [variant for name in formats for variant in _variants(job, name, precision)]
        manifest = _manifest(target, job, tuple(variants))
        (folder / MANIFEST).write_bytes(dump_manifest(manifest))
    return Bundle.open(target)


def _check_request(precision: str, formats: Sequence[str], calibration: str | Path | None) -> None:
    if precision not in ("fp32", "int8"):
        raise ConfigError(f"There is no precision '{precision}'.", "Use fp32 or int8.")
    if not formats:
        raise ConfigError("No format was asked for.", f"Known: {', '.join(registry.names('exporters'))}.")
    for name in formats:
        registry.target("exporters", name)
    if precision == "int8" and calibration is None:
        raise ConfigError(
            "INT8 needs calibration images.", "Give --calib FOLDER with 100 to 300 images like those of your camera."
        )


def _size_wh(imgsz: int | tuple[int, int] | None) -> tuple[int, int] | None:
    return (imgsz, imgsz) if isinstance(imgsz, int) else imgsz


def _check_source(path: Path) -> None:
    if path.suffix not in registry.names("families"):
        raise UnsupportedSource(
            f"{path} is not a model EdgeCV reads.", f"Known: {', '.join(registry.names('families'))} files."
        )
    if not path.exists():
        raise UnsupportedSource(f"{path} does not exist.", "Check the path to the model.")


def _open_source(path: Path, options: SourceOptions) -> SourceModel:
    opened: SourceModel = registry.resolve("families", path.suffix)(path, options)
    return opened


def _variants(job: _Job, model_format: str, precision: str) -> Iterator[Variant]:
    exporter = registry.resolve("exporters", model_format)()
    job.progress(f"Exporting {model_format}", 0, 1)
    path = _variant_path(job, f"{model_format}-fp32", exporter.suffix)
    exporter.export(job.source, path)
    job.progress(f"Exporting {model_format}", 1, 1)
    teacher = _model(job, model_format, path, job.source.outputs)
    check_parity(job.source, teacher.session, _parity_pictures(job))
    yield _variant(job, model_format, "fp32", path, job.source.outputs)
    if precision == "int8":
        assert job.calibration is not None
        yield _int8_variant(job, model_format, path, teacher)


def _int8_variant(job: _Job, model_format: str, float_path: Path, teacher: Model) -> Variant:
    """Try the recipes of the ladder in turn; the first that passes its gate is the variant.

    Raises:
        AccuracyGateError: none passed.
    """
    assert job.calibration is not None
    path = _variant_path(job, f"{model_format}-int8", float_path.suffix)
    held_out = job.calibration.held_out
    wanted = detect_all(_detector(teacher), held_out, "Float model on held-out images", job.progress)
    check_teacher(sum(len(found) for found in wanted))
    reports: list[GateReport] = []
    with tempfile.TemporaryDirectory() as work:
        quantizer = registry.resolve("quantizers", model_format)(float_path, job.source.outputs, Path(work))
        subset = job.calibration.calibrate[: LADDERS[model_format][0].subset_size]
        quantizer.calibrate(_feeds(job, subset), len(subset))
        for recipe in LADDERS[model_format]:
            job.progress(f"Quantizing {recipe.name}", 0, 1)
            outputs = quantizer.quantize(recipe, path)
            job.progress(f"Quantizing {recipe.name}", 1, 1)
            student = _model(job, model_format, path, outputs)
            found = detect_all(_detector(student), held_out, "INT8 model on held-out images", job.progress)
            student.close()
            reports.append(compare(wanted, found, recipe.limits, recipe.name))
            if reports[-1].passed:
                return _variant(job, model_format, "int8", path, outputs, recipe, reports[-1])
    raise refusal(reports)


def _model(job: _Job, model_format: str, path: Path, outputs: tuple[TensorSpec, ...]) -> Model:
    session_type = registry.resolve("runtimes", _RUNTIME_OF[model_format])
    session = session_type(path, RuntimeOptions(), (job.source.input,), outputs)
    return Model(path.stem, job.source.spec, session)


def _detector(model: Model) -> Detector:
    def detect(image: Image) -> Detections:
        found = model(image)
        assert isinstance(found, Detections)
        return found

    return detect


def _feeds(job: _Job, images: Sequence[Path]) -> Iterator[dict[str, Array]]:
    for done, path in enumerate(images):
        job.progress("Calibrating", done, len(images))
        yield {job.source.input.name: fit(read_image(path), job.source.spec.preprocess)[0][None]}
    job.progress("Calibrating", len(images), len(images))


def _parity_pictures(job: _Job) -> Iterator[Image]:
    """Held-out images; without calibration images a picture of noise, which reaches every weight as well."""
    if job.calibration is not None:
        for path in job.calibration.held_out[:PARITY_PICTURES]:
            yield fit(read_image(path), job.source.spec.preprocess)[0]
        return
    width, height = job.source.spec.preprocess.size_wh
    yield np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def _variant_path(job: _Job, name: str, suffix: str) -> Path:
    folder = job.folder / name
    folder.mkdir()
    return folder / f"model{suffix}"


def _variant(
    job: _Job,
    model_format: str,
    precision: str,
    path: Path,
    outputs: tuple[TensorSpec, ...],
    recipe: QuantizeRecipe | None = None,
    report: GateReport | None = None,
) -> Variant:
    name = f"{model_format}-{precision}"
    job.progress(f"Timing {name}", 0, 1)
    request = Request(path=str(path), runtime=_RUNTIME_OF[model_format], options=RuntimeOptions(threads=1))
    latency_ms = median_latency_ms(request)
    job.progress(f"Timing {name}", 1, 1)
    return Variant(
        name=name,
        format=model_format,
        precision="int8" if precision == "int8" else "fp32",
        target=recipe.target if recipe else "",
        recipe=recipe.name if recipe else "",
        metrics=report.metrics if report else {},
        latency_ms=round(latency_ms, 3),
        models={
            "main": ModelFiles(files=(describe_file(job.folder, path),), inputs=(job.source.input,), outputs=outputs)
        },
    )


def _manifest(target: Path, job: _Job, variants: tuple[Variant, ...]) -> Manifest:
    images = job.calibration
    return Manifest(
        schema=SCHEMA,
        name=target.name.removesuffix(SUFFIX),
        family=job.source.family,
        preprocess=job.source.spec.preprocess,
        decode=job.source.spec.decode,
        variants=variants,
        source=job.source.origin,
        licence=job.source.licence,
        calibration=Calibration(images=len(images), held_out=len(images.held_out), sha256=images.sha256)
        if images is not None
        else None,
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

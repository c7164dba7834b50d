"""``edgecv.convert``: export → parity → quantize → gate → bundle. Nothing is written unless everything holds."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgecv import registry
from edgecv.atomic import check_target, new_folder
from edgecv.bundle import MANIFEST, SCHEMA, SUFFIX, Bundle, Calibration, Manifest, Variant, describe_file, dump_manifest
from edgecv.converters.batch import batched
from edgecv.converters.documents import write_golden, write_model_card
from edgecv.converters.source import SourceModel, SourceOptions, check_batch
from edgecv.converters.variants import Job, build_variants, fitted, needs_ranges, parity_pictures, remove_format
from edgecv.errors import ConfigError, ConversionError, EdgeCVError, PluginError, QuantizationError, UnsupportedSource
from edgecv.progress import Progress, silent
from edgecv.quantize.calibration import open_calibration
from edgecv.quantize.recipes import LADDERS
from edgecv.specs import Precision
from edgecv.version import __version__

_FILES = (".pt", ".onnx")  # a .yaml names an architecture and need not be there
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


def convert(
    source: str | Path,
    *,
    formats: Sequence[str] = ("onnx",),
    precision: Precision = "int8",
    calibration: str | Path | None = None,
    out: str | Path | None = None,
    imgsz: int | tuple[int, int] | None = None,
    force: bool = False,
    trust_pickle: bool = False,
    keep_going: bool = False,
    weights: str | Path | None = None,
    random_weights: bool = False,
    pretrained: bool = False,
    preprocess: Mapping[str, Any] | None = None,
    labels: Sequence[str] = (),
    batch: int = 1,
    progress: Progress = silent,
) -> Bundle:
    """Convert a model to a bundle.

    Args:
        source: A YOLOv8 checkpoint (``.pt``), a detection or classification ``.onnx``, or a name such as ``resnet18``.
        formats: What to write; ``edgecv plugins`` lists the exporters.
        precision: ``fp32``, or ``fp16`` or ``int8``, which write the fp32 variant as well.
        calibration: Folder of images or recorded frames, ``data.yaml`` or video; needed for ``int8``.
        out: Folder to write, ``NAME.ecv`` here by default.
        imgsz: Input size in pixels, one number or ``(width, height)``; the source's own by default.
        force: Replace an existing ``out``.
        trust_pickle: Run the code in a checkpoint that needs it.
        keep_going: Write the formats that succeed when another fails.
        weights: Weights for an architecture that ``source`` names.
        random_weights: Weights from seed 0 for it, batch norms calibrated on the calibration images.
        pretrained: The library's own weights for it, which it downloads.
        preprocess: Of a foreign classifier's input: any of ``mean std color resize``; the rest is assumed and recorded.
        labels: Names of the classes, where the source has none.
        batch: Pictures per run, 1 to 64, fixed in the files: ``model.many(images)`` fills them.
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
    target = Path(out) if out is not None else Path(_stem(path) + SUFFIX)
    _check_request(precision, formats, calibration)
    check_batch(batch)
    check_target(target, force)
    images = open_calibration(calibration, progress) if calibration is not None else None
    options = SourceOptions(
        size_wh=_size_wh(imgsz),
        trust_pickle=trust_pickle,
        weights=Path(weights) if weights is not None else None,
        random_weights=random_weights,
        pretrained=pretrained,
        pictures=images.calibrate if images is not None else (),
        preprocess=preprocess or {},
        labels=tuple(labels),
        batch=batch,
    )
    progress("Reading the model", 0, 1)
    opened = _open_source(path, options)
    progress("Reading the model", 1, 1)
    static = precision == "int8" and needs_ranges(opened, formats)
    pictures = fitted(opened, images.calibrate, progress) if images is not None and static else ()
    with new_folder(target, force) as folder:
        job = Job(source=opened, calibration=images, pictures=pictures, folder=folder, progress=progress)
        variants = _build(job, formats, precision, keep_going)
        manifest = _with_documents(job, _manifest(target, job, tuple(variants)))
        (folder / MANIFEST).write_bytes(dump_manifest(manifest))
    return Bundle.open(target)


def steps(source: str | Path, formats: Sequence[str], precision: Precision, batch: int = 1) -> list[str]:
    """What ``convert`` would do, in words, without doing it.

    Raises:
        ConfigError: the batch is out of its range.
    """
    check_batch(batch)
    told = [f"Read {source} and prepare its network: uint8 pixels in, raw outputs out."]
    if batch > 1:
        told.append(
            f"Fix its input to {batch} pictures per run; the source still computes each on its own, as the proof."
        )
    for name in formats:
        told.append(
            f"Export {name} fp32 and compare every output with the source on held-out images (cosine >= 0.9999)."
        )
        if precision == "fp16":
            told.append(f"Store the weights of {name} as fp16 and compare again (cosine >= 0.999).")
        if precision == "int8":
            recipes = [recipe.name for recipe in LADDERS[name, "conv"]]
            told.append(
                f"Quantize {name}, recipe by recipe ({' -> '.join(recipes)}), until one agrees with the float model "
                "on the quarter of the images that calibration did not see; write nothing when none does."
            )
        told.append(f"Time every {name} variant with one thread in a process of its own.")
    return [*told, "Write bundle.json with hashes, flush, and rename the folder into place."]


def _check_request(precision: str, formats: Sequence[str], calibration: str | Path | None) -> None:
    if precision not in ("fp32", "fp16", "int8"):
        raise ConfigError(f"There is no precision '{precision}'.", "Use fp32, fp16 or int8.")
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
    known = registry.names("families")
    if _family(path) not in known:
        raise UnsupportedSource(f"{path} is not a model EdgeCV reads.", f"Known files and names: {', '.join(known)}.")
    if path.suffix in _FILES and not path.exists():
        raise UnsupportedSource(f"{path} does not exist.", "Check the path to the model.")


def _family(path: Path) -> str:
    """What a source is registered by: a name of its own (``sam2.1_t``), or its suffix."""
    return path.name if path.name in registry.names("families") else path.suffix or path.name


def _stem(path: Path) -> str:
    return path.name if _family(path) == path.name else path.stem


def _open_source(path: Path, options: SourceOptions) -> SourceModel:
    opened: SourceModel = registry.resolve("families", _family(path))(path, options)
    return batched(opened, options.batch)


def _build(job: Job, formats: Sequence[str], precision: Precision, keep_going: bool) -> list[Variant]:
    """Variants of every format; with ``keep_going`` a format that fails names itself and the others go on."""
    variants: list[Variant] = []
    failed: list[EdgeCVError] = []
    for name in formats:
        try:
            variants.extend(build_variants(job, name, precision))
        except (ConversionError, QuantizationError, PluginError) as error:
            if not keep_going:
                raise
            failed.append(error)
            remove_format(job, name)
            job.progress(f"{name} failed: {error.message}", 1, 1)
    if failed and not variants:
        raise failed[0]
    return variants


def _with_documents(job: Job, manifest: Manifest) -> Manifest:
    job.progress("Writing golden vectors and model card", 0, 1)
    picture = next(parity_pictures(job))
    files = (
        write_golden(job.folder, job.source, manifest.variants, picture),
        write_model_card(job.folder, manifest),
    )
    job.progress("Writing golden vectors and model card", 1, 1)
    return msgspec.structs.replace(manifest, extras=tuple(describe_file(job.folder, path) for path in files))


def _manifest(target: Path, job: Job, variants: tuple[Variant, ...]) -> Manifest:
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

"""``edgecv.convert``: export → parity → quantize → gate → bundle. Nothing is written unless everything holds."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgecv import registry
from edgecv._internal.atomic import check_target, new_folder
from edgecv._internal.progress import Progress, silent
from edgecv.bundles.bundle import (
    BUNDLE,
    MANIFEST,
    SCHEMA,
    SUFFIX,
    Bundle,
    Calibration,
    Failure,
    Manifest,
    Variant,
    describe_file,
    dump_manifest,
)
from edgecv.converters.batch import batched
from edgecv.converters.documents import write_golden, write_model_card
from edgecv.converters.families.ultralytics_import import no_cache_of_torch
from edgecv.converters.float_variants import (
    DEFAULT_MAX_DROP,
    Base,
    Built,
    Job,
    build_float,
    build_half,
    each_once,
    fitted,
    needs_ranges,
    remove,
)
from edgecv.converters.held_out import with_enough_objects
from edgecv.converters.int8_variants import build_int8
from edgecv.converters.parity import parity_examples
from edgecv.converters.request import (
    check_calibration,
    check_drop,
    check_formats,
    check_name,
    check_source,
    family_of,
    precisions_of,
    quantization_of,
    size_wh_of,
    stem_of,
)
from edgecv.converters.source import Activation, SourceModel, SourceOptions, check_batch, family, with_names
from edgecv.errors import (
    AccuracyGateError,
    CalibrationError,
    ConfigError,
    ConversionError,
    EdgeCVError,
    PluginError,
    QuantizationError,
    SessionError,
    UnsupportedSource,
)
from edgecv.media.image_files import utf8_name
from edgecv.quantize.calibration.calibration_set import CalibrationSet, check_overlap, open_calibration
from edgecv.quantize.labels.int8_loss import LabelledSet, open_labelled
from edgecv.quantize.recipes import DEFAULT_TARGET
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
from edgecv.specs import Precision
from edgecv.version import __version__

MOST_PICTURES = (
    300  # a sample, since they are ordered by hash: ranges change no more, and memory would grow with the set
)
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

_Result = TypeVar("_Result")
# What is made from the fp32 variant, in this order: a ladder that ends in fp16 writes the same files again.
_BUILDERS: Mapping[Precision, Callable[[Job, Base], Built]] = {"fp16": build_half, "int8": build_int8}


@no_cache_of_torch()
def convert(
    source: str | Path,
    *,
    formats: Sequence[str] = ("onnx",),
    precision: Precision | Sequence[Precision] = "int8",
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
    activation: Activation = "",
    batch: int = 1,
    recipes: Sequence[str | Path] = (),
    target: str = DEFAULT_TARGET,
    data: str | Path | None = None,
    max_drop: float = DEFAULT_MAX_DROP,
    seed: int = 0,
    analyze: bool = False,
    progress: Progress = silent,
) -> Bundle:
    """Convert a model to a bundle.

    Args:
        source: A YOLOv8 checkpoint (``.pt``), the ``.onnx`` of a YOLOv8 or a classifier, or a name such as ``resnet18``.
        formats: What to write; ``edgecv plugins`` lists the exporters.
        precision: ``fp32``, or ``fp16`` or ``int8``, which write the fp32 variant as well; or several of them.
        calibration: Folder of images or recorded frames, ``data.yaml`` or video; needed for ``int8``.
        out: Folder to write, ``NAME.ecv`` here by default.
        imgsz: Input size in pixels, one number or ``(width, height)``; the source's own by default.
        force: Replace an existing ``out``.
        trust_pickle: Run the code in a checkpoint that needs it.
        keep_going: Write what succeeds when a format or a precision fails, unless nothing that was asked for does or the
            pictures prove nothing; of all formats, what the source cannot give is left out anyway.
        weights: Weights for an architecture that ``source`` names.
        random_weights: Weights from seed 0 for it, batch norms calibrated on the calibration images.
        pretrained: The library's own weights for it, which it downloads.
        preprocess: Of a foreign classifier's input: any of ``mean std color resize``; the rest is assumed and recorded.
        labels: Names of the classes, where the source has none.
        activation: What makes confidences of a foreign classifier's scores, where its file does not say: ``softmax``, ``sigmoid``
            (several labels per picture, or one output for two classes) or ``none``.
        batch: Pictures per run, 1 to 64, fixed in the files: ``model.many(images)`` fills them.
        recipes: Names of INT8 recipes, or files as bundles hold them (``recipe.json``), one per format: exactly that one is
            tried, and the gate applies. By default one recipe after the other is tried.
        target: CPU class that INT8 in ONNX is built for: ``x86-vnni``, ``x86`` (AVX2 without VNNI), ``arm64`` or ``all``.
        data: Labelled images that calibration does not see: INT8 is judged by them as well.
        max_drop: Points of mAP or top-1 that INT8 may lose on them.
        seed: Another one splits the calibration images otherwise.
        analyze: Write ``sensitivity.json``: what each layer loses in INT8, and what leaving it float costs.
        progress: Called as long steps go on.

    Returns:
        The bundle that was written; its ``failures`` name what was asked for and is not in it.

    Raises:
        ConfigError: an argument is wrong, or ``out`` exists or cannot be written.
        UnsupportedSource: the source cannot be converted.
        CalibrationError: the images prove nothing.
        ParityError: the export computes something else than the source.
        AccuracyGateError: no INT8 recipe keeps the accuracy; its ``report`` has the figures.
    """
    path = Path(source)
    check_source(path)
    place = Path(out) if out is not None else Path(stem_of(path) + SUFFIX)
    precisions = precisions_of(precision)
    check_formats(formats)
    check_calibration(precisions, calibration)
    quantization = quantization_of(precisions, formats, recipes, target, analyze)
    check_batch(batch)
    check_drop(max_drop)
    if data is not None and "int8" not in precisions:
        raise ConfigError("--data judges INT8.", "Add --int8 and --calib FOLDER, or leave --data out.")
    for name in (path.absolute(), place.absolute(), *([weights] if weights is not None else [])):
        utf8_name(name)  # exporters and runtimes write and open files there
    check_name(place)
    check_target(place, force, BUNDLE)
    options = SourceOptions(
        size_wh=size_wh_of(imgsz),
        trust_pickle=trust_pickle,
        weights=Path(weights) if weights is not None else None,
        random_weights=random_weights,
        pretrained=pretrained,
        preprocess=preprocess or {},
        labels=tuple(labels),
        activation=activation,
        batch=batch,
    )
    images = open_calibration(calibration, progress, seed=seed) if calibration is not None else None
    options = replace(options, pictures=images.calibrate if images is not None else ())
    progress("Reading the model", 0, 1)
    opened = _open_source(path, options)
    progress("Reading the model", 1, 1)
    labelled = _labelled(data, opened, images, progress) if data is not None and images is not None else None
    if "int8" in precisions and images is not None and labelled is None:
        images = with_enough_objects(opened, images, progress)
    static = "int8" in precisions and needs_ranges(opened, formats, quantization.recipes)
    most = max([recipe.subset_size for recipe in quantization.recipes], default=MOST_PICTURES)
    pictures = fitted(opened, images.calibrate[:most], progress) if images is not None and static else ()
    with new_folder(place, force, BUNDLE) as folder:
        job = Job(
            source=opened,
            calibration=images,
            examples=parity_examples(opened, images, progress),
            pictures=pictures,
            folder=folder,
            progress=progress,
            targets=quantization.targets,
            recipes=quantization.recipes,
            labelled=labelled,
            max_drop=max_drop,
            analyze=analyze,
        )
        built, failures = _build(job, formats, precisions, keep_going)
        variants = each_once(variant for one in built for variant in one.variants)
        threshold = _threshold(built)
        manifest = _manifest(place, job, variants, threshold)
        extras = dict.fromkeys((*_side_files(manifest, job, built, threshold, seed), *_documents(job, manifest)))
        manifest = msgspec.structs.replace(manifest, extras=tuple(describe_file(folder, path) for path in extras))
        (folder / MANIFEST).write_bytes(dump_manifest(manifest))
        Bundle.open(folder).verify_files()  # before it replaces one that can be read
    return replace(Bundle.open(place), failures=failures)


def _labelled(data: str | Path, opened: SourceModel, images: CalibrationSet, progress: Progress) -> LabelledSet:
    """Labelled pictures, none of which calibration sees."""
    if not opened.trained:
        raise ConfigError("Labels cannot judge random weights.", "Leave --data out, or give trained weights.")
    labelled = open_labelled(data, opened.spec.decode.task, opened.spec.decode.labels)
    check_overlap(images, labelled.images, progress)
    return labelled


def _open_source(path: Path, options: SourceOptions) -> SourceModel:
    return with_names(batched(family(family_of(path)).open(path, options), options.batch))


def _build(
    job: Job, formats: Sequence[str], precisions: Sequence[Precision], keep_going: bool
) -> tuple[list[Built], tuple[Failure, ...]]:
    """What was asked for, format by format, and, with ``keep_going``, what failed while the rest went on."""
    every = set(formats) == set(registry.names("exporters"))  # all that can be: what the source cannot give is named
    failed: list[EdgeCVError] = []
    failures: list[Failure] = []

    def attempt(name: str, precision: Precision, build: Callable[[], _Result]) -> _Result | None:
        try:
            return build()
        except (ConversionError, QuantizationError, PluginError, SessionError) as error:
            forgiven = keep_going or (every and isinstance(error, UnsupportedSource))
            if not forgiven or isinstance(error, CalibrationError):
                raise
            failed.append(error)
            remove(job, name, precision)
            failure = Failure(
                format=name,
                precision=precision,
                message=error.message,
                hint=error.hint,
                exit_code=error.exit_code,
            )
            failures.append(failure)
            job.progress(str(failure), 1, 1)
            return None

    built: list[Built] = []
    for name in formats:
        base = attempt(name, "fp32", partial(build_float, job, name))
        if base is None:
            continue
        wanted = [precision for precision in _BUILDERS if precision in precisions]
        made = [attempt(name, precision, partial(_BUILDERS[precision], job, base)) for precision in wanted]
        found = [one for one in made if one is not None]
        if found or "fp32" in precisions:
            built += [base.built, *found]
        else:
            remove(job, name, "fp32")  # nobody asked for it alone
    if failed and not built:
        raise next((error for error in failed if isinstance(error, AccuracyGateError)), failed[0])
    return built, tuple(failures)


def _documents(job: Job, manifest: Manifest) -> tuple[Path, ...]:
    job.progress("Writing golden vectors and model card", 0, 1)
    files = (
        write_golden(job.folder, manifest.variants, job.examples[0 if job.calibration is not None else -1]),
        write_model_card(job.folder, manifest),
    )
    job.progress("Writing golden vectors and model card", 1, 1)
    return files


def _threshold(built: Sequence[Built]) -> ThresholdRecord | None:
    """The confidence for the variant that ``auto`` takes: a bundle has one. The float model keeps its own."""
    tuned = {name: record for one in built for name, record in one.thresholds.items()}
    variants = [variant for one in built for variant in one.variants]
    if not tuned:
        return None
    fastest = min(variants, key=lambda variant: (not variant.timed, variant.latency_ms))
    if fastest.name in tuned:
        return tuned[fastest.name]
    default = next(iter(tuned.values())).before
    return ThresholdRecord(before=default, after=default, reason=f"Kept: `auto` takes {fastest.name} here.")


def _side_files(
    manifest: Manifest, job: Job, built: Sequence[Built], threshold: ThresholdRecord | None, seed: int
) -> Iterator[Path]:
    """What lies beside the models: parity and recipes; of INT8 what was tried, the report, the sensitivity if it was asked for."""
    yield from (path for one in built for path in one.extras)
    records = tuple(record for one in built for record in one.records)
    if job.calibration is None or not records:
        return
    record = QuantizationRecord(
        model=manifest.name,
        source=manifest.source.file,
        task=manifest.decode.task,
        calibration=CalibrationRecord(
            images=len(job.calibration),
            held_out=len(job.calibration.held_out),
            sha256=job.calibration.sha256,
            source=Path(job.calibration.source).name,  # the folder it lies in is the user's own business
            seed=seed,
            warnings=job.calibration.warnings,
            facts=dict(job.calibration.facts),
        ),
        formats=records,
        threshold=threshold,
        machine=f"{platform.machine()} {platform.system()}",
        tools=manifest.tools,
    )
    write_record(record, job.folder / QUANTIZATION)
    write_report(record, job.folder / REPORT)
    yield from (job.folder / QUANTIZATION, job.folder / REPORT)
    if job.analyze:
        variants = tuple(found for one in built for found in one.sensitivities)
        yield _written(job.folder / SENSITIVITY, Sensitivity(variants=variants))


def _written(path: Path, value: msgspec.Struct) -> Path:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    return path


def _manifest(place: Path, job: Job, variants: tuple[Variant, ...], threshold: ThresholdRecord | None) -> Manifest:
    images, decode = job.calibration, job.source.spec.decode
    return Manifest(
        schema=SCHEMA,
        name=place.name.removesuffix(SUFFIX),
        family=job.source.family,
        preprocess=job.source.spec.preprocess,
        decode=msgspec.structs.replace(decode, confidence=threshold.after) if threshold is not None else decode,
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

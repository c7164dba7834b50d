"""``edgecv.convert``: check → open → build → write. Nothing is written unless everything holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from edgecv import errors, registry
from edgecv._internal.atomic import check_target, new_folder
from edgecv._internal.printable import as_name, is_name
from edgecv._internal.progress import Progress, one_step, silent
from edgecv.bundles.bundle import BUNDLE, SUFFIX, Bundle, Failure
from edgecv.converters.batch import batched
from edgecv.converters.families.ultralytics_import import no_cache_of_torch
from edgecv.converters.fits import fitted_sources
from edgecv.converters.float_variants import (
    Built,
    Job,
    build_float,
    build_half,
    first_tried,
    fitted,
    needs_images,
    quantized_part,
    remove,
)
from edgecv.converters.held_out import with_enough_objects
from edgecv.converters.int8.rounding import RoundedParts
from edgecv.converters.int8.variants import build_int8
from edgecv.converters.manifest import write_documents
from edgecv.converters.parity import parity_examples
from edgecv.converters.request import (
    ConversionRequest,
    Int8Options,
    family_of,
    request_of,
    size_wh_of,
    stem_of,
)
from edgecv.converters.source import SourceModel, SourceOptions, family
from edgecv.errors import AccuracyGateError, CalibrationError, ConfigError, EdgeCVError, UnsupportedSource
from edgecv.media.image_files import utf8_name
from edgecv.protocols import Array
from edgecv.quantize.calibration.calibration_set import CalibrationSet, check_overlap, open_calibration
from edgecv.quantize.labels.int8_loss import LabelledSet, open_labelled
from edgecv.specs import Precision
from edgecv.vision.input_shapes import shape_name

MOST_IMAGES = 300  # a sample, since they are ordered by hash: ranges change no more, and memory would grow with the set

_Result = TypeVar("_Result")
# Errors of one format after which others may go on.
_FORGIVEN = (errors.ConversionError, errors.QuantizationError, errors.PluginError, errors.SessionError)
# What is made from the fp32 variant, in this order: a search that ends in fp16 writes the same files again.
_BUILDERS: Mapping[Precision, Callable[[Job, Built], tuple[Built, ...]]] = {"fp16": build_half, "int8": build_int8}


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
    keep_going: bool = False,
    options: SourceOptions | None = None,
    int8: Int8Options | None = None,
    fit: Sequence[str] = (),
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
        keep_going: Write what succeeds when a format or a precision fails, unless nothing that was asked for does or the
            images prove nothing; of all formats, what the source cannot give is left out anyway.
        options: How the source is read: its weights, labels, preprocessing and batch size.
        int8: How INT8 is built and judged: its recipes, CPU class, labelled images and limit.
        fit: Shapes of cameras' images, such as ``16:9``: for each, variants with such an input as well. Detectors alone.
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
    sized = options or SourceOptions()
    if imgsz is not None:
        sized = replace(sized, size_wh=size_wh_of(imgsz))
    place = Path(out) if out is not None else Path(stem_of(Path(source)) + SUFFIX)
    request = request_of(source, formats, precision, sized, int8, fit)
    _check(request, calibration, place, force)
    job, others = _open(request, calibration, place, progress)
    with new_folder(place, force, BUNDLE) as folder:
        job = replace(job, folder=folder)
        built, failures = _build(job, others, keep_going)
        write_documents(place.name.removesuffix(SUFFIX), job, built)
        Bundle.open(folder).verify_files()  # before it replaces one that can be read
    return replace(Bundle.open(place), failures=failures)


def _check(request: ConversionRequest, calibration: str | Path | None, place: Path, force: bool) -> None:
    """Refuse what could not be read or written."""
    if "int8" in request.precisions and calibration is None:
        hint = "Give --calib FOLDER with 100 to 300 images like those of your camera."
        raise ConfigError("INT8 needs calibration images.", hint)
    weights = request.options.weights
    for name in (request.source.absolute(), place.absolute(), *([weights] if weights is not None else [])):
        utf8_name(name)  # exporters and runtimes write and open files there
    if not is_name(place.name):
        said = f"A bundle cannot be called '{place.name}': there are characters in it that name nothing."
        raise ConfigError(said, "Choose another --out.")
    check_target(place, force, BUNDLE)


def _open(
    request: ConversionRequest, calibration: str | Path | None, place: Path, progress: Progress
) -> tuple[Job, tuple[SourceModel, ...]]:
    """Read the model and the images, and see whether they can judge INT8; the model in its other input shapes is the second."""
    images = open_calibration(calibration, progress, seed=request.int8.seed) if calibration is not None else None
    options = replace(request.options, images=images.calibrate if images is not None else ())
    with one_step(progress, "Reading the model"):
        reopen = partial(_opened, request.source)
        source = reopen(options)
        others = fitted_sources(source, request.fits, options, reopen)
    labelled = _labelled(request.int8.data, source, images, progress)
    if "int8" in request.precisions and images is not None and labelled is None:
        images = with_enough_objects(source, images, progress)
    fitted_images = _calibration_images(request, source, images, progress)
    job = Job(
        request=request,
        source=source,
        calibration=images,
        examples=parity_examples(source, images, progress),
        images=fitted_images,
        rounded=_rounded(request, source, fitted_images, progress),
        folder=place,
        progress=progress,
        labelled=labelled,
    )
    return job, others


def _opened(path: Path, options: SourceOptions) -> SourceModel:
    return _with_names(batched(family(family_of(path)).open(path, options), options.batch))


def _in_shape(job: Job, source: SourceModel) -> Job:
    """The same job for the model in another input shape: images are fitted into it, and it has a proof and a gate of its own."""
    images = _calibration_images(job.request, source, job.calibration, job.progress)
    return replace(
        job,
        source=source,
        examples=parity_examples(source, job.calibration, job.progress),
        images=images,
        rounded=_rounded(job.request, source, images, job.progress),
        shape=shape_name(source.spec.preprocess.size_wh),
    )


def _with_names(source: SourceModel) -> SourceModel:
    """The source with labels that can be written: a blank for each tab, line break and the like in one, and a word about it."""
    labels = source.spec.decode.labels
    names = tuple(as_name(label) for label in labels)
    changed = [at for at, (before, after) in enumerate(zip(labels, names, strict=True)) if before != after]
    if not changed:
        return source
    decode = msgspec.structs.replace(source.spec.decode, labels=names)
    said = f"Labels {', '.join(map(str, changed))} hold characters that name nothing, such as line breaks: blanks stand for them."
    return replace(
        source, spec=msgspec.structs.replace(source.spec, decode=decode), assumptions=(*source.assumptions, said)
    )


def _labelled(
    data: str | Path | None, source: SourceModel, images: CalibrationSet | None, progress: Progress
) -> LabelledSet | None:
    """Labelled images, none of which calibration sees; ``None`` without any."""
    if data is None or images is None:
        return None
    if not source.trained:
        raise ConfigError("Labels cannot judge random weights.", "Leave --data out, or give trained weights.")
    labelled = open_labelled(data, source.spec.decode.task, source.spec.decode.labels)
    check_overlap(images, labelled.images, progress)
    return labelled


def _calibration_images(
    request: ConversionRequest, source: SourceModel, images: CalibrationSet | None, progress: Progress
) -> tuple[Array, ...]:
    """The images that recipes look at, fitted; none where no recipe does."""
    if images is None or "int8" not in request.precisions:
        return ()
    if not needs_images(source, request):
        return ()
    most = max([recipe.subset_size for recipe in request.recipes], default=MOST_IMAGES)
    return fitted(source, images.calibrate[:most], progress)


def _rounded(
    request: ConversionRequest, source: SourceModel, images: Sequence[Array], progress: Progress
) -> RoundedParts | None:
    """What INT8 is made of; nothing where no image was prepared."""
    if not images:
        return None
    recipes = first_tried(source, request)
    part = quantized_part(source)
    return RoundedParts(part=part, images=images, recipes=recipes, seed=request.int8.seed, progress=progress)


@dataclass(slots=True, kw_only=True)
class _Attempts:
    """Goes on after a failure where that was asked for, and keeps what failed."""

    job: Job  # in the shape that is being built
    keep_going: bool
    errors: list[EdgeCVError] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def attempt(self, name: str, precision: Precision, build: Callable[[], _Result]) -> _Result | None:
        """What ``build`` gives; ``None`` where it fails and the rest goes on."""
        try:
            return build()
        except _FORGIVEN as error:
            if isinstance(error, CalibrationError) or not self._forgives(error):
                raise
            remove(self.job, name, precision)
            self.errors.append(error)
            failure = Failure(
                format=name,
                precision=precision,
                shape=self.job.shape,
                message=error.message,
                hint=error.hint,
                exit_code=error.exit_code,
            )
            self.failures.append(failure)
            self.job.progress(str(failure), 1, 1)
            return None

    def _forgives(self, error: EdgeCVError) -> bool:
        """Of all formats there are, those that the source cannot give are left out anyway."""
        every = set(self.job.request.formats) == set(registry.names("exporters"))
        return self.keep_going or (every and isinstance(error, UnsupportedSource))


def _build(job: Job, others: Sequence[SourceModel], keep_going: bool) -> tuple[list[Built], tuple[Failure, ...]]:
    """What was asked for, shape by shape and format by format, and what failed while the rest went on."""
    attempts = _Attempts(job=job, keep_going=keep_going)
    built = _build_shape(job, attempts)
    for source in others:
        attempts.job = _in_shape(job, source)
        built += _build_shape(attempts.job, attempts)
    if attempts.errors and not built:
        gated = (error for error in attempts.errors if isinstance(error, AccuracyGateError))
        raise next(gated, attempts.errors[0])
    return built, tuple(attempts.failures)


def _build_shape(job: Job, attempts: _Attempts) -> list[Built]:
    return [one for name in job.request.formats for one in _build_format(job, name, attempts)]


def _build_format(job: Job, name: str, attempts: _Attempts) -> list[Built]:
    """The fp32 variant of a format and what is made from it; nothing when all that was asked for failed."""
    base = attempts.attempt(name, "fp32", partial(build_float, job, name))
    if base is None:
        return []
    wanted = [precision for precision in _BUILDERS if precision in job.request.precisions_of(name)]
    made = [attempts.attempt(name, precision, partial(_BUILDERS[precision], job, base)) for precision in wanted]
    found = [one for several in made for one in several or ()]
    if found or "fp32" in job.request.precisions:
        return [base, *found]
    remove(job, name, "fp32")  # nobody asked for it alone
    return []

"""From a source to the float variants of a bundle: export → parity, format by format; where INT8 starts from."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from edgecv._internal.progress import Progress, counted, one_step
from edgecv.bundles.bundle import describe_file
from edgecv.bundles.manifest import ModelFiles, Variant
from edgecv.converters.int8.rounding import RoundedParts
from edgecv.converters.parity import PARITY_FILE, OutputParity, check_parity
from edgecv.converters.request import ConversionRequest
from edgecv.converters.source import Example, Exporter, Part, SourceModel, exporter as exporter_of
from edgecv.media.images import read_image
from edgecv.protocols import Array, Session
from edgecv.quantize.calibration.calibration_set import CalibrationSet
from edgecv.quantize.labels.int8_loss import LabelledSet
from edgecv.quantize.quantizer import Exported
from edgecv.quantize.recipes import QuantizeRecipe
from edgecv.quantize.record import FormatRecord, ThresholdRecord
from edgecv.quantize.sensitivity import FormatSensitivity
from edgecv.runtimes.adapter import open_session
from edgecv.runtimes.measure import Request, median_latency_ms
from edgecv.specs import Precision, RuntimeOptions
from edgecv.vision.letterbox import fit

# Metrics of float variants: over all outputs and images, the lowest cosine, and the worst element as a part of the largest one.
SOURCE_COSINE, SOURCE_WORST = "source_cosine", "source_worst"
_SHAPE = re.compile(r"-(\d+x\d+)$")  # at the end of a variant's name


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """What every step needs to know."""

    request: ConversionRequest
    source: SourceModel
    calibration: CalibrationSet | None  # ``None`` for float alone
    # Of a few held-out images, by part: computed once, for every format and precision.
    examples: tuple[Mapping[str, Example], ...]
    images: tuple[Array, ...]  # calibration images, fitted, ``(N, H, W, 3)`` each: decoded once, for every format
    rounded: RoundedParts | None  # what INT8 is made of, its weights rounded once for every format
    folder: Path  # the bundle under construction
    progress: Progress
    labelled: LabelledSet | None = None  # images to judge by as well
    shape: str = ""  # of the input, such as `640x384`, where it is not the model's own: its variants end in it

    def name_of(self, model_format: str, precision: Precision, cpu_class: str = "") -> str:
        """What a variant is called."""
        return "-".join(filter(None, (model_format, precision, cpu_class, self.shape)))

    @property
    def example(self) -> Mapping[str, Example]:
        """The one that is kept in the bundle as golden vectors: of a calibration image, else of noise."""
        return self.examples[0 if self.calibration is not None else -1]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Built:
    """One variant, and what is recorded of it."""

    exporter: Exporter
    variant: Variant
    parts: Mapping[str, Exported]
    example: Mapping[str, Example]  # inputs to each part for one image, of the variant's shape
    extra: Path  # a file to list beside the models
    record: FormatRecord | None = None  # what was tried for INT8
    sensitivity: FormatSensitivity | None = None  # what each layer loses, where it was asked for
    threshold: ThresholdRecord | None = None  # the confidence of an INT8 variant that has its own


def needs_images(source: SourceModel, request: ConversionRequest) -> bool:
    """Whether a recipe for one of the formats looks at what the images do to the network."""
    return any(recipe.kind == "static" or recipe.rounding != "nearest" for recipe in first_tried(source, request))


def first_tried(source: SourceModel, request: ConversionRequest) -> tuple[QuantizeRecipe, ...]:
    """The recipes that are tried first, of every format."""
    architecture = quantized_part(source).architecture
    orders = (request.orders(name, architecture) for name in request.formats)
    return tuple(recipe for several in orders for order in several for recipe in order.first)


def quantized_part(source: SourceModel) -> Part:
    """The part that INT8 is made of: the first that is not float in every precision."""
    return next(part for part in source.parts if part.architecture != "float")


def fitted(source: SourceModel, images: Sequence[Path], progress: Progress) -> tuple[Array, ...]:
    """Images as the model's input ``(N, H, W, 3)`` uint8; the last batch is filled up with the first images."""
    paths = counted(progress, "Reading calibration images", images)
    found = [fit(read_image(path), source.spec.preprocess)[0] for path in paths]
    return tuple(
        np.stack([found[at % len(found)] for at in range(start, start + source.batch)])
        for start in range(0, len(found), source.batch)
    )


def build_float(job: Job, model_format: str) -> Built:
    """The fp32 variant of one format; ``ConversionError`` or ``ParityError`` where it cannot be, or is not, the source."""
    return _float_built(job, exporter_of(model_format), "fp32", None)


def build_half(job: Job, base: Built) -> tuple[Built, ...]:
    """The fp16 variant: the weights of the fp32 one in two bytes; errors as ``build_float``."""
    return (_float_built(job, base.exporter, "fp16", base.parts),)


def open_part(exporter: Exporter, part: Exported) -> Session:
    """Open a session for an exported part."""
    return open_session(exporter.runtime, part.files[0], RuntimeOptions(), part.inputs, part.outputs)


def exported_parts(
    job: Job, exporter: Exporter, precision: Precision, floats: Mapping[str, Exported] | None, base: Path
) -> tuple[dict[str, Exported], tuple[OutputParity, ...]]:
    """Every part in one precision below ``base``, each proven equal to its source, and how equal every output is."""
    made: dict[str, Exported] = {}
    parity: list[OutputParity] = []
    for part in counted(job.progress, f"Exporting {exporter.format} {precision}", job.source.parts):
        folder = part_folder(base, part)
        exported = exporter.export(part, folder) if floats is None else exporter.half(floats[part.name], part, folder)
        made[part.name] = exported
        examples = [example[part.name] for example in job.examples]
        with closing(open_part(exporter, exported)) as session:
            parity += check_parity(part, exported, session, examples, job.source.tolerances[precision])
    return made, tuple(parity)


def part_folder(base: Path, part: Part) -> Path:
    """Where a part's files lie below its variant's folder; made when it is missing."""
    folder = base if part.name == "main" else base / part.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _float_built(job: Job, exporter: Exporter, precision: Precision, floats: Mapping[str, Exported] | None) -> Built:
    name = job.name_of(exporter.format, precision)
    parts, parity = exported_parts(job, exporter, precision, floats, job.folder / name)
    report = job.folder / name / PARITY_FILE
    report.write_bytes(msgspec.json.format(msgspec.json.encode(parity), indent=2) + b"\n")
    latency_ms = latency_of(job, exporter, parts, name, RuntimeOptions(threads=1))
    variant = Variant(
        name=name,
        format=exporter.format,
        precision=precision,
        size_wh=job.source.spec.preprocess.size_wh,
        metrics={
            SOURCE_COSINE: round(min(output.cosine for output in parity), 6),
            SOURCE_WORST: round(max(output.worst for output in parity), 6),
        },
        latency_ms=round(latency_ms, 3),
        models={part: model_files(job.folder, exported) for part, exported in parts.items()},
    )
    return Built(exporter=exporter, variant=variant, parts=parts, example=job.example, extra=report)


def latency_of(
    job: Job, exporter: Exporter, parts: Mapping[str, Exported], name: str, options: RuntimeOptions
) -> float:
    """Median latency of the first part, which takes nearly all the time."""
    timed = parts[job.source.parts[0].name]
    with one_step(job.progress, f"Timing {name}"):
        return median_latency_ms(Request(path=str(timed.files[0]), runtime=exporter.runtime, options=options))


def model_files(folder: Path, exported: Exported) -> ModelFiles:
    """A part as the bundle below ``folder`` lists it."""
    return ModelFiles(
        files=tuple(describe_file(folder, path) for path in exported.files),
        inputs=exported.inputs,
        outputs=exported.outputs,
    )


def each_once(variants: Iterable[Variant]) -> tuple[Variant, ...]:
    """Variants by name: an fp16 that was asked for and that a search ended in, too, has the figures of both."""
    found: dict[str, Variant] = {}
    for variant in variants:
        before = found.get(variant.name)
        metrics = {**before.metrics, **variant.metrics} if before else variant.metrics
        found[variant.name] = msgspec.structs.replace(variant, metrics=metrics)
    return tuple(found.values())


def remove(job: Job, model_format: str, precision: Precision) -> None:
    """Take away what a format has left in the bundle's folder in one precision and the job's shape."""
    for folder in job.folder.glob(f"{model_format}-{precision}*"):
        shape = _SHAPE.search(folder.name)
        if (shape[1] if shape else "") == job.shape:
            shutil.rmtree(folder)

"""From a source to the variants of a bundle: export → parity → quantize → gate, format by format."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecv import registry
from edgecv.bundle import ModelFiles, Variant, describe_file
from edgecv.converters.parity import check_parity, outputs_of
from edgecv.converters.source import Exported, Exporter, Part, SourceModel
from edgecv.golden import exact_options
from edgecv.media import read_image
from edgecv.model import Model
from edgecv.progress import Progress
from edgecv.promptable import PromptableModel
from edgecv.protocols import Array, Session
from edgecv.quantize.calibration import CalibrationSet
from edgecv.quantize.gate import GateReport, answers, check_teacher, compare, judge_outputs, refusal
from edgecv.quantize.mask_agreement import judge_masks, mask_answers
from edgecv.quantize.recipes import LADDERS, QuantizeRecipe
from edgecv.results import Detections, Image
from edgecv.runtimes.measure import Request, median_latency_ms
from edgecv.specs import Precision, RuntimeOptions
from edgecv.vision.letterbox import fit

PARITY_PICTURES = 3
SOURCE_COSINE = "source_cosine"  # metric of float variants


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """What every step needs to know.

    Attributes:
        source: The model.
        calibration: The pictures; ``None`` for float alone.
        pictures: Calibration pictures, fitted, ``(N, H, W, 3)`` each: decoded once, for every format.
        folder: The bundle under construction.
        progress: Called as steps go on.
    """

    source: SourceModel
    calibration: CalibrationSet | None
    pictures: tuple[Array, ...]
    folder: Path
    progress: Progress


def needs_ranges(source: SourceModel, formats: Sequence[str]) -> bool:
    """Whether a recipe for one of the formats looks at what the pictures do to the network."""
    ladders = [LADDERS[name, _quantized_part(source).architecture] for name in formats]
    return any(recipe.kind == "static" for ladder in ladders for recipe in ladder)


def _quantized_part(source: SourceModel) -> Part:
    return next(part for part in source.parts if part.architecture != "float")


def fitted(source: SourceModel, images: Sequence[Path], progress: Progress) -> tuple[Array, ...]:
    """Pictures as the model's input ``(N, H, W, 3)`` uint8; the last batch is filled up with the first pictures."""
    found = []
    for done, path in enumerate(images):
        progress("Reading calibration images", done, len(images))
        found.append(fit(read_image(path), source.spec.preprocess)[0])
    progress("Reading calibration images", len(images), len(images))
    return tuple(
        np.stack([found[at % len(found)] for at in range(start, start + source.batch)])
        for start in range(0, len(found), source.batch)
    )


def build_variants(job: Job, model_format: str, precision: Precision) -> Iterator[Variant]:
    """Variants of one format: fp32, or fp32 and what else was asked for.

    Raises:
        ConversionError: the format cannot express the source.
        ParityError: an export computes something else than the source.
        AccuracyGateError: no INT8 recipe keeps the accuracy.
    """
    exporter: Exporter = registry.resolve("exporters", model_format)()
    floats, metrics = _exported(job, exporter, "fp32", None)
    yield _variant(job, exporter, "fp32", floats, metrics)
    if precision == "fp16":
        halved, metrics = _exported(job, exporter, "fp16", floats)
        yield _variant(job, exporter, "fp16", halved, metrics)
    elif precision == "int8":
        yield _int8_variant(job, exporter, floats)


def open_parts(
    exporter: Exporter, parts: Mapping[str, Exported], options: RuntimeOptions | None = None
) -> dict[str, Session]:
    """A session per part."""
    session_type = registry.resolve("runtimes", exporter.runtime)
    chosen = options or RuntimeOptions()
    return {name: session_type(part.files[0], chosen, part.inputs, part.outputs) for name, part in parts.items()}


def _exported(
    job: Job, exporter: Exporter, precision: Precision, floats: Mapping[str, Exported] | None
) -> tuple[dict[str, Exported], dict[str, float]]:
    """Every part in one precision, each proven equal to its source, and the lowest cosine over all outputs."""
    step = f"Exporting {exporter.format} {precision}"
    exact = exact_options(exporter.runtime)
    made = {}
    for done, part in enumerate(job.source.parts):
        job.progress(step, done, len(job.source.parts))
        folder = _part_folder(job, exporter, precision, part)
        made[part.name] = (
            exporter.export(part, folder) if floats is None else exporter.half(floats[part.name], part, folder)
        )
    sessions = open_parts(exporter, made, exact)
    feeds = [job.source.feeds(picture) for picture in parity_pictures(job)]
    lowest = 1.0
    for part in job.source.parts:
        found = check_parity(part, made[part.name], sessions[part.name], [feed[part.name] for feed in feeds], precision)
        lowest = min([lowest, *(parity.cosine for parity in found)])
        sessions[part.name].close()
    job.progress(step, len(job.source.parts), len(job.source.parts))
    return made, {SOURCE_COSINE: round(lowest, 6)}


def _int8_variant(job: Job, exporter: Exporter, floats: Mapping[str, Exported]) -> Variant:
    """Try the recipes of the ladder in turn; the first that passes its gate is the variant."""
    assert job.calibration is not None
    examine = _examination(job, exporter)
    wanted = examine(floats, f"Float {exporter.format} on held-out images")
    if job.source.trained and isinstance(wanted[0], Detections):
        check_teacher(sum(len(found) for found in wanted))
    first = _quantized_part(job.source)
    ladder = LADDERS[exporter.format, first.architecture]
    reports: list[GateReport] = []
    with tempfile.TemporaryDirectory() as work:
        quantizer = registry.resolve("quantizers", exporter.format)(
            floats[first.name].files, floats[first.name].outputs, Path(work)
        )
        job.progress(f"Calibrating {exporter.format}", 0, 1)
        if any(recipe.kind == "static" for recipe in ladder):
            quantizer.calibrate(job.pictures[: -(-ladder[0].subset_size // job.source.batch)])
        job.progress(f"Calibrating {exporter.format}", 1, 1)
        for recipe in ladder:
            job.progress(f"Quantizing {recipe.name}", 0, 1)
            parts = _int8_parts(job, exporter, floats, first, quantizer, recipe)
            job.progress(f"Quantizing {recipe.name}", 1, 1)
            found = examine(parts, f"INT8 {exporter.format} on held-out images")
            reports.append(_judge(job, wanted, found, recipe))
            if reports[-1].passed:
                return _variant(job, exporter, "int8", parts, reports[-1].metrics, recipe)
    raise refusal(reports)


def _examination(job: Job, exporter: Exporter) -> Callable[[Mapping[str, Exported], str], Sequence[Any]]:
    """What is asked of the float and of the INT8 model: answers of a trained one, raw outputs of an untrained one."""
    assert job.calibration is not None
    held_out, part = job.calibration.held_out, job.source.parts[0]

    def prompted(parts: Mapping[str, Exported], step: str) -> Sequence[Any]:
        with PromptableModel(job.source.name, job.source.spec, open_parts(exporter, parts)) as model:
            return mask_answers(model, held_out, step, job.progress)

    def answered(parts: Mapping[str, Exported], step: str) -> Sequence[Any]:
        with Model(job.source.name, job.source.spec, open_parts(exporter, parts)["main"]) as model:
            return answers(model, held_out, step, job.progress)

    def computed(parts: Mapping[str, Exported], step: str) -> Sequence[Any]:
        exported = parts[part.name]
        session = open_parts(exporter, {part.name: exported})[part.name]
        pictures = fitted(job.source, held_out, job.progress)
        job.progress(step, len(pictures), len(pictures))
        return [outputs_of(part, exported, session, {part.inputs[0].name: picture}) for picture in pictures]

    if job.source.spec.decode.task == "promptable-segment":
        return prompted
    return answered if job.source.trained else computed


def _judge(job: Job, wanted: Sequence[Any], found: Sequence[Any], recipe: QuantizeRecipe) -> GateReport:
    if job.source.spec.decode.task == "promptable-segment":
        return judge_masks(wanted, found, recipe.limits, recipe.name, job.source.trained)
    if job.source.trained:
        return compare(job.source.spec.decode.task, wanted, found, recipe.limits, recipe.name)
    return judge_outputs(wanted, found, recipe.limits, recipe.name)


def _int8_parts(
    job: Job, exporter: Exporter, floats: Mapping[str, Exported], first: Part, quantizer: object, recipe: QuantizeRecipe
) -> dict[str, Exported]:
    """The quantized part, and the float files of the others."""
    folder = _part_folder(job, exporter, "int8", first)
    files, outputs = quantizer.quantize(recipe, folder)  # type: ignore[attr-defined]
    quantized = Exported(files=files, inputs=floats[first.name].inputs, outputs=outputs)
    return {**floats, first.name: quantized}


def parity_pictures(job: Job) -> Iterator[Image]:
    """Held-out images; without calibration images a picture of noise, which reaches every weight as well."""
    if job.calibration is not None:
        for path in job.calibration.held_out[:PARITY_PICTURES]:
            yield fit(read_image(path), job.source.spec.preprocess)[0]
        return
    width, height = job.source.spec.preprocess.size_wh
    yield np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def _part_folder(job: Job, exporter: Exporter, precision: Precision, part: Part) -> Path:
    name = f"{exporter.format}-{precision}"
    folder = job.folder / name if part.name == "main" else job.folder / name / part.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _variant(
    job: Job,
    exporter: Exporter,
    precision: Precision,
    parts: Mapping[str, Exported],
    metrics: Mapping[str, float],
    recipe: QuantizeRecipe | None = None,
) -> Variant:
    name = f"{exporter.format}-{precision}"
    job.progress(f"Timing {name}", 0, 1)
    timed = parts[job.source.parts[0].name]
    request = Request(path=str(timed.files[0]), runtime=exporter.runtime, options=RuntimeOptions(threads=1))
    latency_ms = median_latency_ms(request)
    job.progress(f"Timing {name}", 1, 1)
    return Variant(
        name=name,
        format=exporter.format,
        precision=precision,
        target=recipe.target if recipe else "",
        recipe=recipe.name if recipe else "",
        metrics=dict(metrics),
        latency_ms=round(latency_ms, 3),
        models={part: _model_files(job.folder, exported) for part, exported in parts.items()},
    )


def _model_files(folder: Path, exported: Exported) -> ModelFiles:
    return ModelFiles(
        files=tuple(describe_file(folder, path) for path in exported.files),
        inputs=exported.inputs,
        outputs=exported.outputs,
    )


def remove_format(job: Job, model_format: str) -> None:
    """Take away what a format that failed has left in the bundle's folder."""
    for folder in job.folder.glob(f"{model_format}-*"):
        shutil.rmtree(folder)

"""From the fp32 variant of a format to its INT8 variants: calibrate → recipe by recipe → gate."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from edgecv._internal.progress import one_step
from edgecv.bundles.accelerators import notes_on
from edgecv.bundles.cpu_classes import suits_this_machine
from edgecv.bundles.manifest import Variant
from edgecv.converters.float_variants import (
    Built,
    Job,
    exported_parts,
    latency_of,
    model_files,
    open_part,
    part_folder,
    quantized_part,
)
from edgecv.converters.int8.quantizers import Quantizers
from edgecv.converters.judge import AccuracyJudge
from edgecv.converters.source import Part
from edgecv.errors import AccuracyGateError, ConversionError, QuantizationError
from edgecv.quantize.ort.graph import load
from edgecv.quantize.ort.opset import opset_of
from edgecv.quantize.quantizer import Exported, TellsErrorSources, WeighsRanges
from edgecv.quantize.recipe_files import RECIPE_FILE, dump_recipe
from edgecv.quantize.recipes import CPU_CLASSES, DEFAULT_CPU_CLASS, QuantizeRecipe
from edgecv.quantize.record import ErrorSource, FormatRecord, LayerLoss
from edgecv.quantize.search import Candidate, RecipeOrder, SearchResult, search
from edgecv.quantize.sensitivity import IMAGES, FormatSensitivity, rank_layers, with_costs
from edgecv.specs import RuntimeOptions

# Bytes of weights times pixels, about as the multiply-adds of a convolutional network: a YOLOv8n at 640, a ResNet-50 at 224.
_CHEAP = 16_000_000 * 640 * 640
UNMATCHED = "Ranges are chosen by values alone: the gradients belong to none of the tensors that the file rounds."
# On how many images it is measured where the error comes from: unasked, and with --analyze.
_SOURCE_IMAGES, _ANALYZED_ON = 4, 8


def build_int8(job: Job, base: Built) -> tuple[Built, ...]:
    """A variant for each CPU class: the first recipe that is accurate; ``by_speed``: and faster than float on this machine.

    ``AccuracyGateError`` says that no recipe keeps the accuracy, ``QuantizationError`` that the format cannot be quantized.
    """
    exporter, first = base.exporter, quantized_part(job.source)
    orders = job.request.orders(exporter.format, first.architecture)
    with tempfile.TemporaryDirectory(dir=job.folder, prefix=".work-") as work:
        quantizers = Quantizers(job=job, base=base, part=first, work=Path(work))
        quantizers.check()
        judge = _judge(job, base)
        if judge.unfit:  # what does not rest on calibration would pass, and hide that the images are wrong
            orders = tuple(replace(order, last=(), exact=True) for order in orders)
        maker = _CandidateMaker(job=job, base=base, part=first, quantizers=quantizers, judge=judge, work=Path(work))
        results = [(order, _search(maker, order)) for order in orders]
        found = [(order, result, _layers(maker, result)) for order, result in results]
        # Last: what fails before leaves nothing in the bundle.
        return tuple(_placed(maker, *one) for one in found)


def _judge(job: Job, base: Built) -> AccuracyJudge:
    assert job.calibration is not None
    exporter = base.exporter
    return AccuracyJudge(
        source=job.source,
        images=job.calibration.held_out,
        labelled=job.labelled,
        max_drop=job.request.int8.max_drop,
        sessions=lambda parts: {name: open_part(exporter, part) for name, part in parts.items()},
        floats=base.parts,
        strict=job.request.int8.strict,
        progress=lambda step, done, total: job.progress(f"{exporter.format}: {step}", done, total),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _CandidateMaker:
    """What it takes to make and judge candidates for one format."""

    job: Job
    base: Built
    part: Part
    quantizers: Quantizers
    judge: AccuracyJudge
    work: Path

    def make(self, recipe: QuantizeRecipe) -> Candidate:
        """Quantize by a recipe, judge the outcome, and time it if it is accurate."""
        folder = Path(tempfile.mkdtemp(dir=self.work))
        if recipe.kind != "fp16":
            self.quantizers.ready(recipe)
        with one_step(self.job.progress, f"Quantizing {recipe.name}"):
            parts = self._halved(folder) if recipe.kind == "fp16" else self._quantized(recipe, folder)
        judgement = self.judge.judge(parts, recipe)
        return Candidate(
            recipe=recipe,
            parts=parts,
            judgement=judgement,
            latency_ms=self.latency_ms(parts, recipe) if judgement.report.passed else None,
            bytes=sum(path.stat().st_size for part in parts.values() for path in part.files),
            foreign=not suits_this_machine(recipe.cpu_class),
        )

    def latency_ms(self, parts: Mapping[str, Exported], recipe: QuantizeRecipe) -> float:
        """One thread, in a process of its own; what another CPU class runs is timed as near to it as this one can."""
        config = CPU_CLASSES[recipe.cpu_class].config if recipe.cpu_class in CPU_CLASSES else {}
        extra = {"config": config} if config else {}
        return latency_of(self.job, self.base.exporter, parts, recipe.name, RuntimeOptions(threads=1, extra=extra))

    def rank(self, recipe: QuantizeRecipe) -> tuple[LayerLoss, ...]:
        """Layers by what they lose; none where the format cannot tell or no image was prepared."""
        if recipe.kind != "static":
            return ()
        images = self.job.images[: max(1, IMAGES // self.job.source.batch)]
        with one_step(self.job.progress, f"Comparing the layers of {recipe.name}"):
            try:
                return rank_layers(self.quantizers.ready(recipe).layer_outputs(recipe, images))
            except QuantizationError:  # not enough memory to compare: what passed still passed
                return ()

    def sources(self, recipe: QuantizeRecipe) -> tuple[ErrorSource, ...]:
        """Where the error of a static recipe comes from; nothing where the format cannot tell, or where it takes long unasked."""
        if recipe.kind != "static" or (self.job.request.int8.effort == "quick" and not self.job.request.int8.analyze):
            return ()
        quantizer = self.quantizers.ready(recipe)
        if not isinstance(quantizer, TellsErrorSources):
            return ()
        analyze = self.job.request.int8.analyze
        width, height = self.base.variant.size_wh
        if not analyze and self.base.variant.bytes * width * height * self.job.source.batch > _CHEAP:
            return ()
        images = self.job.images[: max(1, (_ANALYZED_ON if analyze else _SOURCE_IMAGES) // self.job.source.batch)]
        with one_step(self.job.progress, f"Finding where the error of {recipe.name} comes from"):
            try:
                return quantizer.error_sources(recipe, images, self.base.parts[self.part.name].files[0])
            except QuantizationError:  # what passed still passed
                return ()

    def costed(self, layers: tuple[LayerLoss, ...], chosen: Candidate) -> tuple[LayerLoss, ...]:
        """The layers with the cost of leaving the most sensitive ones float; none where no layer is quantized alone."""
        if chosen.recipe.kind != "static":
            return layers

        def latency_without_ms(layer: str) -> float | None:
            recipe = msgspec.structs.replace(chosen.recipe, float_layers=(*chosen.recipe.float_layers, layer))
            try:
                return self.latency_ms(self._quantized(recipe, Path(tempfile.mkdtemp(dir=self.work))), recipe)
            except QuantizationError:
                return None  # the runtime would not run the rest as integers

        open_layers = tuple(layer for layer in layers if layer.name not in chosen.recipe.float_layers)
        return with_costs(open_layers, chosen.latency_ms or 0.0, latency_without_ms)

    def _quantized(self, recipe: QuantizeRecipe, folder: Path) -> dict[str, Exported]:
        """The quantized part, and the float files of the others."""
        quantizer = self.quantizers.ready(recipe)
        files, outputs = quantizer.quantize(recipe, part_folder(folder, self.part))
        quantized = Exported(files=files, inputs=self.base.parts[self.part.name].inputs, outputs=outputs)
        return {**self.base.parts, self.part.name: quantized}

    def _halved(self, folder: Path) -> dict[str, Exported]:
        try:
            return exported_parts(self.job, self.base.exporter, "fp16", self.base.parts, folder)[0]
        except ConversionError as error:
            raise QuantizationError(error.message, error.hint) from error


def _search(maker: _CandidateMaker, order: RecipeOrder) -> SearchResult:
    against_ms = maker.base.variant.latency_ms if maker.job.request.int8.by_speed else None
    try:
        return search(order, maker.make, maker.rank, against_ms)
    except AccuracyGateError as error:
        if not maker.judge.unfit:
            raise
        raise AccuracyGateError(f"{maker.judge.unfit} {error.message}", error.hint, report=error.report) from error


def _layers(maker: _CandidateMaker, result: SearchResult) -> tuple[LayerLoss, ...]:
    layers = result.layers or maker.rank(result.chosen.recipe)
    return maker.costed(layers, result.chosen) if maker.job.request.int8.analyze else layers


def _placed(maker: _CandidateMaker, order: RecipeOrder, result: SearchResult, layers: tuple[LayerLoss, ...]) -> Built:
    """Write what came out of a search into the bundle. fp16 is the same for every CPU class."""
    sources = maker.sources(result.chosen.recipe)
    chosen, float_variant, model_format = result.chosen, maker.base.variant, maker.base.exporter.format
    half = chosen.recipe.kind == "fp16"
    named_class = "" if order.cpu_class == DEFAULT_CPU_CLASS else order.cpu_class
    name = maker.job.name_of(model_format, "fp16") if half else maker.job.name_of(model_format, "int8", named_class)
    folder = maker.job.folder / name
    parts = _moved(chosen.parts, maker.work, folder)
    recipe_file = folder / RECIPE_FILE
    recipe_file.write_bytes(dump_recipe(chosen.recipe))
    cpu_class = "" if half else chosen.recipe.cpu_class or order.cpu_class
    variant = Variant(
        name=name,
        format=model_format,
        precision="fp16" if half else "int8",
        size_wh=float_variant.size_wh,
        cpu_class=cpu_class,
        recipe=chosen.recipe.name,
        metrics=chosen.judgement.report.metrics,
        latency_ms=round(chosen.latency_ms or 0.0, 3),
        timed=not chosen.foreign and suits_this_machine(cpu_class),
        models={part: model_files(maker.job.folder, exported) for part, exported in parts.items()},
    )
    record = FormatRecord(
        format="-".join(filter(None, (model_format, named_class, maker.job.shape))),
        float_latency_ms=float_variant.latency_ms,
        float_bytes=float_variant.bytes,
        attempts=result.attempts,
        chosen=chosen.recipe.name,
        layers=layers,
        worst=maker.judge.worst(chosen.judgement),
        sources=sources,
        comparisons=result.comparisons,
        notes=(*_notes(variant, parts), *_range_notes(maker, chosen.recipe)),
        rounding=maker.job.rounded.record(chosen.recipe) if maker.job.rounded is not None else None,
    )
    sensitivity = FormatSensitivity(variant=variant.name, recipe=chosen.recipe.name, layers=layers)
    return Built(
        exporter=maker.base.exporter,
        variant=variant,
        parts=parts,
        example=maker.job.example,
        extra=recipe_file,
        record=record,
        sensitivity=sensitivity if maker.job.request.int8.analyze and layers else None,
        threshold=maker.judge.threshold(chosen.judgement),
    )


def _range_notes(maker: _CandidateMaker, recipe: QuantizeRecipe) -> tuple[str, ...]:
    """Why ranges are not chosen by gradients, where the recipe asks for that."""
    if recipe.kind != "static" or recipe.method != "gradient" or maker.job.rounded is None:
        return ()
    if said := maker.job.rounded.note(recipe):
        return (said,)
    quantizer = maker.quantizers.ready(recipe)
    unknown = isinstance(quantizer, WeighsRanges) and not quantizer.weighted(recipe)
    return (UNMATCHED,) if unknown else ()


def _notes(variant: Variant, parts: Mapping[str, Exported]) -> tuple[str, ...]:
    """What is not proven of a variant for an accelerator, and in which opset it is."""
    notes = notes_on(variant)
    if not notes or variant.format != "onnx":
        return notes
    opsets = {opset_of(load(part.files[0])) for part in parts.values()}
    return (*notes, f"ONNX opset {max(opsets)}.")


def _moved(parts: Mapping[str, Exported], work: Path, folder: Path) -> dict[str, Exported]:
    """Take what a recipe made from the work folder into the bundle; parts that it left alone stay where they are."""
    moved = {}
    for name, part in parts.items():
        files = part.files
        if files[0].is_relative_to(work):
            place = folder if name == "main" else folder / name
            place.mkdir(parents=True, exist_ok=True)
            files = tuple(Path(shutil.move(path, place / path.name)) for path in files)
        moved[name] = replace(part, files=files)
    return moved

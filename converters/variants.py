"""From a source to the variants of a bundle: export → parity → quantize → gate, format by format."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np

from edgecv import registry
from edgecv.bundle import ModelFiles, Variant, describe_file
from edgecv.converters.examination import Examiner, Proof
from edgecv.converters.parity import PARITY_FILE, OutputParity, check_parity
from edgecv.converters.source import REPORT, Example, Exported, Exporter, Part, SourceModel
from edgecv.errors import AccuracyGateError, ConversionError, QuantizationError
from edgecv.foreign import foreign_errors
from edgecv.golden import exact_options
from edgecv.media import read_image
from edgecv.progress import Progress
from edgecv.protocols import Array, Session
from edgecv.quantize.calibration import CalibrationSet
from edgecv.quantize.labelled import LabelledSet
from edgecv.quantize.ladder import Candidate, Climb, Plan, climb, plans
from edgecv.quantize.quantizer import Quantizer
from edgecv.quantize.recipes import DEFAULT_TARGET, RECIPE_FILE, TARGETS, QuantizeRecipe, dump_recipe
from edgecv.quantize.record import FormatRecord, LayerLoss, ThresholdRecord
from edgecv.quantize.sensitivity import PICTURES, FormatSensitivity, rank_layers, with_costs
from edgecv.runtimes.measure import Request, median_latency_ms
from edgecv.specs import Precision, RuntimeOptions
from edgecv.targets import suits_this_machine
from edgecv.vision.letterbox import fit

DEFAULT_MAX_DROP = 1.0  # points of mAP or top-1
# Metrics of float variants: over all outputs and pictures, the lowest cosine, and the worst element as a part of the largest one.
SOURCE_COSINE, SOURCE_WORST = "source_cosine", "source_worst"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """What every step needs to know.

    Attributes:
        source: The model.
        calibration: The pictures; ``None`` for float alone.
        examples: What the source makes of a few held-out pictures, by part: computed once, for every format and precision.
        pictures: Calibration pictures, fitted, ``(N, H, W, 3)`` each: decoded once, for every format.
        folder: The bundle under construction.
        progress: Called as steps go on.
        targets: CPU classes to build for, where a format differs from one to the other.
        recipes: Recipes that were named: each alone decides for its format.
        labelled: Labelled pictures to judge by as well; ``None`` without.
        max_drop: Points that INT8 may lose on them.
        analyze: Measure what each layer loses, and what leaving it float costs.
    """

    source: SourceModel
    calibration: CalibrationSet | None
    examples: tuple[Mapping[str, Example], ...]
    pictures: tuple[Array, ...]
    folder: Path
    progress: Progress
    targets: tuple[str, ...] = (DEFAULT_TARGET,)
    recipes: tuple[QuantizeRecipe, ...] = ()
    labelled: LabelledSet | None = None
    max_drop: float = DEFAULT_MAX_DROP
    analyze: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What came out in one precision: its variants, what was tried, files to list beside the models, confidence by variant."""

    variants: tuple[Variant, ...]
    records: tuple[FormatRecord, ...] = ()
    sensitivities: tuple[FormatSensitivity, ...] = ()
    extras: tuple[Path, ...] = ()
    thresholds: Mapping[str, ThresholdRecord] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Base:
    """The fp32 variant of a format, which its other precisions are made from."""

    exporter: Exporter
    parts: dict[str, Exported]
    built: Built

    @property
    def variant(self) -> Variant:
        """The only one."""
        return self.built.variants[0]


def needs_ranges(source: SourceModel, formats: Sequence[str], recipes: Sequence[QuantizeRecipe] = ()) -> bool:
    """Whether a recipe for one of the formats looks at what the pictures do to the network."""
    architecture = _quantized_part(source).architecture
    rungs = [plan.rungs for name in formats for plan in plans(name, architecture, (DEFAULT_TARGET,), recipes)]
    return any(recipe.kind == "static" for recipe in chain.from_iterable(rungs))


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


def build_float(job: Job, model_format: str) -> Base:
    """The fp32 variant of one format.

    Raises:
        ConversionError: the format cannot express the source.
        ParityError: the export computes something else than the source.
    """
    exporter: Exporter = registry.resolve("exporters", model_format)()
    parts, parity = _exported(job, exporter, "fp32", None, job.folder / f"{model_format}-fp32")
    return Base(exporter=exporter, parts=parts, built=_float_built(job, exporter, "fp32", parts, parity))


def build_half(job: Job, base: Base) -> Built:
    """The fp16 variant: the weights of the fp32 one in two bytes.

    Raises:
        ConversionError: the format cannot hold it.
        ParityError: it computes something else than the source.
    """
    exporter = base.exporter
    parts, parity = _exported(job, exporter, "fp16", base.parts, job.folder / f"{exporter.format}-fp16")
    return _float_built(job, exporter, "fp16", parts, parity)


def open_parts(
    exporter: Exporter, parts: Mapping[str, Exported], options: RuntimeOptions | None = None
) -> dict[str, Session]:
    """A session per part."""
    session_type = registry.resolve("runtimes", exporter.runtime)
    chosen = options or RuntimeOptions()
    return {name: session_type(part.files[0], chosen, part.inputs, part.outputs) for name, part in parts.items()}


def _exported(
    job: Job, exporter: Exporter, precision: Precision, floats: Mapping[str, Exported] | None, base: Path
) -> tuple[dict[str, Exported], tuple[OutputParity, ...]]:
    """Every part in one precision below ``base``, each proven equal to its source, and how equal every output is."""
    step = f"Exporting {exporter.format} {precision}"
    exact = exact_options(exporter.runtime)
    made = {}
    for done, part in enumerate(job.source.parts):
        job.progress(step, done, len(job.source.parts))
        folder = _part_folder(base, part)
        made[part.name] = (
            exporter.export(part, folder) if floats is None else exporter.half(floats[part.name], part, folder)
        )
    parity: list[OutputParity] = []
    for part in job.source.parts:
        examples = [example[part.name] for example in job.examples]
        (session,) = open_parts(exporter, {part.name: made[part.name]}, exact).values()
        with closing(session):
            parity += check_parity(part, made[part.name], session, examples, job.source.tolerances[precision])
    job.progress(step, len(job.source.parts), len(job.source.parts))
    return made, tuple(parity)


def build_int8(job: Job, base: Base) -> Built:
    """A variant for each plan: the first rung of its ladder that is accurate and faster than float.

    Raises:
        AccuracyGateError: no recipe keeps the accuracy.
        QuantizationError: the format cannot be quantized.
    """
    exporter, first = base.exporter, _quantized_part(job.source)
    wanted_plans = plans(exporter.format, first.architecture, job.targets, job.recipes)
    with tempfile.TemporaryDirectory(dir=job.folder, prefix=".work-") as work:
        floats = base.parts[first.name]
        # It refuses what is too large before the float model is asked about every picture.
        with _quantizing(exporter):
            quantizer: Quantizer = registry.resolve("quantizers", exporter.format)(
                floats.files, floats.outputs, Path(work)
            )
        examiner = _examiner(job, base)
        if examiner.unfit:  # what does not rest on calibration would pass, and hide that the pictures are wrong
            wanted_plans = tuple(replace(plan, last=(), exact=True) for plan in wanted_plans)
        _calibrate(job, exporter, quantizer, wanted_plans)
        bench = _Workbench(job=job, base=base, part=first, quantizer=quantizer, examiner=examiner, work=Path(work))
        climbs = [(plan, _climb(bench, plan)) for plan in wanted_plans]
        found = [(plan, climbed, _layers(bench, climbed)) for plan, climbed in climbs]
        built = [_placed(bench, *one) for one in found]  # last: what fails before leaves nothing in the bundle
    return Built(
        variants=tuple(chain.from_iterable(one.variants for one in built)),
        records=tuple(chain.from_iterable(one.records for one in built)),
        sensitivities=tuple(chain.from_iterable(one.sensitivities for one in built)),
        extras=tuple(chain.from_iterable(one.extras for one in built)),
        thresholds={name: record for one in built for name, record in one.thresholds.items()},
    )


# What is made from the fp32 variant, in this order: a ladder that ends in fp16 writes the same files again.
BUILDERS: Mapping[Precision, Callable[[Job, Base], Built]] = {"fp16": build_half, "int8": build_int8}


def _examiner(job: Job, base: Base) -> Examiner:
    assert job.calibration is not None
    exporter = base.exporter
    return Examiner(
        job.source,
        job.calibration.held_out,
        job.labelled,
        job.max_drop,
        lambda parts: open_parts(exporter, parts),
        base.parts,
        lambda step, done, total: job.progress(f"{exporter.format}: {step}", done, total),
    )


def _quantizing(exporter: Exporter) -> AbstractContextManager[None]:
    return foreign_errors(QuantizationError, f"This network cannot be quantized for {exporter.format}", REPORT)


def _calibrate(job: Job, exporter: Exporter, quantizer: Quantizer, wanted_plans: Sequence[Plan]) -> None:
    static = [recipe for plan in wanted_plans for recipe in plan.rungs if recipe.kind == "static"]
    job.progress(f"Calibrating {exporter.format}", 0, 1)
    if static:
        most = max(recipe.subset_size for recipe in static)
        with _quantizing(exporter):
            quantizer.calibrate(job.pictures[: -(-most // job.source.batch)])
    job.progress(f"Calibrating {exporter.format}", 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Made:
    """A candidate's parts, and what they were found to be worth."""

    parts: dict[str, Exported]
    proof: Proof


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Workbench:
    """What it takes to make and judge candidates for one format."""

    job: Job
    base: Base
    part: Part
    quantizer: Quantizer
    examiner: Examiner
    work: Path

    def make(self, recipe: QuantizeRecipe) -> Candidate[_Made]:
        """Quantize by a recipe, judge the outcome, and time it if it is accurate."""
        folder = Path(tempfile.mkdtemp(dir=self.work))
        self.job.progress(f"Quantizing {recipe.name}", 0, 1)
        parts = self._halved(folder) if recipe.kind == "fp16" else self._quantized(recipe, folder)
        self.job.progress(f"Quantizing {recipe.name}", 1, 1)
        proof = self.examiner.judge(parts, recipe)
        return Candidate(
            recipe=recipe,
            model=_Made(parts=parts, proof=proof),
            report=proof.report,
            labelled=proof.labelled,
            latency_ms=self.latency_ms(parts, recipe) if proof.report.passed else None,
            bytes=sum(path.stat().st_size for part in parts.values() for path in part.files),
            foreign=not suits_this_machine(recipe.target),
        )

    def latency_ms(self, parts: Mapping[str, Exported], recipe: QuantizeRecipe) -> float:
        """One thread, in a process of its own; what another CPU class runs is timed as near to it as this one can."""
        config = TARGETS[recipe.target].config if recipe.target in TARGETS else {}
        extra = {"config": config} if config else {}
        return _latency_ms(self.job, self.base.exporter, parts, recipe.name, RuntimeOptions(threads=1, extra=extra))

    def rank(self, recipe: QuantizeRecipe) -> tuple[LayerLoss, ...]:
        """Layers by what they lose; none where the format cannot tell or no picture was prepared."""
        if recipe.kind != "static":
            return ()
        self.job.progress(f"Comparing the layers of {recipe.name}", 0, 1)
        pictures = self.job.pictures[: max(1, PICTURES // self.job.source.batch)]
        try:
            with _quantizing(self.base.exporter):
                found = rank_layers(self.quantizer.layer_outputs(recipe, pictures))
        except QuantizationError:  # not enough memory to compare: what passed still passed
            found = ()
        self.job.progress(f"Comparing the layers of {recipe.name}", 1, 1)
        return found

    def costed(self, layers: tuple[LayerLoss, ...], chosen: Candidate[_Made]) -> tuple[LayerLoss, ...]:
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
        with _quantizing(self.base.exporter):
            files, outputs = self.quantizer.quantize(recipe, _part_folder(folder, self.part))
        quantized = Exported(files=files, inputs=self.base.parts[self.part.name].inputs, outputs=outputs)
        return {**self.base.parts, self.part.name: quantized}

    def _halved(self, folder: Path) -> dict[str, Exported]:
        try:
            return _exported(self.job, self.base.exporter, "fp16", self.base.parts, folder)[0]
        except ConversionError as error:
            raise QuantizationError(error.message, error.hint) from error


def _climb(bench: _Workbench, plan: Plan) -> Climb[_Made]:
    try:
        return climb(plan, bench.make, bench.rank, bench.base.variant.latency_ms)
    except AccuracyGateError as error:
        if not bench.examiner.unfit:
            raise
        raise AccuracyGateError(f"{bench.examiner.unfit} {error.message}", error.hint, report=error.report) from error


def _layers(bench: _Workbench, climbed: Climb[_Made]) -> tuple[LayerLoss, ...]:
    layers = climbed.layers or bench.rank(climbed.chosen.recipe)
    return bench.costed(layers, climbed.chosen) if bench.job.analyze else layers


def _placed(bench: _Workbench, plan: Plan, climbed: Climb[_Made], layers: tuple[LayerLoss, ...]) -> Built:
    """Write what came out of a ladder into the bundle. fp16 is the same for every CPU class."""
    chosen, float_variant, model_format = climbed.chosen, bench.base.variant, bench.base.exporter.format
    suffix = "" if plan.target in ("", DEFAULT_TARGET) else f"-{plan.target}"
    half = chosen.recipe.kind == "fp16"
    folder = bench.job.folder / (f"{model_format}-fp16" if half else f"{model_format}-int8{suffix}")
    parts = _moved(chosen.model.parts, bench.work, folder)
    recipe_file = folder / RECIPE_FILE
    recipe_file.write_bytes(dump_recipe(chosen.recipe))
    target = "" if half else chosen.recipe.target or plan.target
    variant = Variant(
        name=folder.name,
        format=model_format,
        precision="fp16" if half else "int8",
        target=target,
        recipe=chosen.recipe.name,
        metrics=chosen.report.metrics,
        latency_ms=round(chosen.latency_ms or 0.0, 3),
        timed=not chosen.foreign and suits_this_machine(target),
        models={part: _model_files(bench.job.folder, exported) for part, exported in parts.items()},
    )
    threshold = bench.examiner.threshold(chosen.model.proof)
    record = FormatRecord(
        format=f"{model_format}{suffix}",
        float_latency_ms=float_variant.latency_ms,
        float_bytes=sum(entry.bytes for model in float_variant.models.values() for entry in model.files),
        attempts=climbed.attempts,
        chosen=chosen.recipe.name,
        layers=layers,
        worst=bench.examiner.worst(chosen.model.proof),
    )
    sensitivity = FormatSensitivity(variant=variant.name, recipe=chosen.recipe.name, layers=layers)
    return Built(
        variants=(variant,),
        records=(record,),
        sensitivities=(sensitivity,) if bench.job.analyze and layers else (),
        extras=(recipe_file,),
        thresholds={variant.name: threshold} if threshold is not None else {},
    )


def _moved(parts: Mapping[str, Exported], work: Path, folder: Path) -> dict[str, Exported]:
    """Take what a recipe made from the work folder into the bundle; parts that it left alone stay where they are."""
    moved = {}
    for name, part in parts.items():
        files = part.files
        if files[0].is_relative_to(work):
            place = folder if name == "main" else folder / name
            place.mkdir(parents=True, exist_ok=True)
            files = tuple(Path(shutil.move(path, place / path.name)) for path in files)
        moved[name] = Exported(files=files, inputs=part.inputs, outputs=part.outputs)
    return moved


def _part_folder(base: Path, part: Part) -> Path:
    folder = base if part.name == "main" else base / part.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _float_built(
    job: Job, exporter: Exporter, precision: Precision, parts: Mapping[str, Exported], parity: Sequence[OutputParity]
) -> Built:
    name = f"{exporter.format}-{precision}"
    report = job.folder / name / PARITY_FILE
    report.write_bytes(msgspec.json.format(msgspec.json.encode(parity), indent=2) + b"\n")
    latency_ms = _latency_ms(job, exporter, parts, name, RuntimeOptions(threads=1))
    variant = Variant(
        name=name,
        format=exporter.format,
        precision=precision,
        metrics={
            SOURCE_COSINE: round(min(output.cosine for output in parity), 6),
            SOURCE_WORST: round(max(output.worst for output in parity), 6),
        },
        latency_ms=round(latency_ms, 3),
        models={part: _model_files(job.folder, exported) for part, exported in parts.items()},
    )
    return Built(variants=(variant,), extras=(report,))


def _latency_ms(
    job: Job, exporter: Exporter, parts: Mapping[str, Exported], name: str, options: RuntimeOptions
) -> float:
    """Median latency of the first part, which takes nearly all the time."""
    job.progress(f"Timing {name}", 0, 1)
    timed = parts[job.source.parts[0].name]
    found = median_latency_ms(Request(path=str(timed.files[0]), runtime=exporter.runtime, options=options))
    job.progress(f"Timing {name}", 1, 1)
    return found


def _model_files(folder: Path, exported: Exported) -> ModelFiles:
    return ModelFiles(
        files=tuple(describe_file(folder, path) for path in exported.files),
        inputs=exported.inputs,
        outputs=exported.outputs,
    )


def each_once(variants: Iterable[Variant]) -> tuple[Variant, ...]:
    """Variants by name: an fp16 that was asked for and that a ladder ended in, too, has the figures of both."""
    found: dict[str, Variant] = {}
    for variant in variants:
        before = found.get(variant.name)
        metrics = {**before.metrics, **variant.metrics} if before else variant.metrics
        found[variant.name] = msgspec.structs.replace(variant, metrics=metrics)
    return tuple(found.values())


def remove(job: Job, model_format: str, precision: Precision) -> None:
    """Take away what a format has left in the bundle's folder in one precision."""
    for folder in job.folder.glob(f"{model_format}-{precision}*"):
        shutil.rmtree(folder)

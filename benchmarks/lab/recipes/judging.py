"""Judges INT8 recipes on pictures that calibration did not see, with paired intervals over pictures and seeds."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgecv._internal.progress import Progress, one_step, silent
from edgecv.benchmarks.lab.recipes.asked import JudgeOptions, Side, sides_of
from edgecv.benchmarks.lab.recipes.bundles import BundleMaker
from edgecv.benchmarks.lab.recipes.evidence import AT_ONCE, Candidate, Evidence, FormatEvidence
from edgecv.benchmarks.lab.recipes.intervals import BySeed, Drawn, Estimate, Plan, drawn
from edgecv.benchmarks.lab.recipes.matches import MatchLog
from edgecv.benchmarks.lab.recipes.measures import FIGURES
from edgecv.benchmarks.lab.recipes.pictures import Part, Pictures, halves_of, open_pictures, whole_of
from edgecv.bundles.bundle import Bundle
from edgecv.converters.request import check_source, family_of, size_wh_of
from edgecv.converters.source import SourceModel, SourceOptions, family
from edgecv.errors import AccuracyGateError, ConfigError, ConversionError, EdgeCVError, QuantizationError
from edgecv.quantize.labels.average_precision import mean_precision
from edgecv.quantize.labels.bootstrap import RealArray
from edgecv.quantize.labels.coco import Truth
from edgecv.results import IntArray

MAP, MAP_LOSS = "map50_95", "map50_95_loss"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One recipe: its figures by name, and how it differs from the first recipe of its format (empty for that one)."""

    format: str
    recipe: str
    figures: Mapping[str, Estimate]
    against: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A recipe that gave no model, and why."""

    format: str
    recipe: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdicts:
    """What ``judge_recipes`` found.

    Attributes:
        source: The model.
        data: The pictures.
        pictures: How many there are.
        seeds: Of the conversions.
        parts: What each conversion was judged on.
        judged: Recipe by recipe.
        failed: Those that gave no model.
        paths: Of the pictures, in the order of the evidence.
        evidence: What was measured of each picture.
    """

    source: str
    data: str
    pictures: int
    seeds: tuple[int, ...]
    parts: tuple[str, ...]
    judged: tuple[Judged, ...]
    failed: tuple[Failed, ...]
    paths: tuple[Path, ...] = ()
    evidence: tuple[Evidence, ...] = ()


def judge_recipes(source: str | Path, data: str | Path, asked: JudgeOptions, progress: Progress = silent) -> Verdicts:
    """Convert a source by each recipe and seed, and judge what comes out on pictures that did not calibrate it.

    Args:
        source: What ``edgecv.convert`` takes.
        data: Folder with ``images/`` and ``labels/`` in YOLO form, a ``data.yaml``, or for a classifier a folder of class
            folders; for random weights any folder of pictures.
        asked: Recipes, formats, seeds and pictures.
        progress: Called as long steps go on.

    Raises:
        ConfigError: an option, the data or a label is wrong.
        CalibrationError: the calibration pictures are too few, or judge as well.
        ConversionError: no recipe gave a model.
    """
    sides_of(asked)  # refuses names before the model is read
    model = _opened(Path(source), asked, progress)
    sides = sides_of(asked, next((p.architecture for p in model.parts if p.architecture != "float"), "conv"))
    decode = model.spec.decode
    answers = model.trained and decode.task != "promptable-segment"  # else raw outputs are all that can be compared
    pictures = open_pictures(Path(data), decode.task, decode.labels, asked.limit, labelled=answers)
    with tempfile.TemporaryDirectory() as work:
        run = _Run(
            maker=BundleMaker(source=Path(source), asked=asked, folder=_kept(asked.bundles, work), progress=progress),
            pictures=pictures,
            parts=_parts(asked, pictures, Path(work), progress),
            shares_float=model.trained,
            decodes=answers,
            classes=_classes(pictures, decode.labels),
        )
        judged = [one for name in dict.fromkeys(side.format for side in sides) for one in run.judge(name, sides)]
    if not judged:
        raise ConversionError("No recipe gave a model.", "; ".join(f"{f.recipe}: {f.message}" for f in run.failed))
    return Verdicts(
        source=str(source),
        data=str(data),
        pictures=len(pictures.paths),
        seeds=asked.seed_numbers,
        parts=tuple(part.name for part in run.parts),
        judged=tuple(judged),
        failed=tuple(run.failed),
        paths=pictures.paths,
        evidence=tuple(run.evidence),
    )


def _opened(source: Path, asked: JudgeOptions, progress: Progress) -> SourceModel:
    """The model, read for what it says about itself."""
    check_source(source)
    options = SourceOptions(size_wh=size_wh_of(asked.imgsz), random_weights=asked.random_weights, labels=asked.labels)
    with one_step(progress, "Reading the model"):
        return family(family_of(source)).open(source, options)


def _kept(folder: Path | None, work: str) -> Path:
    if folder is None:
        return Path(work)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror}.", "Choose another --bundles.") from error
    return folder


def _parts(asked: JudgeOptions, pictures: Pictures, work: Path, progress: Progress) -> tuple[Part, ...]:
    if asked.calibration is None:
        return halves_of(pictures, work, asked.split)
    return whole_of(pictures, asked.calibration, progress)


def _classes(pictures: Pictures, labels: Sequence[str]) -> int:
    """How many classes the labelled boxes may have; 0 where there are none."""
    boxes = [truth for truth in pictures.truth or () if isinstance(truth, Truth)]
    return max([len(labels), *(int(t.class_id.max()) + 1 for t in boxes if len(t.class_id))]) if boxes else 0


@dataclass(slots=True, kw_only=True, eq=False)
class _Run:
    """Judges format by format."""

    maker: BundleMaker
    pictures: Pictures
    parts: tuple[Part, ...]
    shares_float: bool
    decodes: bool
    classes: int
    failed: list[Failed] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)

    def judge(self, model_format: str, sides: Sequence[Side]) -> list[Judged]:
        """The recipes of one format, the first one first."""
        asked, own = self.maker.asked, [side for side in sides if side.format == model_format]
        made = {side.recipe.name: bundles for side in own if (bundles := self._bundles(side)) is not None}
        own = [side for side in own if side.recipe.name in made]
        gathered = FormatEvidence.of(own, self.pictures, asked.seeds, self.classes)
        at_once = AT_ONCE if self.shares_float else 1
        for at, part in enumerate(self.parts):
            candidates = [
                Candidate(side=side, row=row, bundle=bundle)
                for side in own
                for row, bundle in enumerate(made[side.recipe.name][at])
            ]
            gathered.gather(candidates, part, self.maker.progress, decodes=self.decodes, at_once=at_once)
        self.evidence += gathered.sides.values()
        with one_step(self.maker.progress, f"Intervals of {model_format}"):
            return compared(gathered, asked.resamples, asked.map_resamples)

    def _bundles(self, side: Side) -> list[list[Bundle]] | None:
        """Bundles of each part and seed; ``None`` where the recipe gives no model, which is remembered."""
        seeds = self.maker.asked.seed_numbers
        try:
            return [[self.maker.bundle(side, seed, part) for seed in seeds] for part in self.parts]
        except (ConversionError, QuantizationError, AccuracyGateError) as error:
            self.failed.append(_failure(side, error))
            return None


def _failure(side: Side, error: EdgeCVError) -> Failed:
    return Failed(format=side.format, recipe=side.recipe.name, message=error.message)


def compared(gathered: FormatEvidence, resamples: int = 2000, map_resamples: int = 400) -> list[Judged]:
    """The figures of each recipe, and how those after the first differ from it."""
    floats = _float_precision(gathered, map_resamples)
    found: list[Judged] = []
    first: dict[str, Drawn] | None = None
    for evidence in gathered.sides.values():
        plan = Plan(seeds=evidence.seeds, pictures=evidence.pictures, resamples=resamples)
        figures = {
            n: drawn(f.by_seed(evidence.measures), plan) for n, f in FIGURES.items() if f.over in evidence.measures
        }
        if floats is not None:
            figures |= _precision(floats, evidence, map_resamples)
        found.append(
            Judged(
                format=evidence.side.format,
                recipe=evidence.side.recipe.name,
                figures={name: figure.estimate() for name, figure in figures.items()},
                against={} if first is None else _against(figures, first),
            )
        )
        first = first or figures
    return found


def _float_precision(gathered: FormatEvidence, resamples: int) -> Drawn | None:
    """Mean average precision of the float model in each draw; ``None`` without labelled boxes."""
    if gathered.floats is None or not gathered.sides:
        return None
    evidence = next(iter(gathered.sides.values()))
    return drawn(_map_by_seed([gathered.floats] * evidence.seeds), _map_plan(evidence, resamples))


def _precision(floats: Drawn, evidence: Evidence, resamples: int) -> dict[str, Drawn]:
    """What INT8 reaches of mean average precision, and what it loses of the float model's."""
    own = drawn(_map_by_seed(evidence.logs), _map_plan(evidence, resamples))
    return {MAP: own, MAP_LOSS: floats.less(own)}


def _map_plan(evidence: Evidence, resamples: int) -> Plan:
    return Plan(seeds=evidence.seeds, pictures=evidence.pictures, resamples=resamples)


def _map_by_seed(logs: Sequence[MatchLog]) -> BySeed:
    matches = {id(log): log.matches() for log in logs}

    def figure(counts: IntArray) -> RealArray:
        found = {key: mean_precision(one, counts) for key, one in matches.items()}
        return np.stack([found[id(log)] for log in logs], axis=1)

    return figure


def _against(figures: Mapping[str, Drawn], first: Mapping[str, Drawn]) -> dict[str, Estimate]:
    how = {name: FIGURES[name].compared if name in FIGURES else None for name in figures if name in first}
    how |= {MAP_LOSS: "difference"} if MAP_LOSS in figures else {}
    return {name: figures[name].against(first[name], kind) for name, kind in how.items() if kind is not None}

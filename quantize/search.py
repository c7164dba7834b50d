"""The search for a recipe: one after the other is tried until one is accurate.

First the recipes of the format and CPU class; then the best of them with its k most sensitive blocks float; then int8 weights under
float activations; then fp16. That order is stated, not measured: the machine that converts is not the device, so its speed decides
nothing unless the bundle is made for it. Where recipes are to be compared, all static ones of the order are made with three seeds:
the first stands unless another is shown to be better. What each gave is kept as data, so that the report tells what was tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edgecv.errors import CalibrationError, ConfigError, QuantizationError
from edgecv.quantize.gate.accuracy_gate import GateReport
from edgecv.quantize.gate.paired import SEEDS, ImageFigures, compare_recipes, over_seeds
from edgecv.quantize.gate.refusal import refusal
from edgecv.quantize.labels.scores import Scores
from edgecv.quantize.quantizer import Exported
from edgecv.quantize.recipes import (
    ACCELERATED,
    DEFAULT_CPU_CLASS,
    Effort,
    QuantizeRecipe,
    depends_on_cpu_class,
    first_recipes,
    last_recipes,
)
from edgecv.quantize.record import Attempt, Comparison, Labelled, LayerLoss

FLOAT_BLOCKS = (1, 2, 4)
NOT_FASTER = "accurate, but not faster than float on this machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeOrder:
    """What is tried for one variant."""

    first: tuple[QuantizeRecipe, ...]  # recipes in the order they are tried
    last: tuple[QuantizeRecipe, ...] = ()  # what is tried when neither they nor they with float blocks do
    exact: bool = False  # only `first`: the caller named the recipe
    compare: bool = (
        False  # static recipes of `first` are compared with each other; else the first accurate one is taken
    )
    float_blocks: bool = True  # whether the nearest of `first` is tried with its most sensitive blocks float
    cpu_class: str = ""  # CPU class; empty where one file serves all


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judgement:
    """What a candidate is worth."""

    report: GateReport  # the gate's figures, those by labels among them
    labelled: Labelled | None = None  # what it loses by labels; `None` without labels, or when it did not get that far
    images: ImageFigures | None = None  # its figures image by image, by which recipes are compared
    answers: Sequence[Any] = ()  # what it found in each image, at a low confidence where the task has one
    scores: Scores | None = None  # what it scored by labels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A model that a recipe made."""

    recipe: QuantizeRecipe  # what made it
    parts: Mapping[str, Exported]  # its files, by part
    judgement: Judgement  # what it is worth
    latency_ms: float | None  # one thread; `None` where it was not timed
    bytes: int  # size of its files
    foreign: bool = False  # it is for another CPU class than this machine's, so its latency here says nothing


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchResult:
    """What was tried, and what is to be written."""

    attempts: tuple[Attempt, ...]
    chosen: Candidate
    layers: tuple[LayerLoss, ...] = ()
    comparisons: tuple[Comparison, ...] = ()


def recipe_orders(
    model_format: str,
    architecture: str,
    cpu_classes: Sequence[str],
    recipes: Sequence[QuantizeRecipe] = (),
    effort: Effort = "standard",
) -> tuple[RecipeOrder, ...]:
    """What is tried for each variant of a format: the recipes that were named, or all of them for each CPU class."""
    by_cpu_class = depends_on_cpu_class(model_format, architecture)
    named = [recipe for recipe in recipes if recipe.format == model_format] or [r for r in recipes if not r.format]
    if named:
        return tuple(
            RecipeOrder(
                first=(recipe,),
                exact=True,
                cpu_class=recipe.cpu_class if by_cpu_class or recipe.cpu_class in ACCELERATED else "",
            )
            for recipe in named
        )
    last, compare = last_recipes(model_format, architecture, effort), effort == "thorough"
    own = tuple(_accelerated(name, effort) for name in cpu_classes if _is_for(name, model_format))
    processors = [name for name in cpu_classes if name not in ACCELERATED]
    if own and not processors:
        return own
    if not by_cpu_class:
        return (
            RecipeOrder(first=first_recipes(model_format, architecture, effort=effort), last=last, compare=compare),
            *own,
        )
    orders = (
        RecipeOrder(
            first=first_recipes(model_format, architecture, name, effort), last=last, compare=compare, cpu_class=name
        )
        for name in processors or (DEFAULT_CPU_CLASS,)
    )
    return (*orders, *own)


def _is_for(name: str, model_format: str) -> bool:
    return name in ACCELERATED and ACCELERATED[name].format == model_format


def _accelerated(name: str, effort: Effort) -> RecipeOrder:
    found = ACCELERATED[name]
    first = found.first if effort == "quick" else (found.rounded, *found.first)
    return RecipeOrder(first=first, last=found.last, cpu_class=name, float_blocks=False)


def check_recipes(recipes: Sequence[QuantizeRecipe], formats: Sequence[str]) -> None:
    """Raise ``ConfigError`` unless each recipe has a format that is asked for, and each variant one recipe."""
    for recipe in recipes:
        if recipe.format and recipe.format not in formats:
            raise ConfigError(f"The recipe '{recipe.name}' is for {recipe.format}.", f"Add --to {recipe.format}.")
    # Only ONNX has a file for each CPU class; each accelerator has one.
    places = [
        (r.format, (r.cpu_class or DEFAULT_CPU_CLASS) if r.format in ("", "onnx") or r.cpu_class in ACCELERATED else "")
        for r in recipes
    ]
    if len(set(places)) < len(places):
        raise ConfigError(
            f"Two of the recipes {', '.join(recipe.name for recipe in recipes)} would make the same variant.",
            "Give one recipe per format and CPU class.",
        )


def search(
    order: RecipeOrder,
    make: Callable[[QuantizeRecipe], Candidate],
    rank: Callable[[QuantizeRecipe], tuple[LayerLoss, ...]],
    float_latency_ms: float | None = None,
) -> SearchResult:
    """Try one recipe after the other; the first that keeps the accuracy is chosen.

    ``make`` quantizes by a recipe and judges the outcome. ``rank`` sorts layers by what a recipe loses at each, the most first; it
    gives none where the format cannot tell.

    ``float_latency_ms`` is what the float model takes here, and is given only for a bundle that runs on the machine at hand. The
    search then goes on until a recipe is accurate and faster; where none is, the fastest of the accurate ones is chosen.

    Raises:
        AccuracyGateError: no recipe keeps the accuracy; the message says what was tried and which layers lose most.
        CalibrationError: the images prove nothing.
    """
    run = _Search(order=order, make=make, rank=rank, float_latency_ms=float_latency_ms)
    if not (order.compare and run.compare()):
        for recipe in run.recipes():
            if run.attempt(recipe):
                break
    if not run.passed:
        raise refusal(run.attempts, run.layers, run.reports)
    chosen = min(run.passed, key=lambda candidate: candidate.latency_ms or 0.0)
    return SearchResult(
        attempts=tuple(run.attempts), chosen=chosen, layers=run.layers, comparisons=tuple(run.comparisons)
    )


@dataclass(slots=True, kw_only=True, eq=False)
class _Search:
    """One search as it goes on."""

    order: RecipeOrder
    make: Callable[[QuantizeRecipe], Candidate]
    rank: Callable[[QuantizeRecipe], tuple[LayerLoss, ...]]
    float_latency_ms: float | None  # `None`: speed decides nothing
    attempts: list[Attempt] = field(default_factory=list)
    reports: list[GateReport] = field(default_factory=list)
    passed: list[Candidate] = field(default_factory=list)
    layers: tuple[LayerLoss, ...] = ()
    comparisons: list[Comparison] = field(default_factory=list)

    def recipes(self) -> Iterator[QuantizeRecipe]:
        """The next recipe as long as it makes sense.

        Where speed counts and one is accurate but slow, only another kind of recipe can still be faster: of the same kind, each
        keeps more of the float model than the one before, and is slower.
        """
        tried = {attempt.recipe for attempt in self.attempts}  # by the comparison
        for recipe in self.order.first:
            if not self.passed and recipe.name not in tried:
                yield recipe
        if self.order.exact:
            return
        if not self.passed and self.order.float_blocks:
            for recipe in self._with_float_blocks():
                if not self.passed:
                    yield recipe
        for recipe in self.order.last:
            if not self.passed or (
                recipe.kind == "weights" and recipe.kind not in {one.recipe.kind for one in self.passed}
            ):
                yield recipe

    def compare(self) -> bool:
        """Try static recipes of the first one's rounding, and keep the first that no other is shown to beat.

        Returns:
            Whether the search can stop.
        """
        rounding = self.order.first[0].rounding
        best: tuple[Candidate, ImageFigures] | None = None
        for recipe in self.order.first:
            alike = recipe.kind == "static" and recipe.rounding == rounding
            found = self._over_seeds(recipe) if alike else None
            if found is not None and (best is None or self._is_better(found, best)):
                best = found
        self.passed = [best[0]] if best is not None else self.passed[:1]
        return bool(self.passed) and self._is_fast(self.passed[0])

    def _over_seeds(self, recipe: QuantizeRecipe) -> tuple[Candidate, ImageFigures] | None:
        """What a recipe gives with each seed, and the candidate of the first; ``None`` where that is not accurate."""
        first = self._tried(recipe)
        if first is None or not first.judgement.report.passed or first.judgement.images is None:
            return None
        more = [
            self._tried(msgspec.structs.replace(recipe, name=f"{recipe.name}-seed-{seed}", seed=seed))
            for seed in SEEDS
            if seed != recipe.seed
        ]
        figures = [one.judgement.images for one in (first, *more) if one is not None]
        known = [one for one in figures if one is not None]
        return (first, over_seeds(known)) if len(known) == 1 + len(more) else None

    def _is_better(self, found: tuple[Candidate, ImageFigures], best: tuple[Candidate, ImageFigures]) -> bool:
        comparison = compare_recipes(best[0].recipe.name, found[0].recipe.name, best[1], found[1])
        self.comparisons.append(comparison)
        return comparison.shown == "better"

    def attempt(self, recipe: QuantizeRecipe) -> bool:
        """Try one recipe; whether the search can stop: it is accurate and, where speed counts, faster than float."""
        found = self._tried(recipe)
        return found is not None and found.judgement.report.passed and self._is_fast(found)

    def _tried(self, recipe: QuantizeRecipe) -> Candidate | None:
        """What a recipe gives, kept as an attempt; ``None`` where it gives nothing."""
        try:
            found = self.make(recipe)
        except CalibrationError:
            raise
        except QuantizationError as error:
            self.attempts.append(Attempt(recipe=recipe.name, passed=False, reason=error.message))
            return None
        fast = self._is_fast(found)
        self.attempts.append(_attempt(found, fast))
        self.reports.append(found.judgement.report)
        if found.judgement.report.passed:
            self.passed.append(found)
        return found

    def _is_fast(self, found: Candidate) -> bool:
        if self.float_latency_ms is None or found.latency_ms is None or found.foreign:
            return True
        return found.latency_ms < self.float_latency_ms

    def _with_float_blocks(self) -> Iterator[QuantizeRecipe]:
        """The recipe that came nearest, with its most sensitive blocks float."""
        static = [recipe for recipe in self.order.first if recipe.kind == "static"]
        if not static:
            return
        nearest = self._nearest(static)
        self.layers = self.rank(nearest)
        for count in FLOAT_BLOCKS:
            if count <= len(self.layers) - 1:
                names = tuple(layer.name for layer in self.layers[:count])
                yield msgspec.structs.replace(nearest, name=f"{nearest.name}-float-{count}", float_layers=names)

    def _nearest(self, recipes: Sequence[QuantizeRecipe]) -> QuantizeRecipe:
        """The recipe with the smallest shortfall in the gate; the last one where none got that far."""
        shortfalls = {report.recipe: shortfall(report) for report in self.reports}
        return min(reversed(recipes), key=lambda recipe: shortfalls.get(recipe.name, float("inf")))


def shortfall(report: GateReport) -> float:
    """How far the figures of a gate lie outside their limits, summed."""
    return sum(max(0.0, check.least - check.value, check.value - check.most) for check in report.checks)


def _attempt(found: Candidate, fast: bool) -> Attempt:
    report = found.judgement.report
    return Attempt(
        recipe=found.recipe.name,
        checks=report.checks,
        labelled=found.judgement.labelled,
        passed=report.passed,
        reason=report.reason() or ("" if fast else NOT_FASTER),
        latency_ms=None if found.latency_ms is None or found.foreign else round(found.latency_ms, 3),
        bytes=found.bytes,
    )

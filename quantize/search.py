"""The ladder: recipe by recipe until one is accurate and faster than float.

The rungs: the recipes of the format and CPU class, the fastest first; the best of them with its k most sensitive blocks float;
int8 weights under float activations; fp16. What each gave is kept as data, so that the report tells what was tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from edgecv.errors import AccuracyGateError, CalibrationError, ConfigError, QuantizationError
from edgecv.quantize.gate.accuracy_gate import GateReport
from edgecv.quantize.recipes import DEFAULT_CPU_CLASS, QuantizeRecipe, base_rungs, depends_on_cpu_class, last_rungs
from edgecv.quantize.record import Attempt, CheckRecord, Labelled, LayerLoss

FLOAT_BLOCKS = (1, 2, 4)
NOT_FASTER = "accurate, but not faster than float on this machine: never chosen by `auto`"
_NAMED_LAYERS = 3

Model = TypeVar("Model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is tried for one variant.

    Attributes:
        rungs: Recipes in the order they are tried.
        last: What is tried when neither they nor they with float blocks do.
        exact: Only ``rungs``: the caller named the recipe.
        cpu_class: CPU class; empty where one file serves all.
    """

    rungs: tuple[QuantizeRecipe, ...]
    last: tuple[QuantizeRecipe, ...] = ()
    exact: bool = False
    cpu_class: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate(Generic[Model]):
    """A model that a recipe made, and what it gave.

    Attributes:
        recipe: What made it.
        model: The model, as whoever made it knows it.
        report: What the gate found.
        latency_ms: One thread; ``None`` where it was not timed.
        bytes: Size of its files.
        foreign: It is for another CPU class than this machine's, so its latency here says nothing.
    """

    recipe: QuantizeRecipe
    model: Model
    report: GateReport
    latency_ms: float | None
    bytes: int
    foreign: bool = False
    labelled: Labelled | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchResult(Generic[Model]):
    """What was tried, and what is to be written."""

    attempts: tuple[Attempt, ...]
    chosen: Candidate[Model]
    layers: tuple[LayerLoss, ...] = ()


def plans(
    model_format: str, architecture: str, cpu_classes: Sequence[str], recipes: Sequence[QuantizeRecipe] = ()
) -> tuple[Plan, ...]:
    """What is tried for each variant of a format: the recipes that were named, or a ladder for each CPU class."""
    by_cpu_class = depends_on_cpu_class(model_format, architecture)
    named = [recipe for recipe in recipes if recipe.format == model_format] or [r for r in recipes if not r.format]
    if named:
        return tuple(
            Plan(rungs=(recipe,), exact=True, cpu_class=recipe.cpu_class if by_cpu_class else "") for recipe in named
        )
    last = last_rungs(model_format, architecture)
    if not by_cpu_class:
        return (Plan(rungs=base_rungs(model_format, architecture), last=last),)
    return tuple(
        Plan(rungs=base_rungs(model_format, architecture, name), last=last, cpu_class=name) for name in cpu_classes
    )


def check_recipes(recipes: Sequence[QuantizeRecipe], formats: Sequence[str]) -> None:
    """Raise ``ConfigError`` unless each recipe has a format that is asked for, and each variant one recipe."""
    for recipe in recipes:
        if recipe.format and recipe.format not in formats:
            raise ConfigError(f"The recipe '{recipe.name}' is for {recipe.format}.", f"Add --to {recipe.format}.")
    # Only ONNX has a file for each CPU class.
    places = [(r.format, (r.cpu_class or DEFAULT_CPU_CLASS) if r.format in ("", "onnx") else "") for r in recipes]
    if len(set(places)) < len(places):
        raise ConfigError(
            f"Two of the recipes {', '.join(recipe.name for recipe in recipes)} would make the same variant.",
            "Give one recipe per format and CPU class.",
        )


def climb(
    plan: Plan,
    make: Callable[[QuantizeRecipe], Candidate[Model]],
    rank: Callable[[QuantizeRecipe], tuple[LayerLoss, ...]],
    float_latency_ms: float,
) -> SearchResult[Model]:
    """Try one rung after the other.

    Args:
        plan: The rungs.
        make: Quantizes by a recipe and judges the outcome.
        rank: Layers by what a recipe loses at each, the most first; none where the format cannot tell.
        float_latency_ms: Of the float model on this machine.

    Raises:
        AccuracyGateError: no rung keeps the accuracy; the message says what was tried and which layers lose most.
        CalibrationError: the pictures prove nothing.
    """
    run = _Run(plan=plan, make=make, rank=rank, float_latency_ms=float_latency_ms)
    for recipe in run.rungs():
        if run.attempt(recipe):
            break
    if not run.passed:
        raise refusal(run.attempts, run.layers, run.reports)
    chosen = min(run.passed, key=lambda candidate: candidate.latency_ms or 0.0)
    return SearchResult(attempts=tuple(run.attempts), chosen=chosen, layers=run.layers)


class _Run(Generic[Model]):
    """One climb as it goes on."""

    def __init__(
        self,
        *,
        plan: Plan,
        make: Callable[[QuantizeRecipe], Candidate[Model]],
        rank: Callable[[QuantizeRecipe], tuple[LayerLoss, ...]],
        float_latency_ms: float,
    ) -> None:
        self._plan = plan
        self._make = make
        self._rank = rank
        self._float_latency_ms = float_latency_ms
        self.attempts: list[Attempt] = []
        self.reports: list[GateReport] = []
        self.passed: list[Candidate[Model]] = []
        self.layers: tuple[LayerLoss, ...] = ()

    def rungs(self) -> Iterator[QuantizeRecipe]:
        """The next recipe as long as it makes sense.

        A rung keeps more of the float model than the one before and is slower, so once one is accurate but slow, only another
        kind of recipe can still be faster.
        """
        for recipe in self._plan.rungs:
            if not self.passed:
                yield recipe
        if self._plan.exact:
            return
        if not self.passed:
            for recipe in self._with_float_blocks():
                if not self.passed:
                    yield recipe
        for recipe in self._plan.last:
            if not self.passed or (recipe.kind == "weights" and recipe.kind != self.passed[0].recipe.kind):
                yield recipe

    def attempt(self, recipe: QuantizeRecipe) -> bool:
        """Try one recipe; whether it is accurate and faster than float, so that the search can stop."""
        try:
            found = self._make(recipe)
        except CalibrationError:
            raise
        except QuantizationError as error:
            self.attempts.append(Attempt(recipe=recipe.name, passed=False, reason=error.message))
            return False
        fast = found.foreign or found.latency_ms is None or found.latency_ms < self._float_latency_ms
        self.attempts.append(_attempt(found, fast))
        self.reports.append(found.report)
        if found.report.passed:
            self.passed.append(found)
        return found.report.passed and fast

    def _with_float_blocks(self) -> Iterator[QuantizeRecipe]:
        """The rung that came nearest, with its most sensitive blocks float."""
        static = [recipe for recipe in self._plan.rungs if recipe.kind == "static"]
        if not static:
            return
        nearest = self._nearest(static)
        self.layers = self._rank(nearest)
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


def refusal(
    attempts: Sequence[Attempt], layers: Sequence[LayerLoss] = (), reports: Sequence[GateReport] = ()
) -> AccuracyGateError:
    """The error when every rung failed: what was tried, what each gave, and where most is lost."""
    tried = "; ".join(f"{attempt.recipe}: {attempt.reason}" for attempt in attempts)
    worst = ", ".join(f"{layer.name} ({layer.sqnr_db:.1f} dB)" for layer in layers[:_NAMED_LAYERS])
    lost = f" Most is lost in {worst}." if worst else ""
    return AccuracyGateError(
        f"No INT8 recipe keeps the accuracy of the float model. Tried {tried}.{lost}",
        "Nothing was written. Check that the calibration images look like what the model was trained on, or keep float: "
        "--fp32.",
        report=reports[-1] if reports else None,
    )


def _attempt(found: Candidate[Model], fast: bool) -> Attempt:
    report = found.report
    return Attempt(
        recipe=found.recipe.name,
        checks=tuple(
            CheckRecord(metric=c.metric, value=c.value, least=c.least, most=c.most, passed=c.passed)
            for c in report.checks
        ),
        labelled=found.labelled,
        passed=report.passed,
        reason=report.reason() or ("" if fast else NOT_FASTER),
        latency_ms=None if found.latency_ms is None or found.foreign else round(found.latency_ms, 3),
        bytes=found.bytes,
    )

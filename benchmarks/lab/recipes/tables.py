"""What was judged, as text, Markdown and JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from edgecv.benchmarks.lab.recipes.intervals import Estimate
from edgecv.benchmarks.lab.recipes.judging import MAP, MAP_LOSS, Judged, Verdicts
from edgecv.benchmarks.lab.recipes.measures import FIGURES

NOT_SHOWN = "no difference shown"

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]

_TITLES = {name: figure.title for name, figure in FIGURES.items()} | {MAP: "mAP50-95", MAP_LOSS: "mAP50-95 loss"}
_MORE_IS_BETTER = {name for name, figure in FIGURES.items() if figure.more_is_better} | {MAP}
_DIGITS = {"relevant_relative": 5, "cosine": 5, "top1": 2, "top1_loss": 2, "agreement": 2, MAP: 4, MAP_LOSS: 4}
_RATIOS = {name for name, figure in FIGURES.items() if figure.compared == "ratio"}


def figures_table(found: Verdicts) -> Table:
    """Each recipe with its figures and their intervals."""
    names = [name for name in _TITLES if any(name in one.figures for one in found.judged)]
    rows = [
        (one.format, one.recipe, *(_shown(one.figures[name], name) if name in one.figures else "" for name in names))
        for one in found.judged
    ]
    return ("format", "recipe", *(_TITLES[name] for name in names)), rows


def differences_table(found: Verdicts) -> Table:
    """Each recipe but the first of its format against that one: differences, and ratios of errors, with a word on each."""
    names = [name for name in _TITLES if any(name in one.against for one in found.judged)]
    rows = [
        (one.format, f"{one.recipe} against {_first_of(found, one)}", *(_told(one, name) for name in names))
        for one in found.judged
        if one.against
    ]
    heads = (f"{_TITLES[name]}, {'ratio' if name in _RATIOS else 'difference'}" for name in names)
    return ("format", "recipe", *heads), rows


def verdict(estimate: Estimate, name: str) -> str:
    """``better``, ``worse``, or that the interval shows no difference."""
    middle = 1.0 if name in _RATIOS else 0.0
    if math.isnan(estimate.low) or estimate.holds(middle):
        return NOT_SHOWN
    return "better" if (estimate.low > middle) == (name in _MORE_IS_BETTER) else "worse"


def _first_of(found: Verdicts, one: Judged) -> str:
    return next(other.recipe for other in found.judged if other.format == one.format)


def _told(one: Judged, name: str) -> str:
    estimate = one.against.get(name)
    return "" if estimate is None else f"{_shown(estimate, name, signed=name not in _RATIOS)} {verdict(estimate, name)}"


def _shown(estimate: Estimate, name: str, *, signed: bool = False) -> str:
    form = f"{'+' if signed else ''}.{_DIGITS.get(name, 3)}f"
    if math.isnan(estimate.low):
        return format(estimate.value, form)
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def headline(found: Verdicts) -> str:
    """What was judged on what, in a sentence."""
    seeds = f"{len(found.seeds)} seeds" if len(found.seeds) > 1 else "1 seed: intervals cover pictures alone"
    how = "each half judged by what the other calibrated" if len(found.parts) > 1 else "calibrated on other pictures"
    return f"{found.source} on {found.pictures} pictures of {found.data}, {how}; {seeds}; 95 % intervals."


def lines(found: Verdicts) -> Iterator[str]:
    """What cannot be read off a table: the recipes that gave no model."""
    for one in found.failed:
        yield f"{one.format} {one.recipe} gave no model: {one.message}"


def markdown(found: Verdicts) -> str:
    """Everything as Markdown."""
    blocks = [headline(found), _markdown(figures_table(found))]
    if any(one.against for one in found.judged):
        blocks.append(_markdown(differences_table(found)))
    return "\n\n".join([*blocks, *lines(found)]) + "\n"


def _markdown(table: Table) -> str:
    columns, rows = table
    return "\n".join(_row(cells) for cells in (columns, ["---"] * len(columns), *rows))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def document(found: Verdicts) -> dict[str, Any]:
    """Everything as JSON; a bound that cannot be said is ``null``."""
    return {
        "source": found.source,
        "data": found.data,
        "pictures": found.pictures,
        "seeds": list(found.seeds),
        "parts": list(found.parts),
        "recipes": [_recipe(one) for one in found.judged],
        "failed": msgspec.to_builtins(found.failed),
    }


def _recipe(one: Judged) -> dict[str, Any]:
    return {
        "format": one.format,
        "recipe": one.recipe,
        "figures": {name: _numbers(estimate) for name, estimate in one.figures.items()},
        "against_first": {
            name: _numbers(estimate) | {"verdict": verdict(estimate, name)} for name, estimate in one.against.items()
        },
    }


def _numbers(estimate: Estimate) -> dict[str, Any]:
    bounds = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: None if math.isnan(value) else value for name, value in bounds.items()}


def picture_lines(found: Verdicts) -> Iterator[bytes]:
    """A line of JSON for each recipe, seed and picture."""
    for evidence in found.evidence:
        for row, seed in enumerate(found.seeds):
            for place, path in enumerate(found.paths):
                measures = {name: float(table[row, place]) for name, table in evidence.measures.items()}
                told = {"format": evidence.side.format, "recipe": evidence.side.recipe.name, "seed": seed}
                yield msgspec.json.encode({**told, "picture": str(path), **measures}) + b"\n"

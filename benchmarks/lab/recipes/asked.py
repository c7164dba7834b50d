"""What ``judge_recipes`` is asked for, checked before anything is converted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecv.errors import ConfigError
from edgecv.quantize.recipe_files import find_recipe
from edgecv.quantize.recipes import QuantizeRecipe, first_recipes

FORMATS = ("onnx", "openvino", "tflite")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One recipe in one format."""

    format: str
    recipe: QuantizeRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOptions:
    """What is compared, on how many seeds and pictures.

    Attributes:
        formats: By default those of the named recipes, else all three.
        recipes: Names of recipes, or files; by default the first recipe of each format. The first of a format is what the others
            are compared with.
        seeds: How many conversions there are of each recipe, which differ in the seed of their calibration.
        first_seed: The seed of the first one; the others follow.
        calibration: Pictures to calibrate on; ``None``: each half of the data judges what the other calibrated.
        split: Another number makes other halves.
        imgsz: Input size in pixels; ``None`` for the source's own.
        limit: At most this many pictures, chosen by their content.
        bundles: Folder where converted bundles stay, and where those of an earlier run are found.
        random_weights: The source is an architecture, with weights from seed 0.
        labels: Class names of a classifier that has none.
        resamples: Draws of the bootstrap.
        map_resamples: Draws for mean average precision, each of which takes longer.
    """

    formats: Sequence[str] = ()
    recipes: Sequence[str] = ()
    seeds: int = 3
    first_seed: int = 0
    calibration: Path | None = None
    split: int = 0
    imgsz: int | None = None
    limit: int | None = None
    bundles: Path | None = None
    random_weights: bool = False
    labels: tuple[str, ...] = ()
    resamples: int = 2000
    map_resamples: int = 400

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing.

        Raises:
            ConfigError: one of them is too small, or there is no such format.
        """
        for name, least in (("seeds", 1), ("first_seed", 0), ("resamples", 100), ("map_resamples", 100)):
            if getattr(self, name) < least:
                said = name.replace("_", "-")
                raise ConfigError(f"--{said} {getattr(self, name)} is too small.", f"Use --{said} {least} or more.")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"--limit {self.limit} leaves no picture.", "Use --limit 128, or leave it out.")
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown:
            raise ConfigError(f"There is no format '{unknown[0]}'.", f"Known: {', '.join(FORMATS)}.")

    @property
    def seed_numbers(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(range(self.first_seed, self.first_seed + self.seeds))


def sides_of(asked: JudgeOptions, architecture: str = "conv") -> tuple[Side, ...]:
    """Format by format, the recipes in the order they were named.

    Raises:
        ConfigError: there is no such recipe, one is named twice, or one is for a format that was not asked for.
    """
    recipes = [find_recipe(said) for said in asked.recipes]
    formats = tuple(dict.fromkeys(asked.formats or [r.format for r in recipes if r.format] or FORMATS))
    for recipe in recipes:
        if recipe.format and recipe.format not in formats:
            raise ConfigError(f"The recipe '{recipe.name}' is for {recipe.format}.", f"Add --format {recipe.format}.")
    sides = tuple(side for name in formats for side in _of_format(name, recipes, architecture))
    names = [(side.format, side.recipe.name) for side in sides]
    if len(set(names)) < len(names):
        raise ConfigError("Two of the recipes have the same name.", "Give each recipe file a name of its own.")
    return sides


def _of_format(model_format: str, recipes: Sequence[QuantizeRecipe], architecture: str) -> Iterator[Side]:
    named = [recipe for recipe in recipes if recipe.format in ("", model_format)]
    for recipe in named or first_recipes(model_format, architecture)[:1]:
        yield Side(format=model_format, recipe=recipe)

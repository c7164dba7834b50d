"""Recipes in files: found by name or by path, read strictly, written out whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from edgecv._internal.bounded import read_bounded
from edgecv._internal.printable import nearest
from edgecv.errors import ConfigError
from edgecv.quantize.recipes import ACCELERATED, CPU_CLASSES, RECIPES, GateLimits, QuantizeRecipe

RECIPE_FILE = "recipe.json"  # beside the model that the recipe made


def find_recipe(said: str) -> QuantizeRecipe:
    """The recipe of a published name, or of a file as a bundle holds it.

    Raises:
        ConfigError: there is neither, or the file says something that no recipe has.
    """
    if said in RECIPES:
        return RECIPES[said]
    path = Path(said)
    if path.suffix != ".json":
        raise ConfigError(
            f"There is no recipe '{said}'.", f"{nearest(said, RECIPES)}Known: {', '.join(RECIPES)}, or a .json file."
        )
    try:
        return parse_recipe(read_bounded(path), said)
    except OSError as error:
        raise ConfigError(
            f"{said} cannot be read: {error.strerror}.", f"A bundle holds one as onnx-int8/{RECIPE_FILE}."
        ) from error


def parse_recipe(text: bytes, origin: str) -> QuantizeRecipe:
    """A recipe from JSON, strictly.

    Raises:
        ConfigError: a key is unknown, missing or has an impossible value.
    """
    try:
        said = msgspec.json.decode(text)
        if isinstance(said, dict):
            _check_keys(said, QuantizeRecipe, origin)
            if isinstance(said.get("limits"), dict):
                _check_keys(said["limits"], GateLimits, origin)
        recipe = msgspec.convert(said, QuantizeRecipe)
    except (msgspec.DecodeError, RecursionError) as error:  # ValidationError is a DecodeError, too
        raise ConfigError(f"{origin} is no recipe: {error}.", "Start from the one in a bundle.") from error
    if not recipe.name.isprintable() or not recipe.name or recipe.subset_size < 1 or recipe.seed < 0:
        raise ConfigError(
            f"{origin} is no recipe: it needs a printable name, a subset_size of 1 or more and a seed of 0 or more.",
            "Start from the one in a bundle.",
        )
    if recipe.rounding == "gptq" and not recipe.per_channel:
        raise ConfigError(
            f"{origin} asks for 'gptq' with one weight scale for a whole layer, and it rounds to one for each output channel.",
            'Set per_channel to true, or rounding to "nearest".',
        )
    if recipe.rounding == "gptq" and not recipe.format:
        raise ConfigError(
            f"{origin} asks for 'gptq', whose steps differ between formats.", "Say which format it is for."
        )
    known = (*CPU_CLASSES, *ACCELERATED)
    if recipe.cpu_class and recipe.cpu_class not in known:
        raise ConfigError(
            f"{origin} is for '{recipe.cpu_class}'.", f"{nearest(recipe.cpu_class, known)}Known: {', '.join(known)}."
        )
    return recipe


def dump_recipe(recipe: QuantizeRecipe) -> bytes:
    """A recipe as JSON, every key written out: defaults may change, what made a model does not."""
    return msgspec.json.format(msgspec.json.encode(recipe), indent=2) + b"\n"


def _check_keys(said: Mapping[str, Any], struct: type[msgspec.Struct], origin: str) -> None:
    known = [field.encode_name for field in msgspec.structs.fields(struct)]
    for key in said:
        if key not in known:
            raise ConfigError(f"{origin}: a recipe has no '{key}'.", f"{nearest(key, known)}Known: {', '.join(known)}.")

"""What is asked of ``edgecv.convert``, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecv import registry
from edgecv._internal.printable import is_name
from edgecv.converters.families.other_sources import refuse_known
from edgecv.errors import ConfigError, UnsupportedSource
from edgecv.quantize.recipes import DEFAULT_TARGET, QuantizeRecipe, find_recipe, targets_of
from edgecv.quantize.search import check_recipes
from edgecv.specs import PRECISIONS, Precision

_FILES = (".pt", ".onnx")  # a .yaml names an architecture and need not be there


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """What was asked of INT8."""

    recipes: tuple[QuantizeRecipe, ...]
    targets: tuple[str, ...]


def quantization_of(
    precisions: Sequence[Precision], formats: Sequence[str], recipes: Sequence[str | Path], target: str, analyze: bool
) -> Quantization:
    """Recipes and CPU classes by their names.

    Raises:
        ConfigError: there is none of that name, one fits no format, or INT8 was not asked for.
    """
    found = tuple(find_recipe(str(recipe)) for recipe in recipes)
    if "int8" not in precisions and (found or analyze or target != DEFAULT_TARGET):
        raise ConfigError("Recipes, targets and the analysis are for INT8.", "Add --int8 and --calib FOLDER.")
    check_recipes(found, formats)
    return Quantization(recipes=found, targets=targets_of(target))


def check_drop(max_drop: float) -> None:
    """Raise ``ConfigError`` unless ``max_drop`` is a number of points."""
    if not 0 <= max_drop <= 100:
        raise ConfigError(f"A loss of {max_drop:g} points is no limit.", "--max-drop 1.0 allows one point.")


def precisions_of(asked: Precision | Sequence[Precision]) -> tuple[Precision, ...]:
    """What was asked for, each once, in the order of their building.

    Raises:
        ConfigError: there is no such precision.
    """
    several = (asked,) if isinstance(asked, str) else tuple(asked)
    unknown = [name for name in several if name not in PRECISIONS]
    if unknown or not several:
        said = f"There is no precision '{unknown[0]}'." if unknown else "No precision was asked for."
        raise ConfigError(said, "Use fp32, fp16 or int8.")
    return tuple(name for name in PRECISIONS if name in several)


def check_formats(formats: Sequence[str]) -> None:
    """Raise ``ConfigError`` without any format, ``UnknownPlugin`` for one that no exporter writes."""
    if not formats:
        raise ConfigError("No format was asked for.", f"Known: {', '.join(registry.names('exporters'))}.")
    for name in formats:
        registry.place("exporters", name)


def check_name(place: Path) -> None:
    """Raise ``ConfigError`` unless a bundle can be called what its folder is called."""
    if not is_name(place.name):
        raise ConfigError(
            f"A bundle cannot be called '{place.name}': there are characters in it that name nothing.",
            "Choose another --out.",
        )


def check_calibration(precisions: Sequence[Precision], calibration: str | Path | None) -> None:
    """Raise ``ConfigError`` unless INT8 has something to calibrate with."""
    if "int8" in precisions and calibration is None:
        raise ConfigError(
            "INT8 needs calibration images.", "Give --calib FOLDER with 100 to 300 images like those of your camera."
        )


def size_wh_of(imgsz: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Width and height in pixels; one number is a square.

    Raises:
        ConfigError: it is neither a whole number nor two.
    """
    if imgsz is None:
        return None
    sizes = tuple(imgsz) if isinstance(imgsz, (tuple, list)) else (imgsz, imgsz)
    if len(sizes) != 2 or not all(type(size) is int for size in sizes):
        raise ConfigError(f"{imgsz!r} is not an input size.", "Use one whole number, or (width, height).")
    width, height = sizes
    return width, height


def check_source(path: Path) -> None:
    """Raise ``UnsupportedSource`` unless there is a family for the source, and its file."""
    known = registry.names("families")
    if family_of(path) not in known or path.is_dir():
        refuse_known(path)
        raise UnsupportedSource(f"{path} is not a model EdgeCV reads.", f"Known files and names: {', '.join(known)}.")
    if path.suffix in _FILES and not path.exists():
        raise UnsupportedSource(f"{path} does not exist.", "Check the path to the model.")


def family_of(path: Path) -> str:
    """What a source is registered by: a name of its own (``sam2.1_t``), or its suffix."""
    return path.name if path.name in registry.names("families") else path.suffix or path.name


def stem_of(path: Path) -> str:
    """What a source's bundle is called by default, without the suffix."""
    return path.name if family_of(path) == path.name else path.stem

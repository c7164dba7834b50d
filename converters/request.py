"""What is asked of ``edgecv.convert``, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from edgecv import registry
from edgecv.converters.families.other_sources import refuse_known
from edgecv.converters.fits import read_fits
from edgecv.converters.source import SourceOptions
from edgecv.errors import ConfigError, UnsupportedSource
from edgecv.quantize.recipe_files import find_recipe
from edgecv.quantize.recipes import ACCELERATED, DEFAULT_CPU_CLASS, Effort, QuantizeRecipe, cpu_classes_of
from edgecv.quantize.search import RecipeOrder, check_recipes, recipe_orders
from edgecv.specs import PRECISIONS, Precision
from edgecv.vision.input_shapes import Size

DEFAULT_MAX_DROP = 1.0  # points of mAP or top-1
_FILES = (".pt", ".onnx")  # a .yaml names an architecture and need not be there


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Options:
    """How INT8 is built and judged.

    Attributes:
        recipes: Names of recipes, or files as bundles hold them (``recipe.json``), one for each format: exactly that one is
            tried, and the gate applies. By default one recipe after the other is tried.
        cpu_class: CPU class that INT8 in ONNX is built for: ``x86-vnni``, ``x86`` (AVX2 without VNNI), ``arm64`` or ``all``; or an
            accelerator, ``tensorrt`` (ONNX) or ``edgetpu`` (TFLite); or several of them.
        data: Labelled images that calibration does not see: INT8 is judged by them as well.
        max_drop: Points of mAP or top-1 that INT8 may lose on them.
        seed: Another seed splits the calibration images in another way.
        effort: What is spent on accuracy. ``quick`` rounds weights to the nearest step. ``standard`` rounds them by what each layer
            sees, and chooses ranges by what an error does to the outputs. ``thorough`` compares recipes and seeds as well.
        analyze: Write ``sensitivity.json``: what each layer loses in INT8, and what leaving it float costs.
        strict: The accuracy gate asks INT8 to be as near to float as the best recipes come (``STRICT`` in ``quantize/recipes.py``).
        by_speed: The bundle runs on the machine that converts, so a recipe must be faster than float there as well. By default
            accuracy alone decides: the same inputs and versions give the same recipes on any x86 machine.
    """

    recipes: Sequence[str | Path] = ()
    cpu_class: str | Sequence[str] = DEFAULT_CPU_CLASS
    data: str | Path | None = None
    max_drop: float = DEFAULT_MAX_DROP
    seed: int = 0
    effort: Effort = "standard"
    analyze: bool = False
    strict: bool = False
    by_speed: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop <= 100:
            raise ConfigError(f"A loss of {self.max_drop:g} points is no limit.", "--max-drop 1.0 allows one point.")
        if self.effort not in get_args(Effort):
            raise ConfigError(f"There is no effort '{self.effort}'.", f"Use {', '.join(get_args(Effort))}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionRequest:
    """What was asked for, with recipes and CPU classes found by their names."""

    source: Path
    formats: tuple[str, ...]
    precisions: tuple[Precision, ...]
    options: SourceOptions = field(default_factory=SourceOptions)
    int8: Int8Options = field(default_factory=Int8Options)
    recipes: tuple[QuantizeRecipe, ...] = ()
    cpu_classes: tuple[str, ...] = (DEFAULT_CPU_CLASS,)
    fits: tuple[Size, ...] = ()  # shapes of images that get variants of their own, such as (16, 9)

    def orders(self, model_format: str, architecture: str) -> tuple[RecipeOrder, ...]:
        """What is tried for each INT8 variant of a format."""
        return recipe_orders(model_format, architecture, self.cpu_classes, self.recipes, self.int8.effort)

    def precisions_of(self, model_format: str) -> tuple[Precision, ...]:
        """What is built of a format. With INT8 for TensorRT comes fp16, which may be faster there: the device measures."""
        classes = (*self.cpu_classes, *(recipe.cpu_class for recipe in self.recipes))
        extra = {"fp16"} if "tensorrt" in classes and model_format == ACCELERATED["tensorrt"].format else set()
        return tuple(name for name in PRECISIONS if name in extra or name in self.precisions)


def request_of(
    source: str | Path,
    formats: Sequence[str],
    precision: Precision | Sequence[Precision],
    options: SourceOptions | None = None,
    int8: Int8Options | None = None,
    fit: Sequence[str] = (),
) -> ConversionRequest:
    """Check what can be checked without the model or any image.

    Raises:
        ConfigError: there is no such precision, recipe or CPU class, a recipe fits no format, something needs INT8, or a ``fit``
            is no shape of an image.
        UnknownPlugin: there is no such format.
        UnsupportedSource: there is no such source.
    """
    path, int8 = Path(source), int8 or Int8Options()
    check_source(path)
    precisions = precisions_of(precision)
    check_formats(formats)
    recipes = tuple(find_recipe(str(recipe)) for recipe in int8.recipes)
    cpu_classes = cpu_classes_of(int8.cpu_class)
    asked = recipes or int8.analyze or int8.strict or int8.by_speed or cpu_classes != (DEFAULT_CPU_CLASS,)
    if "int8" not in precisions and asked:
        raise ConfigError(
            "Recipes, CPU classes, the analysis and --strict are for INT8.", "Add --int8 and --calib FOLDER."
        )
    if "int8" not in precisions and int8.effort != "standard":
        raise ConfigError("--effort is for INT8.", "Add --int8 and --calib FOLDER, or leave --effort out.")
    if "int8" not in precisions and int8.data is not None:
        raise ConfigError("--data judges INT8.", "Add --int8 and --calib FOLDER, or leave --data out.")
    check_recipes(recipes, formats)
    _check_accelerators(cpu_classes, formats)
    if cpu_classes != (DEFAULT_CPU_CLASS,):
        _check_served(cpu_classes, recipes)
    return ConversionRequest(
        source=path,
        formats=tuple(formats),
        precisions=precisions,
        options=options or SourceOptions(),
        int8=int8,
        recipes=recipes,
        cpu_classes=cpu_classes,
        fits=read_fits(fit),
    )


def _check_accelerators(cpu_classes: Sequence[str], formats: Sequence[str]) -> None:
    for name in cpu_classes:
        if name in ACCELERATED and ACCELERATED[name].format not in formats:
            wanted = ACCELERATED[name].format
            raise ConfigError(f"{name} takes {wanted}, which is not asked for.", f"Add --to {wanted}.")


def _check_served(cpu_classes: Sequence[str], recipes: Sequence[QuantizeRecipe]) -> None:
    """Where recipes are named for a format, each class that was asked for needs one of them."""
    for name in cpu_classes:
        model_format = ACCELERATED[name].format if name in ACCELERATED else "onnx"
        named = [recipe for recipe in recipes if recipe.format in ("", model_format)]
        if named and not any(recipe.cpu_class in ("", name) for recipe in named):
            raise ConfigError(
                f"Nothing would be built for {name}: {named[0].name} is for {named[0].cpu_class}.",
                "Add a --recipe for it, or leave one of the two options out.",
            )


def precisions_of(asked: Precision | Sequence[Precision]) -> tuple[Precision, ...]:
    """What was asked for, each once, in the order of their building; ``ConfigError`` for what does not exist."""
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


def size_wh_of(imgsz: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Width and height in pixels; one number is a square. ``ConfigError`` for what is neither a whole number nor two."""
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

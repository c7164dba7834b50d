"""Bundles of one recipe and seed each: converted once, found again by what they were made from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgecv._internal.progress import Progress
from edgecv.benchmarks.lab.recipes.asked import JudgeOptions, Side
from edgecv.benchmarks.lab.recipes.pictures import Part
from edgecv.bundles.bundle import SUFFIX, Bundle, sha256_of
from edgecv.converters.convert import convert
from edgecv.converters.request import Int8Options, stem_of
from edgecv.converters.source import SourceOptions
from edgecv.quantize.recipe_files import RECIPE_FILE, dump_recipe, find_recipe
from edgecv.quantize.recipes import DEFAULT_CPU_CLASS, GateLimits, QuantizeRecipe
from edgecv.version import __version__

# The judge wants to see bad recipes, too: nothing fails these.
OPEN_LIMITS = GateLimits(
    f1_50=0.0,
    f1_75=0.0,
    matched_iou=0.0,
    score_bias=1.0,
    top1_lower=0.0,
    output_cosine=-1.0,
    embedding_cosine=-1.0,
    mask_iou=0.0,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleMaker:
    """Converts a source by one recipe at a time.

    Attributes:
        source: What ``edgecv.convert`` takes.
        asked: Size, weights and labels of the source.
        folder: Where the bundles lie.
        progress: Called as long steps go on.
    """

    source: Path
    asked: JudgeOptions
    folder: Path
    progress: Progress

    @property
    def options(self) -> SourceOptions:
        """How the source is read."""
        return SourceOptions(random_weights=self.asked.random_weights, labels=self.asked.labels)

    def bundle(self, side: Side, seed: int, part: Part) -> Bundle:
        """The bundle of a recipe, a seed and calibration pictures: of an earlier run, or converted now.

        Raises:
            EdgeCVError: as ``edgecv.convert``, but never since the gate failed.
        """
        recipe = msgspec.structs.replace(side.recipe, limits=OPEN_LIMITS)
        place = self.folder / self._name(side, seed, part)
        if place.is_dir() and _made_by(Bundle.open(place), recipe):
            return Bundle.open(place)
        file = self.folder / f"{place.name.removesuffix(SUFFIX)}.{RECIPE_FILE}"
        file.write_bytes(dump_recipe(recipe))
        return convert(
            self.source,
            formats=(side.format,),
            calibration=part.calibration,
            out=place,
            imgsz=self.asked.imgsz,
            force=True,
            options=self.options,
            int8=Int8Options(recipes=(file,), cpu_class=recipe.cpu_class or DEFAULT_CPU_CLASS, seed=seed),
            progress=self.progress,
        )

    def _name(self, side: Side, seed: int, part: Part) -> str:
        """Says what it holds, and ends in the hash of all that it was made from."""
        source = sha256_of(self.source) if self.source.is_file() else str(self.source)
        made_from = [source, _wishes(side.recipe), seed, part.contents, side.format, repr(self.options)]
        text = msgspec.json.encode([*made_from, self.asked.imgsz, __version__], order="sorted")
        digest = hashlib.sha256(text).hexdigest()[:12]
        return f"{stem_of(self.source)}-{side.format}-{side.recipe.name}-seed{seed}-{part.name}-{digest}{SUFFIX}"


def _wishes(recipe: QuantizeRecipe) -> dict[str, object]:
    """What a recipe asks for beyond the defaults, so that a new key of recipes leaves the hash of those without it alone."""
    told = msgspec.structs.asdict(recipe)
    fields = [field for field in msgspec.structs.fields(recipe) if field.name != "limits"]
    return {field.encode_name: told[field.name] for field in fields if told[field.name] != field.default}


def _made_by(bundle: Bundle, recipe: QuantizeRecipe) -> bool:
    """Whether the recipe that a bundle holds, whole, is this one: a default may have changed since."""
    file = bundle.path / bundle.variants[-1].name / RECIPE_FILE
    return file.is_file() and msgspec.structs.replace(find_recipe(str(file)), limits=recipe.limits) == recipe

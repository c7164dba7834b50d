"""The float network on the grids of its quantizers: rounded once, for every format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from edgecv._internal.foreign import foreign_errors
from edgecv._internal.progress import Progress, one_step
from edgecv.converters.source import Part
from edgecv.errors import QuantizationError
from edgecv.protocols import Array
from edgecv.quantize.gradients.collect import collect
from edgecv.quantize.gradients.stats import GradientStats
from edgecv.quantize.recipes import QuantizeRecipe
from edgecv.quantize.record import RoundingRecord
from edgecv.quantize.rounding.folding import folded
from edgecv.quantize.rounding.graph import round_graph
from edgecv.quantize.rounding.grid import GRIDS, NNCF_WEIGHTS, SEVEN_BITS, SYMMETRIC, Grid
from edgecv.quantize.rounding.layers import RoundedNetwork
from edgecv.quantize.rounding.module import round_module

_IMAGES = {"conv": 48, "transformer": 16}  # a transformer's image gives thousands of tokens, and takes seconds to run


def grid_of(recipe: QuantizeRecipe) -> Grid | None:
    """The grid that a recipe's weights are rounded to before the export; ``None`` where its quantizer rounds them."""
    if recipe.rounding == "nearest":
        return None
    if recipe.kind == "weights" and recipe.format == "openvino":
        return NNCF_WEIGHTS
    return SEVEN_BITS if recipe.reduce_range else SYMMETRIC


@dataclass(slots=True, kw_only=True, eq=False)
class RoundedParts:
    """One part of a source on every grid that was asked for; it is rounded when a grid is needed first.

    Attributes:
        part: The float part.
        images: Calibration images, ``(N, H, W, 3)`` each.
        recipes: What will be tried first: their grids are made together, from the same moments.
        seed: Of the draw of rows.
        progress: Called as images are run.
    """

    part: Part
    images: Sequence[Array]
    recipes: Sequence[QuantizeRecipe]
    seed: int
    progress: Progress
    _made: dict[str, RoundedNetwork] = field(default_factory=dict, init=False)
    _failure: QuantizationError | None = field(default=None, init=False)
    _gradients: dict[tuple[str, int], GradientStats] = field(default_factory=dict, init=False)
    _missing: dict[tuple[str, int], str] = field(default_factory=dict, init=False)  # why there are none

    def on(self, grid: Grid) -> Part:
        """The part with its weights on a grid; ``QuantizationError`` where they cannot be rounded."""
        if grid.name not in self._made:
            wanted = {one.name for one in map(grid_of, self.recipes) if one is not None} - self._made.keys()
            self._made |= self._rounded([GRIDS[name] for name in sorted({*wanted, grid.name})])
        found = self._made[grid.name].network
        return replace(self.part, module=found) if self.part.graph is None else replace(self.part, graph=found)

    def gradients(self, recipe: QuantizeRecipe) -> GradientStats | None:
        """What an error in each tensor does to the outputs, for a recipe that asks; kept for the other formats."""
        if "gradient" not in (recipe.method, recipe.silu_method):
            return None
        grid, key = grid_of(recipe), _key(recipe)
        if key not in self._gradients:
            part = self.part if grid is None else self.on(grid)
            with one_step(self.progress, "Weighing errors by gradients"):
                found = collect(part.module, self.images, part.outputs, recipe.seed)
            self._gradients = {key: found}  # of one network and seed at a time: it holds a hundred megabytes
            self._missing[key] = found.missing
        return self._gradients[key]

    def note(self, recipe: QuantizeRecipe) -> str:
        """Why ranges are not chosen by gradients, for a recipe that asks for that; empty where they are."""
        if recipe.kind != "static" or "gradient" not in (recipe.method, recipe.silu_method):
            return ""
        if _key(recipe) not in self._missing:
            self.gradients(recipe)
        missing = self._missing[_key(recipe)]
        return f"Ranges are chosen by values alone: {missing}" if missing else ""

    def record(self, recipe: QuantizeRecipe) -> RoundingRecord | None:
        """What was rounded for a recipe; ``None`` where nothing was."""
        grid = grid_of(recipe)
        found = self._made.get(grid.name) if grid is not None else None
        return RoundingRecord(grid=grid.name, layers=found.layers) if grid is not None and found is not None else None

    def _rounded(self, grids: Sequence[Grid]) -> dict[str, RoundedNetwork]:
        """``QuantizationError`` where that fails, at once from the second time on: other recipes are tried then."""
        if self._failure is not None:
            raise self._failure
        try:
            with foreign_errors(
                QuantizationError, "The weights cannot be rounded before the export", "Use --effort quick."
            ):
                return self._rounded_by_inputs(grids)
        except QuantizationError as error:
            self._failure = error
            raise

    def _rounded_by_inputs(self, grids: Sequence[Grid]) -> dict[str, RoundedNetwork]:
        images = self.images[: max(1, _IMAGES[self.part.architecture] // len(self.images[0]))]
        rounding = [recipe for recipe in self.recipes if recipe.rounding != "nearest"]
        products = bool(rounding) and all(one.kind == "weights" and one.weights_of == "products" for one in rounding)
        if self.part.graph is not None:
            return round_graph(self.part.graph, images, grids, self.progress, self.seed, products_only=products)
        module = self.part.module if products else folded(self.part.module, images[0])
        return round_module(module, images, grids, self.progress, self.seed, products_only=products)


def _key(recipe: QuantizeRecipe) -> tuple[str, int]:
    """What gradients depend on: the grid and the seed."""
    grid = grid_of(recipe)
    return (grid.name if grid is not None else "", recipe.seed)

"""The quantizers of one format, each made and calibrated when a recipe needs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgecv._internal.progress import one_step
from edgecv.converters.float_variants import Built, Job
from edgecv.converters.int8.rounding import grid_of
from edgecv.converters.source import Part
from edgecv.errors import ConversionError, QuantizationError
from edgecv.quantize.quantizer import Exported, Quantizer, quantizer_type
from edgecv.quantize.recipes import QuantizeRecipe
from edgecv.quantize.rounding.grid import Grid

_QUICK_IMAGES = 32  # 96 take half a minute longer in three formats; the score error of YOLOv8n was no lower with them


@dataclass(slots=True, kw_only=True, eq=False)
class Quantizers:
    """The quantizers of one format: of the float model, and of each grid that its weights are rounded to before the export."""

    job: Job
    base: Built
    part: Part
    work: Path
    _made: dict[str, Quantizer] = field(default_factory=dict, init=False)
    # By grid: the seed, and whether with gradients.
    _calibrated: dict[str, tuple[int, bool]] = field(default_factory=dict, init=False)

    def check(self) -> None:
        """Refuse what is too large before the float model is asked about every image."""
        self._quantizer(None)

    def ready(self, recipe: QuantizeRecipe) -> Quantizer:
        """The quantizer for a recipe; it has seen the calibration images where the recipe needs them."""
        grid = grid_of(recipe)
        quantizer = self._quantizer(grid)
        name = grid.name if grid is not None else ""
        if recipe.kind == "static":
            self._calibrate(name, quantizer, recipe)
        return quantizer

    def _calibrate(self, name: str, quantizer: Quantizer, recipe: QuantizeRecipe) -> None:
        wanted = (recipe.seed, "gradient" in (recipe.method, recipe.silu_method))
        if self._calibrated.get(name) == wanted:
            return
        assert self.job.rounded is not None
        gradients = self.job.rounded.gradients(recipe)
        with one_step(self.job.progress, f"Calibrating {self.base.exporter.format}"):
            quick = self.job.request.int8.effort == "quick"
            most = min(recipe.subset_size, _QUICK_IMAGES) if quick else recipe.subset_size
            images = self.job.images[: -(-most // self.job.source.batch)]
            quantizer.calibrate(images, gradients, recipe.seed)
        self._calibrated[name] = wanted

    def _quantizer(self, grid: Grid | None) -> Quantizer:
        name = grid.name if grid is not None else ""
        if name not in self._made:
            work = self.work / f"quantizer-{name}"
            work.mkdir()
            floats = self.base.parts[self.part.name] if grid is None else self._exported(grid, work)
            kind = quantizer_type(self.base.exporter.format)
            self._made[name] = kind(floats.files, floats.outputs, work)
        return self._made[name]

    def _exported(self, grid: Grid, work: Path) -> Exported:
        """The part with its weights on a grid, as files of the format."""
        assert self.job.rounded is not None
        part = self.job.rounded.on(grid)
        folder = work / "float"
        folder.mkdir()
        with one_step(self.job.progress, f"Exporting the rounded {self.base.exporter.format}"):
            try:
                return self.base.exporter.export(part, folder)
            except ConversionError as error:
                raise QuantizationError(error.message, error.hint) from error

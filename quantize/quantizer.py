"""``Quantizer``: what the adapter of each format offers to the ladder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from edgecv.protocols import Array
from edgecv.quantize.recipes import QuantizeRecipe
from edgecv.specs import TensorSpec

# For one picture, outputs by layer: of the float model, and of the INT8 model as real numbers.
LayerOutputs = tuple[Mapping[str, Array], Mapping[str, Array]]


class Quantizer(Protocol):
    """Quantizes one float model by any number of recipes; calibration runs once."""

    def calibrate(self, pictures: Sequence[Array]) -> None:
        """Measure what recipes need to know, over pictures ``(N, H, W, 3)``."""
        ...

    def quantize(self, recipe: QuantizeRecipe, folder: Path) -> tuple[tuple[Path, ...], tuple[TensorSpec, ...]]:
        """Write the model of a recipe into ``folder``: its files, and the specs of its outputs.

        Raises:
            QuantizationError: the runtime would not run it as integers.
        """
        ...

    def layer_outputs(self, recipe: QuantizeRecipe, pictures: Sequence[Array]) -> Iterator[LayerOutputs]:
        """What every quantized layer gives for each picture; nothing where layers cannot be told apart."""
        ...

"""What rounding did to the layers of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv.quantize.record import LayerRounding
from edgecv.quantize.rounding.gptq import round_layer
from edgecv.quantize.rounding.grid import Grid
from edgecv.quantize.rounding.moments import FloatArray, Moments

STAYS_FLOAT = "its weights stay float"  # where the quantizers take matrix products alone


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoundedNetwork:
    """A float network whose weights lie on a grid.

    Attributes:
        network: A torch module or an ONNX graph.
        layers: What happened to each layer, in the order they run.
    """

    network: Any
    layers: tuple[LayerRounding, ...]


def on_grid(
    name: str, weights: FloatArray, moments: Moments, grid: Grid
) -> tuple[FloatArray | None, FloatArray | None, LayerRounding]:
    """Round ``weights (groups, rows, columns)``; the rounded weights, the shift of the bias ``(groups, rows)``, and the record.

    The arrays are ``None`` where the weights cannot be rounded: the quantizer then rounds each to its nearest step.
    """
    if not moments.count:
        return None, None, LayerRounding(name=name, reason="it did not run on the calibration images")
    if not (np.isfinite(moments.total).all() and np.isfinite(moments.products).all()):
        return None, None, LayerRounding(name=name, reason="its inputs are not finite on the calibration images")
    found = round_layer(weights, moments, grid)
    record = LayerRounding(name=name, nearest_error=round(found.nearest_error, 8), error=round(found.error, 8))
    return found.weights, found.shift.astype("float32"), record

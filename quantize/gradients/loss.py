"""What is asked of the outputs: a sum with random signs. Its gradient squared is in the mean the squared error of a change.

With independent signs r the mean of (sum_i r_i dy_i/dx)^2 is the sum of the squares of dy_i/dx (Hutchinson 1989): one backward
pass gives every tensor of the network how much each of its values counts at the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from edgecv._internal.extras import require
from edgecv.specs import TensorSpec

# A cell of a detector is relevant where its best class has this confidence.
RELEVANT = 0.05
# What other cells count. Without them INT8 finds objects in the background: 0.003 raised the error over all cells.
BACKGROUND = 0.03


def signed_sum(
    outputs: Sequence[Any], specs: Sequence[TensorSpec], generator: Any, background: float = BACKGROUND
) -> Any:
    """The sum of the outputs under random signs, weighted by how much each position counts.

    Args:
        outputs: Tensors, in the order of ``specs``.
        specs: Roles such as ``class/8`` say which outputs share a grid of cells, and which of them tells where objects are.
        generator: Draws the signs.
        background: What cells without an object count.

    Returns:
        A scalar, or ``None`` where no output has a gradient.
    """
    weights = _weights(outputs, specs, background)
    terms = [
        (_signs(output, generator) * output * weight).sum() / math.sqrt(output.shape[_channel_axis(spec)])
        for output, spec, weight in zip(outputs, specs, weights, strict=True)
        if output.requires_grad
    ]
    return sum(terms) if terms else None


def _signs(output: Any, generator: Any) -> Any:
    torch = require("torch", "convert")
    return torch.randint(0, 2, output.shape, generator=generator, dtype=output.dtype) * 2 - 1


def _weights(outputs: Sequence[Any], specs: Sequence[TensorSpec], background: float) -> list[Any]:
    """One weight per cell for outputs of a grid; what lies beside the grids counts as all their cells together do."""
    cells = {
        _grid(spec): _relevance(output, _channel_axis(spec)) + background
        for output, spec in zip(outputs, specs, strict=True)
        if spec.role.startswith("class/")
    }
    total = sum(float(weight.square().sum()) for weight in cells.values())
    return [
        cells[_grid(spec)]
        if _grid(spec) in cells
        else math.sqrt(total * output.shape[_channel_axis(spec)] / output.numel())
        if cells
        else 1.0
        for output, spec in zip(outputs, specs, strict=True)
    ]


def _relevance(classes: Any, axis: int) -> Any:
    best = classes.detach().amax(axis, keepdim=True)
    return (best > math.log(RELEVANT / (1 - RELEVANT))).to(best.dtype)


def _grid(spec: TensorSpec) -> str:
    return spec.role.partition("/")[2]


def _channel_axis(spec: TensorSpec) -> int:
    return 1 if spec.layout == "NCHW" else -1

"""Round the weights of a torch module: its convolutions and linear layers, each by the inputs it sees."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv._internal.progress import Progress, counted, silent
from edgecv.protocols import Array
from edgecv.quantize.record import LayerRounding
from edgecv.quantize.rounding.grid import Grid
from edgecv.quantize.rounding.layers import STAYS_FLOAT, RoundedNetwork, on_grid
from edgecv.quantize.rounding.moments import FloatArray, Moments
from edgecv.quantize.rounding.patches import Window, draw, passes, patches

_STEP = "Collecting moments of the layers"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Layer:
    """One convolution or linear layer, and its place in the module."""

    name: str
    layer: Any

    @property
    def groups(self) -> int:
        return _groups(self.layer)

    @property
    def columns(self) -> int:
        return int(self.layer.weight[0].numel())


def _groups(layer: Any) -> int:
    return int(layer.groups) if layer.weight.dim() > 2 else 1  # a linear layer has none


def round_module(
    module: Any,
    images: Sequence[Array],
    grids: Sequence[Grid],
    progress: Progress = silent,
    seed: int = 0,
    *,
    products_only: bool = False,
) -> dict[str, RoundedNetwork]:
    """Copies of ``module``, one for each grid by its name, whose weights lie on that grid.

    Args:
        module: Takes ``(N, H, W, 3)`` uint8 images. Batch norms are folded into their convolutions already where they can be.
        images: Calibration images.
        grids: What the quantizers will use.
        progress: Called as images are run.
        seed: Of the draw of rows.
        products_only: The quantizers leave convolutions float, so these stay what they are.
    """
    torch = require("torch", "convert")
    copies = {grid.name: copy.deepcopy(module) for grid in grids}
    records: dict[str, dict[str, LayerRounding]] = {grid.name: {} for grid in grids}
    layers, left = _layers(torch, module, products_only)
    for several in passes(layers):
        moments = _collect(torch, module, several, images, progress, seed)
        for grid in grids:
            found = dict(copies[grid.name].named_modules())
            for layer in several:
                records[grid.name][layer.name] = _round(torch, layer.name, found[layer.name], moments[layer.name], grid)
    return {name: RoundedNetwork(network=copies[name], layers=(*records[name].values(), *left)) for name in copies}


def _layers(torch: Any, module: Any, products_only: bool) -> tuple[list[_Layer], tuple[LayerRounding, ...]]:
    """The layers that can be rounded, and why the others cannot."""
    kinds = (torch.nn.Conv2d, torch.nn.Linear, torch.nn.ConvTranspose2d)
    users: dict[int, int] = {}
    named = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, kinds)]
    for _, layer in named:
        weight = id(layer._parameters.get("weight"))
        users[weight] = users.get(weight, 0) + 1
    found, left = [], []
    for name, layer in named:
        floats = products_only and not isinstance(layer, torch.nn.Linear)
        reason = STAYS_FLOAT if floats else _unfit(torch, layer, users[id(layer._parameters.get("weight"))])
        if reason:
            left.append(LayerRounding(name=name, reason=reason))
        else:
            found.append(_Layer(name=name, layer=layer))
    return found, tuple(left)


def _unfit(torch: Any, layer: Any, users: int) -> str:
    if isinstance(layer, torch.nn.ConvTranspose2d):
        return "transposed convolutions are rounded to the nearest step"
    if layer._parameters.get("weight") is None:  # of a weight norm, for one
        return "its weights are computed in each run"
    if users > 1:
        return "several layers share its weights"
    if layer.weight.dtype != torch.float32:
        return f"its weights are {str(layer.weight.dtype).removeprefix('torch.')}"
    return "" if bool(torch.isfinite(layer.weight).all()) else "its weights are not finite"


def _collect(
    torch: Any, module: Any, layers: Sequence[_Layer], images: Sequence[Array], progress: Progress, seed: int
) -> Mapping[str, Moments]:
    moments = {layer.name: Moments.empty(layer.groups, layer.columns) for layer in layers}
    rng = np.random.default_rng(seed)
    hooks = [
        layer.layer.register_forward_pre_hook(_adding(torch, moments[layer.name], rng), with_kwargs=True)
        for layer in layers
    ]
    try:
        with torch.no_grad():
            for image in counted(progress, _STEP, images):
                module(torch.from_numpy(image))
    finally:
        for hook in hooks:
            hook.remove()
    return moments


def _adding(torch: Any, moments: Moments, rng: np.random.Generator) -> Callable[[Any, Any, Any], None]:
    def add(layer: Any, inputs: Any, named: Any) -> None:
        rows = _rows if isinstance(layer, torch.nn.Linear) else _patches
        moments.add(rows(torch, layer, (*inputs, *named.values())[0].float(), rng))

    return add


def _rows(torch: Any, layer: Any, inputs: Any, rng: np.random.Generator) -> FloatArray:  # noqa: ARG001
    """Rows ``(1, count, columns)`` of the input of a linear layer."""
    rows: FloatArray = inputs.reshape(-1, layer.in_features).numpy()
    return rows[draw(len(rows), rng)][None]


def _patches(torch: Any, layer: Any, inputs: Any, rng: np.random.Generator) -> FloatArray:
    """Rows of im2col ``(groups, count, columns)`` of the input of a convolution."""
    top, left, bottom, right = pads = _pads(layer)
    inputs = inputs if inputs.dim() == 4 else inputs[None]
    if layer.padding_mode != "zeros":
        inputs = torch.nn.functional.pad(inputs, [left, right, top, bottom], mode=layer.padding_mode)
        pads = (0, 0, 0, 0)
    window = Window(kernel=layer.kernel_size, strides=layer.stride, steps=layer.dilation, pads=pads)
    return patches(inputs.numpy(), int(layer.groups), window, rng)


def _pads(layer: Any) -> tuple[int, int, int, int]:
    """Top, left, bottom, right."""
    if layer.padding == "valid":
        return 0, 0, 0, 0
    if layer.padding == "same":
        high, wide = (d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
        return high // 2, wide // 2, high - high // 2, wide - wide // 2
    top, left = layer.padding
    return top, left, top, left


def _round(torch: Any, name: str, layer: Any, moments: Moments, grid: Grid) -> LayerRounding:
    """Put the weights of a layer on the grid, in place."""
    groups, shape = _groups(layer), layer.weight.shape
    floats = layer.weight.detach().numpy().astype(np.float32).reshape(groups, shape[0] // groups, -1)
    weights, shift, record = on_grid(name, floats, moments, grid)
    if weights is None or shift is None:
        return record
    bias = torch.zeros(shape[0]) if layer.bias is None else layer.bias.detach()
    layer.weight = torch.nn.Parameter(torch.from_numpy(weights.reshape(shape)), requires_grad=False)
    layer.bias = torch.nn.Parameter(bias + torch.from_numpy(shift.reshape(-1)), requires_grad=False)
    return record

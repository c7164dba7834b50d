"""Round the weights of a torch module: its convolutions and linear layers, each by the inputs it sees."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv._internal.progress import Progress, counted, silent
from edgecv.protocols import Array
from edgecv.quantize.record import LayerRounding
from edgecv.quantize.rounding.grid import Grid
from edgecv.quantize.rounding.layers import RoundedNetwork, on_grid
from edgecv.quantize.rounding.moments import Moments

ROWS_PER_IMAGE = (
    160  # rows of im2col drawn per layer and image; 64 images give 10,000 for at most a few thousand columns
)
MOST_BYTES = 1 << 30  # of the moments that are held at a time; a larger network takes several passes
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

    @property
    def moment_bytes(self) -> int:
        return 4 * self.groups * self.columns**2


def _groups(layer: Any) -> int:
    return int(layer.groups) if layer.weight.dim() > 2 else 1  # a linear layer has none


def round_module(
    module: Any, images: Sequence[Array], grids: Sequence[Grid], progress: Progress = silent, seed: int = 0
) -> dict[str, RoundedNetwork]:
    """Copies of ``module``, one for each grid by its name, whose weights lie on that grid.

    Args:
        module: Takes ``(N, H, W, 3)`` uint8 images. Batch norms are folded into their convolutions already where they can be.
        images: Calibration images.
        grids: What the quantizers will use.
        progress: Called as images are run.
        seed: Of the draw of rows.
    """
    torch = require("torch", "convert")
    copies = {grid.name: copy.deepcopy(module) for grid in grids}
    records: dict[str, dict[str, LayerRounding]] = {grid.name: {} for grid in grids}
    layers, left = _layers(torch, module)
    for several in _by_memory(layers):
        moments = _collect(torch, module, several, images, progress, seed)
        for grid in grids:
            found = dict(copies[grid.name].named_modules())
            for layer in several:
                records[grid.name][layer.name] = _round(torch, layer.name, found[layer.name], moments[layer.name], grid)
    return {name: RoundedNetwork(network=copies[name], layers=(*records[name].values(), *left)) for name in copies}


def _layers(torch: Any, module: Any) -> tuple[list[_Layer], tuple[LayerRounding, ...]]:
    """The layers that can be rounded, and why the others cannot."""
    kinds = (torch.nn.Conv2d, torch.nn.Linear, torch.nn.ConvTranspose2d)
    users: dict[int, int] = {}
    named = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, kinds)]
    for _, layer in named:
        users[id(layer.weight)] = users.get(id(layer.weight), 0) + 1
    found, left = [], []
    for name, layer in named:
        reason = _unfit(torch, layer, users[id(layer.weight)])
        if reason:
            left.append(LayerRounding(name=name, reason=reason))
        else:
            found.append(_Layer(name=name, layer=layer))
    return found, tuple(left)


def _unfit(torch: Any, layer: Any, users: int) -> str:
    if isinstance(layer, torch.nn.ConvTranspose2d):
        return "transposed convolutions are rounded to the nearest step"
    if users > 1:
        return "several layers share its weights"
    return "" if bool(torch.isfinite(layer.weight).all()) else "its weights are not finite"


def _by_memory(layers: Sequence[_Layer]) -> Iterator[list[_Layer]]:
    """Layers in their order, as many at a time as memory allows."""
    several: list[_Layer] = []
    for layer in layers:
        if several and sum(one.moment_bytes for one in (*several, layer)) > MOST_BYTES:
            yield several
            several = []
        several.append(layer)
    if several:
        yield several


def _collect(
    torch: Any, module: Any, layers: Sequence[_Layer], images: Sequence[Array], progress: Progress, seed: int
) -> Mapping[str, Moments]:
    moments = {layer.name: Moments.empty(layer.groups, layer.columns) for layer in layers}
    generator = torch.Generator().manual_seed(seed)
    hooks = [layer.layer.register_forward_pre_hook(_adding(torch, moments[layer.name], generator)) for layer in layers]
    try:
        with torch.no_grad():
            for image in counted(progress, _STEP, images):
                module(torch.from_numpy(image))
    finally:
        for hook in hooks:
            hook.remove()
    return moments


def _adding(torch: Any, moments: Moments, generator: Any) -> Callable[[Any, Any], None]:
    def add(layer: Any, inputs: Any) -> None:
        draw = _rows if isinstance(layer, torch.nn.Linear) else _patches
        moments.add(draw(torch, layer, inputs[0], generator).float().numpy())

    return add


def _rows(torch: Any, layer: Any, inputs: Any, generator: Any) -> Any:
    """Rows ``(1, count, columns)`` of the input of a linear layer."""
    rows = inputs.reshape(-1, layer.in_features)
    return rows[_drawn(torch, len(rows), generator)][None]


def _patches(torch: Any, layer: Any, inputs: Any, generator: Any) -> Any:
    """Rows of im2col ``(groups, count, columns)`` of the input of a convolution."""
    left, right, top, bottom = _pads(layer)
    if layer.padding_mode != "zeros":
        inputs = torch.nn.functional.pad(inputs, [left, right, top, bottom], mode=layer.padding_mode)
        left = right = top = bottom = 0
    kernel, strides, steps = layer.kernel_size, layer.stride, layer.dilation
    within = (inputs.shape[2] + top + bottom, inputs.shape[3] + left + right)
    size = [(within[d] - steps[d] * (kernel[d] - 1) - 1) // strides[d] + 1 for d in (0, 1)]
    drawn = _drawn(torch, len(inputs) * size[0] * size[1], generator)
    image, place = drawn // (size[0] * size[1]), drawn % (size[0] * size[1])
    corners = ((place // size[1]) * strides[0] - top, (place % size[1]) * strides[1] - left)
    rows, columns = (corners[d][:, None] + torch.arange(kernel[d]) * steps[d] for d in (0, 1))
    return _taken(inputs, image, rows, columns).reshape(len(drawn), layer.groups, -1).transpose(0, 1).contiguous()


def _taken(inputs: Any, image: Any, rows: Any, columns: Any) -> Any:
    """Patches ``(count, channels, height, width)`` of pixels; those beyond the edge are zero."""
    high, wide = inputs.shape[2:]
    inside = ((rows >= 0) & (rows < high))[:, :, None] & ((columns >= 0) & (columns < wide))[:, None, :]
    rows, columns = rows.clamp(0, high - 1), columns.clamp(0, wide - 1)
    taken = inputs[image[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return (taken * inside[..., None]).permute(0, 3, 1, 2)


def _pads(layer: Any) -> list[int]:
    """Left, right, top, bottom."""
    if layer.padding == "valid":
        return [0, 0, 0, 0]
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
    top, left = layer.padding
    return [left, left, top, top]


def _drawn(torch: Any, count: int, generator: Any) -> Any:
    """Numbers of the rows that are looked at, all of them where they are few."""
    if count <= ROWS_PER_IMAGE:
        return torch.arange(count)
    return torch.randint(count, (ROWS_PER_IMAGE,), generator=generator)


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

"""How many multiply-adds one run of an OpenVINO graph takes, counted from the shapes in its ``.xml``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from types import MappingProxyType
from xml.etree import ElementTree

_Shapes = list[tuple[int, ...]]


def multiply_adds(xml: Path) -> int:
    """Of convolutions and matrix products; everything else of a vision network is small beside them."""
    total = 0
    for layer in ElementTree.parse(xml).getroot().iterfind("layers/layer"):  # noqa: S314 (our own file)
        count = _COUNTS.get(layer.get("type", ""))
        if count is not None:
            total += count(_shapes(layer, "input"), _shapes(layer, "output"), layer)
    return total


def _convolution(given: _Shapes, made: _Shapes, _: ElementTree.Element) -> int:
    """Each output needs a product per input channel and place of the kernel: weights are ``(O, I, …)``."""
    return prod(made[0]) * prod(given[1][1:])


def _grouped(given: _Shapes, made: _Shapes, _: ElementTree.Element) -> int:
    """Weights are ``(G, O/G, I/G, …)``."""
    return prod(made[0]) * prod(given[1][2:])


def _product(given: _Shapes, made: _Shapes, layer: ElementTree.Element) -> int:
    data = layer.find("data")
    transposed = data is not None and data.get("transpose_a") == "true"
    return prod(made[0]) * given[0][-2 if transposed else -1]


_COUNTS: Mapping[str, Callable[[_Shapes, _Shapes, ElementTree.Element], int]] = MappingProxyType(
    {"Convolution": _convolution, "GroupConvolution": _grouped, "MatMul": _product}
)


def _shapes(layer: ElementTree.Element, side: str) -> _Shapes:
    return [tuple(int(dim.text or 0) for dim in port.iterfind("dim")) for port in layer.iterfind(f"{side}/port")]

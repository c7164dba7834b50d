"""A torch network as a graph whose every tensor can be seen while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from edgecv._internal.extras import require
from edgecv.errors import QuantizationError

# float32 values of all tensors of one run. Running forward and back takes about three times their bytes.
MOST_VALUES = 1 << 29


def graph_of(module: Any, image: Any) -> Any:
    """The module as a ``torch.fx.GraphModule``; SiLU is a sigmoid and a product, as in the exported files."""
    torch = require("torch", "convert")

    def silu(x: Any) -> Any:
        return x * torch.sigmoid(x)

    program = torch.export.export(module, (image,)).run_decompositions({torch.ops.aten.silu.default: silu})
    graph = program.module()
    values = sum(_size(torch, node) for node in _dependent(graph.graph))
    if values > MOST_VALUES:
        raise QuantizationError(
            f"One run of the network makes {values / 1e6:.0f} million values, more than the {MOST_VALUES / 1e6:.0f} million "
            "that are differentiated.",
            "Use a smaller --imgsz or --batch, or another method.",
        )
    return graph


def watched(graph: Any, watch: Callable[[str, Any], Any]) -> Any:
    """An interpreter of a graph that hands every float tensor made from the input to ``watch`` and goes on with its answer."""
    torch = require("torch", "convert")
    dependent = {node.name for node in _dependent(graph.graph)}

    class Watched(torch.fx.Interpreter):  # type: ignore[misc,name-defined]
        def run_node(self, node: Any) -> Any:
            value = super().run_node(node)
            seen = node.name in dependent and isinstance(value, torch.Tensor) and value.is_floating_point()
            return watch(node.name, value) if seen else value

    return Watched(graph)


def outputs_of(graph: Any) -> set[str]:
    """The names of the tensors that the graph returns."""
    return {source.name for node in graph.graph.nodes if node.op == "output" for source in node.all_input_nodes}


def silu_inputs(graph: Any) -> dict[str, str]:
    """The x of every x * sigmoid(x) that is used for nothing else, by the name of the product."""
    torch = require("torch", "convert")
    found = {}
    for node in graph.graph.nodes:
        if node.target is torch.ops.aten.mul.Tensor and len(inputs := node.all_input_nodes) == 2:
            for x, gate in (inputs, inputs[::-1]):
                gated = gate.target is torch.ops.aten.sigmoid.default and gate.all_input_nodes == [x]
                if gated and set(x.users) == {node, gate}:
                    found[node.name] = x.name
    return found


def _dependent(graph: Any) -> Iterator[Any]:
    """The nodes that compute something from the input."""
    known: set[Any] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or known.intersection(node.all_input_nodes):
            known.add(node)
            if node.op not in ("placeholder", "output"):
                yield node


def _size(torch: Any, node: Any) -> int:
    value = node.meta.get("val")
    return value.numel() if isinstance(value, torch.Tensor) and value.is_floating_point() else 0

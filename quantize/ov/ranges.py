"""Ranges by gradient for OpenVINO: they take the place of those that NNCF chose, in the same graph.

NNCF gives what is concatenated one range, and concatenating is then copying. So a range is chosen for such a group as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv.protocols import Array
from edgecv.quantize.gradients.stats import GradientStats
from edgecv.quantize.ranges import Range, TensorStats, copy_groups, gradient, joined, largest_magnitude

_LEVELS = 256
# What pixels and weights may pass through before they are rounded, and what gives some of the values that it takes.
_PREPARING = {"Add", "Convert", "Divide", "FakeQuantize", "Multiply", "Reshape", "Subtract", "Transpose"}
_COPYING = {
    "Concat",
    "Interpolate",
    "MaxPool",
    "Reshape",
    "Slice",
    "Split",
    "StridedSlice",
    "Transpose",
    "VariadicSplit",
}


def set_ranges(quantized: Any, path: Path, image: Array, gradients: GradientStats) -> int:
    """Give each group of tensors that NNCF gave one range the range whose error counts least at the outputs.

    Outputs, and groups with a tensor of which nothing is known, keep NNCF's.

    Args:
        quantized: What NNCF made; its constants are replaced, and nothing else.
        path: The float model that it was made from.
        image: The first one that the gradients were collected on.
        gradients: Of the network that the float model was made from.

    Returns:
        How many tensors have another range.
    """
    nodes = rounding_nodes(quantized)
    sources = {name: node.input_value(0) for name, node in nodes.items()}
    stats = gradients.stats_for(_float_tensors(path, sources, image))
    outputs = {node.get_friendly_name() for result in quantized.get_results() for node in _copied(result)}
    changed = 0
    for group in groups(quantized):
        known = [stats[name] for name in sorted(group) if name in stats]
        if len(known) == len(group) and not group & outputs and _comparable(known):
            before = ends(nodes[min(group)])
            for name in group:
                _replace(nodes[name], in_form_of(before, joined(known)))
            changed += len(group)
    return changed


def rounding_nodes(quantized: Any) -> dict[str, Any]:
    """The nodes that round an activation to 256 steps of one size, by their names."""
    return {node.get_friendly_name(): node for node in quantized.get_ordered_ops() if _rounds_activation(node)}


def groups(quantized: Any) -> list[set[str]]:
    """Which rounding nodes have one range because what they round is concatenated."""
    return copy_groups(_concatenated(quantized), rounding_nodes(quantized))


def in_form_of(before: Range, stats: TensorStats) -> Range:
    """The best range in which zero is one of the 256 steps: the first, the middle or any, as it was before."""
    low, high = before
    if np.isclose(low * 127, -high * 128):
        end = largest_magnitude(stats, "mse")
        return -end * 128 / 127, end
    wanted = gradient(stats)
    start, stop = (0.0 if low == 0 else min(wanted[0], 0.0)), max(wanted[1], 0.0)
    scale = (stop - start) / (_LEVELS - 1) or 1.0
    zero_point = round(-start / scale)
    return -zero_point * scale, (_LEVELS - 1 - zero_point) * scale


def ends(node: Any) -> Range:
    """Where the range of a rounding node begins and where it ends."""
    low, high = (float(node.input_value(at).get_node().data.item()) for at in (1, 2))
    return low, high


def _float_tensors(path: Path, sources: Mapping[str, Any], image: Array) -> dict[str, Array]:
    """What the float model gives for an image at each of the named outputs of the quantized one, where it has that node."""
    openvino = require("openvino", "convert")
    core = openvino.Core()
    model = core.read_model(str(path))
    nodes = {node.get_friendly_name(): node for node in model.get_ordered_ops()}
    shown = {}
    for name, source in sources.items():
        node = nodes.get(source.get_node().get_friendly_name())
        if node is not None and source.get_index() < node.get_output_size():
            shown[name] = node.output(source.get_index())
    if not shown:
        return {}
    model = openvino.Model(list(shown.values()), model.get_parameters(), "tensors")
    given = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([image])
    return {name: np.array(given[at]) for at, name in enumerate(shown)}


def _comparable(stats: Sequence[TensorStats]) -> bool:
    """Whether the errors of several tensors count at the same place: at all of them, or behind a SiLU."""
    return all(one.weights is not None for one in stats) and len({one.silu for one in stats}) == 1


def _rounds_activation(node: Any) -> bool:
    """Whether a node rounds what the network computes, with one range for all channels. Weights and pixels have their steps."""
    if node.get_type_name() != "FakeQuantize" or node.get_attributes()["levels"] != _LEVELS:
        return False
    source, *limits = (value.get_node() for value in node.input_values())
    plain = all(limit.get_type_name() == "Constant" and limit.data.size == 1 for limit in limits)
    return plain and _origin(source) not in ("Constant", "Parameter")


def _origin(node: Any) -> str:
    """The type of the node whose values, moved and scaled, come to this one first."""
    while node.get_type_name() in _PREPARING:
        given = [value.get_node() for value in node.input_values()]
        node = next((one for one in given if one.get_type_name() != "Constant"), given[0])
    return str(node.get_type_name())


def _concatenated(model: Any) -> Iterator[Sequence[str]]:
    """For each concatenation, and each range in it: the names of the rounding nodes that it joins."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Concat":
            alike: dict[Range, list[str]] = {}
            for rounding in _copied(node):
                alike.setdefault(ends(rounding), []).append(rounding.get_friendly_name())
            yield from alike.values()


def _copied(node: Any) -> Iterator[Any]:
    """The rounding nodes whose values a node takes as they are."""
    for value in node.input_values():
        source = value.get_node()
        if _rounds_activation(source):
            yield source
        elif source.get_type_name() in _COPYING:
            yield from _copied(source)


def _replace(node: Any, chosen: Range) -> None:
    made = require("openvino", "convert").opset13
    for at, end in zip((1, 2, 3, 4), (*chosen, *chosen), strict=True):
        old = node.input_value(at).get_node().data
        node.input(at).replace_source_output(made.constant(np.full(old.shape, end, old.dtype)).output(0))

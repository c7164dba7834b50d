"""Reading and editing ONNX graphs: the few operations that the quantizer and the converters share."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv.protocols import Array

Node = Any  # onnx.NodeProto; the onnx package ships no usable types


class Graph:
    """An ONNX model with its nodes indexed by what they make and what they use.

    Edit ``model.graph`` and make a new ``Graph``: the indices do not follow edits.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.nodes: list[Node] = list(model.graph.node)
        self._makers: dict[str, Node] = {name: node for node in self.nodes for name in node.output}
        self._users: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.input:
                self._users.setdefault(name, []).append(node)
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def maker(self, tensor: str) -> Node | None:
        """The node that makes a tensor; ``None`` for inputs and constants."""
        return self._makers.get(tensor)

    def users(self, tensor: str) -> list[Node]:
        """The nodes that use a tensor."""
        return self._users.get(tensor, [])

    def constant(self, tensor: str) -> Array | None:
        """Value of an initializer or of a ``Constant`` node; ``None`` for anything else."""
        helper = require("onnx.numpy_helper", "convert")
        found = self._constants.get(tensor)
        maker = self.maker(tensor)
        if found is None and maker is not None and maker.op_type == "Constant":
            found = attribute(maker, "value")
        return None if found is None else np.asarray(helper.to_array(found))

    def input_names(self) -> list[str]:
        """Names of the true inputs; old files list initializers among them."""
        return [value.name for value in self.model.graph.input if value.name not in self._constants]

    def output_names(self) -> list[str]:
        """The names of the graph's outputs, in order."""
        return [value.name for value in self.model.graph.output]


def names_of(model: Any) -> frozenset[str]:
    """The names of a model's nodes, constants and tensors."""
    nodes = [name for node in model.graph.node for name in (node.name, *node.output)]
    return frozenset([*nodes, *(value.name for value in (*model.graph.input, *model.graph.initializer))])


def attribute(node: Node, name: str, default: Any = None) -> Any:
    """Value of a node's attribute."""
    helper = require("onnx.helper", "convert")
    return next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)


def load(path: Path) -> Any:
    """The model, with its external data."""
    return require("onnx", "convert").load(str(path))


def save(model: Any, path: Path) -> None:
    """Write the model as one file."""
    require("onnx", "convert").save(model, str(path))


def add_constant(model: Any, name: str, value: Array) -> str:
    """Add an initializer; the name of the tensor."""
    helper = require("onnx.numpy_helper", "convert")
    model.graph.initializer.append(helper.from_array(np.asarray(value, order="C"), name))
    return name


def replace_nodes(model: Any, old: list[Node], new: list[Node]) -> None:
    """Put ``new`` nodes where the first of the ``old`` ones stood."""
    nodes = [node for node in model.graph.node if not any(node is gone for gone in old)]
    first = next(index for index, node in enumerate(model.graph.node) if node is old[0])
    before = sum(1 for node in list(model.graph.node)[:first] if not any(node is gone for gone in old))
    nodes[before:before] = new
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def drop_unused_constants(model: Any) -> None:
    """Remove initializers that no node uses."""
    used = {name for node in model.graph.node for name in node.input} | {o.name for o in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def name_nodes(model: Any) -> None:
    """Give every node a name of its own, in place: onnxruntime's quantizer leaves nodes out by name, an empty one meaning all."""
    taken: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}/unnamed"
        taken.add(node.name)


def unshare_constants(model: Any, op_type: str) -> None:
    """Give every node of a type its own copies of the initializers it uses, in place."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for number, node in enumerate(node for node in model.graph.node if node.op_type == op_type):
        for at, name in enumerate(node.input):
            if name in constants:
                copy = model.graph.initializer.add()
                copy.CopyFrom(constants[name])
                copy.name = node.input[at] = f"{name}/{op_type}_{number}"
    drop_unused_constants(model)


def op_counts(model: Any) -> Counter[str]:
    """How many nodes of each operator."""
    return Counter(node.op_type for node in model.graph.node)


def feeds_silu(graph: Graph, tensor: str) -> bool:
    """Whether a tensor is the x of x * sigmoid(x)."""
    users = graph.users(tensor)
    sigmoids = [node.output[0] for node in users if node.op_type == "Sigmoid"]
    return any(node.op_type == "Mul" and set(node.input) & set(sigmoids) for node in users)

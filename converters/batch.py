"""A fixed number of images per run: a source for one image as a source for ``N``."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from edgecv._internal.quiet import quiet
from edgecv.bundles.golden import cosine
from edgecv.converters.families.foreign_onnx.graph import in_memory_session
from edgecv.converters.families.foreign_onnx.reading import open_reshapes
from edgecv.converters.source import Part, SourceModel
from edgecv.errors import ConfigError, UnsupportedSource
from edgecv.protocols import Array, Tensors
from edgecv.specs import TensorSpec

_SAME = 0.9999  # cosine of each image's outputs with those of the graph for one image


def batched(source: SourceModel, batch: int) -> SourceModel:
    """The source for ``batch`` images per run; every input and output gains rows, nothing else changes.

    The reference still computes image by image, so the parity check proves that rows do not mix. Several networks share one
    image, which is a ``ConfigError``; a graph that was exported for one image and cannot be changed is an ``UnsupportedSource``.
    """
    if batch == 1:
        return source
    if len(source.parts) != 1:
        raise ConfigError(f"{source.name} takes one image at a time.", "Leave --batch away.")
    return replace(source, parts=(_batched_part(source.parts[0], batch),))


def _batched_part(part: Part, batch: int) -> Part:
    def reference(feeds: Tensors) -> dict[str, Array]:
        rows = [part.reference({name: value[row : row + 1] for name, value in feeds.items()}) for row in range(batch)]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    made = replace(
        part,
        inputs=tuple(_rows(spec, batch) for spec in part.inputs),
        outputs=tuple(_rows(spec, batch) for spec in part.outputs),
        reference=reference,
    )
    return made if part.graph is None else replace(made, graph=_proven(_batched_graph(part.graph, batch), made))


def _rows(spec: TensorSpec, batch: int) -> TensorSpec:
    return msgspec.structs.replace(spec, shape=(batch, *spec.shape[1:]))


def _batched_graph(graph: Any, batch: int) -> Any:
    """The graph over ``batch`` images; every shape that was inferred for one is dropped."""
    changed = copy.deepcopy(graph)
    open_reshapes(changed, 1)
    changed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    for output in changed.graph.output:
        output.type.tensor_type.shape.dim[0].dim_value = batch
    del changed.graph.value_info[:]
    return changed


def _proven(graph: Any, part: Part) -> Any:
    """The graph, after it gave for different images what the source gives for each of them; else ``UnsupportedSource``."""
    images = np.random.default_rng(0).integers(0, 256, part.inputs[0].shape, np.uint8)
    names = [spec.name for spec in part.outputs]
    try:
        with quiet():
            given = in_memory_session(graph).run(names, {part.inputs[0].name: images})
    except Exception as error:  # onnxruntime has an exception class per status code, without a base of their own
        raise _refusal(part, "it does not run on more") from error
    wanted = part.reference({part.inputs[0].name: images})
    for name, value in zip(names, given, strict=True):
        if value.shape != wanted[name].shape:
            raise _refusal(part, f"{name} becomes {value.shape}, not {wanted[name].shape}")
        if min(cosine(ours, theirs) for ours, theirs in zip(value, wanted[name], strict=True)) < _SAME:
            raise _refusal(part, f"{name} becomes something else")
    return graph


def _refusal(part: Part, reason: str) -> UnsupportedSource:
    return UnsupportedSource(
        f"The graph was exported for one image and cannot be changed to {part.inputs[0].shape[0]}: {reason}.",
        "Export it with an open batch axis (dynamic axes), or leave --batch away.",
    )

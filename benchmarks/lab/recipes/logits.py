"""How far the raw outputs of INT8 lie from those of the float model, for one picture."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgecv.bundles.golden import cosine
from edgecv.protocols import Array, Tensors
from edgecv.results import BoolArray, FloatArray
from edgecv.specs import TensorSpec
from edgecv.vision.tensors import cells_last, real_values, sigmoid

RELEVANT = 0.05  # confidence of the float model's best class, from which on a cell may become a box

Measured = dict[str, float]
"""Measures of one picture by name; their sums over pictures make the figures."""


def class_logits(outputs: Tensors, specs: tuple[TensorSpec, ...]) -> FloatArray | None:
    """The class logits of all cells, ``(classes, cells)``, finest grid first; ``None`` where a model has no raw head."""
    grids = sorted((int(s.role.partition("/")[2]), s) for s in specs if s.role.startswith("class/"))
    if not grids:
        return None
    return np.concatenate([cells_last(real_values(outputs[s.name], s), s) for _, s in grids], axis=1)


def logits_error(teacher: FloatArray, student: FloatArray) -> Measured:
    """Squared error of class logits ``(classes, cells)`` and what it is divided by, in relevant cells and in all of them."""
    relevant: BoolArray = sigmoid(teacher.max(axis=0)) > RELEVANT
    inside = _error(teacher[:, relevant], student[:, relevant])
    return {f"relevant_{name}": value for name, value in inside.items()} | _error(teacher, student)


def _error(teacher: FloatArray, student: FloatArray) -> Measured:
    difference = (student - teacher).astype(np.float64).ravel()
    wanted = teacher.astype(np.float64).ravel()
    return {
        "error": float(difference @ difference),
        "norm": float(wanted @ wanted),
        "values": float(wanted.size),
    }


def real_outputs(outputs: Tensors, specs: tuple[TensorSpec, ...]) -> Mapping[str, FloatArray]:
    """All outputs as real values, by role; those without a role by name."""
    return {spec.role or spec.name: real_values(outputs[spec.name], spec) for spec in specs}


def mean_cosine(teacher: Mapping[str, Array], student: Mapping[str, Array]) -> float:
    """Mean over the outputs of the cosine between both models."""
    return float(np.mean([cosine(teacher[name], student[name]) for name in teacher]))

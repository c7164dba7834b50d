"""A model that looks at what another one found: loading it, and choosing what it looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgecv._internal.printable import short
from edgecv.model import Model, load
from edgecv.promptable import PromptableModel
from edgecv.results import Detections, IntArray


def opened(model: Any, runtime: str, precision: str, threads: int) -> Any:
    """A loaded model, or the one at a path.

    Raises:
        ModelError: there is nothing at the path, or it is no model; ``load`` lists what else can go wrong.
    """
    return load(model, runtime, precision, threads) if isinstance(model, str | Path) else model


def model_name(model: object) -> str:
    """What messages call a model, or what was given in its place."""
    return model.name if isinstance(model, Model | PromptableModel) else short(model)


def best_of(found: Detections, wanted: frozenset[int] | None, most: int | None = None) -> IntArray:
    """Indices of the detections with an area and a wanted class (``None``: any), surest first, at most ``most``."""
    has_area = (found.xyxy[:, 2:] - found.xyxy[:, :2] >= 1).all(axis=1)
    is_wanted = np.ones(len(found), np.bool_) if wanted is None else np.isin(found.class_id, list(wanted))
    rows = np.flatnonzero(has_area & is_wanted)
    return rows[np.argsort(-found.confidence[rows], kind="stable")][:most]

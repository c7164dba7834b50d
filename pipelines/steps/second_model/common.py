"""A model that looks at what another one found: loading it, and choosing what it looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgecv._internal.printable import short
from edgecv.errors import ConfigError
from edgecv.model import load
from edgecv.protocols import LoadedModel
from edgecv.results import Detections, IntArray


def opened(model: Any, runtime: str, precision: str, threads: int) -> Any:
    """A loaded model, or the one at a path.

    Raises:
        ModelError: there is nothing at the path, or it is no model; ``load`` lists what else can go wrong.
    """
    return load(model, runtime, precision, threads) if isinstance(model, str | Path) else model


def check_task(model: object, task: str, wrong: str, hint: str) -> None:
    """Raise ``ConfigError``, which says ``wrong`` of the model, unless it is a loaded one for ``task``."""
    if not isinstance(model, LoadedModel) or model.task != task:
        raise ConfigError(f"{model.name if isinstance(model, LoadedModel) else short(model)} {wrong}.", hint)


def best_of(found: Detections, wanted: frozenset[int] | None, most: int | None = None) -> IntArray:
    """Indices of the detections with an area and a wanted class (``None``: any), surest first, at most ``most``."""
    has_area = (found.xyxy[:, 2:] - found.xyxy[:, :2] >= 1).all(axis=1)
    is_wanted = np.ones(len(found), np.bool_) if wanted is None else np.isin(found.class_id, list(wanted))
    rows = np.flatnonzero(has_area & is_wanted)
    return rows[np.argsort(-found.confidence[rows], kind="stable")][:most]

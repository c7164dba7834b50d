"""A model that looks at what another one found: loading it, and choosing what it looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np

from edgecv._internal.printable import short
from edgecv.errors import ConfigError
from edgecv.model import load
from edgecv.pipelines.steps.options import Options
from edgecv.protocols import LoadedModel
from edgecv.results import Detections, IntArray
from edgecv.vision.class_names import class_ids


class SecondModel(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A step that shows what was found to a second model.

    Attributes:
        model: Path of the second model, or a loaded one.
        classes: Names or numbers of the detector's classes to look at; all by default.
        runtime: As in ``edgecv.load``.
        precision: As in ``edgecv.load``.
        threads: As in ``edgecv.load``.
    """

    gives_kinds: ClassVar[tuple[str, ...] | None] = ()

    model: Any
    classes: tuple[str | int, ...] = ()
    runtime: str = "auto"
    precision: str = "auto"
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0

    def wanted(self, labels: tuple[str, ...]) -> frozenset[int] | None:
        """The classes to look at, of a detector with these labels; ``None`` for all."""
        return class_ids(self.classes, labels) if self.classes else None

    def opened(self) -> Any:
        """The loaded model; errors as of ``edgecv.load``."""
        is_path = isinstance(self.model, str | Path)
        return load(self.model, self.runtime, self.precision, self.threads) if is_path else self.model


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

"""``Work``: one frame on its way from its source to the model."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

from edgecv._internal.timing import StageTimer
from edgecv.model import Model
from edgecv.protocols import Tensors
from edgecv.results import Frame, Result
from edgecv.vision.geometry import ImageTransform


def _waiting() -> StageTimer:
    timer = StageTimer()
    timer.add("wait", 0.0)  # the first stage in every report, also where a frame is prepared before it is waited for
    return timer


@dataclass(slots=True, kw_only=True, eq=False)
class Work:
    """One frame, and what was done with it so far; what is ``None`` is set when it is prepared."""

    frame: Frame
    model: Model | None = None  # it was prepared for this one, which computes it, too
    feeds: Tensors | None = None
    transform: ImageTransform | None = None
    timer: StageTimer = field(default_factory=_waiting)
    future: Future[Result] | None = None  # the result, where another thread computes it

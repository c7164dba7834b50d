"""``type = "blur"``: from this step on, what was found is a coarse mosaic in the image itself."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from edgecv.errors import ConfigError
from edgecv.pipelines.privacy.mosaic import mosaic
from edgecv.pipelines.steps.options import Options, checked
from edgecv.pipelines.steps.per_source import PerSource
from edgecv.results import FloatArray, Result
from edgecv.vision.class_names import class_ids


class Blur(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``type = "blur"``: hide boxes in the image that later steps, sinks and the app get.

    What the model misses is not hidden, and nothing is hidden before it is found. For a part of the image that nobody may ever
    see, give the source a mask.

    Attributes:
        classes: Names or numbers; empty hides every box.
        hold: A box is hidden in so many of the frames after it, too.
    """

    gives_kinds: ClassVar[tuple[str, ...] | None] = ()

    classes: tuple[str | int, ...] = ()
    hold: Annotated[int, msgspec.Meta(ge=0, le=250)] = 5

    def build(self, labels: tuple[str, ...] = ()) -> PerSource:
        """The step for a model with these labels. Raises ``ConfigError``: the model has no such class."""
        options = checked(self)
        wanted = class_ids(options.classes, labels) if options.classes else None
        return PerSource(lambda _source_id: BlurStep(wanted, options.hold), repaints=True)


class BlurStep:
    """The step of one source. A result without boxes ends the pipeline: nobody knows what must be hidden."""

    def __init__(self, wanted: frozenset[int] | None, hold: int) -> None:
        self._wanted = wanted
        self._boxes: deque[FloatArray] = deque(maxlen=hold + 1)

    def adopt(self, before: object) -> bool:
        """Go on hiding the boxes of the frames before."""
        if not isinstance(before, BlurStep):
            return False
        self._boxes.extend(before._boxes)
        return True

    def __call__(self, result: Result) -> Result:
        """The result with another image.

        Raises:
            ConfigError: the model finds no boxes.
            SpecMismatch: a box is none.
        """
        found = result.detections
        if found is None:
            raise ConfigError("The step blur hides boxes, and the model finds none.", "Use it with a detector.")
        kept = found if self._wanted is None else found[np.isin(found.class_id, list(self._wanted))]
        self._boxes.append(kept.xyxy)
        hidden = mosaic(result.frame.image, np.concatenate(self._boxes))
        return replace(result, frame=result.frame.with_image(hidden))

"""Give each box a mask: SAM is asked for the object in it."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Annotated, Any

import msgspec
import numpy as np

from edgecv.pipelines.steps.options import Options, checked
from edgecv.pipelines.steps.second_model.common import best_of, check_task, opened
from edgecv.promptable import MAX_BOXES, PromptableModel
from edgecv.results import Result
from edgecv.vision.class_names import class_ids


class Segment(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``type = "segment"``: SAM masks for the boxes; a box that it was not asked about has an empty mask.

    Attributes:
        model: Path of a bundle of SAM, or a loaded one.
        classes: Names or numbers of the detector's classes to mark; all by default.
        most: Boxes per frame, the surest first; frames without one cost nothing.
        runtime: As in ``edgecv.load``.
        precision: As in ``edgecv.load``.
        threads: As in ``edgecv.load``.
    """

    model: Any
    classes: tuple[str | int, ...] = ()
    most: Annotated[int, msgspec.Meta(ge=1, le=MAX_BOXES)] = 8
    runtime: str = "auto"
    precision: str = "auto"
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0

    def build(self, labels: tuple[str, ...] = ()) -> BoxSegmenter:
        """The step for a detector with these labels.

        Raises:
            ConfigError: the model answers no prompts, or the detector has no such class.
        """
        options = checked(self)
        wanted = class_ids(options.classes, labels) if options.classes else None
        model = opened(options.model, options.runtime, options.precision, options.threads)
        check_task(model, "promptable-segment", "answers no prompts", "Give a SAM, such as mobile_sam.")
        return BoxSegmenter(model, wanted, options.most)


class BoxSegmenter:
    """Step that sets ``Detections.mask`` by asking a second model about each box."""

    def __init__(self, model: PromptableModel, wanted: frozenset[int] | None, most: int) -> None:
        self._model, self._wanted, self._most = model, wanted, most
        self._asking = threading.Lock()  # the model remembers one image; no other source may set its own in between

    def __call__(self, result: Result) -> Result:
        """The result with masks in place of those it may have. Raises ``SessionError``: the runtime failed."""
        found = result.detections
        if found is None:
            return result
        mask = np.zeros((len(found), *result.frame.image.shape[:2]), np.bool_)
        rows = best_of(found, self._wanted, self._most)
        if len(rows):
            with self._asking:
                self._model.set_image(result.frame.image)
                mask[rows] = self._model.predict(boxes=found.xyxy[rows]).mask
        return replace(result, detections=replace(found, mask=mask))

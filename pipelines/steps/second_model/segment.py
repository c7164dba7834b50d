"""Give each box a mask: SAM is asked for the object in it."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Annotated

import msgspec
import numpy as np

from edgecv.pipelines.steps.options import checked
from edgecv.pipelines.steps.second_model.common import SecondModel, best_of, check_task
from edgecv.promptable import MAX_BOXES, PromptableModel
from edgecv.results import Result


class Segment(SecondModel, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``type = "segment"``: SAM masks for the boxes; a box that it was not asked about has an empty mask.

    Attributes:
        most: Boxes per frame, the surest first; frames without one cost nothing.
    """

    most: Annotated[int, msgspec.Meta(ge=1, le=MAX_BOXES)] = 8

    def build(self, labels: tuple[str, ...] = ()) -> BoxSegmenter:
        """The step for a detector with these labels.

        Raises ``ConfigError``: the model answers no prompts, or the detector has no such class.
        """
        options = checked(self)
        wanted, model = options.wanted(labels), options.opened()
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

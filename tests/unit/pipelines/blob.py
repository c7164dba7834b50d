"""A small real model for the tests of the loop: it finds the one bright blob of an image."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecv.results import Classification, Detections
from edgecv.vision.geometry import ImageTransform

DEADLINE_S = 20.0


class BlobModel:
    """The three calls of ``edgecv.Model``; ``busy_s`` makes it as slow as a network."""

    name = "blob/numpy"
    labels = ("blob", "speck")
    task = "detect"

    def __init__(self, busy_s: float = 0.0) -> None:
        self.busy_s = busy_s

    def prepare(self, image: npt.NDArray[np.uint8]) -> tuple[dict[str, npt.NDArray[Any]], ImageTransform]:
        size_wh = (image.shape[1], image.shape[0])
        half = ImageTransform(scale_xy=(0.5, 0.5), offset_xy=(0.0, 0.0), frame_wh=size_wh)
        return {"image": image[::2, ::2].mean(axis=2)}, half

    def infer(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        time.sleep(self.busy_s)
        return {"mask": feeds["image"] > 200}

    def decode(
        self,
        outputs: Mapping[str, npt.NDArray[Any]],
        transform: ImageTransform,
        *,
        confidence: float | None = None,
        iou: float | None = None,
    ) -> Detections | Classification:
        rows, columns = np.nonzero(outputs["mask"])
        if not len(rows) or (confidence or 0.25) > 0.9:
            return Detections.empty()
        box = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
        large = len(rows) > 4
        return Detections(
            xyxy=transform.boxes_to_frame(box),
            confidence=np.array([0.9], np.float32),
            class_id=np.array([0 if large else 1]),
        )


def pipeline_threads() -> list[str]:
    """Names of the threads that pipelines have running."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("edgecv-")]


def assert_no_threads() -> None:
    """No thread of a pipeline is left; joined threads may take a moment to leave the list."""
    deadline = time.monotonic() + DEADLINE_S
    while pipeline_threads() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert pipeline_threads() == []

"""A scripted detector for the tests of tiles: it finds the rectangles of an image by their colours, as far as they are visible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgecv.model import Model
from edgecv.specs import DecodeSpec, ModelSpec, PreprocessSpec, TensorSpec

SIDE = 128  # of its input
SMALLEST = 10  # pixels of its input: what is less wide or high is not seen
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255))  # blue, green, red
LABELS = ("person", "car")
Box = tuple[int, int, int, int]


class ColourSession:
    """Sees one rectangle of each colour; its confidence is less the less of it is seen, its class that of the colour."""

    providers = ("CPU",)

    def __init__(self, classes: Sequence[int] = (0,) * len(COLOURS), batch: int = 1) -> None:
        shape = (batch, SIDE, SIDE, 3)
        self.inputs = (TensorSpec(name="image", role="image", shape=shape, dtype="uint8", layout="NHWC"),)
        rows = (batch, 4 + len(LABELS), len(COLOURS))
        self.outputs = (TensorSpec(name="found", role="prediction", shape=rows, dtype="float32"),)
        self.classes, self.batch, self.runs, self.closed = classes, batch, 0, False

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
        images = feeds["image"]
        assert images.shape == self.inputs[0].shape
        self.runs += 1
        return {"found": np.stack([self._found(image) for image in images])}

    def close(self) -> None:
        self.closed = True

    def _found(self, image: np.ndarray) -> np.ndarray:
        found = np.zeros(self.outputs[0].shape[1:], np.float32)
        for at, colour in enumerate(COLOURS):
            seen = (np.abs(image.astype(int) - colour) <= 100).all(axis=2)
            if seen.any():
                ys, xs = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
                left, top, right, bottom = xs[0], ys[0], xs[-1] + 1, ys[-1] + 1
                width, height = right - left, bottom - top
                if min(width, height) >= SMALLEST:
                    found[:4, at] = (left + right) / 2, (top + bottom) / 2, width, height
                    found[4 + self.classes[at], at] = min(0.9, 0.4 + width * height / 20_000)
        return found


def colour_model(session: ColourSession | None = None) -> Model:
    """The detector as a model."""
    spec = ModelSpec(
        preprocess=PreprocessSpec(size_wh=(SIDE, SIDE)),
        decode=DecodeSpec(task="detect", decoder="yolov8", labels=LABELS),
    )
    return Model("colours", spec, session or ColourSession())


def scene(*boxes: Box, size_wh: tuple[int, int] = (224, 224)) -> np.ndarray:
    """A black image with a rectangle of its own colour for each box; later ones lie in front."""
    image = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    for (left, top, right, bottom), colour in zip(boxes, COLOURS, strict=False):
        image[top:bottom, left:right] = colour
    return image

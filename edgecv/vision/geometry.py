"""How model pixels and frame pixels relate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTransform:
    """The way from frame pixels to model pixels: ``model = frame * scale + offset``, per axis."""

    # Model pixels per frame pixel. Both axes have their own, since the resized image has whole pixels.
    scale_xy: tuple[float, float]
    offset_xy: tuple[float, float]  # where the frame's top left corner lies in the model's image, in model pixels
    frame_wh: tuple[int, int]  # width and height of the frame in pixels

    def to_frame(self, xy: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Points ``(..., 2)`` from model to frame pixels, not clipped."""
        return ((xy - np.array(self.offset_xy)) / np.array(self.scale_xy)).astype(np.float32)

    def to_model(self, xy: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Points ``(..., 2)`` from frame to model pixels."""
        return (xy * np.array(self.scale_xy) + np.array(self.offset_xy)).astype(np.float32)

    def boxes_to_frame(self, xyxy: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Boxes ``(N, 4)`` from model to frame pixels, clipped to the frame."""
        boxes = self.to_frame(xyxy.reshape(-1, 2)).reshape(-1, 4)
        width, height = self.frame_wh
        boxes[:, 0::2] = boxes[:, 0::2].clip(0, width)
        boxes[:, 1::2] = boxes[:, 1::2].clip(0, height)
        return boxes

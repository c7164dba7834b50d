"""Tiles with a real detector: a photograph in a large frame gives what it gives alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgecv
from edgecv.bundles.bundle import Bundle
from edgecv.results import Detections
from edgecv.vision.nms import iou_matrix

pytestmark = pytest.mark.timeout(900)  # it may wait for the conversion that several files share


def test_what_is_found_in_a_photograph_is_found_where_it_fills_a_quarter_of_a_frame(
    trained: Bundle, coco_images: list[Path]
) -> None:
    with edgecv.Model.load(trained.path, precision="fp32", threads=1) as model:
        check_quarters(model, coco_images[:3])


def check_quarters(model: edgecv.Model, images: list[Path]) -> None:
    """Each image alone, and pasted into the middle of a grey frame of twice its size, which all tiles cut."""
    tiled = edgecv.TiledModel(model, "2x2")
    for path in images:
        image = edgecv.read_image(path)
        height, width = image.shape[:2]
        frame = np.full((2 * height, 2 * width, 3), 114, np.uint8)
        frame[height // 2 : height // 2 + height, width // 2 : width // 2 + width] = image
        alone, found = model(image, confidence=0.5), tiled(frame, confidence=0.2)
        assert isinstance(alone, Detections)
        assert isinstance(found, Detections)
        shift = np.array([width // 2, height // 2] * 2, np.float32)
        overlap = iou_matrix(alone.xyxy + shift, found.xyxy) * (alone.class_id[:, None] == found.class_id)
        assert (overlap.max(axis=1, initial=0) > 0.6).all(), path
        assert len(set(overlap.argmax(axis=1))) == len(alone), path  # each is another one of the frame

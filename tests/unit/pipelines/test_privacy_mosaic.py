"""A mosaic has few cells, each of one colour, and leaves the rest of the image alone."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.errors import SpecMismatch
from edgecv.pipelines.privacy.mosaic import GROWTH, mosaic

SIZE_WH = (320, 240)


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIZE_WH[1], SIZE_WH[0], 3), np.uint8)


def grown(box: np.ndarray) -> tuple[int, int, int, int]:
    """The pixels that a box touches after it was enlarged: left, top, right, bottom."""
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * GROWTH
    low, high = np.floor(middle - half).clip(0, SIZE_WH), np.ceil(middle + half).clip(0, SIZE_WH)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


@pytest.mark.parametrize("seed", range(40))
def test_a_box_has_few_cells_of_one_colour_each(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = noise(seed)
    corners = rng.uniform((-60, -60), (380, 300), (2, 2))
    box = np.concatenate([corners.min(axis=0), corners.max(axis=0)]).astype(np.float32)
    hidden = mosaic(image, box[None])
    left, top, right, bottom = grown(box)
    part = hidden[top:bottom, left:right]
    if not part.size:
        assert (hidden == image).all()
        return
    for axis in (0, 1):  # where neighbours differ is where a cell ends
        ends = np.flatnonzero((np.diff(part.astype(int), axis=axis) != 0).any(axis=(1 - axis, 2)))
        assert len(ends) <= 9, "nine cells or ten with parts of cells at both ends"
    side = max(4, 2 ** int(np.ceil(np.log2(max(1, GROWTH * (box[2:] - box[:2]).max() / 8)))))
    changed = np.argwhere((hidden != image).any(axis=2))
    low, high = changed.min(axis=0), changed.max(axis=0)
    assert (low >= (top - side, left - side)).all()
    assert (high < (bottom + side, right + side)).all()


def test_the_mean_of_a_cell_is_its_colour() -> None:
    image = noise()
    hidden = mosaic(image, np.array([[64, 64, 113, 113]], np.float32))  # cells of 8 pixels, from 56 on
    cell = image[64:72, 64:72].reshape(-1, 3)
    assert np.abs(hidden[64:72, 64:72] - cell.mean(axis=0)).max() <= 0.5
    assert (hidden[64:72, 64:72] == hidden[64, 64]).all()


def test_an_image_without_boxes_stays_and_the_given_one_is_never_changed() -> None:
    image = noise()
    assert (mosaic(image, np.zeros((0, 4), np.float32)) == image).all()
    mosaic(image, np.array([[0, 0, 320, 240]], np.float32))
    assert (image == noise()).all()


def test_a_point_and_a_box_upside_down_are_hidden_too() -> None:
    for box in ([100, 100, 100, 100], [140, 130, 100, 90]):
        hidden = mosaic(noise(), np.array([box], np.float32))
        assert (hidden[100, 101] != noise()[100, 101]).any()


def test_of_boxes_that_overlap_the_coarser_cells_win() -> None:
    boxes = np.array([[100, 100, 120, 120], [0, 0, 320, 240]], np.float32)
    for order in (boxes, boxes[::-1]):
        assert len(np.unique(mosaic(noise(), order).reshape(-1, 3), axis=0)) <= 6 * 4


@pytest.mark.parametrize("bad", [[float("nan"), 0, 1, 1], [0, 0, float("inf"), 1]])
def test_a_box_that_is_none_is_an_error(bad: list[float]) -> None:
    with pytest.raises(SpecMismatch):
        mosaic(noise(), np.array([bad], np.float32))

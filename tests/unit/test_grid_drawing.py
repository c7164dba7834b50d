"""Axes on a picture: at the right pixels, of every size, and readable."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.media.grid_drawing import draw_grid, round_step


@pytest.mark.parametrize(
    ("length", "least", "step"),
    [(768, 50, 100), (1920, 60, 200), (3840, 100, 500), (160, 40, 50), (64, 40, 50), (9, 1, 1), (1, 1, 1)],
)
def test_steps_are_round(length: int, least: float, step: int) -> None:
    assert round_step(length, least) == step


@pytest.mark.parametrize("size_wh", [(768, 576), (1920, 1080), (320, 240), (64, 48), (2, 2), (3000, 20)])
def test_the_picture_keeps_its_size_and_lines_stand_at_round_pixels(size_wh: tuple[int, int]) -> None:
    width, height = size_wh
    image = np.full((height, width, 3), 100, np.uint8)
    draw_grid(image)
    assert image.shape == (height, width, 3)
    assert (image != 100).any()
    if size_wh == (768, 576):
        middle = image[250:290]  # between two level lines
        brighter = np.flatnonzero((middle == middle[:1]).all(axis=(0, 2)) & (middle[0, :, 0] > 140))
        assert [x for x in brighter if 60 < x < 700] == [100, 200, 300, 400, 500, 600]
        assert (image[570, [round(768 * tenth / 10) for tenth in range(1, 10)]] == (255, 200, 80)).all()

"""Fuzzed masks, and scenes that hold a secret colour below them and nothing but grey elsewhere."""

from __future__ import annotations

import numpy as np

from edgecv.errors import ConfigError
from edgecv.pipelines.privacy.mask import mask_polygons
from edgecv.pipelines.steps.regions import inside
from edgecv.results import BoolArray, Image

Corners = list[tuple[float, float]]

SECRET = (255, 0, 255)  # BGR: no grey, so it shows in every colour space
GREY = 120
# Of grey and black after a codec, which have none before: JPEG leaves it so, a video adds a little noise. One pixel of the secret
# leaves more than either (test_the_measure_sees_a_single_pixel_after_every_codec).
MOST_COLOUR = 3
MOST_COLOUR_OF_VIDEO = 16
_SAMPLES = 5  # points a side, in each pixel


def fuzzed_mask(rng: np.random.Generator, least: int = 1) -> list[Corners]:
    """One to three polygons that are accepted: stars, slivers, rectangles at the edge, triangles below a pixel."""
    mask: list[Corners] = []
    wanted = int(rng.integers(least, 4))
    while len(mask) < wanted:
        corners = [(float(x), float(y)) for x, y in _corners(rng).clip(0, 1)]
        try:
            mask_polygons([corners])
        except ConfigError:
            continue
        mask.append(corners)
    return mask


def _corners(rng: np.random.Generator) -> np.ndarray:
    kind = rng.integers(4)
    if kind == 0:  # a star, concave, its corners in either order
        angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 24)))
        star = rng.uniform(0.2, 0.8, 2) + rng.uniform(0.02, 0.45, (len(angle), 1)) * np.c_[np.cos(angle), np.sin(angle)]
        return star[:: rng.choice((1, -1))]
    if kind == 1:  # a sliver
        a, b = rng.uniform(0, 1, (2, 2))
        return np.array([a, b, b + rng.uniform(-0.004, 0.004, 2)])
    if kind == 2:  # at an edge or in a corner, its sides on whole pixels or not
        low, high = np.sort(rng.integers(0, 17, (2, 2)), axis=0) / 16
        return np.array([low, (high[0], low[1]), high, (low[0], high[1])])
    return rng.uniform(0, 1, 2) + rng.uniform(-0.003, 0.003, (3, 2))  # smaller than a pixel, or a little larger


def below(mask: list[Corners], size_wh: tuple[int, int]) -> BoolArray:
    """The pixels ``(H, W)`` in which one of 25 sample points lies below the mask, by another rule than EdgeCV's own."""
    width, height = size_wh
    steps = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    x = ((np.arange(width)[:, None] + steps) / width).reshape(-1)
    y = ((np.arange(height)[:, None] + steps) / height).reshape(-1)
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    hit = np.zeros(len(points), np.bool_)
    for corners in mask:
        hit |= inside(points, np.array(corners))
    return hit.reshape(height, _SAMPLES, width, _SAMPLES).any(axis=(1, 3))


def scene(secret: BoolArray) -> Image:
    """Grey, with the secret colour where it is to be hidden."""
    image = np.full((*secret.shape, 3), GREY, np.uint8)
    image[secret] = SECRET
    return image


def secret_pixels(image: Image, most: int = MOST_COLOUR) -> int:
    """How many pixels of an image, as a codec left it, are too colourful for grey and black."""
    low, high = image.min(axis=2).astype(np.int16), image.max(axis=2).astype(np.int16)
    return int((high - low > most).sum())


def is_hidden_exactly(image: Image, secret: BoolArray) -> bool:
    """Of an image that no codec touched: whether the secret is black, and everything else grey or black."""
    return not image[secret].any() and bool(np.isin(image, (0, GREY)).all())

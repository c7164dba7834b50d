"""How the demo's world looks: background, texture of the shapes, light and sensor noise."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from math import cos, pi, sin
from statistics import NormalDist
from typing import Literal

import numpy as np

from edgecv._internal.extras import opencv
from edgecv.protocols import Array
from edgecv.results import FloatArray, Image

Color = tuple[int, int, int]
"""Blue, green, red, 0 to 255."""

_LEAST_CONTRAST = 34  # of a shape's main colour against what lies under its centre, in its strongest channel
_NOISE_UNIT = 16.0  # standard deviation in grey levels of the noise table


@dataclass(frozen=True, slots=True, kw_only=True)
class Texture:
    """What a shape is covered with."""

    pattern: Literal["plain", "gradient", "stripes", "checks"]  # how `fill` and `second` are mixed over the shape
    fill: Color  # main colour
    second: Color  # other colour
    # Distance over which the pattern repeats (of a gradient: over which it goes from one colour to the other)
    period_px: float
    edge: Color | None  # colour of a rim; `None` for none


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """What light and sensor make of a scene."""

    gain: float  # brightness of the whole frame
    # Brightness at the four corners relative to it: top left, top right, bottom left, bottom right
    corners: tuple[float, float, float, float]
    blur_px: float  # standard deviation of the lens' blur
    noise: float  # standard deviation of the sensor's noise in grey levels


def backdrop(rng: np.random.Generator, size_wh: tuple[int, int]) -> Image:
    """A background ``(H, W, 3)``: colour gradients, cloudy texture, strokes that belong to no shape."""
    cv2 = opencv()
    coarse = rng.uniform(35, 220, (3, 4, 3)).astype(np.float32)
    canvas: FloatArray = cv2.resize(coarse, size_wh, interpolation=cv2.INTER_LINEAR)
    for cells in (10, 40):
        grain = rng.normal(0, rng.uniform(2, 13), (cells, cells)).astype(np.float32)
        canvas = canvas + cv2.resize(grain, size_wh, interpolation=cv2.INTER_LINEAR)[..., None]
    image = np.clip(canvas, 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(0, 14))):
        _stroke(rng, image)
    return image


def random_texture(rng: np.random.Generator, below: Array, radius_px: float) -> Texture:
    """A texture that can be told from the colour ``below`` it ``(3,)``."""
    fill = _random_color(rng)
    for _ in range(20):
        if np.abs(np.array(fill) - below.astype(int)).max() >= _LEAST_CONTRAST:
            break
        fill = _random_color(rng)
    patterns: tuple[Literal["plain", "gradient", "stripes", "checks"], ...] = ("plain", "gradient", "stripes", "checks")
    return Texture(
        pattern=patterns[int(rng.integers(len(patterns)))],
        fill=fill,
        second=_near(rng, fill, 75),
        period_px=radius_px * float(rng.uniform(0.35, 1.2)),
        edge=_near(rng, fill, 110) if rng.random() < 0.35 else None,
    )


def random_light(rng: np.random.Generator, size_wh: tuple[int, int]) -> Light:
    """Light of a random hour."""
    scale = min(size_wh) / 320
    corners = rng.uniform(0.7, 1.2, 4)
    return Light(
        gain=float(rng.uniform(0.65, 1.2)),
        corners=(float(corners[0]), float(corners[1]), float(corners[2]), float(corners[3])),
        blur_px=float(rng.uniform(0, 1.3)) * scale,
        noise=float(rng.uniform(2, 16)),
    )


def texture_patch(
    texture: Texture, window: tuple[int, int, int, int], center_xy: tuple[float, float], angle: float
) -> Image:
    """The texture over a window (left, top, right, bottom) of the frame, turned with its shape: ``(h, w, 3)``."""
    left, top, right, bottom = window
    fill = np.array(texture.fill, np.float32)
    if texture.pattern == "plain":
        return np.broadcast_to(fill.astype(np.uint8), (bottom - top, right - left, 3))
    x = np.arange(left, right, dtype=np.float32)[None, :] - center_xy[0]
    y = np.arange(top, bottom, dtype=np.float32)[:, None] - center_xy[1]
    along, across = x * cos(angle) + y * sin(angle), y * cos(angle) - x * sin(angle)
    mix = _mix(texture, along, across)
    patch = fill + (np.array(texture.second, np.float32) - fill) * mix[..., None]
    return patch.astype(np.uint8)


def expose(image: Image, light: Light, rng: np.random.Generator) -> Image:
    """What the sensor makes of an image: light, blur, noise."""
    cv2 = opencv()
    size_wh = (image.shape[1], image.shape[0])
    corners = np.array(light.corners, np.float32).reshape(2, 2) * light.gain
    falloff = cv2.resize(corners, size_wh, interpolation=cv2.INTER_LINEAR)
    lit = cv2.multiply(image, cv2.merge([falloff] * 3), dtype=cv2.CV_8U)
    if light.blur_px > 0.2:
        lit = cv2.GaussianBlur(lit, (0, 0), light.blur_px)
    noise = cv2.LUT(rng.integers(0, 256, image.shape, np.uint8), _noise_table())
    part = light.noise / _NOISE_UNIT
    exposed: Image = cv2.addWeighted(lit, 1.0, noise, part, -128.0 * part)
    return exposed


def _mix(texture: Texture, along: FloatArray, across: FloatArray) -> FloatArray:
    turn = 2 * pi / texture.period_px
    if texture.pattern == "gradient":
        return np.clip(along / (2 * texture.period_px) + 0.5, 0, 1)
    if texture.pattern == "stripes":
        return (np.sin(along * turn) > 0).astype(np.float32)
    return ((np.sin(along * turn) > 0) ^ (np.sin(across * turn) > 0)).astype(np.float32)


def _stroke(rng: np.random.Generator, image: Image) -> None:
    """A thin bent line, in place: edges that a detector must learn to pass over."""
    height, width = image.shape[:2]
    start = rng.uniform(0, 1, 2) * (width, height)
    steps = rng.normal(0, 0.12, (int(rng.integers(2, 6)), 2)) * min(width, height)
    points = np.rint(np.concatenate([start[None], start + np.cumsum(steps, axis=0)])).astype(np.int32)
    thickness = max(1, round(float(rng.uniform(0.5, 4.5)) * min(width, height) / 320))
    cv2 = opencv()
    cv2.polylines(image, [points], False, _random_color(rng), thickness, lineType=cv2.LINE_AA)


def _random_color(rng: np.random.Generator) -> Color:
    blue, green, red = (int(value) for value in rng.integers(15, 241, 3))
    return blue, green, red


def _near(rng: np.random.Generator, color: Color, spread: int) -> Color:
    moved = np.clip(np.array(color) + rng.integers(-spread, spread + 1, 3), 0, 255)
    return int(moved[0]), int(moved[1]), int(moved[2])


@functools.cache
def _noise_table() -> Image:
    """Uniform bytes to normal ones around 128: a table is ten times as fast as drawing normal numbers."""
    normal = NormalDist(128, _NOISE_UNIT)
    values = [normal.inv_cdf((byte + 0.5) / 256) for byte in range(256)]
    return np.rint(values).astype(np.uint8)

"""Images of coloured shapes with known truth: what the demo's detector is trained and judged on.

Start with ``render_scene`` for one image and ``clip`` for a moving one; the same seed gives the same. Everything is
drawn from a ``Scene``, which is data. Boxes are measured on the pixels that stay visible, not computed from the geometry, so
they are tight by construction.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import cos, log, pi, sin
from typing import NamedTuple

import numpy as np

from edgecv._internal.extras import opencv
from edgecv.benchmarks.demo.surface import Light, Texture, backdrop, expose, random_light, random_texture, texture_patch
from edgecv.results import BoolArray, FloatArray, Image, IntArray

LABELS = ("circle", "square", "triangle", "hexagon", "star", "cross")

SMALLEST, LARGEST = 0.024, 0.16  # radius as a part of the frame's side (the root of its area)
_MINIMUM_SIDE_PX = 5  # a labelled box is at least this wide and high
_MINIMUM_SEEN = 0.4  # part of a shape that must lie in the frame and uncovered to be labelled
_COUNT = (3, 13)  # shapes in an image: from, to (exclusive)
_CROWDED = 0.3  # part of the images in which shapes may cover each other freely, as they do in a clip
_PAN = 0.08  # how far a clip's background wanders, as a part of the frame's side
_SUBPIXEL_BITS = 4

Seed = int | list[int] | np.random.Generator


class LabelledFrame(NamedTuple):
    """An image and what is in it."""

    image: Image  # `(H, W, 3)` uint8, BGR
    xyxy: FloatArray  # `(N, 4)` float32 boxes in pixels, tight to the visible part of each shape
    class_id: IntArray  # `(N,)` index into `LABELS`


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One shape: its place in pixels, ``angle`` in radians, ``aspect`` of width to height before turning."""

    class_id: int
    center_xy: tuple[float, float]
    radius_px: float
    angle: float
    aspect: float
    texture: Texture


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """How a shape moves about its place: a sine on each axis, a steady turn, a slow swelling."""

    sway_px: tuple[float, float]  # amplitude on each axis
    period_s: tuple[float, float]  # period on each axis
    phase: tuple[float, float]  # phase on each axis, radians
    spin: float  # turn, radians per second
    swell: float  # amplitude of the radius, as a part of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is to be drawn: shapes from back to front, the light, and the grain of the sensor."""

    size_wh: tuple[int, int]
    shapes: tuple[Shape, ...]
    light: Light


def render_scene(seed: Seed, size_wh: tuple[int, int]) -> LabelledFrame:
    """One image of ``size_wh`` pixels; the same seed gives the same image, and a generator is advanced."""
    rng = np.random.default_rng(seed)
    scenery = backdrop(rng, size_wh)
    scene = Scene(size_wh=size_wh, shapes=_random_shapes(rng, scenery), light=random_light(rng, size_wh))
    return draw(scene, scenery, rng)


def clip(frames: int, size_wh: tuple[int, int], seed: int, fps: float = 25.0) -> Iterator[LabelledFrame]:
    """A moving image of ``size_wh`` pixels, frame by frame with its truth.

    The same seed gives the same clip, and a longer one begins like a shorter one; ``fps`` says how far things move between frames.
    """
    rng = np.random.default_rng(seed)
    pan = round(_PAN * _side(size_wh))
    scenery = backdrop(rng, (size_wh[0] + 2 * pan, size_wh[1] + 2 * pan))
    seen = scenery[pan : pan + size_wh[1], pan : pan + size_wh[0]]
    actors = [(shape, _random_motion(rng, size_wh)) for shape in _random_shapes(rng, seen, least=8)]
    light = random_light(rng, size_wh)
    for index in range(frames):
        time_s = index / fps
        scene = Scene(
            size_wh=size_wh,
            shapes=tuple(_moved(shape, motion, time_s) for shape, motion in actors),
            light=replace(light, gain=light.gain * (1 + 0.15 * sin(2 * pi * time_s / 7))),
        )
        left, top = pan + round(pan * sin(time_s / 3)), pan + round(pan * sin(time_s / 4))
        view = scenery[top : top + size_wh[1], left : left + size_wh[0]]
        yield draw(scene, view, np.random.default_rng([seed, index]))


def draw(scene: Scene, scenery: Image, rng: np.random.Generator) -> LabelledFrame:
    """Paint a scene over its background ``(H, W, 3)``, which stays as it is; ``rng`` gives the sensor's noise."""
    image = scenery.copy()
    owner = np.zeros(image.shape[:2], np.uint8)  # per pixel: 1 + the index of the shape that is seen there
    drawn = [_paint(image, owner, shape, index + 1) for index, shape in enumerate(scene.shapes)]
    boxes = [
        (box, shape.class_id)
        for index, (shape, area) in enumerate(zip(scene.shapes, drawn, strict=True))
        if (box := _visible_box(owner == index + 1, area)) is not None
    ]
    return LabelledFrame(
        image=expose(image, scene.light, rng),
        xyxy=np.array([box for box, _ in boxes], np.float32).reshape(-1, 4),
        class_id=np.array([class_id for _, class_id in boxes], np.int64),
    )


def outline(shape: Shape, scale: float = 1.0) -> FloatArray:
    """``(K, 2)`` corners of a shape in pixels; ``scale`` shrinks it about its centre."""
    turn = np.array([[cos(shape.angle), sin(shape.angle)], [-sin(shape.angle), cos(shape.angle)]])
    stretched = _unit_outline(LABELS[shape.class_id]) * (shape.aspect, 1 / shape.aspect)
    placed = stretched @ turn * (shape.radius_px * scale) + np.array(shape.center_xy)
    return placed.astype(np.float32)


@functools.cache
def _unit_outline(label: str) -> FloatArray:
    if label == "cross":
        arm = 0.32
        quarter = np.array([[arm, 1.0], [arm, arm], [1.0, arm]])
        turns = [np.array([[cos(a), -sin(a)], [sin(a), cos(a)]]) for a in (0, -pi / 2, -pi, -3 * pi / 2)]
        return np.concatenate([quarter @ turn.T for turn in turns]).astype(np.float32)
    corners = {"circle": 40, "square": 4, "triangle": 3, "hexagon": 6, "star": 10}[label]
    angles = np.arange(corners) * 2 * pi / corners
    radii = np.where(np.arange(corners) % 2, 0.45, 1.0) if label == "star" else np.ones(corners)
    return np.stack([radii * np.sin(angles), -radii * np.cos(angles)], axis=1).astype(np.float32)


def _paint(image: Image, owner: Image, shape: Shape, number: int) -> float:
    """Draw a shape in place; the area in pixels that it would have in an endless, empty frame."""
    corners = outline(shape)
    area = float(opencv().contourArea(corners))
    left, top, right, bottom = window = _window(corners, (image.shape[1], image.shape[0]))
    if right <= left or bottom <= top:
        return area
    cover = _coverage(corners, window)
    patch = texture_patch(shape.texture, window, shape.center_xy, shape.angle)
    if shape.texture.edge is not None:
        inner = _coverage(outline(shape, 0.84), window)
        patch = _blend(np.broadcast_to(np.array(shape.texture.edge, np.uint8), patch.shape), patch, inner)
    below = image[top:bottom, left:right]
    below[:] = _blend(below, patch, cover)
    owner[top:bottom, left:right][cover > 127] = number
    return area


def _blend(below: Image, above: Image, cover: Image) -> Image:
    weight = cover[..., None].astype(np.float32) / 255
    return (below * (1 - weight) + above * weight + 0.5).astype(np.uint8)


def _coverage(corners: FloatArray, window: tuple[int, int, int, int]) -> Image:
    """How much of each pixel of a window (left, top, right, bottom) a polygon covers: ``(h, w)``, 0 to 255."""
    left, top, right, bottom = window
    cover = np.zeros((bottom - top, right - left), np.uint8)
    # Pixel centres lie at half pixels in boxes and at whole ones in OpenCV.
    points = np.rint((corners - (left + 0.5, top + 0.5)) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    opencv().fillPoly(cover, [points], 255, lineType=opencv().LINE_AA, shift=_SUBPIXEL_BITS)
    return cover


def _window(corners: FloatArray, size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """The part of the frame that a polygon may touch: left, top, right, bottom."""
    low, high = np.floor(corners.min(axis=0)) - 2, np.ceil(corners.max(axis=0)) + 2
    left, top = max(0, int(low[0])), max(0, int(low[1]))
    return left, top, min(size_wh[0], int(high[0])), min(size_wh[1], int(high[1]))


def _visible_box(mine: BoolArray, area: float) -> tuple[int, int, int, int] | None:
    """Box of the pixels a shape owns; ``None`` when too little of it is seen to be told."""
    columns, rows = np.flatnonzero(mine.any(axis=0)), np.flatnonzero(mine.any(axis=1))
    if not len(columns):
        return None
    left, top, right, bottom = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    too_small = min(right - left, bottom - top) < _MINIMUM_SIDE_PX
    covered = np.count_nonzero(mine[top:bottom, left:right]) < _MINIMUM_SEEN * area
    return None if too_small or covered else (left, top, right, bottom)


def _random_shapes(rng: np.random.Generator, scenery: Image, least: int = 0) -> tuple[Shape, ...]:
    crowded = rng.random() < _CROWDED
    shapes: list[Shape] = []
    for _ in range(max(least, int(rng.integers(*_COUNT)))):
        for _ in range(12):
            shape = _random_shape(rng, scenery)
            if crowded or not any(_crowd(shape, other) for other in shapes):
                shapes.append(shape)
                break
    return tuple(shapes)


def _crowd(first: Shape, second: Shape) -> bool:
    distance = np.hypot(first.center_xy[0] - second.center_xy[0], first.center_xy[1] - second.center_xy[1])
    return bool(distance < 0.75 * (first.radius_px + second.radius_px))


def _random_shape(rng: np.random.Generator, scenery: Image) -> Shape:
    height, width = scenery.shape[:2]
    radius = _side((width, height)) * float(np.exp(rng.uniform(log(SMALLEST), log(LARGEST))))
    x, y = float(rng.uniform(0, width)), float(rng.uniform(0, height))
    return Shape(
        class_id=int(rng.integers(len(LABELS))),
        center_xy=(x, y),
        radius_px=radius,
        angle=float(rng.uniform(0, 2 * pi)),
        aspect=float(rng.uniform(0.92, 1.09)),
        texture=random_texture(rng, scenery[int(y), int(x)], radius),
    )


def _random_motion(rng: np.random.Generator, size_wh: tuple[int, int]) -> Motion:
    def pair(low: float, high: float) -> tuple[float, float]:
        return float(rng.uniform(low, high)), float(rng.uniform(low, high))

    sway = pair(0.04, 0.22)
    return Motion(
        sway_px=(sway[0] * size_wh[0], sway[1] * size_wh[1]),
        period_s=pair(5.0, 12.0),
        phase=pair(0.0, 2 * pi),
        spin=float(rng.uniform(-0.9, 0.9)),
        swell=float(rng.uniform(0.0, 0.2)),
    )


def _moved(shape: Shape, motion: Motion, time_s: float) -> Shape:
    turns = [2 * pi * time_s / period + phase for period, phase in zip(motion.period_s, motion.phase, strict=True)]
    x, y = (at + sway * sin(turn) for at, sway, turn in zip(shape.center_xy, motion.sway_px, turns, strict=True))
    return replace(
        shape,
        center_xy=(x, y),
        angle=shape.angle + motion.spin * time_s,
        radius_px=shape.radius_px * (1 + motion.swell * sin(turns[0] / 2)),
    )


def _side(size_wh: tuple[int, int]) -> float:
    return float(np.sqrt(size_wh[0] * size_wh[1]))

"""Shapes of a model's input, and how well a camera's image fits into them.

An image that is letterboxed into an input leaves a part of it grey, and the network computes that part as well. The *loss* of a
shape is the grey part of its area, 0 to 1. A shape that shows the image smaller by more than a tenth than another one of the
same model has the loss 1: what it saves in time it would pay with objects that are too small to be seen (docs/adr/0017).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import combinations
from math import gcd

from edgecv._internal.strict import check_number
from edgecv.errors import ConfigError

Size = tuple[int, int]  # width and height in pixels

MOST_SHAPES = 2  # of one model that are loaded at the same time, however many cameras there are
_WIDEST = 4  # to 1; two lenses side by side have 32:9
_MOST_PIXELS = 65_536  # of a frame's side
_SMALLEST = 0.9  # of the scale in the shape that shows an image largest
_WORTH = 0.1  # of the input's area: less is not worth another variant
_ALIKE = 0.02  # shapes that differ by less serve a camera equally well
# What cameras have, the usual ones first; the other way round for those that hang on their side.
_USUAL: tuple[Size, ...] = ((16, 9), (4, 3), (9, 16), (3, 4), (3, 2), (5, 4), (8, 5), (21, 9), (2, 1), (32, 9), (1, 1))
_FIT = re.compile(r"0*([1-9][0-9]{0,4}):0*([1-9][0-9]{0,4})", re.ASCII)


def read_fit(text: str) -> Size:
    """``16:9`` as two whole numbers without a common divisor.

    Raises:
        ConfigError: it is not two whole numbers with a colon, or longer than 4:1.
    """
    found = _FIT.fullmatch(text.strip()) if isinstance(text, str) else None
    hint = "Write the shape of the camera's image, such as --fit 16:9, --fit 4:3 or --fit 9:16."
    if found is None:
        raise ConfigError(f"'{text}' is no shape of an image.", hint)
    width, height = int(found[1]), int(found[2])
    if max(width, height) > _WIDEST * min(width, height):
        raise ConfigError(f"A shape of {text} is longer than {_WIDEST}:1.", hint)
    common = gcd(width, height)
    return width // common, height // common


def fitted_size(fit: Size, longest: int, step: int) -> Size:
    """The input size for images of that shape: its longer side is ``longest``, both are multiples of ``step``.

    The shorter side is rounded up, so that such an image is as large in it as in a square of ``longest``.
    """
    short = -(-longest * min(fit) // max(fit))
    shorter = -(-short // step) * step
    return (longest, shorter) if fit[0] >= fit[1] else (shorter, longest)


def shape_name(size_wh: Size) -> str:
    """``640x384``, as variants are named."""
    return f"{size_wh[0]}x{size_wh[1]}"


def check_frame_size(size_wh: object) -> Size:
    """Width and height that a caller gave as ``fit``.

    Raises:
        ConfigError: it is no pair of whole numbers.
    """
    hint = "Give the width and height of the camera's images: fit=(1920, 1080)."
    if not isinstance(size_wh, (tuple, list)) or len(size_wh) != 2:
        raise ConfigError(f"fit must be a width and a height, not {size_wh!r}.", hint)
    width, height = size_wh
    for side in (width, height):
        check_number("fit", side, 1, _MOST_PIXELS, whole=True, hint=hint)
    return width, height


def scale_of(frame_wh: Size, input_wh: Size) -> float:
    """How large an image is in an input: pixels of the input per pixel of the image."""
    return min(input_wh[0] / frame_wh[0], input_wh[1] / frame_wh[1])


def fill_of(frame_wh: Size, input_wh: Size) -> float:
    """The part of an input's area that a letterboxed image covers, 0 to 1."""
    scale = scale_of(frame_wh, input_wh)
    return frame_wh[0] * scale * frame_wh[1] * scale / (input_wh[0] * input_wh[1])


def loss_of(frame_wh: Size, input_wh: Size, shapes: Iterable[Size]) -> float:
    """What a shape wastes on images of that size, 0 to 1; ``shapes`` are all that the model has."""
    largest = max(scale_of(frame_wh, shape) for shape in shapes)
    is_too_small = scale_of(frame_wh, input_wh) < _SMALLEST * largest
    return 1.0 if is_too_small else 1 - fill_of(frame_wh, input_wh)


def best_shape(frame_wh: Size, shapes: Sequence[Size], among: Sequence[Size] = ()) -> Size:
    """The shape that wastes least on images of that size; of two that waste alike the first.

    Args:
        frame_wh: Width and height of the images.
        shapes: All that the model has; at least one.
        among: Those that may be taken; all by default.
    """
    return min(among or shapes, key=lambda shape: round(loss_of(frame_wh, shape, shapes), 6))


def shapes_for(frames_wh: Sequence[Size], shapes: Sequence[Size], most: int = MOST_SHAPES) -> tuple[Size, ...]:
    """The shapes to load for several cameras: at most ``most``, those that waste least on all of them together.

    Of choices that waste alike the one with fewer shapes is taken, then the one whose shapes come first in ``shapes``.
    """

    losses = [{shape: loss_of(frame, shape, shapes) for shape in shapes} for frame in frames_wh]

    def total(chosen: tuple[Size, ...]) -> float:
        return round(sum(min(loss[shape] for shape in chosen) for loss in losses), 6)

    choices = [choice for count in range(1, most + 1) for choice in combinations(shapes, count)]
    return min(choices, key=total)


def better_fit(frame_wh: Size, input_wh: Size) -> str:
    """What to give to ``edgecv convert --fit`` for images of that size; empty where no shape would waste clearly less."""
    fits = [(fit, fill_of(frame_wh, fitted_size(fit, max(input_wh), 32))) for fit in _USUAL]
    most = max(fill for _, fill in fits)
    if most - fill_of(frame_wh, input_wh) < _WORTH:
        return ""
    width, height = next(fit for fit, fill in fits if fill >= most - _ALIKE)
    return f"{width}:{height}"


def told_waste(frame_wh: Size, input_wh: Size) -> str:
    """What images of that size waste in an input, and what would help, in a sentence; empty where nothing would."""
    fit = better_fit(frame_wh, input_wh)
    if not fit:
        return ""
    (width, height), share = frame_wh, fill_of(frame_wh, input_wh)
    return (
        f"frames of {width} x {height} fill {100 * share:.0f} % of the model's {input_wh[0]} x {input_wh[1]} input; "
        f"`edgecv convert --fit {fit}` makes a model that wastes less"
    )

"""From a frame to the pixels a model was trained on, and back.

There is one implementation for calibration, accuracy measurement and run time: an exported model that sees other pixels
than the trained one is a frequent cause of silent accuracy loss (ultralytics #26269).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from edgecv._internal.extras import opencv
from edgecv.detections import Image, check_image
from edgecv.errors import SpecMismatch
from edgecv.protocols import Array
from edgecv.specs import PreprocessSpec, TensorSpec
from edgecv.vision.antialias import Window, resize_antialiased
from edgecv.vision.geometry import ImageTransform

_INTERPOLATION: Mapping[str, str] = MappingProxyType(
    {"linear": "INTER_LINEAR", "area": "INTER_AREA", "cubic": "INTER_CUBIC"}
)
_MOST_RESIZED = 64_000_000  # pixels of the image that a crop is cut from; a line of 1 x 65,000 would become 3 billion


def letterbox(
    image: Image,
    size_wh: tuple[int, int],
    pad_value: int | tuple[int, int, int] = 114,
    anchor: str = "center",
    interpolation: str = "linear",
) -> tuple[Image, ImageTransform]:
    """Resize without distortion and pad to ``size_wh``.

    Args:
        image: ``(H, W, 3)`` uint8, BGR.
        size_wh: Width and height in pixels.
        pad_value: Grey level of the padding, or its (blue, green, red).
        anchor: ``center`` or ``top-left``: where the image sits.
        interpolation: ``linear``, ``area``, ``cubic`` or ``antialias``.

    Returns:
        The ``(size_wh[1], size_wh[0], 3)`` image and the transform that maps frame pixels to model pixels.

    Raises:
        SpecMismatch: ``image`` is not ``(H, W, 3)`` uint8, or has no pixels.
    """
    check_image(image)
    height, width = image.shape[:2]
    ratio = min(size_wh[0] / width, size_wh[1] / height)
    new_w, new_h = max(1, round(width * ratio)), max(1, round(height * ratio))
    # Half a pixel goes to the right and the bottom, as the networks of this family were trained.
    left = round((size_wh[0] - new_w) / 2 - 0.1) if anchor == "center" else 0
    top = round((size_wh[1] - new_h) / 2 - 0.1) if anchor == "center" else 0
    canvas = np.empty((size_wh[1], size_wh[0], 3), np.uint8)
    canvas[:top] = pad_value
    canvas[top + new_h :] = pad_value
    canvas[top : top + new_h, :left] = pad_value
    canvas[top : top + new_h, left + new_w :] = pad_value
    canvas[top : top + new_h, left : left + new_w] = _resized(image, (new_w, new_h), interpolation)
    transform = ImageTransform(
        scale_xy=(new_w / width, new_h / height), offset_xy=(left, top), frame_wh=(width, height)
    )
    return canvas, transform


def stretch(image: Image, spec: PreprocessSpec) -> tuple[Image, ImageTransform]:
    """Resize to the model's size whatever the aspect ratio; shapes as in ``letterbox``."""
    check_image(image)
    height, width = image.shape[:2]
    resized = _resized(image, spec.size_wh, spec.interpolation)
    scale_xy = (spec.size_wh[0] / width, spec.size_wh[1] / height)
    return resized, ImageTransform(scale_xy=scale_xy, offset_xy=(0.0, 0.0), frame_wh=(width, height))


def center_crop(image: Image, spec: PreprocessSpec) -> tuple[Image, ImageTransform]:
    """Resize the short side to ``size / crop_fraction`` and cut the centre; shapes as in ``letterbox``.

    Sizes and edges are rounded as torchvision's ``Resize`` and ``CenterCrop`` do.

    Raises:
        SpecMismatch: ``image`` is not ``(H, W, 3)`` uint8, or so narrow that its resized form would fill the memory.
    """
    check_image(image)
    height, width = image.shape[:2]
    wanted_w, wanted_h = spec.size_wh
    if wanted_w / width >= wanted_h / height:
        new_w = round(wanted_w / spec.crop_fraction)
        new_h = max(wanted_h, int(new_w * height / width))
    else:
        new_h = round(wanted_h / spec.crop_fraction)
        new_w = max(wanted_w, int(new_h * width / height))
    if new_w * new_h > _MOST_RESIZED and spec.interpolation != "antialias":  # that one computes the centre alone
        raise SpecMismatch(
            f"An image of {width} x {height} is too narrow: resized for the crop it has {new_w} x {new_h} pixels.",
            "Cut it before, or use a model that stretches its input.",
        )
    left, top = round((new_w - wanted_w) / 2), round((new_h - wanted_h) / 2)
    cut = _resized(image, (new_w, new_h), spec.interpolation, (left, top, left + wanted_w, top + wanted_h))
    transform = ImageTransform(
        scale_xy=(new_w / width, new_h / height), offset_xy=(-left, -top), frame_wh=(width, height)
    )
    return np.ascontiguousarray(cut), transform


def _letterbox(image: Image, spec: PreprocessSpec) -> tuple[Image, ImageTransform]:
    return letterbox(image, spec.size_wh, spec.pad_value, spec.pad_anchor, spec.interpolation)


_RESIZE: Mapping[str, Callable[[Image, PreprocessSpec], tuple[Image, ImageTransform]]] = MappingProxyType(
    {"letterbox": _letterbox, "stretch": stretch, "crop": center_crop}
)


def fit(image: Image, spec: PreprocessSpec) -> tuple[Image, ImageTransform]:
    """The geometry of ``spec``: the ``(H, W, 3)`` uint8 BGR image in the model's size, and the transform to it."""
    return _RESIZE[spec.resize](image, spec)


def to_tensor(image: Image, spec: PreprocessSpec, tensor: TensorSpec) -> Array:
    """A fitted image as the model's input tensor, batch of one.

    A ``uint8`` tensor takes BGR pixels as they are: the graph normalises. Any other is normalised here, in the colour order,
    layout and quantization that ``spec`` and ``tensor`` say.
    """
    if tensor.dtype == "uint8" and tensor.scale is None:
        return image[None] if tensor.layout == "NHWC" else np.ascontiguousarray(image.transpose(2, 0, 1)[None])
    values = _values(spec, tensor)
    height, width = image.shape[:2]
    is_planar = tensor.layout != "NHWC"
    out = np.empty((3, height, width) if is_planar else (height, width, 3), values.dtype)
    for channel in range(3):
        source = image[..., 2 - channel if spec.color == "rgb" else channel]
        # "clip" writes into `out` at once; every byte is in the table anyway.
        np.take(values[:, channel], source, out=out[channel] if is_planar else out[..., channel], mode="clip")
    return out[None]


def _values(spec: PreprocessSpec, tensor: TensorSpec) -> Array:
    """``(256, 3)``: what each byte of each channel becomes. To look it up takes a quarter of the time of computing it per pixel."""
    std = np.array(spec.std)
    factor, shift = (1.0 / (255.0 * std)).astype(np.float32), (-np.array(spec.mean) / std).astype(np.float32)
    return _stored(np.arange(256, dtype=np.float32)[:, None] * factor + shift, tensor)


def prepare(image: Image, spec: PreprocessSpec, tensor: TensorSpec) -> tuple[Array, ImageTransform]:
    """``fit`` and ``to_tensor`` in one."""
    fitted, transform = fit(image, spec)
    return to_tensor(fitted, spec, tensor), transform


def _resized(image: Image, size_wh: tuple[int, int], interpolation: str, window: Window | None = None) -> Image:
    """The resized image, or the window ``(left, top, right, bottom)`` of it."""
    left, top, right, bottom = window or (0, 0, *size_wh)
    if (image.shape[1], image.shape[0]) == size_wh:
        return image[top:bottom, left:right]
    if interpolation == "antialias":
        return resize_antialiased(image, size_wh, (left, top, right, bottom))
    cv2 = opencv()
    resized: Image = cv2.resize(image, size_wh, interpolation=getattr(cv2, _INTERPOLATION[interpolation]))
    return resized[top:bottom, left:right]


def _stored(real: Array, tensor: TensorSpec) -> Array:
    dtype = np.dtype(tensor.dtype)
    if tensor.scale is None:
        return real.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(real / tensor.scale) + (tensor.zero_point or 0), limits.min, limits.max).astype(dtype)

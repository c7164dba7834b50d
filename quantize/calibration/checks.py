"""What can be seen in calibration images before any model runs: how alike they are, how dark, how flat, how small.

The norm is what COCO's photographs show, which most pretrained detectors learned from: 5th and 95th percentile over the 128
images of ``coco128-train`` (mean grey 58 to 161, median 116; its deviation 35 to 75, median 60; short side 332 px and more).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecv._internal.extras import opencv
from edgecv.errors import CalibrationError, SourceError
from edgecv.media.images import read_image
from edgecv.results import BoolArray, Image, IntArray

# Bits of 64. Among 128 COCO photographs the two nearest differ in 12, among 1,200 of CIFAR-10 in 5 (measured).
NEAR_BITS = 4
SAME_BITS = 2
# Grey levels by which the 9 x 8 thumbnail must vary for its hash to mean something: the flattest of COCO has 12, of CIFAR-10 3.6.
_PLAIN_DEVIATION = 3.0
_NORM_BRIGHTNESS = (58.0, 161.0)
_NORM_CONTRAST = (35.0, 75.0)
_NORM_SHORT_SIDE_PX = 332.0
_FAR_SMALLER = 0.5  # a model sees half the size as another scale of object; larger images are merely scaled down


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What is kept of an image."""

    path: Path  # where it lies
    content: str  # SHA-256 of shape and pixels
    # Perceptual hash of 64 bits: whether each cell of a 9 x 8 thumbnail is darker than its right neighbour (the
    # difference hash, N. Krawetz 2013, "Kind of Like That")
    dhash: int
    plain: bool  # whether there is too little to see for the hash to mean anything
    brightness: float  # mean grey, 0 to 255
    contrast: float  # standard deviation of grey, in levels
    size_wh: tuple[int, int]  # width and height in pixels


def fingerprint(path: Path) -> Fingerprint:
    """Read an image and keep what the checks need.

    Raises:
        CalibrationError: it cannot be read.
    """
    try:
        image = read_image(path)
    except SourceError as error:
        raise CalibrationError(f"{error.message}", "Remove or replace the file, then run again.") from error
    cv2 = opencv()
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    bits = np.packbits(small[:, 1:] > small[:, :-1])
    return Fingerprint(
        path=path,
        content=content_hash(image),
        dhash=int.from_bytes(bits.tobytes(), "big"),
        plain=float(small.std()) < _PLAIN_DEVIATION,
        brightness=float(grey.mean()),
        contrast=float(grey.std()),
        size_wh=(image.shape[1], image.shape[0]),
    )


def content_hash(image: Image) -> str:
    """Hash of the decoded pixels: the same image saved again under other metadata is still the same image."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def near_groups(prints: Sequence[Fingerprint]) -> IntArray:
    """``(N,)`` number of the group of each image; near-duplicates, also by way of others, share one."""
    bits = _bits(prints)
    groups = np.full(len(prints), -1, np.int64)
    for first in range(len(prints)):
        waiting = [first] if groups[first] < 0 else []
        while waiting:
            at = waiting.pop()
            groups[at] = first
            near = np.flatnonzero((_distances(bits, bits[at]) <= NEAR_BITS) & (groups < 0))
            groups[near] = first
            waiting.extend(int(other) for other in near)
    return groups


def distinct_count(prints: Sequence[Fingerprint]) -> int:
    """How many images differ visibly from every one counted before."""
    bits = _bits(prints)
    kept: list[int] = []
    for at in range(len(prints)):
        if not kept or int(_distances(bits[kept], bits[at]).min()) > NEAR_BITS:
            kept.append(at)
    return len(kept)


def looks_like_any(prints: Sequence[Fingerprint], others: Sequence[Fingerprint]) -> BoolArray:
    """``(N,)`` whether each of ``prints`` is a near-duplicate of one of ``others``."""
    theirs = _bits(others)
    found = [bool((_distances(theirs, row) <= NEAR_BITS).any()) for row in _bits(prints)]
    return np.array(found, np.bool_)


def copies(prints: Sequence[Fingerprint], others: Iterable[Fingerprint]) -> list[tuple[Path, Path]]:
    """Pairs of ``others`` and ``prints`` that show the same; plain images only when every pixel is equal."""
    by_content = {each.content: each for each in prints}
    structured = [each for each in prints if not each.plain]
    bits = _bits(structured)
    found = []
    for other in others:
        same = by_content.get(other.content)
        if same is None and structured and not other.plain:
            distances = _distances(bits, _bits([other])[0])
            best = int(distances.argmin())
            same = structured[best] if distances[best] <= SAME_BITS else None
        if same is not None:
            found.append((other.path, same.path))
    return found


def describe(prints: Sequence[Fingerprint]) -> dict[str, float]:
    """Facts of the set by name: medians of brightness, contrast and size, and how alike its images are."""
    distinct = distinct_count(prints)
    return {
        "brightness": round(float(np.median([each.brightness for each in prints])), 1),
        "contrast": round(float(np.median([each.contrast for each in prints])), 1),
        "width_px": float(np.median([each.size_wh[0] for each in prints])),
        "height_px": float(np.median([each.size_wh[1] for each in prints])),
        "distinct": float(distinct),
        "near_duplicates": round(1 - distinct / len(prints), 4),
    }


def set_warnings(facts: dict[str, float], images: int) -> tuple[str, ...]:
    """What ``describe`` found to be unusual, in words."""
    found = []
    if facts["near_duplicates"] > 0.5:
        found.append(
            f"{facts['near_duplicates']:.0%} of the {images} images look almost like another one; only "
            f"{facts['distinct']:.0f} differ visibly. INT8 is then fitted to few scenes: add images from other times and places."
        )
    found += _outside("brightness", "dark", "bright", facts["brightness"], _NORM_BRIGHTNESS)
    found += _outside("contrast", "flat", "harsh", facts["contrast"], _NORM_CONTRAST)
    short = min(facts["width_px"], facts["height_px"])
    if short < _NORM_SHORT_SIDE_PX * _FAR_SMALLER:
        found.append(
            f"The images are small: {facts['width_px']:.0f} x {facts['height_px']:.0f} px; photographs as in COCO have a short "
            f"side of {_NORM_SHORT_SIDE_PX:.0f} px and more. {_IF_NORMAL}"
        )
    return tuple(found)


_IF_NORMAL = "If the model was trained on images like these, all is well; else calibrate with what it will see."


def _outside(name: str, low: str, high: str, value: float, norm: tuple[float, float]) -> list[str]:
    if norm[0] <= value <= norm[1]:
        return []
    word = low if value < norm[0] else high
    return [
        f"The images are {word}: their {name} is {value:.0f} of 255, while 90 % of photographs as in COCO lie between "
        f"{norm[0]:.0f} and {norm[1]:.0f}. {_IF_NORMAL}"
    ]


def _bits(prints: Sequence[Fingerprint]) -> Image:
    """``(N, 64)`` uint8, 0 or 1."""
    packed = b"".join(each.dhash.to_bytes(8, "big") for each in prints)
    return np.unpackbits(np.frombuffer(packed, np.uint8)).reshape(-1, 64)


def _distances(bits: Image, row: Image) -> IntArray:
    """``(N,)`` in how many bits each differs from one ``(64,)``."""
    return np.count_nonzero(bits != row, axis=1)

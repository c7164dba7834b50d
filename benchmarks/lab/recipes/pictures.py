"""The pictures that judge, and what calibrates what they judge."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecv._internal.progress import Progress
from edgecv.benchmarks.lab.cross_split import linked
from edgecv.bundles.bundle import sha256_of
from edgecv.errors import ConfigError
from edgecv.media.image_files import images_below
from edgecv.quantize.calibration.calibration_set import check_overlap, open_calibration
from edgecv.quantize.labels.coco import Truth
from edgecv.quantize.labels.evaluate import labelled_images
from edgecv.quantize.labels.int8_loss import open_labelled

FEWEST = 32  # pictures: a half of them is what calibration takes at the least


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Different pictures in the order of their content, with their labels: boxes, or the number of a class.

    Attributes:
        paths: Of the files.
        contents: SHA-256 of each.
        truth: Labels of each; ``None`` where raw outputs alone are compared.
    """

    paths: tuple[Path, ...]
    contents: tuple[str, ...]
    truth: tuple[Truth | int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One conversion of a recipe and seed: what it is calibrated on, and which pictures judge it."""

    name: str
    calibration: Path
    contents: str  # hash of the calibration pictures
    judged: tuple[int, ...]  # places in ``Pictures``


def open_pictures(
    data: Path, task: str, labels: Sequence[str], limit: int | None = None, *, labelled: bool = True
) -> Pictures:
    """Find the pictures and their labels; copies of a file count once.

    Raises:
        ConfigError: there are too few pictures, or no labels that fit the model.
    """
    paths, truth = _with_labels(data, task, labels) if labelled else (_images(data), None)
    places: dict[str, int] = {}
    for place, path in enumerate(paths):
        places.setdefault(sha256_of(path), place)
    contents = sorted(places)[:limit]
    if len(contents) < FEWEST:
        raise ConfigError(f"{data} gives {len(contents)} different pictures.", f"Give {FEWEST} or more.")
    kept = [places[content] for content in contents]
    return Pictures(
        paths=tuple(paths[place] for place in kept),
        contents=tuple(contents),
        truth=None if truth is None else tuple(truth[place] for place in kept),
    )


def _with_labels(
    data: Path, task: str, labels: Sequence[str]
) -> tuple[Sequence[Path], Sequence[Truth] | Sequence[int]]:
    found = open_labelled(data, task, labels)
    return found.images, found.truth


def _images(data: Path) -> list[Path]:
    """Pictures without their labels."""
    try:
        return labelled_images(data)
    except ConfigError:
        return images_below(data)


def halves_of(pictures: Pictures, work: Path, split: int = 0) -> tuple[Part, ...]:
    """Two parts: each half of the pictures judges what the other calibrated. ``split`` 0 is that of ``cross_split``."""
    order = list(range(len(pictures.paths)))
    if split:
        order.sort(key=lambda place: hashlib.sha256(f"{split}:{pictures.contents[place]}".encode()).digest())
    halves = (tuple(order[0::2]), tuple(order[1::2]))
    return tuple(
        Part(
            name=f"half{number}",
            calibration=linked([pictures.paths[place] for place in half], work / f"half{number}"),
            contents=_together([pictures.contents[place] for place in half]),
            judged=halves[1 - number],
        )
        for number, half in enumerate(halves)
    )


def whole_of(pictures: Pictures, calibration: Path, progress: Progress) -> tuple[Part, ...]:
    """One part: all pictures judge what other pictures calibrated.

    Raises:
        CalibrationError: a picture is in both, or the calibration pictures cannot be read.
    """
    images = open_calibration(calibration, progress)
    check_overlap(images, pictures.paths, progress)
    every = tuple(range(len(pictures.paths)))
    return (Part(name="whole", calibration=calibration, contents=images.sha256, judged=every),)


def _together(contents: Sequence[str]) -> str:
    return hashlib.sha256("".join(sorted(contents)).encode()).hexdigest()

"""Accuracy of a model on labelled images, with the same letterbox and suppression as at run time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgecv._internal.bounded import read_plain_text
from edgecv._internal.progress import Progress, silent
from edgecv.errors import CalibrationError, ConfigError, SourceError
from edgecv.limits import Limits
from edgecv.media.images import read_image
from edgecv.model import Model
from edgecv.quantize.labels.bootstrap import RealArray
from edgecv.quantize.labels.coco import FrameMasks, Truth, encode_masks
from edgecv.quantize.labels.dataset import dataset_places, images_at, is_dataset
from edgecv.results import Classification, Detections, FloatArray, Image

# COCO's protocol: everything down to a confidence of 0.001, every class of a box, at most 300 boxes.
_CONFIDENCE = 0.001
COCO_LIMITS: Limits = {"confidence": _CONFIDENCE, "iou": 0.7, "max_detections": 300, "multi_label": True}

_OUTSIDE = 1.01  # rounding puts an edge a little beyond the image; labels in pixels lie far beyond

_MOST_LABEL_BYTES = 4 << 20
_BOX_VALUES = 6  # class, x, y, w, h and perhaps a confidence; outlines have more

_LINES = (
    "Lines are: class x y w h (centre and size), or class x1 y1 x2 y2 ... (outline), in parts of the image, 0 to 1."
)


def labelled_images(data: str | Path) -> list[Path]:
    """The images of a ``data.yaml`` (its ``val`` part, else ``train``) or of a folder with ``images/`` and ``labels/``.

    Parts of a ``data.yaml`` are folders, or ``.txt`` files that list images, one a line, as COCO's own has them. A folder
    without ``images/`` in which a ``data.yaml`` lies is taken by that, as Roboflow exports it.

    Raises:
        ConfigError: there are none, a part is missing, or no labels belong to them.
        CalibrationError: the ``data.yaml`` cannot be read.
    """
    path = description_of(Path(data))
    try:
        if is_dataset(path):
            places = dataset_places(path, "val", "train")
        else:
            places = [path / "images" if (path / "images").is_dir() else path]
        images = [image for place in places for image in images_at(place, [path.parent])]
    except CalibrationError as error:
        raise ConfigError(f"{data} holds no labelled images: {error.message}", error.hint) from error
    if not any(label_path(image).is_file() for image in images):
        raise ConfigError(
            f"{data} holds no labelled images.",
            "Give a data.yaml, or a folder with images/ and labels/ (one .txt of 'class x y w h' lines per image).",
        )
    return images


def description_of(data: Path) -> Path:
    """The ``data.yaml`` in a folder that has no ``images/``; else the path itself."""
    inside = data / "data.yaml"
    return inside if data.is_dir() and inside.is_file() and not (data / "images").is_dir() else data


def label_path(image: Path) -> Path:
    """Where YOLO's layout keeps the labels of an image: ``images`` becomes ``labels``, the suffix ``.txt``.

    Where the folder of the image is a link, they may also lie beside the folder that it leads to.
    """
    path = _label_path(image)
    if path.is_file():
        return path
    linked = _label_path(image.parent.resolve() / image.name)
    return linked if linked.is_file() else path


def _label_path(image: Path) -> Path:
    parts = list(image.parts)
    places = [index for index, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def read_labels(image: Path, task: str = "detect") -> Truth:
    """Labels of an image in parts of its width and height; none when it has no label file, as YOLO's layout means it.

    ``pose`` lines hold keypoints behind the box; longer lines of other tasks are outlines. Boxes are those around them; for
    ``segment`` the outlines are kept as well, where every line is one. Lines that repeat another count once.

    Raises:
        ConfigError: the label file is damaged.
    """
    path = label_path(image)
    try:
        text = read_plain_text(path, _MOST_LABEL_BYTES) if path.is_file() else ""
        lines = [line.split() for line in text.splitlines() if line.strip()]
        values = _each_once([np.array([float(value) for value in line]) for line in lines])
        rows = [_row(line, task) for line in values]
    except (ValueError, OverflowError, OSError) as error:
        raise ConfigError(f"{path} is not a YOLO label file: {error}.", _LINES) from error
    found = np.array(rows, np.float32).reshape(-1, 5)
    outlined = task == "segment" and all(len(line) > _BOX_VALUES for line in values)
    outlines = tuple(line[1:].reshape(-1, 2).astype(np.float32) for line in values) if outlined else None
    return Truth(xyxy=found[:, 1:], class_id=found[:, 0].astype(np.int64), outline=outlines)


def _each_once(lines: Sequence[RealArray]) -> list[RealArray]:
    """Lines without those that repeat another, as Ultralytics counts them: an object that was labelled twice is one."""
    kept: dict[bytes, RealArray] = {}
    for line in lines:
        told = line[:-1] if len(line) == _BOX_VALUES else line  # without the confidence
        kept.setdefault(told.astype(np.float32).tobytes(), line)
    return list(kept.values())


def _row(values: RealArray, task: str) -> tuple[float, ...]:
    """Class and box ``(class, x1, y1, x2, y2)`` of one line; a sixth value is a confidence, which labels do not need."""
    class_id, numbers = float(values[0]), values[1:]
    if class_id < 0 or class_id != int(class_id):
        raise ValueError(f"{class_id:g} is no class")
    if len(values) in (_BOX_VALUES - 1, _BOX_VALUES) or (task == "pose" and len(values) > _BOX_VALUES):
        center, half = numbers[:2], numbers[2:4] / 2
        corners = np.concatenate([center - half, center + half])
    elif len(values) > _BOX_VALUES and len(numbers) % 2 == 0:
        outline = numbers.reshape(-1, 2)
        corners = np.concatenate([outline.min(axis=0), outline.max(axis=0)])
    else:
        raise ValueError(f"a line has {len(values)} values")
    placed = numbers[:4] if len(values) in (_BOX_VALUES - 1, _BOX_VALUES) or task == "pose" else numbers
    is_inside = (placed >= 1 - _OUTSIDE).all() and (placed <= _OUTSIDE).all()
    if not (np.isfinite(corners).all() and is_inside and (corners[2:] >= corners[:2]).all()):
        raise ValueError(f"{' '.join(f'{value:g}' for value in numbers[:4])} are not parts of the image, 0 to 1")
    return (class_id, *(float(value) for value in corners))


def in_pixels(labels: Truth, size_wh: tuple[int, int]) -> Truth:
    """Labels of an image of ``size_wh`` pixels, from parts of it to pixels."""
    scale: FloatArray = np.array([*size_wh, *size_wh], np.float32)
    outlines = None if labels.outline is None else tuple(outline * scale[:2] for outline in labels.outline)
    return replace(labels, xyxy=labels.xyxy * scale, outline=outlines)


def judged(
    model: Model, images: Sequence[Path], progress: Progress = silent, labels: Sequence[Truth] | None = None
) -> list[tuple[Truth, Detections]]:
    """Labels and detections of each image in pixels, under COCO's protocol.

    ``labels`` are in parts of the image, and read from its label file by default.

    Raises:
        ConfigError: the model is no detector, or a label file is damaged.
    """
    found = _judged(model, images, progress, labels)
    return [(truth, replace(answer, mask=None)) for truth, answer, _ in found]  # 300 masks of a frame are 100 MB


def judged_with_masks(
    model: Model, images: Sequence[Path], progress: Progress, labels: Sequence[Truth]
) -> tuple[list[tuple[Truth, Detections]], list[FrameMasks]]:
    """As ``judged``, and the masks of each image's detections beside them."""
    pairs, masks = [], []
    for truth, answer, size_wh in _judged(model, images, progress, labels):
        pairs.append((truth, replace(answer, mask=None)))
        masks.append(encode_masks(answer, size_wh))
    return pairs, masks


def _judged(
    model: Model, images: Sequence[Path], progress: Progress, labels: Sequence[Truth] | None
) -> Iterator[tuple[Truth, Detections, tuple[int, int]]]:
    for number, (size_wh, found) in enumerate(_found(model, images, progress)):
        if not isinstance(found, Detections):
            raise ConfigError(
                f"{model.name} is a '{model.task}' model; labelled boxes judge detectors only.",
                "Give a folder with a folder of images per class, or a detector.",
            )
        truth = read_labels(images[number], model.task) if labels is None else labels[number]
        yield in_pixels(truth, size_wh), found, size_wh


def classified(model: Model, images: Sequence[Path], progress: Progress = silent) -> list[Classification]:
    """Classes of each image, best first.

    Raises:
        ConfigError: the model is no classifier.
    """
    answers = []
    for _, found in _found(model, images, progress):
        if not isinstance(found, Classification):
            raise ConfigError(
                f"{model.name} is a '{model.task}' model; folders of classes judge classifiers only.",
                "Give a data.yaml with labelled boxes, or a classifier.",
            )
        answers.append(found)
    return answers


def _found(
    model: Model, images: Sequence[Path], progress: Progress
) -> Iterator[tuple[tuple[int, int], Detections | Classification]]:
    """Size and answer of each image; as many at a time as the model takes."""
    for done in range(0, len(images), model.batch):
        progress(f"Evaluating {model.name}", done, len(images))
        sizes: list[tuple[int, int]] = []
        limits: Limits = {**COCO_LIMITS, "confidence": _confidence(model)}
        answers = model.many(_images(images[done : done + model.batch], sizes), **limits)
        yield from zip(sizes, answers, strict=True)
    progress(f"Evaluating {model.name}", len(images), len(images))


def _images(paths: Sequence[Path], sizes: list[tuple[int, int]]) -> Iterator[Image]:
    """One image after the other, so that they are never in memory together; their sizes are kept."""
    for path in paths:
        image = _image(path)
        sizes.append((image.shape[1], image.shape[0]))
        yield image


def _image(path: Path) -> Image:
    """An image of the set; one that cannot be read is data that is wrong, not a camera that failed."""
    try:
        return read_image(path)
    except SourceError as error:
        raise ConfigError(error.message, "Remove or replace the file, then run again.") from error


def _confidence(model: Model) -> float:
    """COCO's for boxes; 0 for classes, so that the fifth best is there as well."""
    return 0.0 if model.task == "classify" else _CONFIDENCE

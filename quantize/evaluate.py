"""Accuracy of a model on labelled pictures, with the same letterbox and suppression as at run time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgecv.errors import CalibrationError, ConfigError
from edgecv.media import read_image
from edgecv.model import Model
from edgecv.progress import Progress, silent
from edgecv.quantize.calibration import dataset_folders, images_below
from edgecv.quantize.coco_map import MeanAveragePrecision, Truth, coco_map
from edgecv.results import Detections

# COCO's protocol: everything down to a confidence of 0.001, every class of a box, at most 300 boxes.
_CONFIDENCE, _IOU, _MAX_DETECTIONS = 0.001, 0.7, 300


def labelled_images(data: str | Path) -> list[Path]:
    """The pictures of a ``data.yaml`` (its ``val`` part, else ``train``) or of a folder with ``images/`` and ``labels/``.

    Raises:
        ConfigError: there are none, or no labels belong to them.
    """
    path = Path(data)
    if path.suffix in (".yaml", ".yml"):
        folders = dataset_folders(path, "val") or dataset_folders(path, "train")
    else:
        folders = [path / "images" if (path / "images").is_dir() else path]
    images = [image for folder in folders if folder.is_dir() for image in images_below(folder)]
    if not any(label_path(image).is_file() for image in images):
        raise ConfigError(
            f"{data} holds no labelled images.",
            "Give a data.yaml, or a folder with images/ and labels/ (one .txt of 'class x y w h' lines per image).",
        )
    return images


def label_path(image: Path) -> Path:
    """Where YOLO's layout keeps the labels of a picture: ``images`` becomes ``labels``, the suffix ``.txt``."""
    parts = list(image.parts)
    places = [index for index, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def read_truth(image: Path, size_wh: tuple[int, int]) -> Truth:
    """Labelled boxes of a picture of ``size_wh`` pixels; none when it has no label file, as YOLO's layout means it.

    Raises:
        CalibrationError: the label file is damaged.
    """
    path = label_path(image)
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()] if path.is_file() else []
    try:
        rows = np.array([[float(value) for value in line[:5]] for line in lines], np.float32).reshape(-1, 5)
    except ValueError as error:
        raise CalibrationError(f"{path} is not a YOLO label file: {error}.", "Lines are: class x y w h.") from error
    scale = np.array(size_wh, np.float32)
    center, half = rows[:, 1:3] * scale, rows[:, 3:5] * scale / 2
    return Truth(xyxy=np.concatenate([center - half, center + half], axis=1), class_id=rows[:, 0].astype(np.int64))


def judged(model: Model, images: Sequence[Path], progress: Progress = silent) -> list[tuple[Truth, Detections]]:
    """Labels and detections of each picture, under COCO's protocol.

    Raises:
        ConfigError: the model is no detector.
    """
    pairs = []
    for done in range(0, len(images), model.batch):
        progress(f"Evaluating {model.name}", done, len(images))
        paths = images[done : done + model.batch]
        pictures = [read_image(path) for path in paths]
        answers = model.many(
            pictures, confidence=_CONFIDENCE, iou=_IOU, max_detections=_MAX_DETECTIONS, multi_label=True
        )
        for path, picture, found in zip(paths, pictures, answers, strict=True):
            if not isinstance(found, Detections):
                raise ConfigError(f"{model.name} is a '{model.task}' model; labelled boxes judge detectors only.")
            pairs.append((read_truth(path, (picture.shape[1], picture.shape[0])), found))
    progress(f"Evaluating {model.name}", len(images), len(images))
    return pairs


def evaluate(model: Model, images: Sequence[Path], progress: Progress = silent) -> MeanAveragePrecision:
    """COCO mean average precision of a detector on labelled pictures."""
    return coco_map(judged(model, images, progress), len(model.labels))

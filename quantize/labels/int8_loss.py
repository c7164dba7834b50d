"""Measures what INT8 loses against labelled images (``--data``)."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgecv._internal.progress import Progress, silent
from edgecv._internal.yaml_files import class_names
from edgecv.errors import CalibrationError, ConfigError
from edgecv.media.image_files import images_below, in_natural_order
from edgecv.model import Model
from edgecv.quantize.labels.bootstrap import paired_interval
from edgecv.quantize.labels.coco import Truth, match_boxes, match_masks, pycocotools
from edgecv.quantize.labels.dataset import dataset_places, is_dataset, read_dataset
from edgecv.quantize.labels.evaluate import (
    classified,
    description_of,
    judged,
    judged_with_masks,
    label_path,
    labelled_images,
    read_labels,
)
from edgecv.quantize.labels.scores import ClassifierScores, DetectorScores, Scores
from edgecv.quantize.record import Check, ClassLoss, Labelled
from edgecv.results import Classification
from edgecv.vision.class_names import label_of

_PARTS = ("val", "test", "train")  # of a folder of class folders: the first of them that exists is judged by
_NOT_FOUND = 1 << 30  # rank of a class that is not among the answers
_NAMES_SHOWN = 8
_MASK_METRIC = "mask_map50_95"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledBoxes:
    """Images with labelled boxes; ``truth`` of each, in parts of the image and in the model's classes."""

    images: tuple[Path, ...]
    truth: tuple[Truth, ...]

    def score(self, model: Model, progress: Progress = silent) -> Scores:
        """Run a detector on them.

        Raises:
            ConfigError: the model is no detector.
            MissingDependency: pycocotools is not installed.
        """
        known = max(
            [len(model.labels), *(int(found.class_id.max()) + 1 for found in self.truth if len(found.class_id))]
        )
        if model.task != "segment" or any(found.outline is None for found in self.truth):
            pairs = judged(model, self.images, progress, self.truth)
            return DetectorScores(pairs=tuple(pairs), matches=match_boxes(pairs, known))
        pairs, masks = judged_with_masks(model, self.images, progress, self.truth)
        return DetectorScores(
            pairs=tuple(pairs), matches=match_boxes(pairs, known), mask_matches=match_masks(pairs, masks, known)
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledClasses:
    """Images of one class each; ``truth`` holds the model's number of each."""

    images: tuple[Path, ...]
    truth: tuple[int, ...]

    def score(self, model: Model, progress: Progress = silent) -> Scores:
        """Run a classifier on them.

        Raises:
            ConfigError: the model is no classifier.
        """
        answers = classified(model, self.images, progress)
        ranks = [_rank(answer, wanted) for answer, wanted in zip(answers, self.truth, strict=True)]
        classes = max(len(model.labels), max(self.truth) + 1)
        return ClassifierScores(class_id=np.array(self.truth), rank=np.array(ranks), classes=classes)


LabelledSet = LabelledBoxes | LabelledClasses


def open_labelled(data: str | Path, task: str, labels: Sequence[str]) -> LabelledSet:
    """Open what ``--data`` names, and check that its labels fit the model.

    For a model that finds boxes that is a ``data.yaml`` (its ``val`` part, else ``train``) or a folder with ``images/`` and
    ``labels/``. Where the file has ``names``, its classes are the model's of these names, else those of the same number.

    For a classifier it is a folder with one folder per class (in ``val/``, ``test/`` or ``train/`` where there is one of these),
    named or numbered as the model's labels (where it has none: one for each class, in their order), or a ``data.yaml`` that
    leads to such folders.

    Raises:
        ConfigError: there are no labels, they are damaged, or they do not fit the model.
        MissingDependency: boxes are judged by pycocotools, and it is not installed.
    """
    if task == "promptable-segment":
        raise ConfigError(
            "Labels judge detectors and classifiers; a model that answers prompts has no classes.",
            "Leave --data out: the gate compares its masks with those of the float model.",
        )
    try:
        return _open_classes(Path(data), labels) if task == "classify" else _open_boxes(Path(data), task, labels)
    except CalibrationError as error:  # a data.yaml that cannot be read: here it is an argument that is wrong
        raise ConfigError(error.message, error.hint) from error


def compare_scores(floats: Scores, int8s: Scores, labels: Sequence[str], resamples: int | None = None) -> Labelled:
    """The loss from float to INT8 on the same images, with its paired 95 % bootstrap interval.

    Raises:
        ConfigError: the scores are not of the same images and the same kind.
    """
    if (floats.metric, floats.images) != (int8s.metric, int8s.images):
        raise ConfigError(
            f"{floats.metric} of {floats.images} images cannot be compared with {int8s.metric} of {int8s.images}.",
            "Score both models on the same labelled set.",
        )
    before, after = floats.figures(), int8s.figures()
    interval = paired_interval(floats.of_draws, int8s.of_draws, floats.images, resamples or floats.resamples)
    metric = floats.metric
    return Labelled(
        metric=metric,
        images=floats.images,
        float_score=before[metric],
        int8_score=after[metric],
        drop=100 * (before[metric] - after[metric]),
        low=100 * interval.low,
        high=100 * interval.high,
        more=_more(before, "float", metric) | _more(after, "int8", metric),
        classes=_class_losses(floats, int8s, tuple(labels)),
    )


def labelled_check(labelled: Labelled, max_drop: float) -> Check:
    """Hold the loss on these images against ``max_drop`` points; its interval decides nothing.

    Where masks were judged as well, the greater of the two losses decides.
    """
    metric, drop = max(
        (labelled.metric, labelled.drop), (_MASK_METRIC, _mask_drop(labelled)), key=lambda figure: figure[1]
    )
    return Check.of(f"{metric}_drop", drop, least=-100.0, most=max_drop)


def _mask_drop(labelled: Labelled) -> float:
    """Loss of the masks in points; minus infinity where there are none."""
    before, after = (labelled.more.get(f"{kind}_{_MASK_METRIC}") for kind in ("float", "int8"))
    return float("-inf") if before is None or after is None else 100 * (before - after)


def _more(figures: dict[str, float], kind: str, metric: str) -> dict[str, float]:
    return {f"{kind}_{name}": value for name, value in figures.items() if name != metric}


def _class_losses(floats: Scores, int8s: Scores, labels: tuple[str, ...]) -> tuple[ClassLoss, ...]:
    before, after, counts = floats.by_class(), int8s.by_class(), floats.labels_by_class()
    losses = [
        ClassLoss(
            label=label_of(labels, int(class_id)),
            float_score=float(before[class_id]),
            int8_score=float(after[class_id]),
            count=int(counts[class_id]),
        )
        for class_id in np.flatnonzero(counts)
    ]
    return tuple(sorted(losses, key=lambda loss: loss.int8_score - loss.float_score))


def _rank(answer: Classification, wanted: int) -> int:
    places = np.flatnonzero(answer.class_id == wanted)
    return int(places[0]) if len(places) else _NOT_FOUND


def _open_boxes(data: Path, task: str, labels: Sequence[str]) -> LabelledBoxes:
    images = tuple(labelled_images(data))
    classes = _classes_by_name(data, labels)
    truth = tuple(_in_classes(read_labels(image, task), classes, image, labels) for image in images)
    if not any(len(found.class_id) for found in truth):
        raise ConfigError(f"The labels of {data} show no object.", "Give images with labelled objects.")
    pycocotools("coco")  # asked for here, since running the model on the images takes minutes
    return LabelledBoxes(images=images, truth=truth)


def _in_classes(truth: Truth, classes: dict[int, int] | None, image: Path, labels: Sequence[str]) -> Truth:
    """The labels of an image with the model's numbers of the classes."""
    given = [int(class_id) for class_id in truth.class_id]
    found = given if classes is None else [classes.get(class_id, -1) for class_id in given]
    for before, after in zip(given, found, strict=True):
        if not 0 <= after < (len(labels) or after + 1):
            raise ConfigError(
                f"{label_path(image)} has class {before}, which the model does not know: it has {_shown(labels)}.",
                "Give data that is labelled with the model's classes, or a data.yaml whose names are the model's.",
            )
    return replace(truth, class_id=np.array(found, np.int64))


def _classes_by_name(data: Path, labels: Sequence[str]) -> dict[int, int] | None:
    """Number in a ``data.yaml`` to number in the model, by name; ``None`` where it names nothing. Unknown names are left out."""
    data = description_of(data)
    if not is_dataset(data):
        return None
    names = read_dataset(data).get("names")
    if not names:
        return None
    try:
        return class_numbers(class_names(names), labels)
    except ValueError as error:
        raise ConfigError(f"{data}: {error}.", "Names are a list, or numbered: 0: person") from error


def class_numbers(names: Mapping[int, str], labels: Sequence[str]) -> dict[int, int]:
    """Numbers of named classes to the model's numbers, by name; those that the model does not know are left out.

    A name means the same number where that has the name, else the one class of that name, else the one whose name differs in
    case alone: ``A`` and ``a`` are two classes where either side has both.

    Raises:
        ValueError: the model has several classes of the name.
    """
    found = {}
    for number, name in names.items():
        equal = [at for at, label in enumerate(labels) if label == name]
        alike = [at for at, label in enumerate(labels) if _loosely(label) == _loosely(name)]
        is_one = sum(_loosely(other) == _loosely(name) for other in names.values()) == 1
        places = [number] if number in equal else equal or (alike if is_one else [])
        if len(places) > 1:
            raise ValueError(f"the model has {len(places)} classes named '{name}', and none of them is number {number}")
        if places:
            found[number] = places[0]
    return found


def _loosely(name: str) -> str:
    """A name without what tells no classes apart: case, and how an accent is written."""
    return unicodedata.normalize("NFC", name).casefold()


def _open_classes(data: Path, labels: Sequence[str]) -> LabelledClasses:
    folders = [folder for root in _class_roots(data) for folder in _class_folders(root)]
    if not folders:
        raise ConfigError(
            f"{data} holds no folders of classes.",
            "Give a folder with one folder of images per class, named as the model's labels.",
        )
    known = _in_order(folders, labels)
    names = sorted({folder.name for folder in folders})
    pairs = [(image, _class_of(folder, known, names)) for folder in folders for image in images_below(folder)]
    return LabelledClasses(images=tuple(image for image, _ in pairs), truth=tuple(number for _, number in pairs))


def _in_order(folders: Sequence[Path], labels: Sequence[str]) -> Sequence[str]:
    """The model's labels; where it only has numbers and there is a folder for each, their names in order, as ImageFolder has it."""
    names = sorted({folder.name for folder in folders})
    numbered = list(labels) == [str(number) for number in range(len(labels))]
    return names if numbered and len(names) == len(labels) and not set(names) <= set(labels) else labels


def _class_roots(data: Path) -> list[Path]:
    """Where the class folders stand."""
    if is_dataset(data):
        return dataset_places(data, "val", "train")
    return [next((data / part for part in _PARTS if _class_folders(data / part)), data)]


def _class_folders(root: Path) -> list[Path]:
    """Folders that hold images, by name."""
    inside = root.iterdir() if root.is_dir() else ()
    folders = in_natural_order(path for path in inside if path.is_dir() and not path.name.startswith("."))
    return [folder for folder in folders if images_below(folder)]


def _class_of(folder: Path, labels: Sequence[str], folders: Sequence[str] = ()) -> int:
    """The model's number of the class that a folder is named after: its name, or the number itself.

    Raises:
        ConfigError: the model has no such class, or several.
    """
    number = int(folder.name) if folder.name.isdecimal() else -1
    names = {-2 - at: name for at, name in enumerate(folders) if name != folder.name} | {number: folder.name}
    try:
        number = class_numbers(names, labels).get(number, number)
    except ValueError as error:
        raise ConfigError(f"{folder}: {error}.", "Name the folders by the numbers of the classes.") from error
    if not 0 <= number < (len(labels) or number + 1):
        raise ConfigError(
            f"The folder {folder} is no class of the model, which has {_shown(labels)}.",
            "Name the folders as the model's labels, or by their numbers from 0 on; or convert with --labels.",
        )
    return number


def _shown(labels: Sequence[str]) -> str:
    names = ", ".join(labels[:_NAMES_SHOWN])
    more = " ..." if len(labels) > _NAMES_SHOWN else ""
    return f"{len(labels)} labels ({names}{more})" if labels else "no labels"

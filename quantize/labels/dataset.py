"""``data.yaml`` and lists of images, as Ultralytics, Roboflow, CVAT and Label Studio write them and Ultralytics reads them.

Source: ``check_det_dataset`` and ``BaseDataset.get_img_files`` in ultralytics 8.4 (``data/utils.py``, ``data/base.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgecv._internal.bounded import plain_text, read_bounded, read_plain_text
from edgecv._internal.yaml_files import parse_yaml
from edgecv.errors import CalibrationError
from edgecv.media.image_files import IMAGE_SUFFIXES, images_below

YAML_SUFFIXES = frozenset({".yaml", ".yml"})
LIST_SUFFIX = ".txt"
_MOST_LIST_BYTES, _MOST_IMAGES = 64 << 20, 1_000_000  # COCO trains with 118,000


def is_dataset(path: Path) -> bool:
    """Whether a path names a ``data.yaml``."""
    return path.suffix.lower() in YAML_SUFFIXES


def read_dataset(yaml_path: Path) -> Mapping[str, Any]:
    """A ``data.yaml`` as a mapping.

    Raises:
        CalibrationError: the file is missing or does not hold a mapping.
    """
    try:
        return parse_yaml(_dataset_text(yaml_path), "convert")
    except (OSError, ValueError) as error:
        raise CalibrationError(
            f"{yaml_path} cannot be read: {error}.", "It must be a data.yaml in YOLO form."
        ) from error


def dataset_places(yaml_path: Path, *parts: str) -> list[Path]:
    """Folders and lists of the first of some parts (``train``, ``val``) that a ``data.yaml`` names; empty when it names none.

    Paths are relative to ``path:``, and that to the folder of the file, or to the current one. ``../train/images`` is looked for
    beside the file as well, since Roboflow writes it so.

    Raises:
        CalibrationError: the file cannot be read, or a place is missing.
    """
    content = read_dataset(yaml_path)
    for part in parts:
        given = content.get(part) or (content.get("validation") if part == "val" else None) or []
        if given:
            roots = _roots(yaml_path, content.get("path"))
            names = given if isinstance(given, list) else [given]
            return [_found(str(name), roots, yaml_path, part) for name in names]
    return []


def images_at(place: Path, roots: Iterable[Path] = ()) -> list[Path]:
    """Images of a folder, or of a text file that lists them, relative to its folder or one of ``roots``; or the one image itself.

    Raises:
        CalibrationError: there is no such place, or the list names an image that is not there.
    """
    if place.is_dir():
        return images_below(place)
    if place.suffix.lower() in IMAGE_SUFFIXES and place.is_file():
        return [place]
    if place.suffix.lower() != LIST_SUFFIX or not place.is_file():
        raise CalibrationError(
            f"{place} is not a folder of images, nor a list of them.",
            "Give a folder of images, a data.yaml with 'train' or 'val', a .txt with a path per line, or a video.",
        )
    return _listed(place, [place.parent, *roots, Path()])


def _listed(place: Path, roots: list[Path]) -> list[Path]:
    try:
        lines = [line.strip() for line in read_plain_text(place, _MOST_LIST_BYTES).splitlines()]
    except (OSError, ValueError) as error:
        raise CalibrationError(f"{place} cannot be read: {error}.", "It must list images, one per line.") from error
    names = [line for line in lines if line]
    if len(names) > _MOST_IMAGES:
        raise CalibrationError(f"{place} lists more than {_MOST_IMAGES} images.", "Take a part of them.")
    images = [next(_existing(name, roots), None) for name in names]
    missing = [name for name, image in zip(names, images, strict=True) if image is None]
    if missing:
        raise CalibrationError(
            f"{place} lists {missing[0]}, which does not exist; {len(missing)} of {len(names)} are missing.",
            "Paths in the list are relative to its folder.",
        )
    return [image for image in images if image is not None]


def _roots(yaml_path: Path, said: object) -> list[Path]:
    """Where paths of a ``data.yaml`` may be relative to, the likeliest first."""
    here = yaml_path.parent
    if not said:
        return [here]
    spelt = _spellings(str(said))
    return [*(here / name for name in spelt), *(Path(name) for name in spelt), here]


def _found(name: str, roots: list[Path], yaml_path: Path, part: str) -> Path:
    place = next(_existing(name, roots), None)
    if place is None:
        looked = " and ".join(dict.fromkeys(str(root) for root in roots))
        raise CalibrationError(
            f"{yaml_path}: {part} {name} does not exist; looked for in {looked}.",
            "Correct 'path' or the part in the file.",
        )
    return place


def _existing(name: str, roots: list[Path]) -> Iterator[Path]:
    """Where a path of a data set is, whoever wrote it."""
    for root in roots:
        for spelt in _spellings(name):
            if (root / spelt).exists():
                yield root / spelt
        short = _spellings(name)[-1]
        # Roboflow's ../train/images stands beside the file; CVAT writes data/images/train for images/train.
        for before in ("../", "data/"):
            if short.startswith(before) and (root / short.removeprefix(before)).exists():
                yield root / short.removeprefix(before)


def _spellings(name: str) -> list[str]:
    """A path as it stands, and with the separators of Windows replaced."""
    return list(dict.fromkeys((name, name.replace("\\", "/"))))


def _dataset_text(path: Path) -> str:
    """Text of a ``data.yaml``. Bytes that are no UTF-8 are left out, as Ultralytics does: names in its models lack them, too."""
    data = read_bounded(path)
    try:
        return plain_text(data)
    except ValueError:
        return data.decode("utf-8", "ignore")

"""The calibration set: which pictures INT8 ranges come from, and which judge the outcome."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecv.errors import CalibrationError, SourceError
from edgecv.extras import require
from edgecv.media import read_image
from edgecv.progress import Progress, silent
from edgecv.uris import IMAGE_SUFFIXES

MINIMUM_IMAGES = 16  # fewer different pictures give ranges that the next picture leaves
HELD_OUT_FRACTION = 0.25  # part that calibration never sees and the gate judges by


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSet:
    """Pictures, split by the hash of their content, so that a copy under another name cannot be on both sides.

    Attributes:
        calibrate: Pictures that ranges are measured on.
        held_out: Pictures that only the gate sees.
        sha256: Hash over the hashes of all pictures, in order.
    """

    calibrate: tuple[Path, ...]
    held_out: tuple[Path, ...]
    sha256: str

    def __len__(self) -> int:
        return len(self.calibrate) + len(self.held_out)


def open_calibration(source: str | Path, progress: Progress = silent) -> CalibrationSet:
    """Find, check and split the pictures of a folder or of a ``data.yaml``.

    Raises:
        CalibrationError: the place is missing, a picture is unreadable, or too few differ from each other.
    """
    paths = _image_paths(Path(source))
    by_content: dict[str, Path] = {}
    for done, path in enumerate(paths):
        progress("Checking calibration images", done, len(paths))
        by_content.setdefault(_content_hash(path), path)
    progress("Checking calibration images", len(paths), len(paths))
    if len(by_content) < MINIMUM_IMAGES:
        alike = f" ({len(paths)} files, the rest are copies)" if len(paths) > len(by_content) else ""
        raise CalibrationError(
            f"{source} holds {len(by_content)} different images{alike}; at least {MINIMUM_IMAGES} are needed.",
            "Give 100 to 300 images that look like what the camera will see.",
        )
    hashes = sorted(by_content)
    cut = max(1, round(len(hashes) * HELD_OUT_FRACTION))
    return CalibrationSet(
        calibrate=tuple(by_content[key] for key in hashes[cut:]),
        held_out=tuple(by_content[key] for key in hashes[:cut]),
        sha256=hashlib.sha256("".join(hashes).encode()).hexdigest(),
    )


def _image_paths(source: Path) -> list[Path]:
    folders = [source]
    if source.suffix in (".yaml", ".yml"):
        folders = dataset_folders(source, "train") or dataset_folders(source, "val")
    missing = [folder for folder in folders if not folder.is_dir()]
    if missing or not folders:
        raise CalibrationError(
            f"{missing[0] if missing else source} is not a folder of images.",
            "Give --calib a folder of images or a data.yaml with 'train' or 'val'.",
        )
    paths = [path for folder in folders for path in images_below(folder)]
    if not paths:
        raise CalibrationError(f"{source} holds no images.", f"Read are: {', '.join(sorted(IMAGE_SUFFIXES))}.")
    return paths


def images_below(folder: Path) -> list[Path]:
    """Every picture in a folder and the folders in it (``images/``, one per class ...), sorted by path."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def dataset_folders(yaml_path: Path, part: str) -> list[Path]:
    """Image folders of one part (``train``, ``val``) of a ``data.yaml`` in YOLO form; empty when it has none.

    Raises:
        CalibrationError: the file is missing or is not such a file.
    """
    content = read_dataset(yaml_path)
    given = content.get(part) or []
    root = yaml_path.parent / str(content.get("path") or "")
    return [root / str(folder) for folder in (given if isinstance(given, list) else [given])]


def read_dataset(yaml_path: Path) -> Mapping[str, Any]:
    """A ``data.yaml`` as a mapping.

    Raises:
        CalibrationError: the file is missing or does not hold a mapping.
    """
    yaml = require("yaml", "convert")
    try:
        content = yaml.safe_load(yaml_path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CalibrationError(
            f"{yaml_path} cannot be read: {error}.", "It must be a data.yaml in YOLO form."
        ) from error
    if not isinstance(content, dict):
        raise CalibrationError(f"{yaml_path} is not a mapping.", "It must be a data.yaml in YOLO form.")
    return content


def _content_hash(path: Path) -> str:
    """Hash of the decoded pixels: the same picture saved again under other metadata is still the same picture."""
    try:
        image = read_image(path)
    except SourceError as error:
        raise CalibrationError(f"{error.message}", "Remove or replace the file, then run again.") from error
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()

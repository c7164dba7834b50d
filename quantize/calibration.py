"""The calibration set: which pictures INT8 ranges come from, and which judge the outcome."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecv.bounded import read_bounded_text
from edgecv.errors import CalibrationError
from edgecv.extras import require
from edgecv.progress import Progress, silent
from edgecv.quantize.calibration_checks import (
    Fingerprint,
    copies,
    describe,
    fingerprint,
    looks_like_any,
    near_groups,
    set_warnings,
)
from edgecv.quantize.video_frames import (
    ARRAY_SUFFIX,
    FRAMES,
    VIDEO_SUFFIXES,
    FrameFolder,
    array_frames,
    spread,
    video_frames,
)
from edgecv.uris import IMAGE_SUFFIXES

MINIMUM_IMAGES = 16  # fewer different pictures give ranges that the next picture leaves
HELD_OUT_FRACTION = 0.25  # part that calibration never sees and the gate judges by
_FRAMES_PER_STRETCH, _MOST_STRETCHES = 50, 8  # of a recording: one stretch of it is held out for so many frames
_EXAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSet:
    """Pictures, split so that copies and near-duplicates stand on one side.

    Photographs are split by the hash of their content, frames of a recording by stretches of time.

    Attributes:
        calibrate: Pictures that ranges are measured on.
        held_out: Pictures that only the gate sees.
        sha256: Hash over the hashes of all pictures, in order.
        source: What was opened.
        warnings: What is unusual about them, in words.
        facts: Figures behind the warnings by name, see ``describe``.
        fingerprints: Of every picture on either side.
        frames: The folder of decoded frames, which lives as long as this value; ``None`` for picture files.
    """

    calibrate: tuple[Path, ...]
    held_out: tuple[Path, ...]
    sha256: str
    source: str = ""
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict, hash=False)
    fingerprints: tuple[Fingerprint, ...] = field(default=(), repr=False)
    frames: FrameFolder | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.calibrate) + len(self.held_out)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gathered:
    """Picture files; ``timed`` when they are frames in order of time."""

    paths: Sequence[Path]
    timed: bool = False
    frames: FrameFolder | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Split:
    calibrate: Sequence[Fingerprint]
    held_out: Sequence[Fingerprint]
    warnings: tuple[str, ...] = ()


def open_calibration(
    source: str | Path, progress: Progress = silent, *, seed: int = 0, frames: int = FRAMES
) -> CalibrationSet:
    """Find, check and split the pictures of a folder, a ``data.yaml``, a video or a recording.

    A recording is a folder of ``edgecv record``, or one that holds ``.npy`` files: its frames are ``(H, W, 3)`` uint8 BGR
    arrays (pictures may stand among them), in order of their paths.

    Args:
        source: Where the pictures are.
        progress: Called as pictures are read.
        seed: Another seed splits otherwise; the same one splits the same pictures alike.
        frames: How many frames to take of a video or recording, spread evenly over its time.

    Raises:
        CalibrationError: the place is missing, a picture is unreadable, or too few differ from each other.
    """
    gathered = _gather(Path(source), frames, progress)
    by_content: dict[str, Fingerprint] = {}
    for done, path in enumerate(gathered.paths):
        progress("Checking calibration images", done, len(gathered.paths))
        found = fingerprint(path)
        by_content.setdefault(found.content, found)
    progress("Checking calibration images", len(gathered.paths), len(gathered.paths))
    prints = list(by_content.values())
    facts = _checked(source, prints, len(gathered.paths))
    split = _by_stretches(prints, seed) if gathered.timed else _by_content(prints, seed)
    used = sorted([*split.calibrate, *split.held_out], key=_by_hash)
    return CalibrationSet(
        calibrate=tuple(each.path for each in split.calibrate),
        held_out=tuple(each.path for each in split.held_out),
        sha256=hashlib.sha256("".join(each.content for each in used).encode()).hexdigest(),
        source=str(source),
        warnings=(*set_warnings(facts, len(prints)), *split.warnings),
        facts={**facts, "unused": float(len(prints) - len(used))},
        fingerprints=tuple(used),
        frames=gathered.frames,
    )


def check_overlap(calibration: CalibrationSet, evaluation: Iterable[Path], progress: Progress = silent) -> None:
    """Refuse to judge by pictures that calibration has seen: such figures flatter.

    Copies are found when they were saved again or resized (96 % of 128 COCO photographs at half size or JPEG quality 30), not
    when they were cropped (3 %); none of the pairs of different photographs is taken for a copy (measured, also on CIFAR-10).

    Raises:
        CalibrationError: an evaluation picture is in the calibration set, or so like one of it that it is a copy.
    """
    paths = list(evaluation)
    prints = []
    for done, path in enumerate(paths):
        progress("Comparing with the evaluation images", done, len(paths))
        prints.append(fingerprint(path))
    progress("Comparing with the evaluation images", len(paths), len(paths))
    found = copies(calibration.fingerprints, prints)
    if found:
        shown = ", ".join(f"{ours.name} = {theirs.name}" for ours, theirs in found[:_EXAMPLES])
        raise CalibrationError(
            f"{len(found)} of {len(paths)} evaluation images are in the calibration set too: {shown}"
            f"{' ...' if len(found) > _EXAMPLES else ''}.",
            "Judge by images that calibration has not seen: take them out of one of the two.",
        )


def _checked(source: str | Path, prints: Sequence[Fingerprint], files: int) -> dict[str, float]:
    """Facts of the set, once there is enough in it."""
    if len(prints) < MINIMUM_IMAGES:
        alike = f" ({files} files, the rest are copies)" if files > len(prints) else ""
        raise CalibrationError(
            f"{source} holds {len(prints)} different images{alike}; at least {MINIMUM_IMAGES} are needed.",
            "Give 100 to 300 images that look like what the camera will see.",
        )
    facts = describe(prints)
    if facts["distinct"] < MINIMUM_IMAGES:
        raise CalibrationError(
            f"{source} holds {len(prints)} images, but only {facts['distinct']:.0f} that differ visibly; "
            f"at least {MINIMUM_IMAGES} are needed.",
            "Give 100 to 300 images of different scenes, or a longer video in which something moves.",
        )
    return facts


def _by_hash(picture: Fingerprint) -> str:
    return picture.content


def _by_content(prints: Sequence[Fingerprint], seed: int) -> _Split:
    """Hold out whole groups of near-duplicates in the order of their hashes, until a quarter is out.

    Where one group is so large that this fails, the pictures are frames of one place, and time must split them.
    """
    ordered = sorted(prints, key=_by_hash)
    if seed:
        ordered.sort(key=lambda each: hashlib.sha256(f"{seed}:{each.content}".encode()).digest())
    groups: dict[int, list[Fingerprint]] = {}
    for picture, group in zip(ordered, near_groups(ordered), strict=True):
        groups.setdefault(int(group), []).append(picture)
    cut = max(1, round(len(ordered) * HELD_OUT_FRACTION))
    out: set[str] = set()
    for members in groups.values():
        if len(out) + len(members) <= cut:
            out |= {each.content for each in members}
    if len(out) < cut / 2:
        split = _by_stretches(prints, seed)
        said = "Most pictures look like frames of one camera: they were split by stretches in the order of their names."
        return _Split(calibrate=split.calibrate, held_out=split.held_out, warnings=(said, *split.warnings))
    return _Split(
        calibrate=[each for each in ordered if each.content not in out],
        held_out=[each for each in ordered if each.content in out],
    )


def _by_stretches(prints: Sequence[Fingerprint], seed: int) -> _Split:
    """Hold out whole stretches of time. A frame beside one is used by nobody, nor one that looks like a held-out one.

    Where the camera stands still the latter would leave too little; then a warning says what the gate cannot see.
    """
    stretches = _stretches(len(prints), seed)
    held_out = [prints[at] for stretch in stretches for at in stretch]
    touched = {at for stretch in stretches for at in range(stretch.start - 1, stretch.stop + 1)}
    rest = [each for at, each in enumerate(prints) if at not in touched]
    alike = looks_like_any(rest, held_out)
    clear = [each for each, near in zip(rest, alike, strict=True) if not near]
    still = len(clear) < len(rest) / 2
    warning = (
        f"{alike.mean():.0%} of the calibration frames look almost like a held-out one: the camera stands still. The gate then "
        "judges INT8 on scenes it was fitted to; a second place or another day would prove more."
    )
    return _Split(
        calibrate=sorted(rest if still else clear, key=_by_hash),
        held_out=sorted(held_out, key=_by_hash),
        warnings=(warning,) if still else (),
    )


def _stretches(count: int, seed: int) -> list[range]:
    """Held-out stretches, one in each equal part of the time: in its middle, or where another seed puts it."""
    parts = min(_MOST_STRETCHES, max(1, count // _FRAMES_PER_STRETCH))
    length = max(1, round(count * HELD_OUT_FRACTION / parts))
    place = random.Random(seed).random() if seed else 0.5
    starts = [round(part * count / parts + place * (count / parts - length)) for part in range(parts)]
    return [range(start, min(count, start + length)) for start in starts]


def _gather(source: Path, frames: int, progress: Progress) -> _Gathered:
    if source.suffix.lower() in VIDEO_SUFFIXES and not source.is_dir():
        found = video_frames(source, frames, progress)
        return _Gathered(paths=found.paths, timed=True, frames=found)
    if (source / "recording.json").is_file():  # of `edgecv record`
        return _recording(images_below(source), frames)
    folders = _folders(source)
    recorded = sorted(path for folder in folders for path in folder.rglob(f"*{ARRAY_SUFFIX}") if path.is_file())
    if recorded:
        return _recording(sorted([*recorded, *(path for folder in folders for path in images_below(folder))]), frames)
    paths = [path for folder in folders for path in images_below(folder)]
    if not paths:
        raise CalibrationError(f"{source} holds no images.", f"Read are: {', '.join(sorted(IMAGE_SUFFIXES))} and .npy.")
    return _Gathered(paths=paths)


def _recording(paths: Sequence[Path], frames: int) -> _Gathered:
    chosen = [paths[at] for at in spread(len(paths), frames)]
    arrays = [path for path in chosen if path.suffix == ARRAY_SUFFIX]
    kept = array_frames(arrays)
    pictures = dict(zip(arrays, kept.paths, strict=True))
    return _Gathered(paths=[pictures.get(path, path) for path in chosen], timed=True, frames=kept)


def _folders(source: Path) -> list[Path]:
    folders = [source]
    if source.suffix in (".yaml", ".yml"):
        folders = dataset_folders(source, "train") or dataset_folders(source, "val")
    missing = [folder for folder in folders if not folder.is_dir()]
    if missing or not folders:
        raise CalibrationError(
            f"{missing[0] if missing else source} is not a folder of images.",
            "Give --calib a folder of images, a data.yaml with 'train' or 'val', or a video.",
        )
    return folders


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


_MOST_NESTED = 50


def _without_aliases(yaml: Any, text: str) -> Any:
    """A YAML document. Aliases are refused: a few lines of them unfold to gigabytes, and no data.yaml needs one.

    So is deep nesting: the reader looks at every open bracket again for each token.
    """
    depth = 0
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        depth += isinstance(token, (yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken))
        depth -= isinstance(token, (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken))
        if depth > _MOST_NESTED:
            raise yaml.YAMLError(f"it is nested more than {_MOST_NESTED} deep")
        if isinstance(token, yaml.AliasToken):
            raise yaml.YAMLError("it has an alias (*name), which is not read")
    return yaml.safe_load(text)


def read_dataset(yaml_path: Path) -> Mapping[str, Any]:
    """A ``data.yaml`` as a mapping.

    Raises:
        CalibrationError: the file is missing or does not hold a mapping.
    """
    yaml = require("yaml", "convert")
    try:
        content = _without_aliases(yaml, read_bounded_text(yaml_path))
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise CalibrationError(
            f"{yaml_path} cannot be read: {error}.", "It must be a data.yaml in YOLO form."
        ) from error
    if not isinstance(content, dict):
        raise CalibrationError(f"{yaml_path} is not a mapping.", "It must be a data.yaml in YOLO form.")
    return content

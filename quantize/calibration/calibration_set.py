"""The calibration set: which images INT8 ranges come from, and which judge the outcome."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgecv._internal.progress import Progress, silent
from edgecv.errors import CalibrationError
from edgecv.media.image_files import IMAGE_SUFFIXES, files_below, images_below, in_natural_order, unread_in
from edgecv.quantize.calibration.checks import (
    Fingerprint,
    copies,
    describe,
    fingerprint,
    looks_like_any,
    near_groups,
    set_warnings,
)
from edgecv.quantize.calibration.video import (
    ARRAY_SUFFIX,
    FRAMES,
    VIDEO_SUFFIXES,
    FrameFolder,
    array_frames,
    spread,
    video_frames,
)
from edgecv.quantize.labels.dataset import dataset_places, images_at, is_dataset

MINIMUM_IMAGES = 16  # fewer different images give ranges that the next image leaves
HELD_OUT_FRACTION = 0.25  # part that calibration never sees and the gate judges by
MOST_HELD_OUT = 0.5  # where the images show so few objects that a quarter proves nothing
_FRAMES_PER_STRETCH, _MOST_STRETCHES = 50, 8  # of a recording: one stretch of it is held out for so many frames
_EXAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSet:
    """Images, split so that copies and near-duplicates stand on one side.

    Photographs are split by the hash of their content, frames of a recording by stretches of time.
    """

    calibrate: tuple[Path, ...]  # images that ranges are measured on
    held_out: tuple[Path, ...]  # images that only the gate sees
    sha256: str  # hash over the hashes of all images, in order
    source: str = ""  # what was opened
    warnings: tuple[str, ...] = ()  # what is unusual about them, in words
    # Figures behind the warnings by name, see `describe`
    facts: Mapping[str, float] = field(default_factory=dict, hash=False)
    fingerprints: tuple[Fingerprint, ...] = field(default=(), repr=False)  # of every image on either side
    # The folder of decoded frames, which lives as long as this value; `None` for image files
    frames: FrameFolder | None = field(default=None, repr=False, compare=False)
    # Splits the same images with another part of them held out
    split_at: Callable[[float], CalibrationSet] | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.calibrate) + len(self.held_out)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gathered:
    """Image files; ``timed`` when they are frames in order of time."""

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
    """Find, check and split the images of a folder, a ``data.yaml``, a list of images, a video or a recording.

    Images that cannot be read are left out, and named in ``warnings``. The same ``seed`` splits the same images alike.

    A recording is a folder of ``edgecv record``, or one that holds ``.npy`` files: its frames are ``(H, W, 3)`` uint8 BGR
    arrays (images may stand among them), in order of their paths. Of it, or of a video, ``frames`` are taken, spread evenly over
    its time.

    Raises:
        CalibrationError: the place is missing, or too few images can be read and differ from each other.
    """
    gathered = _gather(Path(source), frames, progress)
    read, unread = _read(gathered.paths, "Checking calibration images", progress)
    by_content: dict[str, Fingerprint] = {}
    for found in read:
        by_content.setdefault(found.content, found)
    prints = list(by_content.values())
    facts = _checked(source, prints, len(read), unread)

    def split_at(fraction: float) -> CalibrationSet:
        split = _by_stretches(prints, seed, fraction) if gathered.timed else _by_content(prints, seed, fraction)
        used = sorted([*split.calibrate, *split.held_out], key=_by_hash)
        return CalibrationSet(
            calibrate=tuple(each.path for each in split.calibrate),
            held_out=tuple(each.path for each in split.held_out),
            sha256=hashlib.sha256("".join(each.content for each in used).encode()).hexdigest(),
            source=str(source),
            warnings=(*_told(unread, len(gathered.paths)), *set_warnings(facts, len(prints)), *split.warnings),
            facts={**facts, "unused": float(len(prints) - len(used))},
            fingerprints=tuple(used),
            frames=gathered.frames,
            split_at=split_at,
        )

    return split_at(HELD_OUT_FRACTION)


def check_overlap(calibration: CalibrationSet, evaluation: Iterable[Path], progress: Progress = silent) -> None:
    """Refuse to judge by images that calibration has seen: such figures flatter.

    Copies are found when they were saved again or resized (96 % of 128 COCO photographs at half size or JPEG quality 30), not
    when they were cropped (3 %); none of the pairs of different photographs is taken for a copy (measured, also on CIFAR-10).

    Raises:
        CalibrationError: an evaluation image is in the calibration set, or so like one of it that it is a copy.
    """
    paths = list(evaluation)
    prints, unread = _read(paths, "Comparing with the evaluation images", progress)
    if unread:
        raise CalibrationError(
            f"{len(unread)} of {len(paths)} evaluation images cannot be read: {_list(unread)}",
            "Remove or replace the files, then run again.",
        )
    found = copies(calibration.fingerprints, prints)
    if found:
        shown = ", ".join(f"{ours.name} = {theirs.name}" for ours, theirs in found[:_EXAMPLES])
        raise CalibrationError(
            f"{len(found)} of {len(paths)} evaluation images are in the calibration set too: {shown}"
            f"{' ...' if len(found) > _EXAMPLES else ''}.",
            "Judge by images that calibration has not seen: take them out of one of the two.",
        )


def _read(paths: Sequence[Path], step: str, progress: Progress) -> tuple[list[Fingerprint], list[CalibrationError]]:
    """Fingerprints of the images that can be read, and what is wrong with the others."""
    read: list[Fingerprint] = []
    unread: list[CalibrationError] = []
    for done, path in enumerate(paths):
        progress(step, done, len(paths))
        try:
            read.append(fingerprint(path))
        except CalibrationError as error:
            unread.append(error)
    progress(step, len(paths), len(paths))
    return read, unread


def _told(unread: Sequence[CalibrationError], files: int) -> tuple[str, ...]:
    return (f"{len(unread)} of {files} images cannot be read and were left out: {_list(unread)}",) if unread else ()


def _list(unread: Sequence[CalibrationError]) -> str:
    return " ".join(error.message for error in unread)


def _checked(
    source: str | Path, prints: Sequence[Fingerprint], files: int, unread: Sequence[CalibrationError]
) -> dict[str, float]:
    """Facts of the set, once there is enough in it."""
    if unread and not prints:
        raise CalibrationError(
            f"None of the {len(unread)} images of {source} can be read: {_list(unread[:_EXAMPLES])}",
            "Give JPEG or PNG files that an image viewer opens.",
        )
    if len(prints) < MINIMUM_IMAGES:
        alike = f" ({files} files, the rest are copies)" if files > len(prints) else ""
        alike += f"; {len(unread)} more cannot be read: {_list(unread[:_EXAMPLES])}" if unread else ""
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


def _by_hash(image: Fingerprint) -> str:
    return image.content


def _by_content(prints: Sequence[Fingerprint], seed: int, fraction: float) -> _Split:
    """Hold out whole groups of near-duplicates in the order of their hashes, until the part is out that shall be.

    Where one group is so large that this fails, the images are frames of one place, and time must split them.
    """
    ordered = sorted(prints, key=_by_hash)
    if seed:
        ordered.sort(key=lambda each: hashlib.sha256(f"{seed}:{each.content}".encode()).digest())
    groups: dict[int, list[Fingerprint]] = {}
    for image, group in zip(ordered, near_groups(ordered), strict=True):
        groups.setdefault(int(group), []).append(image)
    cut = max(1, round(len(ordered) * fraction))
    out: set[str] = set()
    for members in groups.values():
        if len(out) + len(members) <= cut:
            out |= {each.content for each in members}
    if len(out) < cut / 2:
        split = _by_stretches(prints, seed, fraction)
        said = "Most images look like frames of one camera: they were split by stretches in the order of their names."
        return _Split(calibrate=split.calibrate, held_out=split.held_out, warnings=(said, *split.warnings))
    return _Split(
        calibrate=[each for each in ordered if each.content not in out],
        held_out=[each for each in ordered if each.content in out],
    )


def _by_stretches(prints: Sequence[Fingerprint], seed: int, fraction: float) -> _Split:
    """Hold out whole stretches of time. A frame beside one is used by nobody, nor one that looks like a held-out one.

    Where the camera stands still the latter would leave too little; then a warning says what the gate cannot see.
    """
    stretches = _stretches(len(prints), seed, fraction)
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


def _stretches(count: int, seed: int, fraction: float) -> list[range]:
    """Held-out stretches, one in each equal part of the time: in its middle, or where another seed puts it."""
    parts = min(_MOST_STRETCHES, max(1, count // _FRAMES_PER_STRETCH))
    length = max(1, round(count * fraction / parts))
    place = random.Random(seed).random() if seed else 0.5
    starts = [round(part * count / parts + place * (count / parts - length)) for part in range(parts)]
    return [range(start, min(count, start + length)) for start in starts]


def _gather(source: Path, frames: int, progress: Progress) -> _Gathered:
    if source.suffix.lower() in VIDEO_SUFFIXES and not source.is_dir():
        kept = video_frames(source, frames, progress)
        return _Gathered(paths=kept.paths, timed=True, frames=kept)
    if (source / "recording.json").is_file():  # of `edgecv record`
        return _recording(images_below(source), frames)
    places = dataset_places(source, "train", "val") if is_dataset(source) else [source]
    if not places:
        raise CalibrationError(
            f"{source} names no images: it has neither 'train' nor 'val'.", "Add one, or give a folder of images."
        )
    paths = [path for place in places for path in images_at(place, [source.parent])]
    folders = [place for place in places if place.is_dir()]
    recorded = [path for folder in folders for path in files_below(folder) if path.suffix == ARRAY_SUFFIX]
    if recorded:
        return _recording(in_natural_order([*recorded, *paths]), frames)
    if not paths:
        left_out = ", ".join(unread for folder in folders if (unread := unread_in(folder)))
        but = f" that are read, but {left_out}" if left_out else ""
        hint = (
            "Convert them to JPEG or PNG." if left_out else f"Read are: {', '.join(sorted(IMAGE_SUFFIXES))} and .npy."
        )
        raise CalibrationError(f"{source} holds no images{but}.", hint)
    return _Gathered(paths=paths)


def _recording(paths: Sequence[Path], frames: int) -> _Gathered:
    chosen = [paths[at] for at in spread(len(paths), frames)]
    arrays = [path for path in chosen if path.suffix == ARRAY_SUFFIX]
    kept = array_frames(arrays)
    images = dict(zip(arrays, kept.paths, strict=True))
    return _Gathered(paths=[images.get(path, path) for path in chosen], timed=True, frames=kept)

"""What the query of ``clips:`` may say."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated

import msgspec

from edgecv.events import Event

_Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]


class ClipsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the query of ``clips:`` may say.

    Attributes:
        pre_s: How much of the time before an event a clip shows.
        post_s: And how much of the time after it.
        on: Kinds of events, comma-separated, such as ``line.crossed``; ``*`` stands for any text. By default each event of a step,
            but none of a source's health.
        classes: Names of classes, comma-separated: events that name another class, or none, get no clip.
        longest_s: A clip that further events prolong is cut here, and the next event begins another; never less than ``pre_s`` and
            ``post_s`` together.
        originals: Keep what a network camera encoded; 0 makes clips of the frames as they come out of the steps.
        fps: At most so many images a second of what is encoded here: frames, and JPEG images of cameras.
        ring_mb: What may be kept of a source in memory; beyond it the oldest goes, so that clips begin later.
        keep_gb: The oldest clips are deleted when all together are larger.
        keep_hours: Clips that were begun longer ago are deleted; 0 keeps them. A jump of the clock makes none older.
        free_mb: The oldest are deleted too when the disk has less left than this, and none is written while it still has.
    """

    pre_s: _Seconds = 5.0
    post_s: _Seconds = 5.0
    on: str = ""
    classes: str = ""
    longest_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 120.0
    originals: bool = True
    fps: Annotated[float, msgspec.Meta(gt=0, le=120)] = 10.0
    ring_mb: Annotated[float, msgspec.Meta(ge=1, le=4096)] = 32.0
    keep_gb: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    keep_hours: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    free_mb: Annotated[float, msgspec.Meta(ge=0)] = 100.0


class Wanted:
    """Says which events get a clip."""

    def __init__(self, options: ClipsOptions) -> None:
        """As ``on`` and ``classes`` say."""
        self._kinds, self._classes = _names(options.on), _names(options.classes)

    def __call__(self, event: Event) -> bool:
        """Whether this event gets a clip."""
        if self._classes and event.data.get("label") not in self._classes:
            return False
        if not self._kinds:
            return not event.kind.startswith("source.")
        return any(fnmatchcase(event.kind, kind) for kind in self._kinds)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())

"""Which events, and which frames, somebody wants: ``events``, ``detections``, ``all``, or a list of kinds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from edgecv._internal.printable import nearest, printable, short
from edgecv.errors import ConfigError
from edgecv.events import Event

Choice: TypeAlias = str | Sequence[str]
"""What people write: a word of ``WORDS``, kinds with commas between them, or a list of kinds."""

Frames = Literal["none", "found", "all"]

WORDS: tuple[str, ...] = ("events", "detections", "all")
"""``events``: events alone. ``detections``: also frames in which something was found. ``all``: also every other frame."""

VALID = (
    "Use 'events' (events alone), 'detections' (also frames in which something was found), 'all' (every frame), "
    "or kinds of events: line.crossed, zone.*"
)
_PATTERN = frozenset(".*?[")  # a word with none of these is more likely a misspelt word of ours than a kind
_FRAMES: dict[str, Frames] = {"events": "none", "detections": "found", "all": "all"}
_MOST_REMEMBERED = 1000
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class EventChoice:
    """What is wanted.

    Attributes:
        frames: Results of frames: none, those in which something was found, or all.
        kinds: Kinds of events, in which ``*`` stands for any text.
    """

    frames: Frames = "found"
    kinds: tuple[str, ...] = ("*",)
    _known: dict[str, bool] = field(default_factory=dict, compare=False, repr=False)

    def wants(self, event: Event) -> bool:
        """Whether an event is one of these kinds."""
        wanted = self._known.get(event.kind)
        if wanted is None:
            wanted = any(fnmatchcase(event.kind, pattern) for pattern in self.kinds)
            if len(self._known) < _MOST_REMEMBERED:
                self._known[event.kind] = wanted
        return wanted


def read_choice(said: Choice, where: str) -> EventChoice:
    """What people wrote as a choice; ``where`` is what messages call the option, such as ``[mqtt] events``.

    Raises ``ConfigError`` when it is neither a word of ``WORDS`` nor kinds of events.
    """
    if isinstance(said, str) and said.strip() in WORDS:
        return EventChoice(frames=_FRAMES[said.strip()])
    is_text = isinstance(said, str)
    kinds = read_kinds(said, where)
    for kind in kinds:
        if kind in WORDS:
            raise ConfigError(
                f"{where} lists '{kind}', which is no kind of event.", f"Write it alone: '{kind}'. {VALID}"
            )
        if is_text and not _PATTERN & set(kind):
            raise ConfigError(f"{where} = '{printable(kind, _SHOWN)}' is no choice.", f"{nearest(kind, WORDS)}{VALID}")
    return EventChoice(frames="none", kinds=kinds)


def read_kinds(said: Choice, where: str) -> tuple[str, ...]:
    """Kinds of events from a list, or from a text with commas between them; errors as ``read_choice``."""
    parts = said.split(",") if isinstance(said, str) else list(said)
    if not parts or not all(isinstance(part, str) and part.strip() for part in parts):
        raise ConfigError(f"{where} = {short(said)} names no kind of event.", VALID)
    return tuple(part.strip() for part in parts)


def strangers(patterns: Iterable[str], kinds: Sequence[str]) -> list[str]:
    """A sentence for each pattern that fits none of these kinds, with the nearest kind."""
    return [
        f"No step or source gives events of the kind '{printable(pattern, _SHOWN)}'. "
        f"{nearest(pattern, kinds)}There are: {', '.join(kinds)}."
        for pattern in patterns
        if not any(fnmatchcase(kind, pattern) for kind in kinds)
    ]

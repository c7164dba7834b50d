"""What a pipeline is given as its sources, and how the frames of each are treated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from edgecv._internal.printable import short
from edgecv._internal.strict import check_number
from edgecv.errors import ConfigError
from edgecv.pipelines.loop.handover import SlotPolicy
from edgecv.pipelines.sources import SOURCE_HINT, open_source
from edgecv.protocols import Source, lacks
from edgecv.uris import parse_source

Policy = Literal["auto", "lossless", "latest", "every_nth"]
FILE_SCHEMES = frozenset({"file", "images", "recording"})  # sources that wait for us
_NTH = 'For every third frame: policy="every_nth", nth=3 (--policy every_nth --nth 3 on the command line).'
_LEAST_AGE_MS = 0.001
POLICIES: tuple[Policy, ...] = ("auto", "lossless", "latest", "every_nth")


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """Which frames of a source go through the model.

    Attributes:
        policy: ``lossless``: every frame, the source waits. ``latest``: the newest, older ones go. ``every_nth``: one of ``nth``.
            ``auto``: a live source ``latest``, another ``lossless``.
        nth: For ``every_nth``, which then does as ``auto`` with the frames that are left.
        max_age_ms: Frames older than this are dropped before the model; ``None`` for no limit.

    Raises:
        ConfigError: there is no such policy, or a number makes no sense.
    """

    policy: Policy = "auto"
    nth: int = 1
    max_age_ms: float | None = None

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ConfigError(f"There is no policy '{self.policy}'.", f"Known: {', '.join(POLICIES)}.")
        check_number("nth", self.nth, 1, whole=True, hint=_NTH)
        if self.nth > 1 and self.policy != "every_nth":
            raise ConfigError(
                f"nth is {self.nth}, and the policy is '{self.policy}'.",
                _NTH,
            )
        if self.max_age_ms is not None:
            check_number("max_age_ms", self.max_age_ms, _LEAST_AGE_MS, hint="Leave it out for no limit.")

    def slot_policy(self, live: bool) -> SlotPolicy:
        """How frames are handed to the loop."""
        if self.policy in ("lossless", "latest"):
            return "lossless" if self.policy == "lossless" else "latest"
        return "latest" if live else "lossless"


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """A source that is treated in its own way: ``Pipeline({"door": Feed(source="rtsp://...", freshness=...)}, model)``."""

    source: str | int | Path | Source
    freshness: Freshness


SourceLike: TypeAlias = "str | int | Path | Source | Feed"
SourcesLike: TypeAlias = "SourceLike | Sequence[SourceLike] | Mapping[str, SourceLike]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One source as it was given; ``name`` is empty when it shall keep its own."""

    name: str
    feed: Feed


def read_sources(sources: SourcesLike, freshness: Freshness) -> list[Given]:
    """One or many sources, each with its name and its freshness (``freshness`` where it says nothing).

    Raises:
        ConfigError: there is none.
    """
    named: list[tuple[str, SourceLike]]
    if isinstance(sources, Mapping):
        named = [(str(name), source) for name, source in sources.items()]
    elif isinstance(sources, Sequence) and not isinstance(sources, str):
        named = [("", source) for source in sources]
    else:
        named = [("", sources)]
    if not named:
        raise ConfigError("There is no source.", "Give at least one: a camera number, a video, a folder or a URI.")
    return [
        Given(name=name, feed=source if isinstance(source, Feed) else Feed(source=source, freshness=freshness))
        for name, source in named
    ]


def open_feed(feed: Feed) -> Source:
    """The source itself; errors as ``open_source``, and ``ConfigError`` for an object that is no source."""
    if isinstance(feed.source, str | int | Path):
        return open_source(feed.source)
    if missing := lacks(feed.source, Source):
        raise ConfigError(f"{short(feed.source)} is no source: it lacks {', '.join(missing)}.", SOURCE_HINT)
    return feed.source


def file_of(feed: Feed) -> Path | None:
    """The file or folder that a feed reads, where it has one."""
    if not isinstance(feed.source, str | Path):
        return None
    uri = parse_source(feed.source)
    return Path(uri.path).resolve() if uri.scheme in FILE_SCHEMES else None

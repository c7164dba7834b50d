"""The file in which the totals of one counter survive: what it holds, and moving totals to another name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec

from edgecv._internal.atomic import write_private
from edgecv._internal.bounded import read_bounded
from edgecv._internal.file_locks import lock_file
from edgecv._internal.printable import nearest
from edgecv.errors import ConfigError

COUNTER_NAME = r"[A-Za-z0-9_-]{1,64}"

_MOST_BYTES = 16 << 20
_MOST_LOOKED_AT = 100  # files beside a new one
_Count = Annotated[int, msgspec.Meta(ge=0)]

DAMAGES = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OSError)
"""What ``read_state`` raises of a file that is there and cannot be used."""


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The totals of one counter.

    Attributes:
        version: 2; files of version 1 lack ``rule`` and ``written``.
        counter: Its name.
        rule: The type of its step, such as ``line``.
        sources: By source: totals by name, such as ``in``.
        written: By source: when its totals were written last, UTC.
    """

    version: Annotated[int, msgspec.Meta(ge=1, le=2)] = 2
    counter: str
    rule: str = ""
    sources: dict[str, dict[str, _Count]]
    written: dict[str, str] = {}

    def words(self, source_id: str) -> str:
        """The totals of a source, such as ``in 3, out 2, last written 2026-11-28T05:00:00Z``."""
        totals = ", ".join(f"{name} {count}" for name, count in self.sources[source_id].items()) or "none"
        written = self.written.get(source_id, "")
        return f"{totals}, last written {written}" if written else totals


def read_state(path: Path) -> State:
    """The state in a file; raises one of ``DAMAGES``, and of these ``FileNotFoundError`` where there is none."""
    return msgspec.json.decode(read_bounded(path, _MOST_BYTES), type=State)


def write_state(path: Path, state: State, *, flush: bool = False) -> None:
    """Replace the file as a whole; ``flush`` waits until it is on the disk. Raises ``OSError``."""
    write_private(path, msgspec.json.format(msgspec.json.encode(state)), flush=flush)


def utc_now() -> str:
    """This second, UTC, as ``State.written`` has it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def lock_state(path: Path) -> BinaryIO:
    """Keep others out until what this gives is closed. Raises ``ConfigError``: somebody else is in, or it cannot be written."""
    place = path.with_name(f"{path.name}.lock")
    try:
        held = lock_file(place)
    except OSError as error:
        raise ConfigError(
            f"{place} cannot be written: {error.strerror}.", "Does the folder exist, and may you write there?"
        ) from error
    if held is None:
        raise ConfigError(
            f"{path} is in use by another counter or program.", "Give each counter a state file of its own."
        )
    return held


def check_counter(path: Path, state: State, counter: str) -> None:
    """Raise ``ConfigError`` where a file holds the totals of another counter."""
    if state.counter != counter:
        raise ConfigError(
            f"{path} holds the counts of '{state.counter}', not of '{counter}'.",
            f"Give each counter a state file of its own. Was it renamed? edgecv totals {path} --counter {counter}",
        )


def abandoned(path: Path) -> Iterator[tuple[Path, State]]:
    """Where there is no file yet: the state files beside it that nobody has open, for the counter may have been renamed."""
    if path.exists():
        return
    beside = (place for place in sorted(path.parent.glob(f"*{path.suffix}")) if place.is_file())
    for place, _ in zip(beside, range(_MOST_LOOKED_AT), strict=False):
        try:
            state = read_state(place)
            lock_state(place).close()
        except (*DAMAGES, ConfigError):  # it is something else, or in use
            continue
        yield place, state


def moved(state: State, sources: Mapping[str, str], forgotten: Sequence[str], counter: str) -> State:
    """The state with sources under other names, without those that are ``forgotten``, for a ``counter`` of that name.

    Totals of a name that exists are added to it. Raises ``ConfigError``: a source is not in the file, or no counter can have
    that name.
    """
    if counter and not re.fullmatch(COUNTER_NAME, counter):
        raise ConfigError(f"No counter can be named '{counter}'.", "Use letters, digits, _ and -, at most 64.")
    for name in (*sources, *forgotten):
        if name not in state.sources:
            known = list(state.sources)
            raise ConfigError(
                f"There are no totals of the source '{name}'.", f"{nearest(name, known)}Known: {', '.join(known)}."
            )
    totals: dict[str, dict[str, int]] = {}
    written: dict[str, str] = {}
    for source_id, counts in state.sources.items():
        if source_id in forgotten:
            continue
        name = sources.get(source_id, source_id)
        there = totals.setdefault(name, {})
        for what, count in counts.items():
            there[what] = there.get(what, 0) + count
        written[name] = max(written.get(name, ""), state.written.get(source_id, ""))
    return State(counter=counter or state.counter, rule=state.rule, sources=totals, written=written)

"""The loss ledger: what never reached the cloud, by reason and lane, from the first start of an outbox on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

Reason = Literal[
    "refused_full",  # its lane or the outbox was full
    "refused_disk",  # the disk failed, or had too little free space
    "refused_memory",  # the queue in memory was full, since the disk was too slow
    "refused_closed",  # the outbox was closed already
    "too_large",
    "not_json",
    "evicted",  # gave way to a more urgent event, or in a full lane to a newer one
    "expired",  # its time to live was over
    "corrupt",  # damaged on the disk
    "dead_evicted",  # a dead letter that gave way to newer ones
]
_NUMBER = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_TEXT = Annotated[str, msgspec.Meta(max_length=64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """One line of the ledger."""

    reason: _TEXT
    lane: _TEXT  # one of `PRIORITIES`; empty where damage left nothing that says it
    count: _NUMBER
    first_ns: _NUMBER  # UTC nanoseconds of the first ...
    last_ns: _NUMBER  # ... and of the last one

    def as_dict(self) -> dict[str, Any]:
        """The line as JSON can hold it."""
        return {
            "reason": self.reason,
            "lane": self.lane,
            "count": self.count,
            "first_ns": self.first_ns,
            "last_ns": self.last_ns,
        }


class LossLedger:
    """Losses by reason and lane; belongs to one thread."""

    def __init__(self, losses: Iterable[Loss] = ()) -> None:
        self._losses = {(loss.reason, loss.lane): loss for loss in losses}

    def __bool__(self) -> bool:
        return bool(self._losses)

    def add(self, reason: Reason, lane: str, count: int, now_ns: int) -> None:
        """Count some more events of a lane that were lost."""
        if count:
            self.add_all([Loss(reason=reason, lane=lane, count=count, first_ns=now_ns, last_ns=now_ns)])

    def add_all(self, losses: Iterable[Loss]) -> None:
        """Add the lines of another ledger to those here."""
        for loss in losses:
            key = (loss.reason, loss.lane)
            before = self._losses.get(key)
            self._losses[key] = loss if before is None else _sum(before, loss)

    def all(self) -> tuple[Loss, ...]:
        """Every line, in the order of reasons and lanes."""
        return tuple(self._losses[key] for key in sorted(self._losses))

    def take(self) -> tuple[Loss, ...]:
        """Every line, and forget them."""
        losses = self.all()
        self._losses.clear()
        return losses


def read_losses(db: sqlite3.Connection) -> list[Loss]:
    """The ledger in a file; lines that damage made impossible are left out. Empty in a file of an older EdgeCV."""
    query = "SELECT CAST(reason AS TEXT), CAST(lane AS TEXT), count, first_ns, last_ns FROM losses"
    found: list[Loss] = []
    names = Loss.__slots__
    with suppress(sqlite3.OperationalError):  # no such table
        for record in db.execute(query):
            with suppress(msgspec.ValidationError):
                found.append(msgspec.convert(dict(zip(names, map(_text, record), strict=True)), Loss))
    return found


def write_losses(db: sqlite3.Connection, losses: Iterable[Loss], before: Iterable[Loss]) -> None:
    """Put what differs from ``before`` into the file, within the caller's transaction."""
    known = set(before)
    changed = [
        (loss.reason, loss.lane, loss.count, loss.first_ns, loss.last_ns) for loss in losses if loss not in known
    ]
    if changed:
        db.executemany("INSERT OR REPLACE INTO losses VALUES (?, ?, ?, ?, ?)", changed)


def _sum(one: Loss, other: Loss) -> Loss:
    return Loss(
        reason=one.reason,
        lane=one.lane,
        count=one.count + other.count,
        first_ns=min(one.first_ns, other.first_ns),
        last_ns=max(one.last_ns, other.last_ns),
    )


def _text(value: Any) -> Any:
    """Texts of a damaged file need not be UTF-8."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value

"""What the page asks an events file, in SQL. Every value of a visitor is a parameter."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgecv.errors import ConfigError
from edgecv.pipelines.preview.details import details_text

MOST_ROWS = 200
_MOST_NAMES = 200  # of cameras, classes and rules in the lists to choose from
_MOST_CELLS = 100_000
_LONGEST_DAY_MS = 26 * 3_600_000  # a day in which the clocks are set back has 25 hours, in some places
_NS_PER_MS = 1_000_000
_MOST_MS = 1 << 43  # the year 2248: what fits into nanoseconds of 64 bits
BIN_S = 600
_BINS = 6  # in an hour
_SHOWN = "id, time_ns, kind, source, rule, direction, label, tracker_id, position_s, priority, data, snapshot, clip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which events: of one camera, class or rule, or of a kind that has no rule; from a moment on, and before another."""

    source: str = ""
    label: str = ""
    rule: str = ""
    kind: str = ""
    from_ms: int | None = None
    to_ms: int | None = None
    before: tuple[int, int] | None = None  # time_ns and id of an event: those that are older

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Filter:
        """Read what a page asks for. Raises ``ConfigError``: a number that is none."""
        before = query.get("before", "")
        time_ns, _, number = before.rpartition("-")
        return cls(
            **{name: query.get(name, "") for name in ("source", "label", "rule", "kind")},
            from_ms=_moment(query, "from_ms"),
            to_ms=_moment(query, "to_ms"),
            before=(_integer(time_ns), _integer(number)) if before else None,
        )

    def where(self) -> tuple[str, list[Any]]:
        """The condition in SQL, with its values."""
        parts: list[str] = ["1"]
        values: list[Any] = []
        for column, wanted in (("source", self.source), ("label", self.label), ("rule", self.rule)):
            if wanted:
                parts.append(f"{column} = ?")
                values.append(wanted)
        if self.kind:
            parts.append("rule = '' AND kind = ?")
            values.append(self.kind)
        for bound, sign in ((self.from_ms, ">="), (self.to_ms, "<")):
            if bound is not None:
                parts.append(f"time_ns {sign} ?")
                values.append(bound * _NS_PER_MS)
        if self.before is not None:
            parts.append("(time_ns, id) < (?, ?)")
            values += self.before
        return " AND ".join(parts), values


def latest(db: sqlite3.Connection, wanted: Filter, limit: int) -> dict[str, Any]:
    """The newest events, at most ``limit``, and where the next older ones begin (``next``; ``None``: nowhere).

    The first page says how many there are (``total``).
    """
    where, values = wanted.where()
    query = f"SELECT {_SHOWN} FROM events WHERE {where} ORDER BY time_ns DESC, id DESC LIMIT ?"  # noqa: S608
    found = db.execute(query, (*values, limit + 1)).fetchall()
    total = None
    if wanted.before is None:
        (total,) = db.execute(f"SELECT COUNT(*) FROM events WHERE {where}", values).fetchone()  # noqa: S608
    rows = [_row(*one) for one in found[:limit]]
    last = found[limit - 1] if len(found) > limit else None
    return {"events": rows, "next": None if last is None else f"{last[1]}-{last[0]}", "total": total}


def choices(db: sqlite3.Connection) -> dict[str, Any]:
    """The cameras, classes and rules there are, the kinds of events without a rule, and the first and last time."""
    first, last = db.execute("SELECT MIN(time_ns), MAX(time_ns) FROM events").fetchone()
    return {
        "sources": _names(db, "source"),
        "labels": _names(db, "label"),
        "rules": _names(db, "rule"),
        "kinds": [kind for (kind,) in db.execute(_KINDS, (_MOST_NAMES,))],
        "first_ms": None if first is None else first // _NS_PER_MS,
        "last_ms": None if last is None else last // _NS_PER_MS,
    }


_KINDS = "SELECT DISTINCT kind FROM events WHERE rule = '' ORDER BY kind LIMIT ?"


def day(db: sqlite3.Connection, wanted: Filter) -> dict[str, Any]:
    """How many events there are in each ten minutes of a day, by camera and by rule, and in each hour by rule and direction.

    A day is what the page says: its own, from midnight to midnight, which may have 23 or 25 hours.

    Raises ``ConfigError``: it has no beginning or no end, or is no day.
    """
    if wanted.from_ms is None or wanted.to_ms is None or not 0 < wanted.to_ms - wanted.from_ms <= _LONGEST_DAY_MS:
        raise ConfigError("from_ms and to_ms must be the beginning and the end of a day.")
    where, values = wanted.where()
    query = (
        "SELECT source, rule, direction, (time_ns - ?) / ? AS bin, COUNT(*) FROM events"  # noqa: S608 (our own text)
        f" WHERE {where} GROUP BY source, rule, direction, bin LIMIT ?"
    )
    found = db.execute(query, (wanted.from_ms * _NS_PER_MS, BIN_S * 10**9, *values, _MOST_CELLS)).fetchall()
    ruled = [one for one in found if one[1]]
    return {
        "bin_s": BIN_S,
        "sources": _summed(("source",), (((source,), at, n) for source, _, _, at, n in found)),
        "rules": _summed(("rule",), (((rule,), at, n) for _, rule, _, at, n in ruled)),
        "hours": _summed(("rule", "direction"), (((rule, way), at // _BINS, n) for _, rule, way, at, n in ruled)),
    }


def _summed(names: tuple[str, ...], found: Iterable[tuple[tuple[str, ...], int, int]]) -> list[dict[str, Any]]:
    """One row for each name, with its counts by number of the bin."""
    rows: dict[tuple[str, ...], Counter[int]] = {}
    for name, at, count in found:
        rows.setdefault(name, Counter())[at] += count
    some = sorted(rows.items())[:_MOST_NAMES]
    return [{**dict(zip(names, name, strict=True)), "cells": sorted(cells.items())} for name, cells in some]


def media_path(db: sqlite3.Connection, number: int, kind: str) -> str | None:
    """The snapshot or clip of an event, if it has one and it lies in a folder that a sink has named."""
    column = {"snapshot": "snapshot", "clip": "clip"}[kind]
    found = db.execute(f"SELECT {column} FROM events WHERE id = ?", (number,)).fetchone()  # noqa: S608
    path = None if found is None else found[0]
    if not isinstance(path, str):
        return None
    folder = path.rpartition("/")[0]
    is_known = db.execute("SELECT 1 FROM folders WHERE path = ?", (folder,)).fetchone() is not None
    return path if is_known else None


def _names(db: sqlite3.Connection, column: str) -> list[str]:
    # Each name is one look into the index, however many events there are.
    query = (
        f"WITH RECURSIVE names(name) AS (SELECT MIN({column}) FROM events UNION ALL"  # noqa: S608 (our own text)
        f" SELECT (SELECT MIN({column}) FROM events WHERE {column} > name) FROM names WHERE name IS NOT NULL)"
        " SELECT name FROM names WHERE name <> '' LIMIT ?"
    )
    return [name for (name,) in db.execute(query, (_MOST_NAMES,))]


def _row(number: int, time_ns: int, *rest: Any) -> dict[str, Any]:
    kind, source, rule, direction, label, tracker_id, position_s, priority, data, snapshot, clip = rest
    return {
        "id": number,
        "time_ms": time_ns // _NS_PER_MS,
        "kind": kind,
        "source": source,
        "rule": rule,
        "direction": direction,
        "label": label,
        "tracker_id": tracker_id,
        "position_s": position_s,
        "priority": priority,
        "details": _details(data),
        "snapshot": snapshot is not None,
        "clip": clip is not None,
    }


_APART = frozenset({"counter", "rule", "name", "direction", "label", "tracker_id", "position_s"})
_LONGEST_DETAILS = 300


def _details(data: str) -> str:
    """What the data say besides the columns, as a line of text."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(said, dict):
        return ""
    return details_text(said, _LONGEST_DETAILS, _APART)


def _moment(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "")
    return max(-_MOST_MS, min(_MOST_MS, _integer(text))) if text else None


def _integer(text: str) -> int:
    if not 0 < len(text) <= 20 or not text.removeprefix("-").isdecimal() or not text.isascii():
        raise ConfigError("That is no number.")
    return max(-(1 << 63), min((1 << 63) - 1, int(text)))

"""The oracle: what was accepted against what is stored."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.events import TYPE, text_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of the events of one run."""

    offered: int  # given away by the program that makes them
    accepted: int  # of them, those that the device said it had
    stored: int  # different ones in the store
    lost: int  # accepted and not stored
    missing: int  # offered and not stored, lost ones included
    duplicates: int  # rows too many
    altered: int  # stored with another content
    strangers: int  # stored, and never offered
    faults: Mapping[str, int] = field(default_factory=dict)  # that really happened, by kind

    @property
    def happened(self) -> int:
        """Faults that really happened."""
        return sum(self.faults.values())

    def require_perfect(self) -> None:
        """Fail unless everything that was accepted is stored once and unchanged."""
        assert not (self.lost or self.duplicates or self.altered or self.strangers), str(self)
        assert self.accepted, str(self)


def names_in(path: Path) -> list[str]:
    """Complete lines only: the last one may have been cut by a kill."""
    return path.read_text().split("\n")[:-1] if path.exists() else []


def stored_texts(db_dir: Path) -> list[tuple[str, str]]:
    """Name and text of every row that the devices of the fault tests sent."""
    with closing(sqlite3.connect(f"file:{db_dir / 'landing.db'}?mode=ro", uri=True, timeout=10.0)) as db:
        rows = db.execute("SELECT data FROM events WHERE type IN (?, 'other')", (TYPE,)).fetchall()
    found = [json.loads(row[0]) for row in rows]
    return [(one["name"], one["text"]) for one in found]


def judge(folder: Path, faults: Mapping[str, int] | None = None) -> Verdict:
    """Compare the diaries of the device with the store of ingest."""
    offered, accepted = set(names_in(folder / "offered")), set(names_in(folder / "obligations"))
    rows = stored_texts(folder / "db")
    stored = Counter(name for name, _ in rows)
    return Verdict(
        offered=len(offered),
        accepted=len(accepted),
        stored=len(stored),
        lost=len(accepted - stored.keys()),
        missing=len(offered - stored.keys()),
        duplicates=stored.total() - len(stored),
        altered=sum(text != text_of(name) for name, text in rows),
        strangers=len(stored.keys() - offered),
        faults=dict(faults or {}),
    )

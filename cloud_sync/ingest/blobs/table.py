"""Table ``blobs`` of ``landing.db``: every picture that an event named or that a device sent."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from edgecv.cloud_sync.blobs.messages import Snapshot, State
from edgecv.cloud_sync.ingest.landed import Landed
from edgecv.cloud_sync.mqtt.topics import Address

SCHEMA = """
CREATE TABLE IF NOT EXISTS blobs (
    sha256 TEXT NOT NULL, tenant TEXT NOT NULL, device TEXT NOT NULL, bytes INTEGER NOT NULL, type TEXT NOT NULL,
    state TEXT NOT NULL, place TEXT NOT NULL, first_seen_ns INTEGER NOT NULL, stored_ns INTEGER, named INTEGER NOT NULL,
    filed_us INTEGER NOT NULL,
    PRIMARY KEY (tenant, device, sha256)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS blobs_expected ON blobs (first_seen_ns) WHERE state = 'expected';
"""
_EXPECT = """
INSERT INTO blobs VALUES (?, ?, ?, ?, ?, 'expected', '', ?, NULL, 1, ?)
ON CONFLICT DO UPDATE SET named = 1, filed_us = IIF(named, max(filed_us, excluded.filed_us), excluded.filed_us)
"""
_STORE = """
INSERT INTO blobs VALUES (:sha256, :tenant, :device, :bytes, :type, :state, :place, :now_ns, :now_ns, 0, :now_ns / 1000)
ON CONFLICT DO UPDATE SET bytes = :bytes, type = :type, state = :state, place = :place, stored_ns = :now_ns
WHERE state NOT IN ('stored', 'erased')
"""
_MISS = "UPDATE blobs SET state = 'missing' WHERE state = 'expected' AND first_seen_ns < ?"
_MARK = '"snapshot"'


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBlob:
    """One picture that is at the other end of the way."""

    address: Address  # of the device
    sha256: str
    bytes: int
    type: str
    state: State  # `claimed`: the device says that its upload ended well, and nobody looked
    place: str  # below the landing folder, or where a URL led, without any secret
    now_ns: int


class _Naming(msgspec.Struct):
    snapshot: Snapshot | None = None


def expect(db: sqlite3.Connection, landed: Iterable[Landed]) -> list[tuple[str, str, str]]:
    """Note the pictures that events name, within their transaction; gives their keys."""
    keys: list[tuple[str, str, str]] = []
    for one in landed:
        snapshot = _named_by(one.data)
        if snapshot is not None:
            key = (snapshot.sha256, one.address.tenant, one.address.device)
            db.execute(_EXPECT, (*key, snapshot.bytes, snapshot.type, one.received_ns, one.filed_us))
            keys.append(key)
    return keys


def store(db: sqlite3.Connection, blobs: Sequence[StoredBlob]) -> None:
    """Note pictures that arrived; one that was stored before stays as it is."""
    rows = [
        {
            **{"sha256": one.sha256, "tenant": one.address.tenant, "device": one.address.device, "bytes": one.bytes},
            **{"type": one.type, "state": one.state, "place": one.place, "now_ns": one.now_ns},
        }
        for one in blobs
    ]
    db.executemany(_STORE, rows)


def miss(db: sqlite3.Connection, before_ns: int) -> int:
    """Call ``missing`` what was expected before a time and did not come; says how many. They may still come."""
    return db.execute(_MISS, (before_ns,)).rowcount


def known(db: sqlite3.Connection, address: Address, sha256: str) -> tuple[str, int]:
    """The state of a picture, empty where nobody heard of it; and how many bytes of its device arrived."""
    where = (address.tenant, address.device)
    found = db.execute("SELECT state FROM blobs WHERE tenant=? AND device=? AND sha256=?", (*where, sha256)).fetchone()
    used = db.execute(
        "SELECT IFNULL(SUM(bytes), 0) FROM blobs WHERE tenant=? AND device=? AND state IN ('stored', 'claimed')", where
    ).fetchone()
    return ("" if found is None else str(found[0])), int(used[0])


def _named_by(data: str) -> Snapshot | None:
    if _MARK not in data:
        return None
    try:
        return _naming.decode(data).snapshot
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return None  # somebody else's field of that name


_naming = msgspec.json.Decoder(_Naming)

"""Table ``blobs`` of ``landing.db``: every picture that an event named or that a device sent."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from edgecv.cloud_sync.blobs.messages import Snapshot, State
from edgecv.cloud_sync.mqtt.topics import Address

SCHEMA = """
CREATE TABLE IF NOT EXISTS blobs (
    sha256 TEXT NOT NULL, tenant TEXT NOT NULL, device TEXT NOT NULL, bytes INTEGER NOT NULL, type TEXT NOT NULL,
    state TEXT NOT NULL, place TEXT NOT NULL, first_seen_ns INTEGER NOT NULL, stored_ns INTEGER, named INTEGER NOT NULL,
    PRIMARY KEY (tenant, device, sha256)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS blobs_expected ON blobs (first_seen_ns) WHERE state = 'expected';
"""
_EXPECT = """
INSERT INTO blobs VALUES (?, ?, ?, ?, ?, 'expected', '', ?, NULL, 1)
ON CONFLICT DO UPDATE SET named = 1
"""
_STORE = """
INSERT INTO blobs VALUES (:sha256, :tenant, :device, :bytes, :type, :state, :place, :now_ns, :now_ns, 0)
ON CONFLICT DO UPDATE SET bytes = :bytes, type = :type, state = :state, place = :place, stored_ns = :now_ns
WHERE state <> 'stored'
"""
_MISS = "UPDATE blobs SET state = 'missing' WHERE state = 'expected' AND first_seen_ns < ?"
_ARRIVED: dict[str, State] = {"stored": "stored", "claimed": "claimed"}
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


def expect(db: sqlite3.Connection, named: Iterable[tuple[Address, str, int]]) -> None:
    """Note the pictures that events name: device, data as JSON, time of arrival. Within the transaction of the events."""
    for address, data, received_ns in named:
        if _MARK not in data:
            continue
        try:
            snapshot = _naming.decode(data).snapshot
        except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
            continue  # somebody else's field of that name
        if snapshot is not None:
            row = (snapshot.sha256, address.tenant, address.device, snapshot.bytes, snapshot.type, received_ns)
            db.execute(_EXPECT, row)


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


def known(db: sqlite3.Connection, address: Address, sha256: str) -> tuple[State | None, int]:
    """The state of a picture, ``None`` while it did not arrive; and how many bytes of its device did."""
    where = (address.tenant, address.device)
    found = db.execute("SELECT state FROM blobs WHERE tenant=? AND device=? AND sha256=?", (*where, sha256)).fetchone()
    used = db.execute(
        "SELECT IFNULL(SUM(bytes), 0) FROM blobs WHERE tenant=? AND device=? AND state IN ('stored', 'claimed')", where
    ).fetchone()
    state = None if found is None else _ARRIVED.get(found[0])
    return state, int(used[0])


_naming = msgspec.json.Decoder(_Naming)

"""Pictures of events that are kept no more go with them, and are not taken when they come late."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from edgecv.cloud_sync.ingest.blobs import table
from edgecv.cloud_sync.ingest.landed import Landed
from edgecv.cloud_sync.store.layout import Partition
from edgecv.cloud_sync.store.manifest import Forgotten
from edgecv.errors import SyncError

_ELSEWHERE = "IIF(place LIKE 'blobs/%', '', place)"  # what lies in a store of somebody else is deleted there
_Key = tuple[str, str, str]  # sha256, tenant, device


def note(db: sqlite3.Connection, folder: Path, *, named: Iterable[Landed], gone: Iterable[Landed]) -> None:
    """Note the pictures that events name, within their transaction; those of events that are ``gone`` are erased."""
    table.expect(db, named)
    if gone:
        _erase(db, folder, table.expect(db, gone))


def forget(db: sqlite3.Connection, folder: Path, tombstone: Forgotten) -> None:
    """Erase the pictures of a device and a time, by the time of the event that named them, else by that of their arrival."""
    found = db.execute(
        "SELECT sha256, tenant, device FROM blobs WHERE tenant=? AND device=? AND filed_us>=? AND filed_us<?",
        (tombstone.tenant, tombstone.device, tombstone.from_us, tombstone.to_us),
    )
    _erase(db, folder, found.fetchall())


def retain(db: sqlite3.Connection, folder: Path, tenant: str, from_hour: str) -> None:
    """Erase the pictures from before an hour; an empty tenant means all of them."""
    found = db.execute(
        "SELECT sha256, tenant, device FROM blobs WHERE filed_us<? AND (tenant=? OR ?='') AND state<>'erased'",
        (Partition(tenant, from_hour).from_us, tenant, tenant),
    )
    _erase(db, folder, found.fetchall())


def _erase(db: sqlite3.Connection, folder: Path, keys: Iterable[_Key]) -> None:
    """The files first: where the commit fails after that, it is done again, and none is left behind."""
    where = "sha256=? AND tenant=? AND device=?"
    for key in keys:
        db.execute(f"UPDATE blobs SET state='erased', place={_ELSEWHERE} WHERE {where}", key)  # noqa: S608 (our own text)
        others = db.execute("SELECT 1 FROM blobs WHERE sha256=? AND place LIKE 'blobs/%' LIMIT 1", key[:1]).fetchone()
        if others is None:
            _delete(folder / "blobs" / key[0][:2] / key[0])


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise SyncError(f"{path} cannot be deleted: {error.strerror}.", "Check the disk and do it again.") from error

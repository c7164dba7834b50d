"""Takes what a device saw in a time out of the store, and leaves a tombstone."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from edgecv.cloud_sync.store.layout import AHEAD_US, EARLY_US, Partition
from edgecv.cloud_sync.store.manifest import Forgotten, Part
from edgecv.cloud_sync.store.rewrite import Setbacks, quoted, rewrite
from edgecv.cloud_sync.store.writer import StoreWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """How much of a device was deleted."""

    landed: int  # events that were still in landing.db
    stored: int  # events that were in Parquet
    rewritten: int  # parts that were made anew without them


def new_tombstone(tenant: str, device: str, from_us: int, to_us: int) -> Forgotten:
    """A tombstone for a device and a time; ``to_us`` is the first microsecond that is kept again."""
    now_us = time.time_ns() // 1000
    return Forgotten(id=secrets.token_hex(8), tenant=tenant, device=device, from_us=from_us, to_us=to_us, at_us=now_us)


def forget(writer: StoreWriter, tombstone: Forgotten) -> Erased:
    """Delete what a tombstone covers; from now on nothing of it is taken.

    The tombstone is written to landing.db first. Should this process be killed, the next one goes on (``finish``).

    Raises:
        SyncError: the disk refused, or a file is damaged; what could be deleted is, and ``finish`` tries the rest again.
    """
    while writer.landing.file_rows(1000):
        pass
    landed = writer.landing.forget(tombstone)
    return _rewrite(writer, tombstone, landed)


def finish(writer: StoreWriter) -> int:
    """Do what a killed process had begun to forget; gives how many tombstones it was.

    Raises:
        SyncError: see ``forget``.
    """
    done = {one.id for one in writer.manifest.forgotten}
    begun = [one for one in writer.landing.tombstones() if one.id not in done]
    for tombstone in begun:
        forget(writer, tombstone)
    return len(begun)


def _rewrite(writer: StoreWriter, tombstone: Forgotten, landed: int) -> Erased:
    writer.drop_obsolete(now=True)  # they hold what is to be forgotten
    stored = rewritten = 0
    setbacks = Setbacks()  # a damaged file does not keep the others from it
    for part in [part for part in writer.manifest.parts if _may_hold(part.partition, tombstone)]:
        with setbacks.kept():
            gone = _without(writer, part, tombstone)
            stored += gone
            rewritten += gone > 0
    setbacks.raise_first()
    others = tuple(one for one in writer.manifest.forgotten if one.id != tombstone.id)
    writer.save(forgotten=(*others, tombstone))
    return Erased(landed=landed, stored=stored, rewritten=rewritten)


def _without(writer: StoreWriter, part: Part, tombstone: Forgotten) -> int:
    """Make a part anew without what a tombstone covers; gives how many events that was."""
    new = rewrite(writer.folder, part.partition, writer.next_name(), [part], _covered(tombstone))
    left = new.events.rows if new else 0
    if left == part.events.rows:
        writer.remove([writer.folder / file.path for file in new.files] if new else [])
        return 0
    writer.replace([part], new, now=True)
    return part.events.rows - left


def _may_hold(partition: Partition, tombstone: Forgotten) -> bool:
    is_in_time = partition.from_us < tombstone.to_us and tombstone.from_us < partition.to_us
    return partition.tenant == tombstone.tenant and is_in_time


def _covered(tombstone: Forgotten) -> str:
    """The SQL condition that says the same as ``Forgotten.covers`` of ``layout.filed_us``."""
    filed = (
        f"CASE WHEN epoch_us(time) BETWEEN epoch_us(received) - {EARLY_US} AND epoch_us(received) + {AHEAD_US} "
        "THEN epoch_us(time) ELSE epoch_us(received) END"
    )
    return f"device = {quoted(tombstone.device)} AND {filed} >= {tombstone.from_us} AND {filed} < {tombstone.to_us}"

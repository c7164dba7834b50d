"""Deletes whole hours that are older than what is kept."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime, timezone

from edgecv.cloud_sync.store.layout import hour_of
from edgecv.cloud_sync.store.writer import StoreWriter

_log = logging.getLogger(__name__)

_DAY_US = 86400 * 1_000_000
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Retained:
    """How much was older than what is kept."""

    from_hour: str  # the first hour that is kept
    landed: int  # events that were still in landing.db
    stored: int  # events that were in Parquet
    parts: int  # their parts


def retain(writer: StoreWriter, days: int, tenant: str = "", *, most_days: int | None = None) -> Retained:
    """Keep ``days`` days, of one tenant or of all (empty); what comes later and is older is acknowledged and not stored.

    The limit goes on by ``most_days`` at most since it was last applied: a clock that is years ahead shall not empty a store.

    Raises:
        SyncError: the disk refused.
    """
    while writer.landing.file_rows(_ROWS_AT_ONCE):
        pass  # rows of an older ingest have no hour yet
    from_hour = hour_of(max(time.time_ns() // 1000 - days * _DAY_US, 0))
    before = writer.landing.retained_from(tenant)
    if before and most_days is not None:
        from_hour = _bounded(from_hour, before, most_days)
    writer.drop_obsolete(now=True)  # they may hold what is too old
    landed = writer.landing.retain(tenant, from_hour)
    old = [part for part in writer.manifest.parts if part.hour < from_hour and tenant in ("", part.tenant)]
    if old:
        writer.replace(old, None, now=True)
    return Retained(from_hour=from_hour, landed=landed, stored=sum(part.events.rows for part in old), parts=len(old))


def _bounded(wanted: str, before: str, most_days: int) -> str:
    moment = datetime.fromisoformat(f"{before}:00").replace(tzinfo=timezone.utc)
    most = hour_of(int(moment.timestamp()) * 1_000_000 + most_days * _DAY_US)
    if wanted <= most:
        return wanted
    _log.warning("what is older than %s goes, and not all before %s at once: is the clock right?", most, wanted)
    return most

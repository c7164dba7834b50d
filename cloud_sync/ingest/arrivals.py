"""Tells what is new from what is in Parquet already, and from what is kept no more."""

from __future__ import annotations

import logging
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgecv.cloud_sync.ingest import erasures, merged
from edgecv.cloud_sync.ingest.landed import Landed
from edgecv.cloud_sync.notices import Notice
from edgecv.cloud_sync.store.archive import Archive
from edgecv.cloud_sync.store.layout import Partition, hour_of
from edgecv.errors import EdgeCVError

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Arrived:
    """What came, by what is to be done with it; of repetitions nothing is left."""

    fresh: list[Landed] = field(default_factory=list)  # its key was never merged
    others: list[Landed] = field(default_factory=list)  # its key is that of a merged event of another content
    erased: int = 0  # forgotten, or too old ...
    gone: list[Landed] = field(default_factory=list)  # ... and those of them that were never stored


class Arrivals:
    """Looks at events before they are stored; belongs to ``EventDatabase`` and its mutex."""

    def __init__(self, db: sqlite3.Connection, folder: Path) -> None:
        self._db = db
        self._archive = Archive(folder)
        self._unreadable = Notice(_log)
        self._erasures = erasures.load(db)

    def reload(self) -> None:
        """Something was forgotten, or the retention changed."""
        self._erasures = erasures.load(self._db)

    def sort(self, landed: Sequence[Landed]) -> Arrived:
        """Sort events by what is to be done with them."""
        arrived = Arrived()
        by_boot: defaultdict[tuple[str, int], list[Landed]] = defaultdict(list)
        for one in landed:
            if self._erasures and self._erasures.covers(one.address.tenant, one.address.device, one.filed_us):
                arrived.erased += 1
                arrived.gone.append(one)
            else:
                by_boot[one.address.source, one.boot].append(one)
        for (source, boot), group in by_boot.items():
            hours = merged.hours_of(self._db, source, boot, [one.seq for one in group])
            if not hours:
                arrived.fresh += group
                continue
            arrived.fresh += [one for one in group if one.seq not in hours]
            self._compare([one for one in group if one.seq in hours], hours, arrived)
        if self._erasures:  # the event that had an id first may be gone, and the one beside it be repeated
            arrived.fresh = [one for one in arrived.fresh if not self._is_there_renamed(one)]
        return arrived

    def _is_there_renamed(self, one: Landed) -> bool:
        source, name = map(str, one.under_another_id().row[:2])
        is_landed = self._db.execute("SELECT 1 FROM events WHERE source=? AND id=?", (source, name)).fetchone()
        return bool(is_landed) or merged.is_renamed_merged(self._db, source, name)

    def _compare(self, again: Sequence[Landed], hours: dict[int, str], arrived: Arrived) -> None:
        """Look up in Parquet what was merged under these keys."""
        by_hour: defaultdict[str, list[Landed]] = defaultdict(list)
        for one in again:
            by_hour[hours[one.seq] or hour_of(one.own_us)].append(one)
        for hour, group in by_hour.items():
            address = group[0].address
            found = self._digests(Partition(address.tenant, hour), address.device, group)
            for one in group:
                if one.digest in found.get(one.seq, ()):
                    continue
                if not found.get(one.seq) and self._is_gone(one, hours[one.seq]):
                    arrived.erased += 1  # the first one is gone, and may have been this one
                else:
                    arrived.others.append(one)

    def _is_gone(self, one: Landed, noted_hour: str) -> bool:
        tenant, device = one.address.tenant, one.address.device
        if noted_hour:
            return self._erasures.touch(tenant, device, noted_hour)
        return self._erasures.covers(tenant, device, one.own_us)

    def _digests(self, partition: Partition, device: str, group: Sequence[Landed]) -> dict[int, set[str]]:
        try:
            return self._archive.digests(partition, device, group[0].boot, [one.seq for one in group])
        except (EdgeCVError, OSError, ValueError) as error:  # pyarrow's errors are ValueError and OSError
            self._unreadable(
                f"Repeated events cannot be compared with those in Parquet, and are kept beside them: {error}"
            )
            return {}

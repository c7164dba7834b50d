"""What a device has to show: its sources with their counters and classes, and its gauges. Kept in a file over restarts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from edgecv._internal.atomic import write_private
from edgecv._internal.bounded import read_bounded
from edgecv._internal.private_files import make_private_folder
from edgecv.cloud_sync.home_assistant.sightings import Seen
from edgecv.errors import SyncError
from edgecv.status import SourceStatus

_log = logging.getLogger(__name__)

_MOST_BYTES = 4 << 20
_MOST_CLASSES = 16  # of a source that get an occupancy of their own
_MOST_REMOVED = 64
FILE = "home_assistant.json"


class SourceParts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one source has.

    Attributes:
        counters: Names of what its steps count, such as ``lobby.inside`` or ``gate.in.person``.
        classes: Names of the classes with an occupancy of the whole frame.
    """

    counters: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


class Inventory(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a device has to show, and what of it Home Assistant was told.

    Attributes:
        source: Of whom this is: ``edgecv/TENANT/DEVICE``.
        told: The platform of each entity that was announced, by key.
        removed: The same of those that are gone, until a Home Assistant has started since: so one that was away removes them, too.
    """

    version: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    source: str = ""
    sources: dict[str, SourceParts] = {}
    gauges: tuple[str, ...] = ()
    told: dict[str, str] = {}
    removed: dict[str, str] = {}

    def with_sources(
        self, statuses: Sequence[SourceStatus], seen: Mapping[str, Seen], classes: Sequence[str] | None
    ) -> Inventory:
        """What it is now: exactly these sources.

        What a source that gave no result yet will have is not known, as its counters begin with its first frame: until then
        it keeps what it had.
        """
        parts = {}
        for status in statuses:
            before = self.sources.get(status.source_id, SourceParts())
            found = seen.get(status.source_id)
            parts[status.source_id] = before if found is None else _parts(before, status, found, classes)
        return msgspec.structs.replace(self, sources=parts)

    def with_told(self, told: dict[str, str]) -> Inventory:
        """Remember what was announced, and what is not any more."""
        gone = {key: platform for key, platform in {**self.removed, **self.told}.items() if key not in told}
        return msgspec.structs.replace(self, told=told, removed=dict(list(gone.items())[-_MOST_REMOVED:]))


def _parts(before: SourceParts, status: SourceStatus, seen: Seen, classes: Sequence[str] | None) -> SourceParts:
    counters = dict.fromkeys(status.counts)
    # Counts of a class begin with its first object. Those of the last run are kept, or entities would come and go.
    totals = {name for name in counters if name.count(".") == 1}
    counters |= dict.fromkeys(name for name in before.counters if ".".join(name.split(".")[:2]) in totals)
    if classes is None:
        known = [name for name in before.classes if name in seen.labels or name in seen.last_s]
        classes = list(dict.fromkeys([*known, *sorted(seen.last_s)]))[:_MOST_CLASSES]
    return SourceParts(counters=tuple(sorted(counters)), classes=tuple(classes))


class InventoryFile:
    """The inventory on disk, replaced whole. One that cannot be read is as good as none: it says what was, not what is."""

    def __init__(self, folder: Path, source: str) -> None:
        """Make the folder. Raises ``SyncError``: it cannot be written."""
        self._path, self._source = folder / FILE, source
        try:
            make_private_folder(folder, parents=True)
        except OSError as error:
            raise SyncError(f"The folder {folder} cannot be made: {error.strerror}.", "Check it.") from error

    def read(self) -> Inventory:
        """The last inventory of this device, or an empty one."""
        empty = Inventory(source=self._source)
        try:
            kept = msgspec.json.decode(read_bounded(self._path, _MOST_BYTES), type=Inventory)
        except FileNotFoundError:
            return empty
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OSError) as error:
            _log.warning("%s cannot be read (%s): entities that are gone stay in Home Assistant.", self._path, error)
            return empty
        return kept if kept.source == self._source else empty

    def write(self, inventory: Inventory) -> str:
        """Put it on disk; what went wrong, or nothing."""
        try:
            write_private(self._path, msgspec.json.format(msgspec.json.encode(inventory)))
        except OSError as error:
            return f"{self._path} cannot be written: {error.strerror}."
        return ""

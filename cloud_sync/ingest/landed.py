"""``Landed``: an event that passed every check, as a row of ``landing.db``, and messages that did not pass."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgecv._internal.printable import printable
from edgecv.cloud_sync.envelope import Arrived
from edgecv.cloud_sync.mqtt.topics import Address
from edgecv.cloud_sync.store.layout import filed_us, hour_of_event, microseconds
from edgecv.cloud_sync.store.rows import content_digest

_SAMPLE_BYTES = 1024
# The columns that the device wrote, in the order of the row: what tells a repetition from another event of the same key.
WRITTEN = ("type", "time", "mono_ns", "clock_synced", "lane", "model", "data")
_WRITTEN_AT = slice(6, 6 + len(WRITTEN))
_TIME_AT = 7
_DATA_AT = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """One event that passed every check, as its columns of table ``events``."""

    address: Address
    boot: int
    seq: int
    received_ns: int
    row: tuple[object, ...]

    @classmethod
    def from_envelope(cls, event: Arrived, address: Address, received_ns: int) -> Landed:
        """The row of an event that came in."""
        row = (
            *(event.source, event.id, address.tenant, address.device, event.boot, event.seq),
            *(printable(event.type, 200), event.time, event.mono_ns, event.clock_synced, event.priority),
            *(printable(event.model, 200), event.payload, received_ns),
            hour_of_event(event.time, received_ns),
        )
        return cls(address=address, boot=event.boot, seq=event.seq, received_ns=received_ns, row=row)

    @property
    def place(self) -> tuple[object, ...]:
        """Source, id and content: what tells a repetition from another event of the same id."""
        return (*self.row[:2], *self.row[_WRITTEN_AT])

    def under_another_id(self) -> Landed:
        """The same event as ``boot:seq:digest``, where another one has its id; the digest is that of its content."""
        source, name, *rest = self.row
        return replace(self, row=(source, f"{name}:{self.digest}", *rest))

    @property
    def digest(self) -> str:
        """The digest of its content, in 16 hexadecimal digits."""
        return content_digest(self.row[_WRITTEN_AT])

    @property
    def time(self) -> str:
        """When it happened, as the device says it."""
        return str(self.row[_TIME_AT])

    @property
    def data(self) -> str:
        """The event's own fields, as JSON."""
        return str(self.row[_DATA_AT])

    @property
    def own_us(self) -> int:
        """The device's own time, in microseconds since the epoch."""
        return microseconds(self.time)

    @property
    def filed_us(self) -> int:
        """The moment by which it is filed, kept and forgotten, in microseconds since the epoch."""
        return filed_us(self.own_us, self.received_ns // 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What one commit added to the database."""

    new: int  # events that were not there yet
    renamed: tuple[Landed, ...] = ()  # of them, those whose id belonged to another event
    erased: int = 0  # events that were forgotten, or are older than what is kept: acknowledged, and not stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A message, or an event in one, that did not pass."""

    topic: str
    reason: str
    payload: bytes
    received_ns: int

    def as_row(self) -> tuple[object, ...]:
        """The columns of table ``rejected`` after ``n``."""
        sample = bytes(self.payload[:_SAMPLE_BYTES])
        return (self.received_ns, printable(self.topic, 200), printable(self.reason, 500), len(self.payload), sample)

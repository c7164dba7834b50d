"""Which devices ingest has heard of since its start, and how late their events come."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from edgecv.cloud_sync.ingest.landed import Landed
from edgecv.cloud_sync.mqtt.topics import Address

MAX_DEVICES = 10_000  # beyond it, the device that was silent for longest is forgotten


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSeen:
    """What is known of one device since the start."""

    address: Address
    events: int  # that were committed, repetitions included
    received_ns: int  # when its last event came, UTC nanoseconds
    lag_s: float  # from the time of that event to its arrival; 0.0 when the device's clock runs ahead


class DevicesSeen:
    """The devices of one ingest; one thread notes them, others may read."""

    def __init__(self, limit: int = MAX_DEVICES) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._devices: OrderedDict[Address, DeviceSeen] = OrderedDict()

    def note(self, address: Address, events: int, time: str, received_ns: int) -> None:
        """Count ``events`` of a device, the last of them of ``time`` (RFC 3339, UTC)."""
        lag_s = max(received_ns / 1e9 - _utc_s(time), 0.0)
        with self._lock:
            before = self._devices.pop(address, None)
            events += before.events if before else 0
            self._devices[address] = DeviceSeen(address=address, events=events, received_ns=received_ns, lag_s=lag_s)
            if len(self._devices) > self._limit:
                self._devices.popitem(last=False)

    def note_landed(self, landed: Sequence[Landed]) -> None:
        """Count the events of one commit."""
        counts = Counter(one.address for one in landed)
        last = {one.address: one for one in landed}
        for address, one in last.items():
            self.note(address, counts[address], one.time, one.received_ns)

    def all(self) -> Sequence[DeviceSeen]:
        """The devices, those that were silent for longest first."""
        with self._lock:
            return list(self._devices.values())


def _utc_s(time: str) -> float:
    """Seconds since the epoch; nanoseconds are cut to what ``datetime`` knows on every Python."""
    whole, _, fraction = time.rstrip("Z").partition(".")
    moment = datetime.fromisoformat(whole).replace(tzinfo=timezone.utc)
    return moment.timestamp() + float(f"0.{fraction or 0}")

"""``PacketRing``: the last seconds of one source, still encoded."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

from edgecv.media.packets import Packet, PacketStream

BACK_NS = 500_000_000  # a scene whose time goes back further began anew, such as a video that is played again

PACKET_BYTES = 400  # that a packet takes beside its data: a camera may send very small ones for days


@dataclass(slots=True)
class _Group:
    """A key frame and what can only be decoded after it."""

    first: int  # number of its first packet
    packets: list[Packet] = field(default_factory=list)
    size: int = 0

    @property
    def begins_ns(self) -> int:
        return self.packets[0].scene_ns

    @property
    def stream(self) -> PacketStream:
        return self.packets[0].stream


class PacketRing:
    """Holds whole groups of packets, each from a key frame to the next; packets are numbered from 0 on.

    What is older than ``keep_ns`` goes, unless a clip still needs it (``hold``). What is more than ``most_bytes`` goes in any
    case: a slow disk costs images and no memory. From any thread; nothing waits but ``wait_for_room``.
    """

    def __init__(self, keep_ns: int, most_bytes: int) -> None:
        self._keep_ns, self._most_bytes = keep_ns, most_bytes
        self._groups: deque[_Group] = deque()
        self._bytes = self._next = 0
        self._anew = 0  # the number with which the time of the scene last went back
        self._last_ns = 0
        self._hold: int | None = None
        self._changed = threading.Condition()

    @property
    def size_bytes(self) -> int:
        """The bytes that all its packets take in memory."""
        return self._bytes

    @property
    def is_empty(self) -> bool:
        """Whether it holds no packet."""
        return not self._groups

    def put(self, packet: Packet) -> None:
        """Take a packet; one that comes before any key frame is left out."""
        with self._changed:
            if not (packet.is_key or self._groups):
                return
            if packet.scene_ns < self._last_ns - BACK_NS:
                self._anew = self._next
            if packet.is_key:
                self._groups.append(_Group(self._next))
            group = self._groups[-1]
            group.packets.append(packet)
            group.size += len(packet.data) + PACKET_BYTES
            self._bytes += len(packet.data) + PACKET_BYTES
            self._next += 1
            self._last_ns = packet.scene_ns
            self._trim()

    def begin(self, event_ns: int, pre_ns: int) -> int:
        """The number of the key frame at or before ``pre_ns`` before an event, of the stream which shows that event.

        Where the ring does not reach back so far, that of the oldest. It and what follows is held from now on.
        """
        with self._changed:
            groups = list(self._groups)
            at = max((at for at, group in enumerate(groups) if group.begins_ns <= event_ns), default=0)
            while at and groups[at - 1].stream is groups[at].stream and groups[at].begins_ns > event_ns - pre_ns:
                at -= 1
            found = groups[at].first if groups else self._next
            self._hold = found if self._hold is None else min(self._hold, found)
            return found

    def hold(self, number: int | None) -> None:
        """Keep what has this number or a later one, whatever its age; ``None``: nothing is needed."""
        with self._changed:
            self._hold = number
            self._trim()
            self._changed.notify_all()

    def after(self, number: int) -> tuple[list[Packet], int]:
        """The packets from this number on that are still there, and the number that the next one will have."""
        with self._changed:
            found = [
                packet
                for group in self._groups
                if group.first + len(group.packets) > number
                for packet in group.packets[max(0, number - group.first) :]
            ]
            return found, self._next

    @property
    def is_held(self) -> bool:
        """Whether a clip needs something of it."""
        return self._hold is not None

    @property
    def has_room(self) -> bool:
        """Whether half of it at least is free of what a clip still needs."""
        with self._changed:
            return self._is_roomy()

    def wait_for_room(self, timeout_s: float) -> None:
        """Wait until it has room, or time is up."""
        with self._changed:
            self._changed.wait_for(self._is_roomy, timeout_s)

    def clear(self) -> None:
        """Forget all packets, also those that a clip needs."""
        with self._changed:
            self._groups.clear()
            self._bytes = 0
            self._changed.notify_all()

    def _is_roomy(self) -> bool:
        hold = self._hold
        if hold is None or self._bytes < self._most_bytes // 2:
            return True
        held = sum(group.size for group in self._groups if group.first + len(group.packets) > hold)
        return held < self._most_bytes // 2

    def _trim(self) -> None:
        while self._groups and (self._bytes > self._most_bytes or self._is_old()):
            self._bytes -= (
                self._groups.popleft().size
            )  # a group that is too large alone goes whole: its end is of no use

    def _is_old(self) -> bool:
        """Whether the oldest group is needed neither for what may come, nor by a clip."""
        if len(self._groups) == 1:
            return False
        following = self._groups[1]
        is_held = self._hold is not None and following.first > self._hold
        is_of_before = self._groups[0].first < self._anew
        return not is_held and (is_of_before or following.begins_ns <= self._last_ns - self._keep_ns)

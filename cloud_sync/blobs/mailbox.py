"""The connection as the uploading thread sees it: what it may send, and the answers that come in."""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from edgecv.cloud_sync.blobs.messages import Reply, decode_reply
from edgecv.cloud_sync.mqtt.events import ANY_PACKET, Connected, Disconnected, LinkEvent, Received
from edgecv.cloud_sync.mqtt.topics import Address, Leaf
from edgecv.cloud_sync.notices import Notice
from edgecv.errors import SyncError

_log = logging.getLogger(__name__)

_MOST_REPLIES = 64
Publish = Callable[[int, str, bytes], int]


class Mailbox:
    """Filled by the thread of the sender, read by the thread that uploads; bounded. Without ``topics`` it is of no use."""

    def __init__(self, address: Address, leaves: tuple[Leaf, ...] = ("blob-reply",)) -> None:
        self.topics = tuple(map(address.topic, leaves))
        self._address = address
        self._publish: Publish | None = None
        self._changed = threading.Condition()
        self._replies: deque[Reply] = deque(maxlen=_MOST_REPLIES)
        self._stray = Notice(_log)
        self._ignored = 0
        self._epoch = 0
        self._nonce = ""
        self._closing = False
        self.max_packet_bytes = ANY_PACKET

    @property
    def epoch(self) -> int:
        """Number of the connection, 0 while there is none."""
        return self._epoch

    @property
    def is_closing(self) -> bool:
        """Whether the device stops, so that no wait should begin."""
        return self._closing

    @property
    def ignored(self) -> int:
        """How many messages answered nothing that was asked."""
        return self._ignored

    def heeds(self, event: LinkEvent | None, publish: Publish) -> bool:
        """Take what concerns pictures of what the connection says; whether it concerns nobody else."""
        if isinstance(event, Received) and event.topic in self.topics:
            self._received(event.payload)
            return True
        if isinstance(event, Connected):
            self._changes(event.epoch, event.max_packet_bytes, publish)
        elif isinstance(event, Disconnected):
            self._changes(0, ANY_PACKET, publish)
        return False

    def _changes(self, epoch: int, max_packet_bytes: int, publish: Publish) -> None:
        """Another connection, or none: every answer is gone with the one before."""
        with self._changed:
            self._epoch, self.max_packet_bytes, self._publish = epoch, max_packet_bytes, publish
            self._replies.clear()
            self._changed.notify_all()

    def _received(self, payload: bytes) -> None:
        try:
            reply = decode_reply(payload)
        except SyncError as error:
            return self._ignore(error.message)
        with self._changed:
            if self._nonce and hmac.compare_digest(reply.nonce, self._nonce):
                self._replies.append(reply)
                self._changed.notify_all()
                return None
        return self._ignore("It answers nothing that this device asked.")

    def send(self, leaf: Leaf, payload: bytes) -> None:
        """Publish on a topic of this device; lost while there is no connection."""
        with self._changed:
            epoch, publish = self._epoch, self._publish
        if epoch and publish is not None:
            publish(epoch, self._address.topic(leaf), payload)

    def ask(self, nonce: str) -> None:
        """From now on answers to this nonce count, and no others."""
        with self._changed:
            self._nonce = nonce
            self._replies.clear()

    def next(self, timeout_s: float, epoch: int) -> Reply | None:
        """The next answer; ``None`` when none came in time, or the connection ``epoch`` is gone."""
        with self._changed:
            self._changed.wait_for(lambda: self._replies or self._epoch != epoch or self._closing, timeout_s)
            return self._replies.popleft() if self._replies and self._epoch == epoch and not self._closing else None

    def pause(self, seconds: float) -> None:
        """Wait, unless the device stops."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing, seconds)

    def idle(self, timeout_s: float) -> None:
        """Wait for something to happen."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            if not self._closing:
                self._changed.wait(max(deadline_s - time.monotonic(), 0.0))

    def wake(self) -> None:
        """Let ``idle`` return, since there is something to do."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Let every wait end: the device stops."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _ignore(self, why: str) -> None:
        self._ignored += 1
        topic = self._address.topic("blob-reply")
        self._stray(
            f"A message on {topic} was ignored: {why} One may be late; otherwise see the broker's access rules."
        )

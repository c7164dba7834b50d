"""What came in from a link and waits for the one thread that works on it: bounded in number and in bytes."""

from __future__ import annotations

import queue
import threading
from collections import defaultdict
from dataclasses import dataclass

from edgecv.cloud_sync.mqtt.events import LinkEvent, Received

_OVERHEAD_BYTES = 500  # of the objects around a message


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxLimits:
    """How many messages may wait."""

    messages: int  # in all
    total_bytes: int  # in all; payloads, topics and what Python adds
    topic_messages: int  # of one topic, so that one device cannot take the place of all the others
    topic_bytes: int  # of one topic


class Inbox:
    """A queue from the network thread to its reader.

    Messages beyond the limits are not taken; what a link says of itself always is.
    """

    def __init__(self, limits: InboxLimits) -> None:
        self._limits = limits
        self._queue: queue.SimpleQueue[LinkEvent | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._messages = 0
        self._bytes = 0
        self._by_topic: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])

    def put(self, event: LinkEvent | None) -> bool:
        """Add an event, or ``None`` to wake the reader; ``False`` when there is no room for it."""
        if isinstance(event, Received) and not self._admit(event):
            return False
        self._queue.put(event)
        return True

    def get(self, timeout_s: float) -> LinkEvent | None:
        """The next event.

        Raises:
            queue.Empty: none came in time.
        """
        event = self._queue.get(timeout=timeout_s) if timeout_s > 0 else self._queue.get_nowait()
        if isinstance(event, Received):
            self._release(event)
        return event

    def waiting(self) -> tuple[int, int]:
        """How many messages wait now, and their bytes in memory."""
        with self._lock:
            return self._messages, self._bytes

    def _admit(self, message: Received) -> bool:
        size, limits = _size(message), self._limits
        with self._lock:
            waiting = self._by_topic.get(message.topic, (0, 0))
            full = (
                self._messages >= limits.messages
                or self._bytes + size > limits.total_bytes
                or waiting[0] >= limits.topic_messages
                or waiting[1] + size > limits.topic_bytes
            )
            if not full:
                self._count(message.topic, 1, size)
        return not full

    def _release(self, message: Received) -> None:
        with self._lock:
            self._count(message.topic, -1, -_size(message))
            if not self._by_topic[message.topic][0]:
                del self._by_topic[message.topic]

    def _count(self, topic: str, messages: int, size: int) -> None:
        self._messages += messages
        self._bytes += size
        self._by_topic[topic][0] += messages
        self._by_topic[topic][1] += size


def _size(message: Received) -> int:
    return len(message.payload) + len(message.topic) + _OVERHEAD_BYTES

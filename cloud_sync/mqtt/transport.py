"""A connection to a broker that comes back by itself.

paho's own loop, reconnection and resending are not used. One network thread owns everything: it makes a fresh ``Link`` for
every connection (so nothing of an old one is sent again) and reports through one callback. Other threads only leave requests in a
queue.
"""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from edgecv.cloud_sync.mqtt.broker_url import BrokerUrl
from edgecv.cloud_sync.mqtt.client import V5, V311
from edgecv.cloud_sync.mqtt.events import Disconnected, LinkEvent, LinkOptions, Received
from edgecv.cloud_sync.mqtt.link import Link, Puback, Publish
from edgecv.cloud_sync.mqtt.reasons import AGAIN
from edgecv.errors import TransportError, in_one_line

_SHORT_S = 10.0
_MOST_SHORT = 3
_MAX_REQUESTS = 4_000
_POLL_S = 0.5


class MqttTransport:
    """A connection to a broker that comes back by itself.

    ``notify`` is called from the network thread with every ``LinkEvent``; it must only enqueue.
    """

    def __init__(self, broker: BrokerUrl, options: LinkOptions, notify: Callable[[LinkEvent], object]) -> None:
        self._broker = broker
        self._options = options
        self._notify = notify
        self._tokens = itertools.count(1)
        self._requests: deque[Publish | Puback] = deque()
        self._closing = threading.Event()
        self._wanted = V311 if broker.protocol == "3.1.1" else V5
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="edgecv-mqtt", daemon=True)

    def start(self) -> None:
        """Connect in the background, and again whenever the connection is lost."""
        self._thread.start()

    def publish(self, epoch: int, topic: str, payload: bytes, *, retain: bool = False, content_type: str = "") -> int:
        """Send with QoS 1 on connection ``epoch``; never waits.

        Returns:
            A token that ``Delivered`` or ``Undelivered`` will name, unless the connection is lost first.
        """
        request = Publish(
            epoch=epoch,
            token=next(self._tokens),
            topic=topic,
            payload=payload,
            retain=retain,
            content_type=content_type,
        )
        self._request(request)
        return request.token

    def acknowledge(self, message: Received) -> None:
        """Tell the broker that a received message is taken care of (``manual_ack``)."""
        if message.qos:  # a PUBACK to a message with QoS 0 would end the connection
            self._request(Puback(epoch=message.epoch, mid=message.mid))

    def close(self, timeout_s: float) -> bool:
        """Send what is queued, disconnect properly and stop; ``False`` when that took too long."""
        self._closing.set()
        self._wake()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _request(self, request: Publish | Puback) -> None:
        # Beyond the bound the oldest is lost, which is what a network may do to it anyway.
        while len(self._requests) >= _MAX_REQUESTS:
            self._requests.popleft()
        self._requests.append(request)
        self._wake()

    def _wake(self) -> None:
        with suppress(OSError):  # its buffer is full, so it is awake already; or it is closed
            self._wake_write.send(b"\0")

    def _run(self) -> None:
        failures = short = 0
        protocol = self._wanted
        for epoch in itertools.count(1):
            if self._closing.is_set():
                break
            link = Link(self._broker, self._options, self._notify, protocol=protocol, epoch=epoch)
            began_s = time.monotonic()
            reason = self._serve(link)
            is_short = link.established and not link.taken_over and time.monotonic() - began_s < _SHORT_S
            short = short + 1 if is_short else 0
            self._notify(Disconnected(reason=reason + (AGAIN.format(count=short) if short >= _MOST_SHORT else "")))
            failures = 0 if link.established and not link.taken_over else failures + 1
            protocol, at_once = self._next_protocol(protocol, link)
            if not at_once:
                self._closing.wait(self._options.backoff.delay_s(failures))
        self._wake_read.close()
        self._wake_write.close()

    def _next_protocol(self, protocol: int, link: Link) -> tuple[int, bool]:
        """The protocol of the next attempt, and whether to make it at once."""
        if protocol != V5 or self._broker.protocol != "auto":
            return self._wanted, False
        if link.refused_protocol:
            self._wanted = V311  # said clearly: not asked again
        # Brokers of 3.1.1 may also hang or hang up on an MQTT 5 CONNECT; then 5 is asked again next time.
        fall_back = link.refused_protocol or link.unanswered
        return (V311 if fall_back else V5), fall_back

    def _serve(self, link: Link) -> str:
        """Live through one connection; returns why it ended."""
        try:
            link.open()
            while not self._closing.is_set():
                link.take(self._requests)
                link.step(_POLL_S, self._wake_read)
            link.take(self._requests, last=True)
            link.disconnect()
        except TransportError as error:
            return in_one_line(error.message, error.hint)
        except Exception as error:  # noqa: BLE001 (the watchdog: whatever breaks in paho, the next turn has a new client)
            return f"{type(error).__name__} in the MQTT client"
        finally:
            link.shut()
        return "closed"

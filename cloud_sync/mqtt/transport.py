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
from dataclasses import dataclass, field

from edgecv.cloud_sync.mqtt.broker_url import BrokerUrl
from edgecv.cloud_sync.mqtt.client import V5, V311
from edgecv.cloud_sync.mqtt.events import Disconnected, LinkEvent, LinkOptions, Received
from edgecv.cloud_sync.mqtt.link import Link
from edgecv.cloud_sync.mqtt.reasons import AGAIN, HUNG
from edgecv.cloud_sync.mqtt.window import Puback, Publish
from edgecv.errors import TransportError, in_one_line

_SHORT_S = 10.0
_MOST_SHORT = 3
_MAX_REQUESTS = 4_000
_POLL_S = 0.5
_MOST_LEFT_ALONE = 4  # threads that hang and are left alone; with more of them nothing is replaced


@dataclass(slots=True, eq=False)
class _Life:
    """One network thread, from its start until it ends or is given up."""

    alive_s: float = field(default_factory=time.monotonic)  # when it last showed that it does not hang
    link: Link | None = None
    thread: threading.Thread | None = None


class MqttTransport:
    """A connection to a broker that comes back by itself.

    ``notify`` is called from the network thread with every ``LinkEvent``; it must only enqueue. A network thread that hangs,
    in a name server or in the MQTT library, is left alone and replaced by another.
    """

    def __init__(self, broker: BrokerUrl, options: LinkOptions, notify: Callable[[LinkEvent], object]) -> None:
        self._broker = broker
        self._options = options
        self._notify = notify
        self._tokens = itertools.count(1)
        self._epochs = itertools.count(1)
        self._requests: deque[Publish | Puback] = deque()
        self._closing = threading.Event()
        self._wanted = V311 if broker.protocol == "3.1.1" else V5
        self._is_patient = (
            False  # a broker that once spoke MQTT 5, or that says nothing to either version, is waited for
        )
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._life = _Life()
        self._left_alone: list[threading.Thread] = []
        self._watchdog = threading.Thread(target=self._watch, name="edgecv-mqtt-watchdog", daemon=True)

    def start(self) -> None:
        """Connect in the background, and again whenever the connection is lost."""
        self._begin(self._life)
        self._watchdog.start()

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
        thread = self._life.thread
        if thread is not None:
            thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    def _request(self, request: Publish | Puback) -> None:
        # Beyond the bound the oldest is lost, which is what a network may do to it anyway.
        while len(self._requests) >= _MAX_REQUESTS:
            self._requests.popleft()
        self._requests.append(request)
        self._wake()

    def _wake(self) -> None:
        with suppress(OSError):  # its buffer is full, so it is awake already; or it is closed
            self._wake_write.send(b"\0")

    def _begin(self, life: _Life) -> None:
        life.thread = threading.Thread(target=self._run, args=(life,), name="edgecv-mqtt", daemon=True)
        life.thread.start()

    def _watch(self) -> None:
        while not self._closing.wait(min(self._options.hang_s / 4, 1.0)):
            life = self._life
            if time.monotonic() - life.alive_s > self._options.hang_s and self._may_leave_alone():
                self._life = _Life()  # from here on nothing that the other one says is heard
                self._notify(Disconnected(reason=HUNG.format(broker=self._broker, seconds=self._options.hang_s)))
                if life.link is not None:
                    life.link.abandon()
                if life.thread is not None:
                    self._left_alone.append(life.thread)
                self._begin(self._life)

    def _may_leave_alone(self) -> bool:
        self._left_alone = [thread for thread in self._left_alone if thread.is_alive()]
        return len(self._left_alone) < _MOST_LEFT_ALONE

    def _is_current(self, life: _Life) -> bool:
        return life is self._life and not self._closing.is_set()

    def _run(self, life: _Life) -> None:
        failures = short = 0
        protocol = self._wanted
        while self._is_current(life):
            link = life.link = self._new_link(life, protocol)
            began_s = time.monotonic()
            reason = self._serve(life, link)
            is_short = link.established and not link.taken_over and time.monotonic() - began_s < _SHORT_S
            short = short + 1 if is_short else 0
            again = AGAIN.format(count=short) if short >= _MOST_SHORT else ""
            self._say(life, Disconnected(reason=reason + again))
            failures = 0 if link.established and not link.taken_over else failures + 1
            protocol, at_once = self._next_protocol(protocol, link)
            if not at_once:
                delay_s = self._options.backoff.delay_s(failures)
                life.alive_s = time.monotonic() + delay_s
                self._closing.wait(delay_s)
        if life is self._life:
            self._wake_read.close()
            self._wake_write.close()

    def _new_link(self, life: _Life, protocol: int) -> Link:
        is_guess = protocol == V5 and self._broker.protocol == "auto" and not self._is_patient
        return Link(
            self._broker,
            self._options,
            lambda event: self._say(life, event),
            protocol=protocol,
            epoch=next(self._epochs),
            is_guess=is_guess,
        )

    def _say(self, life: _Life, event: LinkEvent) -> None:
        if life is self._life:
            self._notify(event)

    def _next_protocol(self, protocol: int, link: Link) -> tuple[int, bool]:
        """The protocol of the next attempt, and whether to make it at once."""
        if self._broker.protocol != "auto" or protocol != V5:
            self._is_patient = self._is_patient or link.unanswered
            return self._wanted, False
        self._is_patient = self._is_patient or link.established
        if link.refused_protocol:
            self._wanted = V311  # said clearly: not asked again
        # Brokers of 3.1.1 may also hang or hang up on an MQTT 5 CONNECT; then 5 is asked again next time.
        fall_back = link.refused_protocol or link.unanswered
        return (V311 if fall_back else V5), fall_back

    def _serve(self, life: _Life, link: Link) -> str:
        """Live through one connection; returns why it ended."""
        try:
            life.alive_s = time.monotonic()
            link.open()
            while self._is_current(life):
                life.alive_s = time.monotonic()
                link.take(self._requests)
                link.step(_POLL_S, self._wake_read)
            if life is self._life:
                link.take(self._requests, last=True)
                link.disconnect()
        except TransportError as error:
            return in_one_line(error.message, error.hint)
        except Exception as error:  # noqa: BLE001 (whatever breaks in paho, the next turn has a new client)
            return f"{type(error).__name__} in the MQTT client"
        finally:
            link.shut()
        return "closed"

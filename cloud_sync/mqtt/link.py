"""One connection to a broker. It polls the socket itself, since paho's ``select`` fails beyond descriptor 1023."""

from __future__ import annotations

import functools
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from edgecv.cloud_sync.mqtt.broker_url import BrokerUrl
from edgecv.cloud_sync.mqtt.client import TESTED_PAHO, V5, connect, content_properties, make_client
from edgecv.cloud_sync.mqtt.events import (
    ANY_PACKET,
    NO_SUBSCRIBERS,
    TOO_LARGE,
    Connected,
    Delivered,
    LinkEvent,
    LinkOptions,
    Received,
    Undelivered,
)
from edgecv.cloud_sync.mqtt.packets import PacketGuard
from edgecv.cloud_sync.mqtt.reasons import ENTRY, NOT_GRANTED, STINGY, TAKEN_OVER
from edgecv.cloud_sync.mqtt.sockets import unread_bytes
from edgecv.cloud_sync.mqtt.window import Puback, Publish, Window
from edgecv.errors import TransportError

_UNSUPPORTED_PROTOCOL = 0x84
_TAKEN_OVER = 0x8E
_MAX_UNANSWERED = 1_000  # packets that may come in while the broker does not read what we answer
_LEAST_PACKET_BYTES = 1024  # one small event; a broker that takes less is of no use
_QUICK_S = 0.8  # for a broker that may not know MQTT 5 to answer at all
_QUICK_ROUNDS = 4  # the same, as a multiple of the time that connecting took
_PING_SHARE = 0.8  # of the keepalive without an answer until we ask for one; as long again without it is the end
_NEVER_S = 86_400  # paho's own keepalive: what a broker sends of itself would hide that it hears nothing


class Link:
    """One paho client and its one connection, for the network thread; it does not wait long for a protocol that ``is_guess``."""

    def __init__(
        self,
        broker: BrokerUrl,
        options: LinkOptions,
        notify: Callable[[LinkEvent], object],
        *,
        protocol: int,
        epoch: int,
        is_guess: bool = False,
    ) -> None:
        self._broker = broker
        self._options = options
        self._notify = notify
        self._protocol = protocol
        self._epoch = epoch
        self._is_guess = is_guess
        self._answer_s = options.timeout_s
        self._window = Window(options.window, options.window_bytes)
        self._max_packet_bytes = ANY_PACKET
        self._guard = PacketGuard(max_bytes=options.max_packet_bytes, is_v5=protocol == V5)
        self._answered_packets = 0
        self._progress_s = time.monotonic()
        self._keepalive_s = float(options.keepalive_s)
        self._pinged_s = float("-inf")
        self._ended = ""
        self.established = False
        self.refused_protocol = False
        self.taken_over = False
        self.unanswered = False
        self._client: Any = None

    def open(self) -> None:
        """Connect and wait for nothing but TCP and TLS.

        Raises:
            TransportError: not reachable, or its certificate is not trusted.
        """
        began_s = time.monotonic()
        self._client = self._make_client()
        connect(self._client, self._broker, self._options, self._protocol)
        self._progress_s = time.monotonic()
        if self._is_guess:
            patience_s = max(_QUICK_S, _QUICK_ROUNDS * (self._progress_s - began_s))
            self._answer_s = min(patience_s, self._options.timeout_s)
        self.unanswered = True

    def take(self, requests: deque[Publish | Puback], *, last: bool = False) -> None:
        """Hand queued requests to paho, as far as the window allows; all of them when they are the ``last``."""
        while requests and self.established and (last or self._may_go(requests[0])):
            request = requests.popleft()
            if request.epoch != self._epoch:
                continue
            if isinstance(request, Puback):
                self._client.ack(request.mid, 1)
            else:
                self._publish(request)

    def step(self, timeout_s: float, wake: socket.socket) -> None:
        """Wait for the network or a wake-up, and do what paho has to do.

        Raises:
            TransportError: the connection is over.
        """
        self._check_progress()
        if self.established:
            self._keep_alive()
        readable, writable = self._poll(self._no_longer_than(timeout_s), wake)
        if readable:
            self._check(self._client.loop_read())
        if writable:
            self._check(self._client.loop_write())
        self._check(self._client.loop_misc())

    def disconnect(self) -> None:
        """Say goodbye, so that the broker does not publish the will."""
        self._client.disconnect()
        deadline_s = time.monotonic() + 1.0
        while self._client.socket() is not None and time.monotonic() < deadline_s:
            poll = select.poll()
            poll.register(self._client.socket(), select.POLLOUT)
            poll.poll(100)
            self._client.loop_write()

    def shut(self) -> None:
        """Close the socket, whatever state it is in."""
        sock = None if self._client is None else self._client.socket()
        if sock is not None:
            sock.close()

    def abandon(self) -> None:
        """Wake a thread that hangs in a read or a write here; called from another thread."""
        sock = None if self._client is None else self._client.socket()
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    @property
    def _is_v5(self) -> bool:
        return self._protocol == V5

    def _make_client(self) -> Any:
        client = make_client(self._broker, self._options, self._protocol)
        # Every byte paho reads goes through the guard. The contract tests, and `_on_connect`, say when it stops asking so.
        client._sock_recv = functools.partial(self._guard.read, receive=client._sock_recv)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        return client

    def _may_go(self, request: Publish | Puback) -> bool:
        return isinstance(request, Puback) or request.epoch != self._epoch or self._window.has_room(request)

    def _publish(self, request: Publish) -> None:
        if request.size_bytes > self._max_packet_bytes:
            self._notify(Undelivered(token=request.token, reason_code=TOO_LARGE))
            return
        if not self._window:
            self._progress_s = time.monotonic()
        more = {"properties": content_properties(request.content_type)} if self._is_v5 and request.content_type else {}
        info = self._client.publish(request.topic, request.payload, qos=1, retain=request.retain, **more)
        self._window.add(info.mid, request)

    def _poll(self, timeout_s: float, wake: socket.socket) -> tuple[bool, bool]:
        sock = self._client.socket()
        if sock is None:
            raise self._over()
        writing = self._client.want_write()
        reading = self._may_read(writing)
        buffered = reading and (self._guard.pending or unread_bytes(sock) > 0)
        poll = select.poll()
        poll.register(sock, (select.POLLIN if reading else 0) | (select.POLLOUT if writing else 0))
        poll.register(wake, select.POLLIN)
        ready = dict(poll.poll(0 if buffered else timeout_s * 1000))
        if wake.fileno() in ready:
            wake.recv(4096)
        mask = ready.get(sock.fileno(), 0)
        return buffered or bool(mask & ~select.POLLOUT), bool(mask & select.POLLOUT)

    def _may_read(self, writing: bool) -> bool:
        """Not while the broker leaves our answers unread: they would pile up here. The keepalive ends that."""
        if not writing:
            self._answered_packets = self._guard.packets
        return self._guard.packets - self._answered_packets < _MAX_UNANSWERED

    def _check_progress(self) -> None:
        waited_s = time.monotonic() - self._progress_s
        if not self.established and waited_s > (self._answer_s if self.unanswered else self._options.timeout_s):
            raise TransportError(f"{self._broker} does not answer.", "Is it an MQTT broker?")
        if self._window and waited_s > self._options.stall_s:
            raise TransportError(f"{self._broker} stopped acknowledging.", "Look at the broker's log.")

    def _keep_alive(self) -> None:
        """Ask for an answer when none came for a while; without one, the connection is dead in one direction at least."""
        now_s, answered_s = time.monotonic(), self._guard.answered_s
        if now_s - answered_s >= 2 * _PING_SHARE * self._keepalive_s:
            raise TransportError(f"The connection to {self._broker} ended: Keep alive timeout.", "It is tried again.")
        if now_s - answered_s >= _PING_SHARE * self._keepalive_s and self._pinged_s <= answered_s:
            self._client._send_pingreq()
            self._pinged_s = now_s

    def _no_longer_than(self, timeout_s: float) -> float:
        """Not past the end of our patience, nor so long that a dead peer is noticed late."""
        if self.established:
            return min(timeout_s, self._keepalive_s / 10)
        return min(timeout_s, self._answer_s / 10)

    def _check(self, code: int) -> None:
        if self._ended or code:  # 0 is success
            raise self._over()

    def _over(self) -> TransportError:
        return TransportError(
            self._ended or self._ending(f"{self._broker} closed the connection."), "It is tried again."
        )

    def _ending(self, otherwise: str) -> str:
        """Why the connection is over: what the guard refused, or else ``otherwise``."""
        refusal = self._guard.refusal
        return f"{self._broker} {refusal}; the connection was ended." if refusal else otherwise

    # The callbacks run inside loop_read and loop_write above, on the network thread.

    def _on_connect(self, client: Any, _data: None, _flags: object, reason: object, properties: object) -> None:
        self.unanswered = False
        code = int(getattr(reason, "value", 0x80))
        if code:
            self.refused_protocol = code == _UNSUPPORTED_PROTOCOL
            self._ended = f"{self._broker} refused the connection: {reason}.{ENTRY.get(code, '')}"
            return
        self._window.messages = min(self._options.window, getattr(properties, "ReceiveMaximum", 65_535))
        self._max_packet_bytes = getattr(properties, "MaximumPacketSize", ANY_PACKET)
        if not self._guard.packets:
            self._ended = f"This version of paho-mqtt reads past the limit on packets: {TESTED_PAHO}"
            return
        if self._max_packet_bytes < _LEAST_PACKET_BYTES:
            self._ended = STINGY.format(broker=self._broker, takes=self._max_packet_bytes, needs=_LEAST_PACKET_BYTES)
            return
        # A broker may ask for another keepalive. More pings than it needs do no harm; none would hide a dead peer.
        self._keepalive_s = min(client._keepalive or self._keepalive_s, self._keepalive_s)
        client._keepalive = _NEVER_S
        if self._options.filters:
            client.subscribe([(topic, 1) for topic in self._options.filters])
        else:
            self._establish()

    def _on_subscribe(self, _client: Any, _data: None, _mid: int, reasons: list[object], _props: object) -> None:
        granted = [not getattr(reason, "is_failure", True) for reason in reasons]
        needed = len(self._options.subscriptions)  # a broker that says nothing of the optional ones refuses them
        if len(granted) not in (needed, len(self._options.filters)) or not all(granted[:needed]):
            self._ended = NOT_GRANTED.format(broker=self._broker, topics=", ".join(self._options.subscriptions))
            return
        self._establish()

    def _establish(self) -> None:
        self.established = True
        self._progress_s = time.monotonic()
        self._notify(
            Connected(
                epoch=self._epoch,
                window=self._window.messages,
                protocol="5" if self._is_v5 else "3.1.1",
                max_packet_bytes=self._max_packet_bytes,
            )
        )

    def _on_publish(self, _client: Any, _data: None, mid: int, reason: object, _properties: object) -> None:
        self._progress_s = time.monotonic()
        token = self._window.answered(mid)
        if token is None:
            return
        code = int(getattr(reason, "value", 0))
        # paho does not call 0x10, nobody subscribes, a failure; and it counts refused messages as published.
        if code >= 0x80 or code == NO_SUBSCRIBERS:
            self._notify(Undelivered(token=token, reason_code=code))
        else:
            self._notify(Delivered(token=token))

    def _on_message(self, _client: Any, _data: None, message: Any) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        payload = bytes(message.payload)
        self._notify(Received(epoch=self._epoch, mid=message.mid, topic=topic, qos=message.qos, payload=payload))

    def _on_disconnect(self, _client: Any, _data: None, _flags: object, reason: object, _props: object) -> None:
        code = int(getattr(reason, "value", 0))
        self.taken_over = code == _TAKEN_OVER
        otherwise = f"The connection to {self._broker} ended: {reason}."
        if self.taken_over:
            otherwise = TAKEN_OVER.format(broker=self._broker, name=self._options.client_id)
        self._ended = self._ended or self._ending(otherwise)

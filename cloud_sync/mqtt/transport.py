"""MQTT through paho: the only module that imports it.

paho's own loop, reconnection and resending are not used. One network thread owns everything: it makes a fresh paho
client for every connection (so nothing of an old one is sent again), polls the socket itself (paho's ``select`` fails
beyond descriptor 1023) and reports through one callback. Other threads only leave requests in a queue.
"""

from __future__ import annotations

import functools
import itertools
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from edgecv._internal.extras import require
from edgecv.cloud_sync.mqtt.broker_url import BrokerUrl
from edgecv.cloud_sync.mqtt.events import (
    ANY_PACKET,
    NO_SUBSCRIBERS,
    TOO_LARGE,
    Connected,
    Delivered,
    Disconnected,
    LinkEvent,
    LinkOptions,
    Received,
    Undelivered,
)
from edgecv.cloud_sync.mqtt.packets import PacketGuard
from edgecv.errors import TransportError

mqtt = require("paho.mqtt.client", "mqtt")
enums = require("paho.mqtt.enums", "mqtt")
packets = require("paho.mqtt.packettypes", "mqtt")
props = require("paho.mqtt.properties", "mqtt")

_V5, _V311 = int(mqtt.MQTTv5), int(mqtt.MQTTv311)
_UNSUPPORTED_PROTOCOL = 0x84
_TAKEN_OVER = 0x8E
_SHORT_S = 10.0
_MOST_SHORT = 3
_AGAIN = (
    " That was right after connecting, {count} times in a row: does another device have the same tenant and device name, or is an "
    "event larger than the broker takes?"
)
_CHECK_USER = " Check the user in the URL and password_file."
_ENTRY = {4: _CHECK_USER, 5: _CHECK_USER, 0x86: _CHECK_USER, 0x87: _CHECK_USER}  # by version 3.1.1 and 5
# X.509 verification codes of OpenSSL
_UNKNOWN_SIGNER, _OTHER_NAME, _WRONG_TIME = frozenset({18, 19, 20, 21}), frozenset({62, 64}), frozenset({9, 10})
_MAX_REQUESTS = 4_000
_MAX_UNANSWERED = 1_000  # packets that may come in while the broker does not read what we answer
_LEAST_PACKET_BYTES = 1024  # one small event; a broker that takes less is of no use
_POLL_S = 0.5
_HEADER_BYTES = 16  # fixed header, topic length, packet identifier, properties


@dataclass(frozen=True, slots=True, kw_only=True)
class _Publish:
    epoch: int
    token: int
    topic: str
    payload: bytes
    retain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Puback:
    epoch: int
    mid: int


class MqttTransport:
    """A connection to a broker that comes back by itself.

    Args:
        broker: Where.
        options: How to connect.
        notify: Called from the network thread with every ``LinkEvent``; it must only enqueue.
    """

    def __init__(self, broker: BrokerUrl, options: LinkOptions, notify: Callable[[LinkEvent], None]) -> None:
        self._broker = broker
        self._options = options
        self._notify = notify
        self._tokens = itertools.count(1)
        self._requests: deque[_Publish | _Puback] = deque()
        self._closing = threading.Event()
        self._wanted = _V311 if broker.protocol == "3.1.1" else _V5
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="edgecv-mqtt", daemon=True)

    def start(self) -> None:
        """Connect in the background, and again whenever the connection is lost."""
        self._thread.start()

    def publish(self, epoch: int, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Send with QoS 1 on connection ``epoch``; never waits.

        Returns:
            A token that ``Delivered`` or ``Undelivered`` will name, unless the connection is lost first.
        """
        request = _Publish(epoch=epoch, token=next(self._tokens), topic=topic, payload=payload, retain=retain)
        self._request(request)
        return request.token

    def acknowledge(self, message: Received) -> None:
        """Tell the broker that a received message is taken care of (``manual_ack``)."""
        if message.qos:  # a PUBACK to a message with QoS 0 would end the connection
            self._request(_Puback(epoch=message.epoch, mid=message.mid))

    def close(self, timeout_s: float) -> bool:
        """Send what is queued, disconnect properly and stop; ``False`` when that took too long."""
        self._closing.set()
        self._wake()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _request(self, request: _Publish | _Puback) -> None:
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
            link = _Link(self._broker, self._options, self._notify, protocol=protocol, epoch=epoch)
            began_s = time.monotonic()
            reason = self._serve(link)
            is_short = link.established and not link.taken_over and time.monotonic() - began_s < _SHORT_S
            short = short + 1 if is_short else 0
            self._notify(Disconnected(reason=reason + (_AGAIN.format(count=short) if short >= _MOST_SHORT else "")))
            failures = 0 if link.established and not link.taken_over else failures + 1
            protocol, at_once = self._next_protocol(protocol, link)
            if not at_once:
                self._closing.wait(self._options.backoff.delay_s(failures))
        self._wake_read.close()
        self._wake_write.close()

    def _next_protocol(self, protocol: int, link: _Link) -> tuple[int, bool]:
        """The protocol of the next attempt, and whether to make it at once."""
        if protocol != _V5 or self._broker.protocol != "auto":
            return self._wanted, False
        if link.refused_protocol:
            self._wanted = _V311  # said clearly: not asked again
        # Brokers of 3.1.1 may also hang or hang up on an MQTT 5 CONNECT; then 5 is asked again next time.
        fall_back = link.refused_protocol or link.unanswered
        return (_V311 if fall_back else _V5), fall_back

    def _serve(self, link: _Link) -> str:
        """Live through one connection; returns why it ended."""
        try:
            link.open()
            while not self._closing.is_set():
                link.take(self._requests)
                link.step(_POLL_S, self._wake_read)
            link.take(self._requests, last=True)
            link.disconnect()
        except TransportError as error:
            return f"{error.message} {error.hint}".strip()
        except Exception as error:  # noqa: BLE001 (the watchdog: whatever breaks in paho, the next turn has a new client)
            return f"{type(error).__name__} in the MQTT client"
        finally:
            link.shut()
        return "closed"


class _Link:
    """One paho client and its one connection; used by the network thread only."""

    def __init__(
        self,
        broker: BrokerUrl,
        options: LinkOptions,
        notify: Callable[[LinkEvent], None],
        *,
        protocol: int,
        epoch: int,
    ) -> None:
        self._broker = broker
        self._options = options
        self._notify = notify
        self._protocol = protocol
        self._epoch = epoch
        self._tokens: dict[int, int] = {}
        self._window = options.window
        self._max_packet_bytes = ANY_PACKET
        self._guard = PacketGuard(max_bytes=options.max_packet_bytes, is_v5=protocol == _V5)
        self._answered_packets = 0
        self._progress_s = time.monotonic()
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
        more = {"clean_start": True, "properties": self._connect_properties()} if self._is_v5 else {}
        try:
            self._client = self._make_client()
            self._client.connect(self._broker.host, self._broker.port, self._options.keepalive_s, **more)
        except ssl.SSLError as error:
            raise _tls_failure(self._broker, error) from error
        except (OSError, ValueError) as error:
            raise TransportError(f"{self._broker} cannot be reached: {error}", "Check host and port.") from error
        self._progress_s = time.monotonic()
        self.unanswered = True

    def take(self, requests: deque[_Publish | _Puback], *, last: bool = False) -> None:
        """Hand queued requests to paho, as far as the window allows; all of them when they are the ``last``."""
        while requests and self.established and (last or len(self._tokens) < self._window):
            request = requests.popleft()
            if request.epoch != self._epoch:
                continue
            if isinstance(request, _Puback):
                self._client.ack(request.mid, 1)
            else:
                self._publish(request)

    def step(self, timeout_s: float, wake: socket.socket) -> None:
        """Wait for the network or a wake-up, and do what paho has to do.

        Raises:
            TransportError: the connection is over.
        """
        self._check_progress()
        readable, writable = self._poll(timeout_s, wake)
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

    @property
    def _is_v5(self) -> bool:
        return self._protocol == _V5

    def _make_client(self) -> Any:
        options, broker = self._options, self._broker
        more = {} if self._is_v5 else {"clean_session": True}
        client = mqtt.Client(
            enums.CallbackAPIVersion.VERSION2,
            client_id=options.client_id,
            protocol=enums.MQTTProtocolVersion(self._protocol),
            reconnect_on_failure=False,
            manual_ack=options.manual_ack,
            **more,
        )
        # Every byte paho reads goes through the guard. The contract tests, and `_on_connect`, say when it stops asking so.
        client._sock_recv = functools.partial(self._guard.read, receive=client._sock_recv)
        client.suppress_exceptions = True
        client.connect_timeout = options.timeout_s
        client.max_inflight_messages_set(0)  # the window is kept here, where ReceiveMaximum is known
        if broker.username is not None or broker.password is not None:
            client.username_pw_set(broker.username or "", broker.password)
        if broker.tls:
            client.tls_set_context(self._tls_context())
        if options.will is not None:
            client.will_set(options.will.topic, options.will.payload, qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        client.on_socket_register_write = _ignore  # with it, publish() leaves writing to our loop
        return client

    def _tls_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._broker.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._broker.cert_file is not None:
            context.load_cert_chain(self._broker.cert_file, self._broker.key_file)
        return context

    def _connect_properties(self) -> Any:
        properties = props.Properties(packets.PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 0
        properties.ReceiveMaximum = max(self._options.window, 1)
        properties.MaximumPacketSize = self._options.max_packet_bytes
        return properties

    def _publish(self, request: _Publish) -> None:
        size = len(request.payload) + len(request.topic) + _HEADER_BYTES
        if size > self._max_packet_bytes:
            self._notify(Undelivered(token=request.token, reason_code=TOO_LARGE))
            return
        if not self._tokens:
            self._progress_s = time.monotonic()
        info = self._client.publish(request.topic, request.payload, qos=1, retain=request.retain)
        self._tokens[info.mid] = request.token

    def _poll(self, timeout_s: float, wake: socket.socket) -> tuple[bool, bool]:
        sock = self._client.socket()
        if sock is None:
            raise self._over()
        writing = self._client.want_write()
        reading = self._may_read(writing)
        buffered = reading and (self._guard.pending or (isinstance(sock, ssl.SSLSocket) and sock.pending() > 0))
        poll = select.poll()
        poll.register(sock, (select.POLLIN if reading else 0) | (select.POLLOUT if writing else 0))
        poll.register(wake, select.POLLIN)
        ready = dict(poll.poll(0 if buffered else timeout_s * 1000))
        if wake.fileno() in ready:
            wake.recv(4096)
        mask = ready.get(sock.fileno(), 0)
        return buffered or bool(mask & ~select.POLLOUT), bool(mask & select.POLLOUT)

    def _may_read(self, writing: bool) -> bool:
        """Not while the broker leaves our answers unread: they would pile up here. paho's keepalive ends that."""
        if not writing:
            self._answered_packets = self._guard.packets
        return self._guard.packets - self._answered_packets < _MAX_UNANSWERED

    def _check_progress(self) -> None:
        waited_s = time.monotonic() - self._progress_s
        if not self.established and waited_s > self._options.timeout_s:
            raise TransportError(f"{self._broker} does not answer.", "Is it an MQTT broker?")
        if self._tokens and waited_s > self._options.stall_s:
            raise TransportError(f"{self._broker} stopped acknowledging.", "Look at the broker's log.")

    def _check(self, code: int) -> None:
        if self._ended or code != enums.MQTTErrorCode.MQTT_ERR_SUCCESS:
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
            self._ended = f"{self._broker} refused the connection: {reason}.{_ENTRY.get(code, '')}"
            return
        self._window = min(self._options.window, getattr(properties, "ReceiveMaximum", 65_535))
        self._max_packet_bytes = getattr(properties, "MaximumPacketSize", ANY_PACKET)
        if not self._guard.packets:
            self._ended = (
                "This version of paho-mqtt reads past the limit on packets: install one that EdgeCV is tested with."
            )
            return
        if self._max_packet_bytes < _LEAST_PACKET_BYTES:
            self._ended = (
                f"{self._broker} takes packets of {self._max_packet_bytes} bytes and EdgeCV needs {_LEAST_PACKET_BYTES}: "
                "everything waits. Raise its limit (mosquitto: max_packet_size)."
            )
            return
        # A broker may ask for another keepalive. More pings than it needs do no harm; none would hide a dead peer.
        client._keepalive = min(client._keepalive or self._options.keepalive_s, self._options.keepalive_s)
        if self._options.subscriptions:
            client.subscribe([(topic, 1) for topic in self._options.subscriptions])
        else:
            self._establish()

    def _on_subscribe(self, _client: Any, _data: None, _mid: int, reasons: list[object], _props: object) -> None:
        granted = [not getattr(reason, "is_failure", True) for reason in reasons]
        if len(granted) != len(self._options.subscriptions) or not all(granted):
            self._ended = (
                f"{self._broker} does not allow to subscribe to {', '.join(self._options.subscriptions)}. Look at its access "
                "rules: a device reads the topic 'ack' below its own name, ingest every 'ev' (docs/examples/mosquitto)."
            )
            return
        self._establish()

    def _establish(self) -> None:
        self.established = True
        self._progress_s = time.monotonic()
        self._notify(
            Connected(
                epoch=self._epoch,
                window=self._window,
                protocol="5" if self._is_v5 else "3.1.1",
                max_packet_bytes=self._max_packet_bytes,
            )
        )

    def _on_publish(self, _client: Any, _data: None, mid: int, reason: object, _properties: object) -> None:
        self._progress_s = time.monotonic()
        token = self._tokens.pop(mid, None)
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
            otherwise = (
                f"{self._broker} ended the connection, since another client of the name {self._options.client_id} came: do two "
                "devices have one tenant and device name? Give each its own."
            )
        self._ended = self._ended or self._ending(otherwise)


def _tls_failure(broker: BrokerUrl, error: ssl.SSLError) -> TransportError:
    code = getattr(error, "verify_code", 0)
    if code in _UNKNOWN_SIGNER:
        return TransportError(
            f"{broker}: TLS failed: its certificate is signed by nobody whom this machine trusts.",
            "Name its certificate authority, or the certificate itself if it is self-signed: ?ca_file=ca.crt",
        )
    if code in _OTHER_NAME:
        return TransportError(
            f"{broker}: TLS failed: its certificate is made out to another name.",
            "Write the host in the URL as the certificate has it, or have one made for this name.",
        )
    if code in _WRONG_TIME:
        return TransportError(
            f"{broker}: TLS failed: its certificate is not valid at the time of this machine.",
            "Is the clock right (date)? Otherwise the broker needs a new certificate.",
        )
    return TransportError(
        f"{broker}: TLS failed: {error.reason or error}.",
        "Is that the port for TLS, and does it ask for cert_file and key_file?",
    )


def _ignore(*_args: object) -> None:
    """Nothing to do: the loop looks at ``want_write`` itself."""

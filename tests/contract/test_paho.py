"""What EdgeCV relies on inside paho-mqtt. Red here means: this version of paho needs another look at client.py and link.py."""

from __future__ import annotations

import inspect
import queue
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager

import paho.mqtt.client as paho
import pytest

from edgecv.cloud_sync.mqtt.broker_url import parse_broker_url
from edgecv.cloud_sync.mqtt.events import Connected, Disconnected, LinkEvent, LinkOptions, Received
from edgecv.cloud_sync.mqtt.transport import MqttTransport
from tests.security.hostile_broker import PINGREQ, SERVER_KEEP_ALIVE, HostileBroker, Peer, connack, publish
from tests.unit.cloud_sync.support import FAST


@contextmanager
def running_transport(url: str, **options: object) -> Iterator[queue.SimpleQueue[LinkEvent]]:
    events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    settings = {"client_id": "probe", "subscriptions": ("t/ack",), "backoff": FAST, **options}
    transport = MqttTransport(parse_broker_url(url), LinkOptions(**settings), events.put)  # type: ignore[arg-type]
    transport.start()
    try:
        yield events
    finally:
        assert transport.close(5.0)


def next_of(events: queue.SimpleQueue[LinkEvent], kind: type, timeout_s: float = 10.0) -> LinkEvent:
    deadline_s = time.monotonic() + timeout_s
    while True:
        event = events.get(timeout=max(deadline_s - time.monotonic(), 0.01))
        if isinstance(event, kind):
            return event


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_every_byte_paho_reads_goes_through_the_guard(protocol: str) -> None:
    def script(peer: Peer) -> None:
        peer.welcome()
        for byte in publish("t/ack", b"hello", properties=b"" if peer.v5 else None):
            peer.send(bytes([byte]))
            time.sleep(0.002)
        peer.serve()

    with HostileBroker(script) as broker, running_transport(f"{broker.url}?protocol={protocol}") as events:
        connected = next_of(events, Connected)
        assert isinstance(connected, Connected)
        assert connected.protocol == protocol
        received = next_of(events, Received)
        assert isinstance(received, Received)
        assert (received.topic, received.payload, received.qos) == ("t/ack", b"hello", 1)


def test_a_paho_that_reads_elsewhere_is_refused_and_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real method of paho, rewritten as a later version might do: it asks the socket itself."""
    source = textwrap.dedent(inspect.getsource(paho.Client._packet_read))
    assert source.count("self._sock_recv(") == 3, "paho reads packets in another way than EdgeCV knows"
    namespace: dict[str, object] = {}
    exec(source.replace("self._sock_recv(", "self._sock.recv("), vars(paho), namespace)
    monkeypatch.setattr(paho.Client, "_packet_read", namespace["_packet_read"])
    with HostileBroker(Peer.welcome) as broker, running_transport(broker.url) as events:
        ended = next_of(events, Disconnected)
        assert isinstance(ended, Disconnected)
        assert "install one that EdgeCV is tested with" in ended.reason


def test_a_paho_that_connects_by_itself_is_refused_before_a_byte_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would do so without our TLS, our WebSocket and our deadline."""
    source = textwrap.dedent(inspect.getsource(paho.Client.reconnect))
    assert source.count("self._create_socket()") == 1, "paho opens connections in another way than EdgeCV knows"
    namespace: dict[str, object] = {}
    exec(source.replace("self._create_socket()", "self._create_socket_connection()"), vars(paho), namespace)
    monkeypatch.setattr(paho.Client, "reconnect", namespace["reconnect"])
    came: list[bytes] = []
    with (
        HostileBroker(lambda peer: came.append(peer.socket.recv(1))) as broker,
        running_transport(broker.url) as events,
    ):
        ended = next_of(events, Disconnected)
        assert isinstance(ended, Disconnected)
        assert "connections of its own" in ended.reason
    assert set(came) <= {b""}


@pytest.mark.parametrize("asked", [0, 65_535], ids=["none", "18 hours"])
def test_a_broker_cannot_talk_a_client_out_of_its_keepalive(asked: int) -> None:
    """Our own second is kept: a ping goes out, and when nobody answers it the peer counts as dead."""
    pings: list[int] = []

    def script(peer: Peer) -> None:
        peer.welcome(connack(bytes([SERVER_KEEP_ALIVE]) + asked.to_bytes(2, "big")))
        while True:
            first, _ = peer.read()
            if first == PINGREQ:
                pings.append(first)

    with HostileBroker(script) as broker, running_transport(f"{broker.url}?protocol=5", keepalive_s=1) as events:
        next_of(events, Connected)
        ended = next_of(events, Disconnected, timeout_s=5.0)
        assert isinstance(ended, Disconnected)
        assert "eep alive" in ended.reason
        assert pings

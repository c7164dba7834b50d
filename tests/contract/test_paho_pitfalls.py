"""What paho-mqtt does that EdgeCV works around, each seen on a real socket.

Red here means: this version of paho behaves in another way. Look at the module that the test names, then change the test.
No test is about EdgeCV itself; those are in test_paho.py and tests/integration/test_sync_*.py.
"""

from __future__ import annotations

import gc
import inspect
import os
import resource
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from tests.security.hostile_broker import (
    MAXIMUM_PACKET_SIZE,
    PINGREQ,
    PUBACK,
    PUBLISH,
    RECEIVE_MAXIMUM,
    HostileBroker,
    Peer,
    connack,
    packet,
    publish,
)
from tests.unit.cloud_sync.support import until

PUBREC, PUBREL, PUBCOMP = 0x50, 0x60, 0x70


def new_client(protocol: int = paho.MQTTv5, **options: Any) -> paho.Client:
    return paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="x", protocol=protocol, **options)  # type: ignore[arg-type]


@contextmanager
def looping(port: int, client: paho.Client | None = None, keepalive: int = 60) -> Iterator[paho.Client]:
    """A connected client in paho's own thread, as most programs use it."""
    client = client or new_client()
    client.connect("127.0.0.1", port, keepalive)
    client.loop_start()
    try:
        until(client.is_connected, "it connects")
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def greet(peer: Peer, answer: bytes | None = None) -> None:
    """CONNECT and CONNACK; a naive client subscribes to nothing."""
    _, peer.connect = peer.read()
    peer.v5 = peer.connect[6] == 5
    peer.send(connack(v5=peer.v5) if answer is None else answer)


def greet_and_serve(peer: Peer) -> None:
    greet(peer)
    peer.serve()


def mids(peer: Peer, kind: int = PUBLISH) -> Iterator[bytes]:
    """Packet identifiers of what the client publishes, one after the other."""
    while True:
        first, body = peer.read()
        if first & 0xF0 == kind:
            size = int.from_bytes(body[:2], "big")
            yield body[2 + size : 4 + size]


def collecting(into: list[bytes], answer: bytes | None = None) -> Callable[[Peer], None]:
    """A broker that answers no message and keeps their identifiers."""

    def script(peer: Peer) -> None:
        greet(peer, answer)
        into.extend(())
        for mid in mids(peer):
            into.append(mid)

    return script


def test_publishing_while_disconnected_keeps_the_message_and_calls_it_an_error() -> None:
    """delivery/sender.py: whoever tries again after the error sends it twice; so nothing is given to paho without a connection."""
    client = new_client()
    info = client.publish("t", b"x", qos=1)
    assert info.rc == MQTTErrorCode.MQTT_ERR_NO_CONN
    with HostileBroker(greet_and_serve) as broker, looping(broker.port, client):
        until(lambda: [peer for peer in broker.peers if peer.published], "it is sent all the same")


def test_a_new_connection_sends_everything_again_whatever_the_window() -> None:
    """mqtt/transport.py: so every connection has a client of its own."""
    seen: list[list[bytes]] = []

    def script(peer: Peer) -> None:
        seen.append([])
        greet(peer)
        for mid in mids(peer):
            seen[-1].append(mid)
            if len(seen) == 1:
                return  # the connection ends with one message under way and four behind it

    client = new_client()
    client.reconnect_delay_set(1, 1)
    client.max_inflight_messages_set(1)
    for _ in range(5):
        client.publish("t", b"x", qos=1)
    with HostileBroker(script) as broker, looping(broker.port, client):
        until(lambda: len(seen) > 1 and len(seen[1]) == 5, "all five are sent, and one may be under way", timeout_s=5.0)


def test_the_receive_maximum_of_the_server_is_ignored() -> None:
    """mqtt/window.py keeps it."""
    seen: list[bytes] = []
    says_one = connack(bytes([RECEIVE_MAXIMUM]) + (1).to_bytes(2, "big"))
    with HostileBroker(collecting(seen, says_one)) as broker, looping(broker.port) as client:
        for _ in range(10):
            client.publish("t", b"x", qos=1)
        until(lambda: len(seen) == 10, "ten are under way at once")


def test_the_maximum_packet_size_of_the_server_is_ignored() -> None:
    """mqtt/link.py asks before it publishes; a broker ends the connection over such a packet, and paho sends it again."""
    seen: list[bytes] = []
    says_little = connack(bytes([MAXIMUM_PACKET_SIZE]) + (100).to_bytes(4, "big"))
    with HostileBroker(collecting(seen, says_little)) as broker, looping(broker.port) as client:
        assert client.publish("t", b"x" * 1000, qos=1).rc == MQTTErrorCode.MQTT_ERR_SUCCESS
        until(lambda: seen, "a packet ten times too large is sent")


def test_a_message_that_the_broker_refused_counts_as_published() -> None:
    """mqtt/link.py reads the reason code of every PUBACK."""

    def script(peer: Peer) -> None:
        greet(peer)
        for mid in mids(peer):
            peer.send(packet(PUBACK, mid + b"\x97\0"))  # quota exceeded

    with HostileBroker(script) as broker, looping(broker.port) as client:
        info = client.publish("t", b"x", qos=1)
        info.wait_for_publish(5.0)
        assert info.is_published()
        assert info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS


def test_a_message_that_nobody_subscribes_to_is_no_failure() -> None:
    """mqtt/link.py: NO_SUBSCRIBERS is not delivered."""
    assert not ReasonCode(PacketTypes.PUBACK, identifier=0x10).is_failure
    assert ReasonCode(PacketTypes.PUBACK, identifier=0x97).is_failure


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_exception_in_a_callback_ends_the_thread_and_the_client_still_says_connected() -> None:
    """mqtt/client.py: suppress_exceptions, and no thread of paho's."""
    client = new_client()
    assert client.suppress_exceptions is False

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    client.on_publish = broken
    with HostileBroker(greet_and_serve) as broker:
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        thread = client._thread
        assert thread is not None
        until(client.is_connected, "it connects")
        client.publish("t", b"x", qos=1)
        until(lambda: not thread.is_alive(), "its thread ends")
        assert client.is_connected()


def test_stopping_the_loop_waits_for_messages_that_nobody_answers() -> None:
    """mqtt/link.py disconnects and writes by itself, with a deadline; loop_stop is never called."""
    seen: list[bytes] = []
    client = new_client()
    with HostileBroker(collecting(seen)) as broker:
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        until(client.is_connected, "it connects")
        client.publish("t", b"x", qos=1)
        until(lambda: seen, "it is under way")
        stopper = threading.Thread(target=client.loop_stop, daemon=True)
        stopper.start()
        stopper.join(1.0)
        hangs = stopper.is_alive()
        client.disconnect()
        stopper.join(5.0)
    assert hangs
    assert not stopper.is_alive()


def test_on_publish_runs_under_a_lock_of_paho() -> None:
    """mqtt/transport.py: a callback only puts into a queue; one that waits for a publish of another thread waits for ever."""
    held: list[bool] = []
    client = new_client()

    def look(*_: object) -> None:
        taken = threading.Thread(target=lambda: held.append(not client._out_message_mutex.acquire(timeout=0.2)))
        taken.start()
        taken.join(5.0)

    client.on_publish = look
    with HostileBroker(greet_and_serve) as broker, looping(broker.port, client):
        client.publish("t", b"x", qos=1)
        until(lambda: held, "the callback ran")
    assert held == [True]


def test_messages_of_qos_0_pile_up_without_bound() -> None:
    """cloud_sync publishes with QoS 1 alone: QoS 0 has neither a window nor a queue that is ever full."""
    client = new_client()
    client.max_inflight_messages_set(1)
    client.max_queued_messages_set(1)
    with HostileBroker(lambda peer: (greet(peer), time.sleep(10.0))[0], receive_buffer=4096) as broker:
        client.connect("127.0.0.1", broker.port)
        client.on_socket_register_write = lambda *_: None
        for _ in range(20):
            assert client.publish("t", b"x" * 1000, qos=0).rc == MQTTErrorCode.MQTT_ERR_SUCCESS
        assert len(client._out_packet) >= 20


def test_a_socket_above_descriptor_1023_never_connects_in_paho_s_own_loop() -> None:
    """mqtt/link.py polls the socket itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("needs 2,048 descriptors")
    gc.collect()
    with HostileBroker(greet_and_serve) as broker, ExitStack() as held:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            held.enter_context(Path(os.devnull).open())
        client = new_client()
        client.connect("127.0.0.1", broker.port)
        sock = client.socket()
        assert sock is not None
        assert sock.fileno() > 1023
        assert client.loop(0.2) != MQTTErrorCode.MQTT_ERR_SUCCESS
        assert not client.is_connected()


def test_the_delays_between_connections_have_no_chance_in_them() -> None:
    """edgecv/_internal/timing.py: Backoff leaves half of each delay to chance, so that a fleet does not come back at once."""
    source = inspect.getsource(paho.Client._reconnect_wait)
    assert "_reconnect_delay * 2" in source
    assert "random" not in source


def short_keepalive(port: int) -> paho.Client:
    """A connected client whose keepalive is 0.3 s; paho takes whole seconds alone. The caller runs its loop."""
    client = new_client()
    client.connect("127.0.0.1", port, 1)
    deadline_s = time.monotonic() + 5.0
    while not client.is_connected() and time.monotonic() < deadline_s:
        client.loop(0.02)
    client._keepalive = 0.3  # type: ignore[assignment]
    return client


def loop_while(client: paho.Client, wanted: Callable[[], bool], timeout_s: float = 5.0) -> float:
    """Run the loop for as long as something holds; says for how many seconds it did."""
    began_s = time.monotonic()
    while wanted() and time.monotonic() - began_s < timeout_s:
        client.loop(0.02)
    return time.monotonic() - began_s


def test_a_dead_peer_is_noticed_after_two_keepalives_and_not_before() -> None:
    """mqtt/link.py asks after 0.8 of a keepalive and gives up after another 0.8."""

    def script(peer: Peer) -> None:
        greet(peer)
        while True:
            peer.read()

    with HostileBroker(script) as broker:
        client = short_keepalive(broker.port)
        assert 0.55 < loop_while(client, client.is_connected) < 2.0


def test_a_peer_that_only_sends_is_never_noticed() -> None:
    """mqtt/link.py: only what answers us counts as a sign of life."""
    pings: list[int] = []

    def script(peer: Peer) -> None:
        greet(peer)
        threading.Thread(target=count_pings, args=(peer, pings), daemon=True).start()
        while True:
            peer.send(publish("t", b"x", qos=0))
            time.sleep(0.02)

    with HostileBroker(script) as broker:
        client = short_keepalive(broker.port)
        loop_while(client, lambda: client.is_connected() and len(pings) < 4)
        assert client.is_connected()
        assert len(pings) >= 4


def count_pings(peer: Peer, pings: list[int]) -> None:
    with suppress(OSError):
        while True:
            first, _ = peer.read()
            if first == PINGREQ:
                pings.append(first)


def test_a_refusal_in_qos_2_is_ignored() -> None:
    """cloud_sync uses QoS 1, and mqtt/packets.py ends a connection that sends anything of QoS 2."""

    def script(peer: Peer) -> None:
        greet(peer)
        while True:
            first, body = peer.read()
            if first & 0xF0 == PUBLISH:
                size = int.from_bytes(body[:2], "big")
                peer.send(packet(PUBREC, body[2 + size : 4 + size] + b"\x97\0"))
            elif first & 0xF0 == PUBREL:
                peer.send(packet(PUBCOMP, body[:2]))

    codes: list[int] = []
    client = new_client()
    client.on_publish = lambda _c, _d, _mid, reason, _p: codes.append(reason.value)
    with HostileBroker(script) as broker, looping(broker.port, client):
        info = client.publish("t", b"x", qos=2)
        info.wait_for_publish(5.0)
        until(lambda: codes, "it is reported")
    assert codes == [0]


def test_its_websocket_forgets_a_packet_that_the_kernel_takes_in_part() -> None:
    """mqtt/websocket.py is used in its place: paho takes the packet off its queue and drops what send() calls 0 bytes."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ours.setblocking(False)
    wrapper = paho._WebsocketWrapper.__new__(paho._WebsocketWrapper)
    wrapper.__dict__.update(
        _socket=ours, _ssl=False, _sendbuffer=bytearray(), _readbuffer=bytearray(), _requested_size=0
    )
    client = new_client()
    client._sock = wrapper  # type: ignore[assignment]
    client.on_socket_register_write = lambda *_: None
    client._packet_queue(PUBLISH | 2, b"x" * 500_000, 1, 1)
    assert client.want_write()
    client.loop_write()
    lost = not client.want_write()
    client._sock = None
    ours.close()
    theirs.close()
    assert lost


def test_publishing_leaves_the_writing_to_our_loop() -> None:
    """mqtt/client.py: with on_socket_register_write no other thread touches the socket."""
    client = new_client()
    client.on_socket_register_write = lambda *_: None
    with HostileBroker(greet_and_serve) as broker:
        client.connect("127.0.0.1", broker.port)
        client.publish("t", b"x", qos=1)
        assert client.want_write()
        assert len(client._out_packet) == 2  # CONNECT is not out either
        client._sock_close()


def test_the_methods_that_we_put_ours_in_place_of_are_there() -> None:
    """mqtt/client.py and mqtt/link.py: the socket, its reads, the ping, and a keepalive that we keep ourselves."""
    client = new_client()
    for name in ("_create_socket", "_sock_recv", "_send_pingreq", "_sock_close"):
        assert callable(getattr(client, name)), name
    assert client._keepalive == 60
    source = inspect.getsource(paho.Client.reconnect)
    assert "self._sock = self._create_socket()" in source
    assert "select.select(" in inspect.getsource(paho.Client._loop)
    assert hasattr(select, "poll")

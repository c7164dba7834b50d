"""Hostile brokers, devices and strangers on the topics: nothing accepted is lost, nothing grows, nothing stops."""

from __future__ import annotations

import json
import logging
import os
import queue
import random
import shutil
import socket
import sqlite3
import stat
import string
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from edgecv.cloud_sync.acks import Ack, encode_acks, to_ranges
from edgecv.cloud_sync.delivery.options import SendOptions
from edgecv.cloud_sync.delivery.sender import Sender
from edgecv.cloud_sync.envelope import MAX_BATCH_BYTES, Stamp, decode_batch, encode, encode_batch, envelope_from_event
from edgecv.cloud_sync.ingest.blobs.limits import BlobLimits
from edgecv.cloud_sync.ingest.database import EventDatabase
from edgecv.cloud_sync.ingest.ingest import Ingest
from edgecv.cloud_sync.mqtt import client as mqtt_client
from edgecv.cloud_sync.mqtt.broker_url import BrokerUrl, parse_broker_url
from edgecv.cloud_sync.mqtt.events import Connected, Disconnected, LinkEvent, LinkOptions, Received
from edgecv.cloud_sync.mqtt.inbox import Inbox, InboxLimits
from edgecv.cloud_sync.mqtt.packets import PacketGuard
from edgecv.cloud_sync.mqtt.sockets import open_socket
from edgecv.cloud_sync.mqtt.transport import MqttTransport
from edgecv.cloud_sync.outbox.outbox import Outbox
from edgecv.cloud_sync.platforms.route import plan_route
from edgecv.cloud_sync.sink import MqttSink
from edgecv.errors import SyncError
from edgecv.events import Event
from tests.conftest import CHECKOUT
from tests.integration.test_sync_blobs import open_sink as snapshot_sink, pictured
from tests.security.fuzz_mqtt import kept
from tests.security.hostile_broker import (
    DISCONNECT,
    MAXIMUM_PACKET_SIZE,
    PINGREQ,
    PUBACK,
    PUBLISH,
    REASON_STRING,
    RECEIVE_MAXIMUM,
    SERVER_REFERENCE,
    USER_PROPERTY,
    HostileBroker,
    Peer,
    connack,
    packet,
    publish,
    text,
    variable,
)
from tests.unit.cloud_sync.home_assistant import Camera, running_sink
from tests.unit.cloud_sync.support import (
    ADDRESS,
    FAST,
    FAST_SEND,
    SMALL,
    Child,
    Mosquitto,
    make_envelope,
    make_result,
    put_accepted,
    running_ingest,
    running_mosquitto,
    running_sender,
    stored_ids,
    until,
)

ACK, EV = ADDRESS.topic("ack"), ADDRESS.topic("ev")
MIB = 2**20
EXAMPLES = CHECKOUT / "docs/examples/mosquitto"


def received(topic: str, payload: bytes) -> Received:
    return Received(epoch=1, mid=1, qos=0, topic=topic, payload=payload)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path) as broker:
        yield broker


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path / "outbox", limits=SMALL)
    yield outbox
    outbox.close()


def open_sink(url: str, folder: Path, **more: object) -> MqttSink:
    settings: dict[str, object] = {"tenant": "acme", "device": "cam-1", "limits": SMALL, "options": FAST_SEND}
    return MqttSink(url, outbox=folder, **{**settings, "drain_s": 0.0, **more})  # type: ignore[arg-type]


def memory_of(pid: int | str, field: str) -> int:
    """``VmRSS`` or ``VmHWM``, the peak, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


@contextmanager
def memory_within(limit: int) -> Iterator[None]:
    """Fail when this process needs ``limit`` bytes more than before, even for a moment."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = memory_of("self", "VmRSS")
    yield
    assert memory_of("self", "VmHWM") - before < limit


def nonces_of(peer_or_messages: object) -> list[str]:
    """The nonces of the batches that arrived, each once, in order."""
    found = (decode_batch(payload).nonce for topic, payload in peer_or_messages if topic == EV)  # type: ignore[attr-defined]
    return list(dict.fromkeys(nonce for nonce in found if nonce is not None))


# -- packets ------------------------------------------------------------------------------------------------------------


def through(guard: PacketGuard, data: bytes, step: int = 1 << 20) -> bytes:
    """What a reader gets of ``data``, which arrives in pieces of ``step`` bytes."""
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    out = bytearray()

    def receive(_size: int) -> bytes:
        if not pieces:
            raise TimeoutError
        return pieces.pop(0)

    while True:
        try:
            out += guard.read(7, receive)
        except BlockingIOError:
            continue
        except TimeoutError:
            return bytes(out)


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
@pytest.mark.parametrize("v5", [True, False])
def test_honest_packets_pass_the_guard_unchanged_however_they_are_cut(v5: bool, step: int) -> None:
    properties = b"" if v5 else None
    stream = b"".join(
        [
            connack(v5=v5),
            publish("a/b", b"x" * 300, properties=properties),
            publish("a/b", b"", qos=0, properties=properties),
            packet(PUBACK, b"\0\1"),
            packet(0xD0),
        ]
    )
    guard = PacketGuard(max_bytes=1000, is_v5=v5)
    assert through(guard, stream, step) == stream
    assert guard.packets == 5


def test_properties_of_a_message_are_taken_out_and_nothing_else() -> None:
    many = (bytes([USER_PROPERTY]) + text("k") + text("v")) * 1000
    for qos in (0, 1):
        guard = PacketGuard(max_bytes=MIB, is_v5=True)
        found = through(guard, connack() + publish("a/b", b"payload", mid=77, qos=qos, properties=many))
        assert found == connack() + publish("a/b", b"payload", mid=77, qos=qos)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (packet(PUBLISH | 2)[:1] + variable(268_435_455), "268435460 bytes"),
        (bytes([PUBLISH | 2]) + variable(996), "bytes; at most"),
        (bytes([PUBLISH | 2]) + b"\xff" * 5, "more than four bytes"),
        (publish("a", b"x", qos=2), "QoS 2"),
        (publish("a", b"x", qos=3), "QoS 2 or 3"),
        (packet(PINGREQ), "answers nothing"),
        (packet(0x62, b"\0\1"), "answers nothing"),
        (packet(0xF0), "answers nothing"),
        (connack(), "second CONNACK"),
        (bytes([0x90]) + variable(20_000), "at most"),
        (packet(PUBLISH | 2, text("a") + b"\0\1" + variable(900) + b"x"), "longer than itself"),
        (packet(PUBLISH | 2, b"\xff\xff" + b"a"), "longer than itself"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_honest_broker_sends_ends_the_connection(data: bytes, said: str) -> None:
    guard = PacketGuard(max_bytes=998, is_v5=True)
    with pytest.raises(ConnectionError, match=said):
        through(guard, connack() + data)
    assert said in guard.refusal


def test_a_message_before_the_connack_ends_the_connection() -> None:
    guard = PacketGuard(max_bytes=998, is_v5=True)
    with pytest.raises(ConnectionError, match="before its CONNACK"):
        through(guard, publish("a", b"x"))


def connect_properties(connect: bytes) -> object:
    properties = paho.Properties(paho.PacketTypes.CONNECT)
    properties.unpack(connect[10:])
    return properties


def test_both_ends_announce_the_largest_packet_they_take(tmp_path: Path, outbox: Outbox) -> None:
    with HostileBroker(lambda peer: (peer.welcome(), peer.serve())) as broker:  # type: ignore[arg-type]
        with running_sender(broker.url, outbox) as sender, running_ingest(broker.url, tmp_path / "db") as ingest:
            until(lambda: sender.stats().connected and ingest.stats().connected, "both connected")
        announced = {connect_properties(peer.connect).MaximumPacketSize for peer in broker.peers}  # type: ignore[attr-defined]
    assert announced == {64 * 1024, 2 * MIB}


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_message_of_256_mb_ends_the_connection_and_takes_no_memory(outbox: Outbox, protocol: str) -> None:
    sent: list[int] = []

    def flood(peer: Peer) -> None:
        peer.welcome()
        size = 0
        try:
            peer.send(bytes([PUBLISH | 2]) + variable(268_435_455) + text(ACK) + b"\0\1\0")
            while size < 268_000_000:
                peer.send(b"x" * MIB)
                size += MIB
        finally:
            sent.append(size)

    put_accepted(outbox, 3)
    with (
        HostileBroker(flood) as broker,
        memory_within(60 * MIB),
        running_sender(f"{broker.url}?protocol={protocol}", outbox) as sender,
    ):
        until(lambda: "268435460 bytes" in sender.stats().last_error, "the size is refused and said")
        assert "max_packet_size" in sender.stats().last_error
        until(lambda: sent, "the broker is cut off")
    assert max(sent) < 16 * MIB
    assert outbox.stats().pending == 3


def test_a_broker_that_never_reads_cannot_fill_the_memory_with_our_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every message of QoS 1 is answered; the answers would pile up here once the kernel takes no more of them."""

    def open_narrow(broker: BrokerUrl, timeout_s: float) -> socket.socket:
        connection = open_socket(broker, timeout_s)
        assert isinstance(connection, socket.socket)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # the kernel would take megabytes
        return connection

    monkeypatch.setattr(mqtt_client, "open_socket", open_narrow)
    events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    many = publish("t/ack", b"") * 10_000
    taken: list[int] = [0]

    def flood(peer: Peer) -> None:
        peer.welcome()
        peer.socket.settimeout(60.0)
        while True:
            peer.send(many)

    def count(event: LinkEvent) -> None:
        if isinstance(event, Received):
            taken[0] += 1
        else:
            events.put(event)

    def reading_stops() -> bool:
        before = taken[0]
        time.sleep(0.5)
        return taken[0] == before > 1000

    options = LinkOptions(client_id="x", subscriptions=("t/ack",), backoff=FAST)
    with HostileBroker(flood, receive_buffer=4096) as broker, memory_within(30 * MIB):
        transport = MqttTransport(parse_broker_url(broker.url), options, count)
        transport.start()
        assert isinstance(events.get(timeout=5.0), Connected)
        until(reading_stops, "it reads no further", timeout_s=40.0)
        transport.close(5.0)


# -- what a broker says of itself ---------------------------------------------------------------------------------------


def test_a_broker_that_takes_one_byte_buries_nothing_and_is_called_unusable(outbox: Outbox) -> None:
    tiny = bytes([MAXIMUM_PACKET_SIZE]) + (1).to_bytes(4, "big")
    put_accepted(outbox, 20)
    with (
        HostileBroker(lambda peer: peer.welcome(connack(tiny))) as broker,
        running_sender(broker.url, outbox) as sender,
    ):
        until(lambda: "takes packets of 1 bytes" in sender.stats().last_error, "the reason is said")
        assert "Raise its limit" in sender.stats().last_error
        time.sleep(0.3)
    assert (outbox.stats().pending, outbox.stats().dead) == (20, 0)


def test_a_broker_that_refuses_every_payload_buries_nothing(outbox: Outbox) -> None:
    def refuse(peer: Peer) -> None:
        peer.welcome()
        while True:
            first, body = peer.read()
            if first & 0xF0 == PUBLISH:
                size = int.from_bytes(body[:2], "big")
                peer.send(packet(PUBACK, body[2 + size : 4 + size] + bytes([0x99, 0])))

    put_accepted(outbox, 20)
    with HostileBroker(refuse) as broker, running_sender(broker.url, outbox) as sender:
        until(lambda: sender.stats().parked == 20, "all wait")
    assert (outbox.stats().pending, outbox.stats().dead) == (20, 0)


def test_an_event_too_large_for_a_stingy_broker_waits(tmp_path: Path, outbox: Outbox) -> None:
    """Nothing that an outbox takes is larger than 256 kB, and some broker takes that."""
    noise = "".join(random.Random(1).choices(string.printable[:62], k=255_000))
    stamp = Stamp(address=ADDRESS, boot=outbox.boot, seq=outbox.next_seq())
    event = Event(kind="loud", time_ns=0, data={"noise": noise})
    outbox.put(envelope_from_event(event, stamp, mono_ns=0))
    until(lambda: outbox.stats().accepted == 1, "it is accepted")
    stingy = ("allow_anonymous true", "max_packet_size 100000")
    with running_mosquitto(tmp_path, stingy) as broker, running_sender(broker.url, outbox) as sender:
        until(lambda: sender.stats().parked == 1, "it waits")
    assert (outbox.stats().pending, outbox.stats().dead) == (1, 0)


def test_what_waited_for_a_larger_limit_goes_when_the_broker_takes_it(tmp_path: Path) -> None:
    noise = "".join(random.Random(0).choices(string.ascii_letters, k=20_000))
    limits = [3000, 1_000_000]
    sinks: list[MqttSink] = []  # the broker is asked before the sink has a name here

    def script(peer: Peer) -> None:
        limit = limits.pop(0) if len(limits) > 1 else limits[0]
        peer.read()  # CONNECT; with ack="broker" there is no subscription
        peer.send(connack(bytes([MAXIMUM_PACKET_SIZE]) + limit.to_bytes(4, "big")))
        if limit == 3000:
            until(lambda: sinks and sinks[0].stats().parked == 1, "it waits")
            return
        peer.serve()

    with HostileBroker(script) as broker, closing(open_sink(broker.url, tmp_path / "outbox", ack="broker")) as sink:
        sinks.append(sink)
        sink.emit_event(Event(kind="loud", time_ns=0, data={"noise": noise}))
        until(lambda: sink.stats().acknowledged == 1, "it goes")
        assert sink.stats().parked == 0


@pytest.mark.parametrize("maximum", [0, 1])
def test_a_receive_maximum_of_nothing_or_one_loses_nothing(outbox: Outbox, maximum: int) -> None:
    """0 is no MQTT: the connection ends. 1 is slow and works."""
    answers = connack(bytes([RECEIVE_MAXIMUM]) + maximum.to_bytes(2, "big"))
    open_at_once: list[int] = []

    def script(peer: Peer) -> None:
        peer.welcome(answers)
        while True:
            first, body = peer.read()
            if first & 0xF0 == PUBLISH:
                size = int.from_bytes(body[:2], "big")
                peer.socket.settimeout(0.05)
                try:
                    open_at_once.append(len(peer.socket.recv(1, socket.MSG_PEEK)))
                except TimeoutError:
                    open_at_once.append(0)
                peer.socket.settimeout(10.0)
                peer.send(packet(PUBACK, body[2 + size : 4 + size]))
                nonce = decode_batch(body[5 + size :]).nonce if body[2 : 2 + size] == EV.encode() else None
                if nonce:
                    ranges = tuple(to_ranges([(outbox.boot, seq) for seq in range(1, 100)]))
                    peer.send(publish(ACK, encode_acks([Ack(nonce=nonce, ranges=ranges)])[0]))

    put_accepted(outbox, 5)
    with HostileBroker(script) as broker:
        options = SendOptions(batch_events=1, resend=FAST_SEND.resend, reconnect=FAST)
        with running_sender(f"{broker.url}?protocol=5", outbox, options) as sender:
            if maximum:
                assert sender.drain(10.0)
                assert not any(open_at_once)
            else:
                until(lambda: len(broker.peers) > 2, "it ends and is tried again")
                assert not sender.stats().connected
                assert outbox.stats().pending == 5


def test_a_broker_cannot_send_us_to_another_server(outbox: Outbox) -> None:
    with HostileBroker(lambda peer: peer.welcome()) as elsewhere:
        moved = bytes([SERVER_REFERENCE]) + text(f"127.0.0.1:{elsewhere.port}")

        def script(peer: Peer) -> None:
            if len(broker.peers) % 2:
                peer.welcome(connack(moved, reason=0x9D))
            else:
                peer.welcome()
                peer.send(packet(DISCONNECT, bytes([0x9D]) + variable(len(moved)) + moved))

        with HostileBroker(script) as broker, running_sender(f"{broker.url}?protocol=5", outbox) as sender:
            until(lambda: len(broker.peers) >= 4, "both ways were tried")
            until(lambda: "Server moved" in sender.stats().last_error, "the reason is said")  # a welcome clears it
        assert not elsewhere.peers


@pytest.mark.parametrize("granted", [b"\x87", b"", b"\1\1", b"\x80"], ids=["refused", "none", "two", "failed"])
def test_a_subscription_that_is_not_granted_is_said_and_nothing_is_sent(outbox: Outbox, granted: bytes) -> None:
    put_accepted(outbox, 1)

    def script(peer: Peer) -> None:
        peer.welcome(subscribed=granted)
        peer.serve()

    with HostileBroker(script) as broker, running_sender(broker.url, outbox) as sender:
        until(lambda: "does not allow to subscribe" in sender.stats().last_error, "the reason")
        assert not any(peer.published for peer in broker.peers)


def test_reasons_of_a_broker_reach_nobody_with_control_characters(outbox: Outbox) -> None:
    evil = bytes([REASON_STRING]) + text("\x1b]0;owned\x07\x1b[2J\nroot# ")

    def script(peer: Peer) -> None:
        if len(broker.peers) % 2:
            peer.welcome(connack(evil, reason=0x80))
        else:
            peer.welcome(connack(evil))
            peer.send(packet(DISCONNECT, bytes([0x80]) + variable(len(evil)) + evil))

    seen: set[str] = set()
    with HostileBroker(script) as broker, running_sender(f"{broker.url}?protocol=5", outbox) as sender:

        def enough() -> bool:
            seen.add(sender.stats().last_error)
            return len(broker.peers) > 4

        until(enough, "a few connections")
    assert all(text.isprintable() for text in seen)


# -- acknowledgements ---------------------------------------------------------------------------------------------------


def test_forged_acknowledgements_delete_nothing(
    mosquitto: Mosquitto, tmp_path: Path, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    """Ids are easy to guess; the nonce of a batch is not."""
    put_accepted(outbox, 20)
    boot = outbox.boot
    everything = ((boot, 0, 2**53),)
    forged = [
        json.dumps([[boot, 1, 20]]).encode(),  # what devices of version 1 took
        *encode_acks([Ack(nonce="0" * 32, ranges=everything)]),
        *encode_acks([Ack(nonce=f"{n:032x}", ranges=everything) for n in range(100)]),
        json.dumps({"v": 2, "acks": [{"nonce": "", "ranges": [[boot, 1, 20]]}]}).encode(),
        json.dumps({"v": 2, "acks": [{"nonce": None, "ranges": [[boot, 1, 20]]}]}).encode(),
        json.dumps({"v": 2, "acks": [{"ranges": [[boot, 1, 20]]}]}).encode(),
        json.dumps({"v": 1, "acks": [[boot, 1, 20]]}).encode(),
    ]
    with caplog.at_level(logging.WARNING), running_sender(mosquitto.url, outbox) as sender:
        until(lambda: sender.stats().unplaced > 0, "the batch is on its way")
        for payload in forged:
            mosquitto.publish(ACK, payload, retain=True)
        until(lambda: sender.stats().ignored >= len(forged) + 99, "all forgeries are counted")
        assert outbox.stats().pending == 20
        said = [record.message for record in caplog.records if "ignored" in record.message]
        assert len(said) == 1
        assert "access rules" in said[0]
        with running_ingest(mosquitto.url, tmp_path / "db"):
            assert sender.drain(15.0)
    assert len(stored_ids(tmp_path / "db")) == 20


def test_an_acknowledgement_reaches_no_further_than_its_batch(outbox: Outbox) -> None:
    """Whoever knows one nonce, and claims everything with it, gets what that batch held."""

    def script(peer: Peer) -> None:
        peer.welcome()
        threading.Thread(target=answer, args=(peer,), daemon=True).start()
        peer.serve()

    def answer(peer: Peer) -> None:
        until(lambda: len(nonces_of(peer.published)) == 4, "four batches")
        first = nonces_of(peer.published)[0]
        peer.send(publish(ACK, encode_acks([Ack(nonce=first, ranges=((outbox.boot, 0, 2**53),))])[0]))

    put_accepted(outbox, 20)
    with HostileBroker(script) as broker:
        options = SendOptions(batch_events=5, resend=FAST_SEND.resend, reconnect=FAST)
        with running_sender(broker.url, outbox, options) as sender:
            until(lambda: outbox.stats().acknowledged == 5, "one batch")
            time.sleep(0.2)
            assert (outbox.stats().pending, sender.stats().ignored) == (15, 0)


def test_an_acknowledgement_from_before_a_restart_deletes_nothing(tmp_path: Path) -> None:
    """The batch goes out again under another nonce; the old one, replayed, is nobody's."""
    old: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.welcome()
        if old:
            peer.send(publish(ACK, old[0]))
        peer.serve()

    with HostileBroker(script) as broker:
        outbox = Outbox(tmp_path / "outbox", limits=SMALL)
        boot = outbox.boot
        put_accepted(outbox, 3)
        with running_sender(broker.url, outbox):
            until(lambda: any(nonces_of(peer.published) for peer in broker.peers), "the first run sends")
        (nonce,) = nonces_of(broker.peers[0].published)
        outbox.close()
        old.extend(encode_acks([Ack(nonce=nonce, ranges=((boot, 1, 3),))]))
        outbox = Outbox(tmp_path / "outbox", limits=SMALL)
        with running_sender(broker.url, outbox) as sender:
            until(lambda: sender.stats().ignored == 1, "the replay is ignored")
            until(lambda: nonces_of(broker.peers[-1].published), "the second run sends")
            assert nonce not in nonces_of(broker.peers[-1].published)
            assert outbox.stats().pending == 3
        outbox.close()


def test_a_second_honest_answer_to_a_repeated_batch_is_no_forgery(outbox: Outbox) -> None:
    def script(peer: Peer) -> None:
        peer.welcome()
        threading.Thread(target=answer, args=(peer,), daemon=True).start()
        peer.serve()

    def answer(peer: Peer) -> None:
        until(lambda: nonces_of(peer.published), "a batch")
        peer.send(
            *[publish(ACK, encode_acks([Ack(nonce=nonces_of(peer.published)[0], ranges=((outbox.boot, 1, 3),))])[0])]
            * 3
        )

    put_accepted(outbox, 3)
    with HostileBroker(script) as broker, running_sender(broker.url, outbox) as sender:
        assert sender.drain(10.0)
        time.sleep(0.1)
        assert sender.stats().ignored == 0


def test_the_status_tells_nothing_of_the_events(mosquitto: Mosquitto, outbox: Outbox) -> None:
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.on_message = lambda _c, _d, message: received.put(message.payload)
    client.connect("127.0.0.1", mosquitto.port)
    client.loop_start()
    client.subscribe("edgecv/+/+/status", qos=1)
    with running_sender(mosquitto.url, outbox):
        assert json.loads(received.get(timeout=10.0)) == {"state": "online"}
    client.disconnect()
    client.loop_stop()


def test_the_plain_batches_of_ack_broker_are_the_list_they_were(outbox: Outbox) -> None:
    put_accepted(outbox, 2)
    with HostileBroker(answer_without_subscription) as broker:
        options = SendOptions(ack="broker", resend=FAST_SEND.resend, reconnect=FAST)
        plain = plan_route(parse_broker_url(broker.url), ADDRESS, ack="broker", wire="zlib")
        with running_sender(broker.url, outbox, options, plain) as sender:
            assert sender.drain(10.0)
        batches = [payload for topic, payload in broker.peers[0].published if topic == EV]
    assert [len(json.loads(zlib.decompress(batch))) for batch in batches] == [2]


def answer_without_subscription(peer: Peer) -> None:
    _, peer.connect = peer.read()
    peer.v5 = peer.connect[6] == 5
    peer.send(connack(v5=peer.v5))
    peer.serve()


def test_a_batch_of_a_later_version_is_kept_out_with_the_next_step(outbox: Outbox) -> None:
    body = encode(make_envelope(outbox))
    later = zlib.compress(b'{"v":3,"nonce":"%s","events":[%s]}' % (b"0" * 32, body))
    with pytest.raises(SyncError, match="version 3") as caught:
        decode_batch(later)
    assert caught.value.hint == "Update ingest."


# -- ingest -------------------------------------------------------------------------------------------------------------


def batch_with(outbox: Outbox, **changes: object) -> bytes:
    """A batch of one honest event, changed."""
    document = json.loads(encode(make_envelope(outbox)))
    return zlib.compress(json.dumps([{**document, **changes}]).encode())


def raw_batch(outbox: Outbox, data: bytes) -> bytes:
    """A batch of one honest event whose payload is this JSON text."""
    body = encode(make_envelope(outbox))
    return encode_batch([body.replace(b'{"source_id":"","bulk":""}', b'{"x":%s}' % data)])


BAD_EVENTS: dict[str, Callable[[Outbox], bytes]] = {
    "bomb": lambda _: zlib.compress(b"[" + b" " * 50_000_000 + b"]"),
    "cut short": lambda outbox: batch_with(outbox)[:-5],
    "with a tail": lambda outbox: batch_with(outbox) + b"tail",
    "deep": lambda _: zlib.compress(b"[" * 500_000),
    "deep payload": lambda outbox: raw_batch(outbox, b"[" * 100_000 + b"]" * 100_000),
    "a lone surrogate": lambda outbox: raw_batch(outbox, b'"\\ud800"'),
    "no UTF-8": lambda outbox: raw_batch(outbox, b'"\xed\xa0\x80"'),
    "beyond int64": lambda outbox: batch_with(outbox, mono_ns=2**63),
    "a boot beyond 2^53": lambda outbox: batch_with(outbox, boot=2**70, id=f"{2**70}:1"),
    "a negative number": lambda outbox: batch_with(outbox, seq=-1),
    "month 13": lambda outbox: batch_with(outbox, time="2023-13-14T22:13:20Z"),
    "a time that is none": lambda outbox: batch_with(outbox, time="'; DROP TABLE events; --"),
    "a time with NUL": lambda outbox: batch_with(outbox, time="2023-11-14T22:13:20Z\0"),
    "a time with a line end": lambda outbox: batch_with(outbox, time="2023-11-14T22:13:20Z\n"),
    "another source": lambda outbox: batch_with(outbox, source="edgecv/acme/other"),
    "wrong types": lambda outbox: batch_with(outbox, data=[], seq="1", lane="top"),
    "a nonce with a quote": lambda _: zlib.compress(b'{"v":2,"nonce":"%s","events":[]}' % (b'\\"' * 32)),
    "a long nonce": lambda _: zlib.compress(b'{"v":2,"nonce":"%s","events":[]}' % (b"0" * 100_000)),
    "events that are none": lambda _: zlib.compress(b'{"v":2,"nonce":"%s","events":{}}' % (b"0" * 32)),
    "a version that is none": lambda _: zlib.compress(b'{"v":[],"nonce":"%s","events":[]}' % (b"0" * 32)),
}
ODD_PAYLOADS = (b"[" * 900 + b"]" * 900, b"9" * 5000, b"1e999", b"-9223372036854775809", b'"\\u0000"')
STRANGE_TOPICS = [
    "edgecv/acme/../ev",
    "edgecv/../../ev",
    "edgecv/acme/.hidden/ev",
    "edgecv/acme/" + "a" * 65 + "/ev",
    "edgecv/acme/a b/ev",
    "edgecv/acme/\x1b[31m/ev",
    "edgecv/acme/\u202eevil/ev",
    "edgecv/acme/%2e%2e/ev",
    "edgecv/ACME;ls/x/ev",
    "edgecv//x/ev",
    "edgecv/acme/c:\\x/ev",
]


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_no_message_stops_ingest_or_holds_up_another_device(
    mosquitto: Mosquitto, tmp_path: Path, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    honest = make_envelope(outbox)
    with caplog.at_level(logging.WARNING), running_ingest(mosquitto.url, tmp_path / "db") as ingest:
        until(lambda: ingest.stats().connected, "a connection")
        for make in BAD_EVENTS.values():
            mosquitto.publish(EV, make(outbox))
        for topic in STRANGE_TOPICS:
            ingest._enqueue(received(topic, batch_with(outbox)))  # most brokers would not even hand them on
        bad = len(BAD_EVENTS) + len(STRANGE_TOPICS)
        mosquitto.publish(EV, encode_batch([encode(honest)]))
        until(lambda: ingest.stats().messages == bad + 1, "every message is dealt with")
        assert ingest.stats().rejected == bad
        with closing(sqlite3.connect(ingest.db_path)) as db:
            kept_out = db.execute("SELECT topic, reason FROM rejected").fetchall()
            ids = [row[0] for row in db.execute("SELECT id FROM events")]
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert ids == [honest.id]
        assert all(text.isprintable() for row in kept_out for text in row)
        assert len([record for record in caplog.records if "kept out" in record.message]) == 1


def test_odd_payloads_are_stored_as_they_were_written(mosquitto: Mosquitto, tmp_path: Path, outbox: Outbox) -> None:
    """They are JSON, so they are kept as they came; nothing here makes numbers or lists of them."""
    with running_ingest(mosquitto.url, tmp_path / "db") as ingest:
        until(lambda: ingest.stats().connected, "a connection")
        for payload in ODD_PAYLOADS:
            mosquitto.publish(EV, raw_batch(outbox, payload))
        until(lambda: ingest.stats().messages == len(ODD_PAYLOADS), "every message is dealt with")
        with closing(sqlite3.connect(ingest.db_path)) as db:
            found = [row[0] for row in db.execute("SELECT data FROM events ORDER BY seq")]
    assert found == [f'{{"x":{payload.decode()}}}' for payload in ODD_PAYLOADS]


def test_text_of_events_is_stored_without_control_characters(
    mosquitto: Mosquitto, tmp_path: Path, outbox: Outbox
) -> None:
    with running_ingest(mosquitto.url, tmp_path / "db") as ingest:
        until(lambda: ingest.stats().connected, "a connection")
        mosquitto.publish(EV, batch_with(outbox, type="edgecv.event.\x1b[31m\0", model="m\r\nx"))
        until(lambda: ingest.stats().stored == 1, "it is stored")
        with closing(sqlite3.connect(ingest.db_path)) as db:
            kind, model = db.execute("SELECT type, model FROM events").fetchone()
    assert (kind, model) == (r"edgecv.event.\x1b[31m\x00", r"m\r\nx")


def test_bombs_at_once_keep_ingest_small(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """100 kB on the wire, 22 MB of text, and twenty times that as Python objects when all is unpacked together."""
    body = b'{"specversion":"1.0","id":"1:%d","source":"edgecv/acme/cam-1","type":"t","time":"2023-11-14T22:13:20Z",'
    body += b'"boot":1,"seq":%d,"mono_ns":0,"clock_synced":true,"data":{"x":[%s]}}'
    lists = b"[]," * 80_000 + b"[]"
    bombs = [encode_batch([body % (3 * n + k, 3 * n + k, lists) for k in range(3)]) for n in range(30)]
    assert len(bombs[0]) < 4000
    with Child("ingest", mosquitto.url, tmp_path / "db") as ingest:
        mosquitto_subscribers(mosquitto, EV)
        for bomb in bombs:
            mosquitto.publish(EV, bomb)
        until(lambda: len(stored_ids(tmp_path / "db")) == 90, "they are dealt with", timeout_s=60.0)
        peak = memory_of(ingest._process.pid, "VmHWM")
    assert peak < 150 * MIB


def mosquitto_subscribers(mosquitto: Mosquitto, topic: str) -> None:
    """Wait until somebody subscribes to ``topic``: mosquitto says so in its answer to MQTT 5."""
    answers: queue.SimpleQueue[int] = queue.SimpleQueue()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_publish = lambda _c, _d, _m, reason, _p: answers.put(reason.value)
    client.connect("127.0.0.1", mosquitto.port)
    client.loop_start()

    def taken() -> bool:
        client.publish(topic, b"", qos=1)
        return answers.get(timeout=5.0) == 0

    until(taken, "ingest subscribes")
    client.disconnect()
    client.loop_stop()


def test_a_megabyte_of_properties_does_not_keep_ingest_busy(
    mosquitto: Mosquitto, tmp_path: Path, outbox: Outbox
) -> None:
    """Brokers hand them on as they came; paho reads them in a time that grows with their square."""
    many = (bytes([USER_PROPERTY]) + text("") + text("")) * 200_000
    with running_ingest(f"{mosquitto.url}?protocol=5", tmp_path / "db") as ingest:
        until(lambda: ingest.stats().connected, "a connection")
        with closing(socket.create_connection(("127.0.0.1", mosquitto.port), timeout=10.0)) as connection:
            connection.sendall(packet(0x10, text("MQTT") + b"\5\2\0\0\0" + text("evil")))
            connection.recv(100)
            connection.sendall(publish(EV, encode_batch([encode(make_envelope(outbox))]), properties=many))
            until(lambda: ingest.stats().stored == 1, "the event in it is stored", timeout_s=10.0)


def test_a_message_of_qos_0_does_not_make_ingest_break_the_protocol(
    mosquitto: Mosquitto, tmp_path: Path, outbox: Outbox
) -> None:
    """There is nothing to acknowledge to the broker, which hangs up on whoever does."""
    with running_ingest(mosquitto.url, tmp_path / "db") as ingest:
        until(lambda: ingest.stats().connected, "a connection")
        epoch = ingest._epoch
        client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", mosquitto.port)
        client.loop_start()
        for _ in range(5):
            client.publish(EV, encode_batch([encode(make_envelope(outbox))]), qos=0).wait_for_publish(5.0)
        until(lambda: ingest.stats().stored == 5, "all are stored")
        time.sleep(0.3)
        assert (ingest.stats().connected, ingest._epoch) == (True, epoch)
        client.disconnect()
        client.loop_stop()


def test_one_device_cannot_take_the_room_of_all_others() -> None:
    inbox = Inbox(InboxLimits(messages=100, total_bytes=1_000_000, topic_messages=10, topic_bytes=100_000))
    assert [inbox.put(received("loud", bytes(0))) for _ in range(12)].count(True) == 10
    assert [inbox.put(received("large", bytes(40_000))) for _ in range(5)].count(True) == 2
    assert inbox.put(received("quiet", bytes(100)))
    assert inbox.put(Disconnected(reason="never left out"))
    for _ in range(14):
        inbox.get(0.0)
    with pytest.raises(queue.Empty):
        inbox.get(0.0)
    assert [inbox.put(received("loud", bytes(0))) for _ in range(12)].count(True) == 10


def test_an_inbox_is_bounded_whatever_the_topics_are_called() -> None:
    inbox = Inbox(InboxLimits(messages=1000, total_bytes=100_000, topic_messages=10, topic_bytes=100_000))
    taken = sum(inbox.put(received(f"{n}" + "t" * 1000, bytes(1000))) for n in range(1000))
    assert 20 < taken < 50


# -- what broke something once, or would have ---------------------------------------------------------------------------


def test_kept_messages_break_no_handler(tmp_path: Path, outbox: Outbox) -> None:
    sender = Sender(outbox, parse_broker_url("mqtt://127.0.0.1:1"), ADDRESS)
    ingest = Ingest("mqtt://127.0.0.1:1", tmp_path / "db")
    for payload in kept("ack"):
        sender._handle(received(ACK, payload))
    for payload in kept("ev"):
        ingest._land([received(EV, payload)], threading.Event())
    ingest._landing.close()
    assert sender.stats().ignored == len(kept("ack")) > 0
    assert ingest._failed._count == 0


def test_kept_streams_end_a_connection_and_nothing_else(outbox: Outbox) -> None:
    streams = kept("stream")

    def script(peer: Peer) -> None:
        peer.read()
        peer.send(streams[len(broker.peers) % len(streams)])
        peer.socket.settimeout(0.1)
        while peer.read():
            pass

    put_accepted(outbox, 5)
    seen = set()
    with HostileBroker(script) as broker, running_sender(broker.url, outbox) as sender:

        def all_served() -> bool:
            seen.add(sender.stats().last_error)
            return len(broker.peers) > len(streams) + 1

        until(all_served, "every stream was sent")
    assert not any("in the MQTT client" in error for error in seen)
    assert (outbox.stats().pending, outbox.stats().dead) == (5, 0)


# -- access rules -------------------------------------------------------------------------------------------------------

NEEDS_TOOLS = pytest.mark.skipif(
    shutil.which("openssl") is None or shutil.which("mosquitto_passwd") is None,
    reason="needs openssl, mosquitto_passwd",
)
USERS = {"edgecv-ingest": "pw-i", "acme/cam-1": "pw-1", "acme/cam-2": "pw-2", "homeassistant": "pw-h"}


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Mosquitto]:
    """mosquitto with exactly the files that are shipped; only folder and port are ours."""
    folder = tmp_path / "etc"
    folder.mkdir()
    shutil.copy(EXAMPLES / "edgecv.acl", folder)
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "server.key", "-out", folder / "server.crt"]
    subprocess.run([*command.split(), *map(str, names)], check=True, capture_output=True, timeout=20.0)
    shutil.copy(folder / "server.crt", folder / "ca.crt")
    (folder / "passwords").touch()
    for user, password in USERS.items():
        passwd = ["mosquitto_passwd", "-b", str(folder / "passwords"), user, password]
        subprocess.run(passwd, check=True, capture_output=True, timeout=10.0)
    shipped = (EXAMPLES / "edgecv.conf").read_text()
    assert shipped.count("\nlistener 8883\n") == 1
    lines = [line for line in shipped.splitlines() if line != "listener 8883"]
    assert "persistence false" in lines
    lines.remove("persistence false")  # the fixture writes that, and the listener, itself
    with running_mosquitto(tmp_path, [line.replace("/etc/mosquitto/edgecv", str(folder)) for line in lines]) as broker:
        yield broker


def url_of(broker: Mosquitto, tmp_path: Path, user: str) -> str:
    secret = tmp_path / f"{user.replace('/', '-')}.secret"
    secret.touch(mode=0o600)
    secret.write_text(USERS[user])
    return (
        f"mqtts://{user.replace('/', '%2F')}@localhost:{broker.port}"
        f"?password_file={secret}&ca_file={tmp_path / 'etc/ca.crt'}"
    )


class Client:
    """A client of MQTT 5 that tells what the broker allowed."""

    def __init__(self, broker: Mosquitto, tmp_path: Path, user: str, password: str = "") -> None:
        self.messages: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reasons: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.tls_set(str(tmp_path / "etc/ca.crt"))
        if user:
            self._client.username_pw_set(user, password or USERS[user])
        self._client.on_connect = lambda _c, _d, _f, reason, _p: self._reasons.put(reason.value)
        self._client.on_publish = lambda _c, _d, _m, reason, _p: self._reasons.put(reason.value)
        self._client.on_subscribe = lambda _c, _d, _m, reasons, _p: self._reasons.put(reasons[0].value)
        self._client.on_message = lambda _c, _d, message: self.messages.put(message.topic)
        self._client.connect("localhost", broker.port)
        self._client.loop_start()
        self.welcome = self._reasons.get(timeout=10.0)

    def may_write(self, topic: str) -> bool:
        payload = b"online" if topic == "homeassistant/status" else b"{}"
        self._client.publish(topic, payload, qos=1, retain=topic.endswith("status"))
        return self._reasons.get(timeout=10.0) < 0x80

    def subscribe(self, topic: str) -> bool:
        self._client.subscribe(topic, qos=1)
        return self._reasons.get(timeout=10.0) < 0x80

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@NEEDS_TOOLS
def test_the_shipped_rules_let_devices_and_ingest_do_their_work(guarded: Mosquitto, tmp_path: Path) -> None:
    with running_ingest(url_of(guarded, tmp_path, "edgecv-ingest"), tmp_path / "db"):
        for device in ("cam-1", "cam-2"):
            url = url_of(guarded, tmp_path, f"acme/{device}")
            sink = open_sink(url, tmp_path / device, device=device, drain_s=15.0)
            for index in range(20):
                sink.emit(make_result(index))
            sink.close()
            assert (sink.stats().acknowledged, sink.stats().pending) == (20, 0), sink.stats()
    assert len(stored_ids(tmp_path / "db")) == 40


@NEEDS_TOOLS
def test_the_shipped_rules_let_a_device_do_nothing_else(guarded: Mosquitto, tmp_path: Path) -> None:
    device = Client(guarded, tmp_path, "acme/cam-1")
    ingest = Client(guarded, tmp_path, "edgecv-ingest")
    leaves = ("ev", "ack", "status")
    mine = {leaf: device.may_write(f"edgecv/acme/cam-1/{leaf}") for leaf in leaves}
    assert mine == {"ev": True, "ack": False, "status": True}
    for other in ("edgecv/acme/cam-2", "edgecv/zeta/cam-1", "edgecv/acme/cam-1/x", "edgecv/edgecv-ingest/x"):
        assert not any(device.may_write(f"{other}/{leaf}") for leaf in leaves), other
    assert {leaf: ingest.may_write(f"edgecv/acme/cam-1/{leaf}") for leaf in leaves} == {
        "ev": False,
        "ack": True,
        "status": False,
    }
    assert not ingest.may_write("other/topic")
    for topic in ("edgecv/#", "#", "$SYS/#", "edgecv/+/+/ev", "edgecv/acme/cam-1/ev", "edgecv/acme/cam-2/ack"):
        device.subscribe(topic)  # mosquitto grants wildcards and then hands over only what may be read
    assert device.subscribe("edgecv/acme/cam-1/ack")
    other = Client(guarded, tmp_path, "acme/cam-2")
    assert other.may_write("edgecv/acme/cam-2/ev")
    assert other.may_write("edgecv/acme/cam-2/status")
    assert ingest.may_write("edgecv/acme/cam-2/ack")
    assert ingest.may_write("edgecv/acme/cam-1/ack")
    assert device.messages.get(timeout=5.0) == "edgecv/acme/cam-1/ack"
    time.sleep(0.2)
    seen = set()
    while not device.messages.empty():
        seen.add(device.messages.get())
    assert seen <= {"edgecv/acme/cam-1/ack"}
    for client in (device, ingest, other):
        client.close()


@NEEDS_TOOLS
def test_the_shipped_rules_let_a_device_show_itself_in_home_assistant(guarded: Mosquitto, tmp_path: Path) -> None:
    home = Client(guarded, tmp_path, "homeassistant")
    assert home.subscribe("homeassistant/#")
    assert home.subscribe("edgecv/+/+/ha/#")
    camera = Camera("door", lobby__inside=1)
    with running_sink(
        url_of(guarded, tmp_path, "acme/cam-2"), tmp_path / "ha", camera, device="cam-2", snapshots=True
    ) as sink:
        event = Event(kind="zone.entered", time_ns=0, data={"counter": "lobby"})
        sink.emit(camera.result(0, events=(event,)))
        leaves = ("state", "availability", "image/door")
        wanted = {f"edgecv/acme/cam-2/ha/{leaf}" for leaf in leaves} | {"homeassistant/device/acme/cam-2/config"}
        found = {home.messages.get(timeout=10.0) for _ in wanted}
        while found != wanted:
            found.add(home.messages.get(timeout=10.0))
        assert home.may_write("homeassistant/status")  # as Home Assistant does when it has started
        assert home.messages.get(timeout=10.0) == "homeassistant/status"
        found = {home.messages.get(timeout=10.0)}  # the device heard it, and tells everything again
        assert found <= wanted
        assert sink.trouble == ""
    device = Client(guarded, tmp_path, "acme/cam-1")
    assert device.may_write("homeassistant/device/acme/cam-1/config")
    for topic in (
        "homeassistant/status",
        "homeassistant/device/acme/cam-2/config",
        "homeassistant/sensor/acme/cam-1/config",
        "edgecv/acme/cam-2/ha/state",
        "edgecv/acme/cam-1/ha/x",
    ):
        assert not device.may_write(topic), topic
    assert not home.may_write("edgecv/acme/cam-1/ev")
    assert not home.may_write("edgecv/acme/cam-1/ha/state")
    device.close()
    home.close()


@NEEDS_TOOLS
def test_the_shipped_broker_lets_nobody_in_without_a_password(guarded: Mosquitto, tmp_path: Path) -> None:
    for user, password in (("", ""), ("acme/cam-1", "wrong"), ("+/+", "x"), ("nobody", "x")):
        stranger = Client(guarded, tmp_path, user, password)
        assert stranger.welcome >= 0x80
        stranger.close()


# -- files --------------------------------------------------------------------------------------------------------------


def modes(folder: Path) -> dict[str, str]:
    return {path.name: stat.filemode(path.lstat().st_mode) for path in sorted(folder.rglob("*"))}


def spoil(database: Path) -> None:
    """Write over the pages of a database from its second one on."""
    with database.open("r+b") as handle:
        handle.seek(4096)
        handle.write(b"\xa5" * (database.stat().st_size - 4096))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277], ids=oct)
def test_what_is_written_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        outbox = Outbox(tmp_path / "new" / "outbox", limits=SMALL)
        put_accepted(outbox, 5)
        landing = EventDatabase(tmp_path / "cloud" / "store")
        found = modes(tmp_path / "new") | modes(tmp_path / "cloud")
        landing.close()
        outbox.close()
        spoil(tmp_path / "new" / "outbox" / "outbox.db")
        again = Outbox(tmp_path / "new" / "outbox", limits=SMALL)
        assert again.stats().quarantined_files == 1
        again.close()
    finally:
        os.umask(before)
    found |= {f"later {name}": mode for name, mode in modes(tmp_path / "new").items()}
    assert {"outbox.db", "outbox.db-wal", "lock", "ballast", "landing.db", "landing.db-wal"} <= found.keys()
    assert any(name.startswith("later outbox.db.corrupt-") for name in found)
    folders = {name: mode for name, mode in found.items() if name in ("outbox", "store", "later outbox")}
    assert set(folders.values()) == {"drwx------"}
    assert {mode for name, mode in found.items() if name not in folders} == {"-rw-------"}, found


def test_copies_made_to_save_a_damaged_outbox_are_private_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox(tmp_path / "outbox", limits=SMALL)
    put_accepted(outbox, 5)
    outbox.close()
    seen: dict[str, str] = {}
    copyfile = shutil.copyfile

    def watch(source: Path, target: Path) -> Path:
        copied = copyfile(source, target)
        seen.update(modes(tmp_path / "outbox"))
        return copied

    monkeypatch.setattr(shutil, "copyfile", watch)
    spoil(tmp_path / "outbox" / "outbox.db")
    Outbox(tmp_path / "outbox", limits=SMALL).close()
    assert seen["outbox.db.salvage"] == "-rw-------"


def test_a_folder_of_the_user_keeps_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    Outbox(folder, limits=SMALL).close()
    EventDatabase(folder / "db").close()
    assert stat.filemode(folder.stat().st_mode) == "drwxr-xr-x"


@pytest.mark.parametrize("name", ["lock", "ballast"])
def test_a_link_in_the_folder_leads_nowhere(tmp_path: Path, name: str) -> None:
    """Whoever could write into the folder would have a file of ours emptied otherwise."""
    victim = tmp_path / "victim"
    folder = tmp_path / "outbox"
    folder.mkdir()
    (folder / name).symlink_to(victim)
    if name == "lock":
        victim.write_text("precious")
        with pytest.raises(SyncError, match="cannot be written"):
            Outbox(folder, limits=SMALL)
        assert victim.read_text() == "precious"
    else:
        Outbox(folder, limits=SMALL).close()
        assert not victim.exists()


def test_neither_password_nor_nonce_shows_up_in_logs(
    tmp_path: Path, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text("hunter2")
    put_accepted(outbox, 3)

    def script(peer: Peer) -> None:
        peer.welcome()
        peer.send(publish(ACK, b"garbage"))
        peer.serve()

    with HostileBroker(script) as broker, caplog.at_level(logging.DEBUG):
        url = f"mqtt://alice@127.0.0.1:{broker.port}?password_file={secret}"
        with running_sender(url, outbox) as sender, running_ingest(url, tmp_path / "db") as ingest:
            until(lambda: any(nonces_of(peer.published) for peer in broker.peers), "the batch arrives")
            until(lambda: sender.stats().ignored, "the garbage arrives")
            shown = caplog.text + repr(vars(sender)) + repr(vars(ingest)) + repr(sender.stats())
        (nonce,) = next(found for peer in broker.peers if (found := nonces_of(peer.published)))
    assert b"hunter2" in b"".join(peer.connect for peer in broker.peers)
    assert not any(word in shown for word in ("hunter2", "alice", nonce))


def test_an_older_ingest_and_a_newer_device_lose_nothing(outbox: Outbox) -> None:
    """It cannot read the batch and sends no acknowledgement that counts; the events stay on disk until it is updated."""

    def older_ingest(peer: Peer) -> None:
        peer.welcome()
        peer.send(publish(ACK, json.dumps([[outbox.boot, 1, 3]]).encode()))
        peer.serve()

    put_accepted(outbox, 3)
    with HostileBroker(older_ingest) as broker, running_sender(broker.url, outbox) as sender:
        until(lambda: sender.stats().ignored and sender.stats().published, "both spoke")
        assert outbox.stats().pending == 3


def test_an_older_device_is_stored_and_answered_in_its_own_words(
    mosquitto: Mosquitto, tmp_path: Path, outbox: Outbox
) -> None:
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.on_message = lambda _c, _d, message: received.put(message.payload)
    client.connect("127.0.0.1", mosquitto.port)
    client.loop_start()
    client.subscribe(ACK, qos=1)
    with running_ingest(mosquitto.url, tmp_path / "db") as ingest:
        until(lambda: ingest.stats().connected, "a connection")
        mosquitto.publish(EV, encode_batch([encode(make_envelope(outbox))]))
        assert json.loads(received.get(timeout=10.0)) == [[outbox.boot, 1, 1]]
    client.disconnect()
    client.loop_stop()


def test_a_full_batch_is_what_ingest_takes(outbox: Outbox) -> None:
    """The largest honest batch stays below what the other end refuses."""
    largest = [encode(make_envelope(outbox, bulk=255_000))]
    assert len(zlib.decompress(encode_batch(largest, "0" * 32))) < MAX_BATCH_BYTES


@NEEDS_TOOLS
def test_the_shipped_rules_let_snapshots_through_and_nothing_else(guarded: Mosquitto, tmp_path: Path) -> None:
    url = url_of(guarded, tmp_path, "acme/cam-1")
    with running_ingest(url_of(guarded, tmp_path, "edgecv-ingest"), tmp_path / "db", blobs=BlobLimits(floor_bytes=0)):
        sink = snapshot_sink(url, tmp_path / "outbox")
        sink.emit(pictured(1))
        sink.close()
    assert sink.stats().snapshots_sent == 1, sink.stats()
    leaves = ("blob", "blob-part", "blob-reply")
    device, ingest = (
        Client(guarded, tmp_path, "acme/cam-1"),
        Client(guarded, tmp_path, "edgecv-ingest"),
    )
    assert [device.may_write(f"edgecv/acme/cam-1/{leaf}") for leaf in leaves] == [True, True, False]
    assert [ingest.may_write(f"edgecv/acme/cam-1/{leaf}") for leaf in leaves] == [False, False, True]
    assert not any(device.may_write(f"edgecv/acme/cam-2/{leaf}") for leaf in leaves)
    device.close()
    ingest.close()

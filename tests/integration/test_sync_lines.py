"""Bad lines: partitions are noticed, what hangs is replaced, and MQTT goes over WebSocket where nothing else gets out."""

from __future__ import annotations

import queue
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from edgecv.benchmarks.demo.broker import EmbeddedBroker
from edgecv.cloud_sync.mqtt.broker_url import parse_broker_url
from edgecv.cloud_sync.mqtt.events import Connected, Disconnected, LinkEvent, LinkOptions
from edgecv.cloud_sync.mqtt.transport import MqttTransport
from edgecv.cloud_sync.sink import MqttSink
from tests.security.hostile_broker import PINGREQ, PINGRESP, HostileBroker, Peer, packet, publish
from tests.unit.cloud_sync.support import (
    FAST,
    FAST_SEND,
    SMALL,
    free_port,
    make_result,
    running_ingest,
    running_mosquitto,
    stored_ids,
    until,
)

Events = queue.SimpleQueue[LinkEvent]


@contextmanager
def running_transport(url: str, **options: object) -> Iterator[tuple[MqttTransport, Events]]:
    events: Events = queue.SimpleQueue()
    settings = {"client_id": "probe", "subscriptions": ("t/ack",), "backoff": FAST, **options}
    transport = MqttTransport(parse_broker_url(url), LinkOptions(**settings), events.put)  # type: ignore[arg-type]
    transport.start()
    try:
        yield transport, events
    finally:
        assert transport.close(5.0)


def next_of(events: Events, kind: type, timeout_s: float = 10.0) -> LinkEvent:
    deadline_s = time.monotonic() + timeout_s
    while True:
        event = events.get(timeout=max(deadline_s - time.monotonic(), 0.01))
        if isinstance(event, kind):
            return event


# -- partitions ---------------------------------------------------------------------------------------------------------


def silence(peer: Peer, cut_s: list[float]) -> None:
    """A black hole, or the half of a connection whose other half is gone: no byte comes, and none is refused."""
    peer.welcome()
    cut_s.append(time.monotonic())
    while True:
        peer.read()


def only_down(peer: Peer, cut_s: list[float]) -> None:
    """One way: messages still come, and nothing that the device sends gets through."""
    peer.welcome()
    cut_s.append(time.monotonic())
    while True:
        peer.send(publish("t/ack", b"hello", qos=0, properties=b"" if peer.v5 else None))
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("cut", "busy"),
    [
        pytest.param(silence, True, id="silence while busy"),
        pytest.param(only_down, False, id="one way while idle"),
        pytest.param(silence, False, id="silence while idle", marks=pytest.mark.slow),
        pytest.param(only_down, True, id="one way while busy", marks=pytest.mark.slow),
    ],
)
def test_a_partition_is_noticed_within_two_keepalives(cut: Callable[[Peer, list[float]], None], busy: bool) -> None:
    cut_s: list[float] = []
    with (
        HostileBroker(lambda peer: cut(peer, cut_s)) as broker,
        running_transport(f"{broker.url}?protocol=5", keepalive_s=1) as (transport, events),
    ):
        connected = next_of(events, Connected)
        assert isinstance(connected, Connected)
        ended = threading.Event()
        if busy:
            threading.Thread(target=publish_until, args=(transport, connected.epoch, ended), daemon=True).start()
        next_of(events, Disconnected, timeout_s=5.0)
        noticed_s = time.monotonic()
        ended.set()
    assert noticed_s - cut_s[0] <= 2.0


def publish_until(transport: MqttTransport, epoch: int, ended: threading.Event) -> None:
    while not ended.wait(0.05):
        transport.publish(epoch, "t/ev", b"x")


def test_a_quiet_line_that_is_whole_is_kept() -> None:
    pings: list[float] = []

    def script(peer: Peer) -> None:
        peer.welcome()
        while True:
            if peer.read()[0] == PINGREQ:
                pings.append(time.monotonic())
                peer.send(packet(PINGRESP))

    with HostileBroker(script) as broker, running_transport(broker.url, keepalive_s=1) as (_, events):
        next_of(events, Connected)
        until(lambda: len(pings) >= 2, "two pings", timeout_s=6.0)
        assert events.empty()


# -- what hangs ---------------------------------------------------------------------------------------------------------


def test_a_name_server_that_hangs_holds_up_one_attempt_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real, release = socket.getaddrinfo, threading.Event()
    asked: list[object] = []

    def hanging(*arguments: object, **options: object) -> object:
        asked.append(arguments)
        if len(asked) == 1:
            release.wait(20.0)
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    with HostileBroker(answer_everything) as broker, running_transport(broker.url, hang_s=0.4) as (_, events):
        told = next_of(events, Disconnected)
        assert isinstance(told, Disconnected)
        assert "hung" in told.reason
        next_of(events, Connected)
        release.set()
        time.sleep(0.3)  # the first thread wakes up now, and has nothing to say any more
        assert events.empty()
        assert len([peer for peer in broker.peers if peer.connect]) == 1


def test_a_paho_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    real, release = paho.Client.loop_misc, threading.Event()
    calls: list[int] = []

    def hanging(client: paho.Client) -> object:
        calls.append(1)
        if len(calls) == 1:
            release.wait(20.0)
        return real(client)

    monkeypatch.setattr(paho.Client, "loop_misc", hanging)
    with HostileBroker(answer_everything) as broker, running_transport(broker.url, hang_s=0.4) as (_, events):
        next_of(events, Disconnected)
        next_of(events, Connected)
        release.set()


def answer_everything(peer: Peer) -> None:
    peer.welcome()
    peer.serve()


# -- MQTT 3.1.1 ---------------------------------------------------------------------------------------------------------


def test_the_broker_of_the_demo_is_reached_in_less_than_a_second_without_being_told_its_version() -> None:
    with EmbeddedBroker() as embedded:
        began_s = time.monotonic()
        with running_transport(f"mqtt://127.0.0.1:{embedded.port}") as (_, events):
            connected = next_of(events, Connected)
            took_s = time.monotonic() - began_s
    assert isinstance(connected, Connected)
    assert connected.protocol == "3.1.1"
    assert took_s < 1.0


def test_a_slow_broker_that_spoke_mqtt_5_before_is_waited_for() -> None:
    def script(peer: Peer) -> None:
        if len(broker.peers) > 1:
            time.sleep(1.2)
        peer.welcome()
        if len(broker.peers) > 1:
            peer.serve()

    with HostileBroker(script) as broker, running_transport(broker.url) as (_, events):
        protocols = [next_of(events, Connected).protocol for _ in range(2)]  # type: ignore[union-attr]
        assert protocols == ["5", "5"]
        assert len(broker.peers) == 2


@pytest.mark.slow
def test_a_broker_that_is_slow_to_everybody_gets_time_for_mqtt_5() -> None:
    def script(peer: Peer) -> None:
        if len(broker.peers) > 2:
            time.sleep(1.2)
            peer.welcome()
            peer.serve()
        time.sleep(2.0)

    with HostileBroker(script) as broker, running_transport(broker.url, timeout_s=1.5) as (_, events):
        connected = next_of(events, Connected)
        assert isinstance(connected, Connected)
        assert connected.protocol == "5"


# -- WebSocket ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    extension = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *extension], check=True, capture_output=True, timeout=20.0)
    return key, cert


def test_events_arrive_over_websocket_with_and_without_tls(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    """The first listener is there because mosquitto 2.0.11 does not start with WebSocket listeners alone."""
    key, cert = certificate
    plain, secure = free_port(), free_port()
    config = (
        "allow_anonymous true",
        *(f"listener {plain} 127.0.0.1", "protocol websockets"),
        *(f"listener {secure} 127.0.0.1", "protocol websockets", f"certfile {cert}", f"keyfile {key}"),
    )
    with running_mosquitto(tmp_path, config):
        urls = (f"ws://127.0.0.1:{plain}", f"wss://127.0.0.1:{secure}/mqtt?ca_file={cert}")
        with running_ingest(urls[0], tmp_path / "db"):
            for url, protocol in zip(urls, ("5", "3.1.1"), strict=True):
                more = f"{'&' if '?' in url else '?'}protocol={protocol}"
                sink = MqttSink(
                    url + more,
                    tenant="t",
                    device="d",
                    outbox=tmp_path / f"outbox-{protocol}",
                    limits=SMALL,
                    options=FAST_SEND,
                    drain_s=15.0,
                )
                for index in range(300):
                    sink.emit(make_result(index, boxes=20))
                sink.close()
                assert (sink.stats().acknowledged, sink.stats().protocol) == (300, protocol)
        untrusted = MqttSink(
            f"wss://127.0.0.1:{secure}", tenant="t", device="d", outbox=tmp_path / "o", limits=SMALL, drain_s=0.0
        )
        until(lambda: "TLS failed" in untrusted.stats().last_error, "an unknown certificate is refused")
        untrusted.close()
    assert len(stored_ids(tmp_path / "db")) == 600


def test_a_port_without_websocket_says_so(tmp_path: Path) -> None:
    with running_mosquitto(tmp_path) as broker, running_transport(f"ws://127.0.0.1:{broker.port}/mqtt") as (_, events):
        told = next_of(events, Disconnected)
    assert isinstance(told, Disconnected)
    assert told.reason

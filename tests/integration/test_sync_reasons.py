"""What a broker does not like is said with the next step, and one event that it does not take holds up no other."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from edgecv.cloud_sync.sink import MqttSink
from edgecv.events import Event
from tests.integration.test_sync_security import NEEDS_OPENSSL
from tests.unit.cloud_sync.support import (
    FAST_SEND,
    SMALL,
    make_result,
    running_ingest,
    running_mosquitto,
    stored_ids,
    until,
)

OPEN = "allow_anonymous true"


@contextmanager
def sending(url: str, folder: Path, device: str = "d") -> Iterator[MqttSink]:
    sink = MqttSink(url, tenant="t", device=device, outbox=folder, limits=SMALL, options=FAST_SEND, drain_s=0.0)
    with closing(sink):
        yield sink


def noise(index: int, size: int) -> Event:
    """An event that zlib cannot make smaller."""
    return Event(kind="test", time_ns=index, data={"noise": random.Random(index).randbytes(size // 2).hex()})


@pytest.mark.parametrize("limit", ["max_packet_size 20000", "message_size_limit 20000"])
@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_events_too_large_for_the_broker_hold_up_no_others(tmp_path: Path, protocol: str, limit: str) -> None:
    with running_mosquitto(tmp_path, (OPEN, limit)) as broker, running_ingest(broker.url, tmp_path / "db"):
        url = f"{broker.url}?protocol={protocol}"
        with sending(url, tmp_path / "outbox") as sink:
            for index in range(60):
                sink.emit_event(noise(index, 90_000 if index % 20 == 0 else 200))
            until(lambda: len(stored_ids(tmp_path / "db")) == 57, f"the small ones {sink.stats()}", 40.0)
            until(lambda: sink.stats().parked == 3, f"the large ones wait {sink.stats()}", 40.0)
            sink.emit_event(noise(100, 200))
            until(lambda: len(stored_ids(tmp_path / "db")) == 58, f"and later ones go {sink.stats()}", 20.0)
            until(lambda: sink.stats().pending == 3, "the acknowledgement")


@pytest.mark.parametrize(
    ("protocol", "words"), [("5", "one tenant and device name"), ("3.1.1", "same tenant and device")]
)
def test_two_devices_of_one_name_are_told_so(tmp_path: Path, protocol: str, words: str) -> None:
    with running_mosquitto(tmp_path) as broker:
        url = f"{broker.url}?protocol={protocol}"
        with sending(url, tmp_path / "a") as one, sending(url, tmp_path / "b") as other:
            until(
                lambda: any("tenant and device name" in sink.stats().last_error for sink in (one, other)),
                "the sentence",
                30.0,
            )


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
@pytest.mark.parametrize(
    ("rules", "words"), [("topic write #", "ingest"), ("topic read #\ntopic write edgecv/t/d/status", "rules")]
)
def test_access_rules_that_refuse_are_named(tmp_path: Path, protocol: str, rules: str, words: str) -> None:
    acl = tmp_path / "rules.acl"
    acl.write_text(f"{rules}\n")
    acl.chmod(0o600)
    config = (OPEN, f"acl_file {acl}")
    with (
        running_mosquitto(tmp_path, config) as broker,
        sending(f"{broker.url}?protocol={protocol}", tmp_path / "outbox") as sink,
    ):
        sink.emit(make_result())
        until(lambda: words in sink.stats().last_error, f"{sink.stats()}", 30.0)


@NEEDS_OPENSSL
@pytest.mark.parametrize(
    ("names", "days", "trusted", "words"),
    [
        ("DNS:localhost,IP:127.0.0.1", 2, False, "ca_file"),
        ("DNS:broker.example", 2, True, "another name"),
        ("DNS:broker.example", 2, False, "ca_file"),
    ],
    ids=["self-signed", "wrong host", "both"],
)
def test_a_certificate_that_does_not_fit_says_how(
    tmp_path: Path, names: str, days: int, trusted: bool, words: str
) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days {days} -subj /CN=broker"
    extension = ["-addext", f"subjectAltName={names}", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *extension], check=True, capture_output=True, timeout=20.0)
    with running_mosquitto(tmp_path, (OPEN, f"certfile {cert}", f"keyfile {key}")) as broker:
        url = f"mqtts://127.0.0.1:{broker.port}" + (f"?ca_file={cert}" if trusted else "")
        with sending(url, tmp_path / "outbox") as sink:
            until(lambda: words in sink.stats().last_error, f"{sink.stats()}")

"""What ingest will never take: it says so, and the device buries it instead of sending it for ever."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import msgspec
import pytest

from edgecv.cloud_sync import envelope
from edgecv.cloud_sync.acks import Ack, Refused, encode_acks, encode_refusals
from edgecv.cloud_sync.delivery.options import SendOptions
from edgecv.cloud_sync.envelope import decode_batch
from edgecv.cloud_sync.outbox.outbox import Outbox
from tests.security.hostile_broker import PINGRESP, HostileBroker, Peer, packet, publish
from tests.unit.cloud_sync.support import (
    ADDRESS,
    FAST,
    FAST_SEND,
    SMALL,
    Child,
    Mosquitto,
    make_envelope,
    put_accepted,
    running_ingest,
    running_mosquitto,
    running_sender,
    stored_ids,
    until,
)

ACK, EV = ADDRESS.topic("ack"), ADDRESS.topic("ev")


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path) as broker:
        yield broker


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path / "outbox", limits=SMALL)
    yield outbox
    outbox.close()


def put_unacceptable(outbox: Outbox, **changes: object) -> None:
    """An event that this device can write and no ingest takes."""
    accepted = outbox.stats().accepted
    outbox.put(msgspec.structs.replace(make_envelope(outbox), **changes))
    until(lambda: outbox.stats().accepted == accepted + 1, "it is accepted on the device")


def buried(folder: Path) -> list[str]:
    """Why each dead row is dead, oldest first."""
    with closing(sqlite3.connect(folder / "outbox" / "outbox.db")) as db:
        return [reason for (reason,) in db.execute("SELECT dead FROM outbox WHERE dead IS NOT NULL ORDER BY n")]


def refuse_all(seen: list[bytes]) -> Callable[[Peer], None]:
    """A script of an ingest that can read nothing at all."""

    def script(peer: Peer) -> None:
        peer.welcome()
        threading.Thread(target=answer, args=(peer,), daemon=True).start()
        peer.serve()

    def answer(peer: Peer) -> None:
        done = 0
        with suppress(OSError):  # the client is gone
            while True:
                for topic, payload in list(peer.published)[done:]:
                    done += 1
                    if topic == EV:
                        seen.append(payload)
                        digest = hashlib.sha256(payload).hexdigest()
                        peer.send(publish(ACK, encode_refusals([Refused(digest=digest, reason="not zlib")])[0]))
                peer.send(packet(PINGRESP))
                time.sleep(0.01)

    return script


def test_what_ingest_never_takes_is_buried_with_the_reason_and_its_neighbours_land(
    mosquitto: Mosquitto, tmp_path: Path, outbox: Outbox
) -> None:
    good = put_accepted(outbox, 3)
    put_unacceptable(outbox, type="x" * 201)
    put_unacceptable(outbox, source="edgecv/acme/another")
    good += put_accepted(outbox, 3)
    with running_ingest(mosquitto.url, tmp_path / "db") as ingest, running_sender(mosquitto.url, outbox) as sender:
        until(lambda: outbox.stats().pending == 0, "every event landed or is buried")
        until(lambda: outbox.stats().dead == 2, "both are buried")
        published = sender.stats().published
        time.sleep(1.2)  # longer than the longest delay of a repetition
        assert sender.stats().published == published
        assert sender.stats().ignored == 0
        assert "edgecv sync dead" in sender.stats().last_error
        assert ingest.stats().rejected == 2
    assert sorted(stored_ids(tmp_path / "db")) == sorted(good)
    long_type, stranger = buried(tmp_path)
    assert "length <= 200" in long_type
    assert "source 'edgecv/acme/another'" in stranger


def test_a_batch_that_ingest_cannot_read_is_halved_until_the_rest_lands(
    mosquitto: Mosquitto, tmp_path: Path, outbox: Outbox
) -> None:
    """Ingest takes 1,000 events in a batch; a device that was told to send more finds out."""
    put_accepted(outbox, 1500)
    options = SendOptions(
        batch_events=1500, batch_bytes=2**20, window_bytes=2**20, resend=FAST_SEND.resend, reconnect=FAST
    )
    with running_ingest(mosquitto.url, tmp_path / "db"), running_sender(mosquitto.url, outbox, options) as sender:
        assert sender.drain(15.0)
    assert outbox.stats().dead == 0
    assert len(stored_ids(tmp_path / "db")) == 1500


def test_an_event_that_ingest_cannot_even_read_is_buried(tmp_path: Path, outbox: Outbox) -> None:
    put_accepted(outbox, 4)
    seen: list[bytes] = []
    with HostileBroker(refuse_all(seen)) as broker, running_sender(broker.url, outbox):
        until(lambda: outbox.stats().dead == 4, "all are buried")
    assert buried(tmp_path) == ["ingest: not zlib"] * 4
    assert [len(decode_batch(payload).envelopes) for payload in seen] == [4, 2, 2, 1, 1, 1, 1]


def test_a_device_newer_than_ingest_waits_and_buries_nothing(
    mosquitto: Mosquitto, tmp_path: Path, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of its events would be dead at once; they go out again when ingest may have been updated."""
    ids = put_accepted(outbox, 200)
    with Child("ingest", mosquitto.url, tmp_path / "db"):
        until((tmp_path / "db" / "landing.db").exists, "ingest runs")
        monkeypatch.setattr(envelope, "BATCH_VERSION", 3)
        with running_sender(mosquitto.url, outbox) as sender:
            until(lambda: "update it" in sender.stats().last_error, "the next step is said")
            published = sender.stats().published
            time.sleep(1.2)
            assert sender.stats().published <= published + 4  # those that were on their way
            assert (outbox.stats().pending, outbox.stats().dead) == (200, 0)
            monkeypatch.setattr(envelope, "BATCH_VERSION", 2)  # as if ingest knew version 3 now
            mosquitto.kill()
            mosquitto.start()
            assert sender.drain(15.0)
    assert sorted(stored_ids(tmp_path / "db")) == sorted(ids)


def test_forged_refusals_bury_nothing(mosquitto: Mosquitto, tmp_path: Path, outbox: Outbox) -> None:
    """Nonce and digest are known to those alone who received the batch."""
    put_accepted(outbox, 5)
    forged = [
        *encode_acks([Ack(nonce=f"{n:032x}", ranges=(), nacks=((0, "forged"),)) for n in range(20)]),
        *encode_refusals([Refused(digest=f"{n:064x}", reason="forged") for n in range(20)]),
        *encode_refusals([Refused(digest=hashlib.sha256(b"").hexdigest(), reason="forged", later=True)]),
        b'{"v":2,"refused":[{"digest":"","reason":"forged"}]}',
        b'{"v":2,"acks":[{"nonce":"","ranges":[],"nacks":[[0,"forged"]]}]}',
    ]
    with running_sender(mosquitto.url, outbox) as sender:
        until(lambda: sender.stats().unplaced > 0, "the batch is on its way")
        for payload in forged:
            mosquitto.publish(ACK, payload)
        until(lambda: sender.stats().ignored >= 43, "all forgeries are counted")
        assert (outbox.stats().pending, outbox.stats().dead) == (5, 0)
        with running_ingest(mosquitto.url, tmp_path / "db"):
            assert sender.drain(15.0)


def test_a_refusal_reaches_no_further_than_its_batch(outbox: Outbox) -> None:
    """Indices beyond the batch, twice the same, and of what was acknowledged before bury nothing more."""

    def script(peer: Peer) -> None:
        peer.welcome()
        threading.Thread(target=answer, args=(peer,), daemon=True).start()
        peer.serve()

    def answer(peer: Peer) -> None:
        until(lambda: [topic for topic, _ in peer.published].count(EV) == 2, "two batches")
        first = next(payload for topic, payload in peer.published if topic == EV)
        nonce = decode_batch(first).nonce
        assert nonce is not None
        nacks = tuple((index, "why") for index in (1, 1, 0, 5, 6, 99, 999_999))
        peer.send(publish(ACK, encode_acks([Ack(nonce=nonce, ranges=((outbox.boot, 1, 1),), nacks=nacks)])[0]))

    put_accepted(outbox, 10)
    options = SendOptions(batch_events=5, resend=FAST_SEND.resend, reconnect=FAST)
    with HostileBroker(script) as broker, running_sender(broker.url, outbox, options):
        until(lambda: outbox.stats().dead == 1, "one is buried")
        time.sleep(0.2)
        assert (outbox.stats().acknowledged, outbox.stats().dead, outbox.stats().pending) == (1, 1, 8)

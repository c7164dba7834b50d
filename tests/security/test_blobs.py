"""Devices, strangers and clouds that are hostile to pictures."""

from __future__ import annotations

import hashlib
import json
import queue
import random
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from edgecv.cloud_sync.blobs.mailbox import Mailbox
from edgecv.cloud_sync.blobs.messages import (
    PART_BYTES,
    Announcement,
    Done,
    Drop,
    More,
    Part,
    PutHere,
    Reply,
    SendParts,
    Uploaded,
    Wait,
    decode_announcement,
    decode_part,
    decode_reply,
    encode,
    encode_part,
)
from edgecv.cloud_sync.envelope import Stamp, decode as decode_event, encode as encode_event, envelope_from_event
from edgecv.cloud_sync.ingest.blobs.desk import BlobDesk
from edgecv.cloud_sync.ingest.blobs.limits import BlobLimits
from edgecv.cloud_sync.ingest.database import EventDatabase
from edgecv.cloud_sync.ingest.landed import Landed
from edgecv.cloud_sync.mqtt.events import Connected, Received
from edgecv.cloud_sync.store.manifest import Forgotten
from edgecv.errors import SyncError
from edgecv.events import Event
from tests.integration.test_sync_blobs import open_sink, pictured
from tests.security.fuzz_mqtt import mutate
from tests.unit.cloud_sync.object_store import ObjectStore
from tests.unit.cloud_sync.support import ADDRESS, running_mosquitto, until

MIB = 2**20
NONCE, SESSION = "a" * 32, "b" * 32
DATA = random.Random(1).randbytes(100_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


def announcement(data: bytes = DATA, nonce: str = NONCE, **more: object) -> Announcement:
    fields = {"nonce": nonce, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "ways": ("parts",)}
    return Announcement(**{**fields, **more})  # type: ignore[arg-type]


class Counter:
    """A desk with its database, and what it answers."""

    def __init__(self, folder: Path, limits: BlobLimits) -> None:
        self.folder = folder
        self.landing = EventDatabase(folder)
        self._sent: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self.desk = BlobDesk(
            folder, lambda topic, payload: self._sent.put((topic, payload)), bool, limits=limits, signer=None
        )
        self.desk.start()

    def say(self, leaf: str, payload: bytes, device: str = "acme/cam-1") -> None:
        topic = f"edgecv/{device}/{leaf}"
        before = self.desk.refused
        if not self.desk.heeds(Received(epoch=1, mid=1, topic=topic, payload=payload)):
            pytest.fail(f"{topic} is not about pictures: {before}")

    def answer(self, timeout_s: float = 5.0) -> Reply:
        return decode_reply(self._sent.get(timeout=timeout_s)[1])

    def silence(self) -> bool:
        """Whether nothing was answered; what was said before is handled by then."""
        refused = self.desk.refused
        self.say("blob", b"sentinel")
        until(lambda: self.desk.refused > refused, "the sentinel")
        return self._sent.empty()

    def ask(self, asked: Announcement, device: str = "acme/cam-1") -> Reply:
        self.say("blob", encode(asked), device)
        return self.answer()

    def send(self, session: str, offset: int, data: bytes, device: str = "acme/cam-1") -> None:
        self.say("blob-part", encode_part(Part(session=session, offset=offset, data=data)), device)

    def rows(self) -> list[tuple[str, str]]:
        with closing(sqlite3.connect(self.landing.path)) as db:
            return db.execute("SELECT sha256, state FROM blobs").fetchall()

    def files(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.folder)) for path in (self.folder / "blobs").rglob("*") if path.is_file()
        )

    def settled(self) -> Reply:
        """Commit as ingest does, until that answers something."""
        replies: list[Reply] = []

        def is_settled() -> bool:
            self.desk.settle(self.landing.write)
            if not self._sent.empty():
                replies.append(self.answer())
            return bool(replies)

        until(is_settled, "an answer after a commit")
        return replies[0]

    def close(self) -> None:
        self.desk.close()
        self.landing.close()


@pytest.fixture
def counter(tmp_path: Path) -> Iterator[Counter]:
    made = Counter(tmp_path / "db", BlobLimits(floor_bytes=0, memory_bytes=20 * MIB, device_bytes=300_000))
    yield made
    made.close()


def whole(counter: Counter, data: bytes = DATA) -> Reply:
    granted = counter.ask(announcement(data))
    assert isinstance(granted, SendParts)
    for offset in range(0, len(data), PART_BYTES):
        counter.send(granted.session, offset, data[offset : offset + PART_BYTES])
        if offset + PART_BYTES < len(data):
            assert isinstance(counter.answer(), More)
    return counter.settled()


def test_a_picture_that_is_what_it_says_is_stored_after_the_commit(counter: Counter) -> None:
    assert whole(counter) == Done(nonce=NONCE, sha256=SHA256, state="stored")
    assert counter.files() == [f"blobs/{SHA256[:2]}/{SHA256}"]
    assert counter.rows() == [(SHA256, "stored")]
    assert isinstance(counter.ask(announcement(nonce="c" * 32)), Done)


def test_a_picture_under_another_name_is_refused(counter: Counter) -> None:
    granted = counter.ask(announcement(bytes=10))
    assert isinstance(granted, SendParts)
    counter.send(granted.session, 0, b"0123456789")
    assert isinstance(counter.answer(), Wait)
    assert counter.files() == []
    assert counter.rows() == []


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "../../../../etc/cron.d/x"},
        {"sha256": "a" * 63},
        {"sha256": "A" * 64},
        {"sha256": "a" * 64 + "\n"},
        {"bytes": 0},
        {"bytes": 2**40},
        {"type": "text/html"},
        {"ways": []},
        {"ways": ["shell"]},
        {"nonce": "x"},
        {"v": 2},
    ],
    ids=str,
)
def test_announcements_that_are_none(counter: Counter, change: dict[str, object]) -> None:
    document = {"v": 1, "nonce": NONCE, "sha256": SHA256, "bytes": 5, "type": "image/jpeg", "ways": ["parts"], **change}
    counter.say("blob", json.dumps(document).encode())
    assert counter.silence()


@pytest.mark.parametrize("device", ["../x", "acme/..", "acme/.hidden", "acme/a/b", "acme/\0"])
def test_devices_with_names_that_are_none_get_no_answer(counter: Counter, device: str) -> None:
    counter.say("blob", encode(announcement()), device)
    assert counter.silence()


def test_endless_parts_take_no_memory_and_no_disk(counter: Counter) -> None:
    granted = counter.ask(announcement(bytes=100))
    assert isinstance(granted, SendParts)
    for _ in range(20):
        counter.send(granted.session, 0, bytes(101))  # more than announced: nothing of it is taken
        reply = counter.answer()
        assert isinstance(reply, More)
        assert reply.have == 0
    counter.say("blob-part", b"\0" + bytes(24) + bytes(PART_BYTES + 1))
    assert counter.silence()
    assert counter.files() == []


def test_many_large_pictures_at_once_are_told_to_wait(counter: Counter) -> None:
    room = BlobLimits().max_bytes
    large = [announcement(secrets.token_bytes(8), bytes=room) for _ in range(30)]
    counter.desk._limits = BlobLimits(floor_bytes=0)  # a larger share of each device
    answers = [counter.ask(one, f"acme/cam-{number}") for number, one in enumerate(large)]
    assert [type(one) for one in answers] == [SendParts] * 2 + [Wait] * 28  # 20 MiB of memory
    again = [counter.ask(announcement(bytes([n]) * 9, bytes=9), "acme/cam-0") for n in range(9)]
    assert {type(one) for one in again} == {SendParts}  # of one device the older ones are forgotten
    assert len(counter.desk._sessions) <= 2 + 2


def test_a_device_gets_no_more_than_its_share(counter: Counter) -> None:
    for seed in range(3):
        assert isinstance(whole(counter, random.Random(seed).randbytes(99_000)), Done)
    refused = counter.ask(announcement())
    assert isinstance(refused, Wait)
    assert "share" in refused.reason
    assert isinstance(counter.ask(announcement(), "acme/cam-2"), SendParts)


def test_a_picture_that_is_too_large_is_told_so_once_and_for_all(tmp_path: Path) -> None:
    strict = Counter(tmp_path / "db", BlobLimits(max_bytes=1000, floor_bytes=0))
    assert isinstance(strict.ask(announcement()), Drop)
    strict.close()


def test_nobody_sends_parts_of_another_device_or_without_a_session(counter: Counter) -> None:
    granted = counter.ask(announcement())
    assert isinstance(granted, SendParts)
    counter.send(granted.session, 0, DATA[:10], "acme/cam-2")
    counter.send(SESSION, 0, DATA[:10])
    counter.say("blob-part", encode(Uploaded(session=granted.session)))
    assert counter.silence()
    counter.send(granted.session, 0, DATA[:10])
    reply = counter.answer()
    assert isinstance(reply, More)
    assert reply.have == 10


def test_what_is_replayed_changes_nothing(counter: Counter) -> None:
    granted = counter.ask(announcement())
    assert isinstance(granted, SendParts)
    counter.send(granted.session, 0, DATA[:PART_BYTES])
    counter.send(granted.session, 0, DATA[:PART_BYTES])
    assert [getattr(counter.answer(), "have", None) for _ in range(2)] == [PART_BYTES] * 2
    whole(counter)
    before = (counter.rows(), counter.files())
    counter.send(granted.session, 0, DATA[:PART_BYTES])
    assert counter.silence()
    counter.desk.settle(counter.landing.write)
    assert (counter.rows(), counter.files()) == before


def test_the_same_picture_of_another_device_is_not_taken_on_trust(counter: Counter) -> None:
    whole(counter)
    assert isinstance(counter.ask(announcement(), "rival/cam-9"), SendParts)


def event(seq: int, sha256: str) -> Landed:
    data = {"snapshot": {"sha256": sha256, "bytes": len(DATA), "type": "image/jpeg"}}
    made = Event(kind="line.crossed", time_ns=1_700_000_000_000_000_000, data=data)
    body = encode_event(envelope_from_event(made, Stamp(address=ADDRESS, boot=7, seq=seq), mono_ns=0))
    return Landed.from_envelope(decode_event(body), ADDRESS, 1_700_000_001_000_000_000)


def test_what_is_forgotten_goes_with_its_pictures_and_does_not_come_back(counter: Counter) -> None:
    late = hashlib.sha256(b"late").hexdigest()
    counter.landing.store([event(1, SHA256)], [])
    whole(counter)
    us = 1_700_000_000_000_000
    counter.landing.forget(Forgotten(id="x", tenant="acme", device="cam-1", from_us=us, to_us=us + 1, at_us=us))
    counter.landing.store([event(2, late)], [])
    assert counter.files() == []
    assert sorted(counter.rows()) == sorted([(SHA256, "erased"), (late, "erased")])
    assert isinstance(counter.ask(announcement()), Drop)
    assert isinstance(counter.ask(announcement(b"late")), Drop)


def test_what_another_device_has_stays_when_one_is_forgotten(counter: Counter) -> None:
    whole(counter)
    granted = counter.ask(announcement(), "rival/cam-9")
    assert isinstance(granted, SendParts)
    for offset in range(0, len(DATA), PART_BYTES):
        counter.send(granted.session, offset, DATA[offset : offset + PART_BYTES], "rival/cam-9")
    assert isinstance(counter.answer(), More)
    assert isinstance(counter.answer(), More)
    assert isinstance(counter.settled(), Done)
    counter.landing.forget(Forgotten(id="x", tenant="acme", device="cam-1", from_us=0, to_us=2**60, at_us=0))
    assert counter.files() == [f"blobs/{SHA256[:2]}/{SHA256}"]
    counter.landing.retain("rival", "2999-01-01T00")
    assert counter.files() == []
    assert counter.rows() == [(SHA256, "erased")] * 2


def received(payload: bytes) -> Received:
    return Received(epoch=1, mid=1, topic=ADDRESS.topic("blob-reply"), payload=payload)


def test_an_answer_that_a_device_did_not_ask_for_does_nothing() -> None:
    mailbox = Mailbox(ADDRESS)
    mailbox.heeds(Connected(epoch=1, window=1, protocol="5"), lambda *_: 0)
    mailbox.ask(NONCE)
    forged = [
        Done(nonce="c" * 32, sha256=SHA256, state="stored"),
        Drop(nonce="c" * 32, sha256=SHA256),
        PutHere(nonce="c" * 32, sha256=SHA256, session=SESSION, url="https://evil.example/", expires_s=60),
    ]
    for reply in forged:
        assert mailbox.heeds(received(encode(reply)), lambda *_: 0)
    assert mailbox.heeds(received(b"garbage"), lambda *_: 0)
    assert mailbox.next(0.05, 1) is None
    assert mailbox.ignored == 4
    assert mailbox.heeds(received(encode(Done(nonce=NONCE, sha256=SHA256, state="stored"))), lambda *_: 0)
    assert isinstance(mailbox.next(0.05, 1), Done)


def test_mutated_messages_are_refused_or_understood_and_break_nothing() -> None:
    rng = random.Random(17)
    seeds = [
        encode(announcement()),
        encode(Uploaded(session=SESSION)),
        encode_part(Part(session=SESSION, offset=5, data=b"x" * 50)),
        encode(PutHere(nonce=NONCE, sha256=SHA256, session=SESSION, url="https://a.example/", expires_s=1)),
        encode(SendParts(nonce=NONCE, sha256=SHA256, session=SESSION)),
        encode(More(nonce=NONCE, sha256=SHA256, session=SESSION, have=1)),
        encode(Done(nonce=NONCE, sha256=SHA256, state="claimed")),
        encode(Wait(nonce=NONCE, sha256=SHA256, wait_s=1.0)),
    ]
    refused = 0
    for _ in range(10_000):
        payload = mutate(rng, rng.choice(seeds), seeds)
        for decode in (decode_announcement, decode_part, decode_reply):
            try:
                decode(payload)
            except SyncError:
                refused += 1
    assert refused > 20_000


def test_a_url_for_another_picture_or_of_a_stranger_does_nothing(tmp_path: Path) -> None:
    """Somebody reads what a device announces, and answers with URLs of his own."""
    with running_mosquitto(tmp_path) as broker, ObjectStore() as store:
        asked: queue.SimpleQueue[Announcement] = queue.SimpleQueue()
        client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        client.on_message = lambda _c, _d, message: asked.put(decode_announcement(message.payload))
        client.connect("127.0.0.1", broker.port)
        client.subscribe("edgecv/+/+/blob", qos=1)
        client.loop_start()
        sink = open_sink(broker.url, tmp_path / "outbox", drain_s=0.0, url_hosts=["127.0.0.1"], url_wait_s=60.0)
        sink.emit(pictured(1))
        one = asked.get(timeout=10.0)
        url = {"session": SESSION, "url": f"{store.endpoint}/stolen", "expires_s": 60.0}
        for nonce, sha256 in ((one.nonce, SHA256), (NONCE, one.sha256), (NONCE, SHA256)):
            reply = PutHere(nonce=nonce, sha256=sha256, **url)
            client.publish("edgecv/acme/cam-1/blob-reply", encode(reply), qos=1).wait_for_publish(5.0)
        other = PutHere(nonce=one.nonce, sha256=one.sha256, **{**url, "url": "https://[::1]/not-listed"})
        client.publish("edgecv/acme/cam-1/blob-reply", encode(other), qos=1).wait_for_publish(5.0)
        assert asked.get(timeout=10.0) == one  # the only answer that counts was refused for its host
        assert sink.stats().ignored == 2
        assert (store.puts, sink.stats().snapshots_waiting) == (0, 1)
        sink.close()
        client.disconnect()
        client.loop_stop()

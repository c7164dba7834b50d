"""Which events ingest takes for repetitions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edgecv.cloud_sync.envelope import Stamp, decode, encode, envelope_from_event
from edgecv.cloud_sync.ingest.database import EventDatabase
from edgecv.cloud_sync.ingest.landed import Landed
from edgecv.events import Event
from tests.unit.cloud_sync.support import ADDRESS


@pytest.fixture
def landing(tmp_path: Path) -> Iterator[EventDatabase]:
    landing = EventDatabase(tmp_path / "db")
    yield landing
    landing.close()


def landed(seq: int, content: int, *, boot: int = 7, mono_ns: int = 0, received_ns: int = 1) -> Landed:
    event = Event(kind="line.crossed", time_ns=1_700_000_000_000_000_000, data={"crossing": content})
    stamp = Stamp(address=ADDRESS, boot=boot, seq=seq)
    body = encode(envelope_from_event(event, stamp, mono_ns=mono_ns))
    return Landed.from_envelope(decode(body), ADDRESS, received_ns)


def rows(landing: EventDatabase) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(landing.path)) as db:
        return db.execute("SELECT id, data FROM events ORDER BY rowid").fetchall()


def test_another_event_under_a_used_id_is_kept_beside_it(landing: EventDatabase) -> None:
    landing.store([landed(1, 100), landed(2, 200)], [])
    stored = landing.store([landed(1, 101), landed(2, 200, received_ns=2), landed(3, 300)], [])
    assert (stored.new, len(stored.renamed)) == (2, 1)
    ids = [name for name, _ in rows(landing)]
    assert ids[:2] == ["7:1", "7:2"]
    assert len(ids) == 4
    assert sorted(name for name in ids if name.startswith("7:1")) == ["7:1", stored.renamed[0].row[1]]
    assert [data for name, data in rows(landing) if name == stored.renamed[0].row[1]] == [landed(1, 101).row[12]]


def test_the_repetition_of_a_kept_event_is_one(landing: EventDatabase) -> None:
    landing.store([landed(1, 100), landed(1, 101)], [])
    before = rows(landing)
    assert len(before) == 2
    for again in ([landed(1, 100)], [landed(1, 101)], [landed(1, 101), landed(1, 100)]):
        stored = landing.store(again, [])
        assert (stored.new, stored.renamed) == (0, ())
    assert rows(landing) == before


def test_the_same_detection_at_another_moment_is_another_event(landing: EventDatabase) -> None:
    landing.store([landed(1, 100)], [])
    assert landing.store([landed(1, 100, mono_ns=5)], []).new == 1


def test_rows_of_an_older_ingest_are_compared_too(tmp_path: Path) -> None:
    landing = EventDatabase(tmp_path / "db")
    landing.store([landed(1, 100)], [])
    landing.close()  # the table is that of every ingest before: nothing was added to it
    again = EventDatabase(tmp_path / "db")
    assert again.store([landed(1, 100)], []).new == 0
    assert again.store([landed(1, 102)], []).new == 1
    again.close()

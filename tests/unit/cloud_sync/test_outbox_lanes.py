"""Lanes of an outbox, states that coalesce, dead letters and the loss ledger."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from edgecv.cloud_sync.outbox.limits import LaneLimits, OutboxLimits
from edgecv.cloud_sync.outbox.outbox import Outbox
from edgecv.cloud_sync.outbox.rows import Row
from edgecv.cloud_sync.outbox.store import OutboxStore
from edgecv.cloud_sync.sink import MqttSink
from edgecv.errors import ConfigError, OutboxFull
from edgecv.events import Event, Priority
from tests.unit.cloud_sync.support import SMALL, free_port, make_envelope, make_result, put_accepted, until

QUOTA = 100_000
TIGHT = OutboxLimits(quota_bytes=QUOTA, floor_bytes=0, ballast_bytes=0)


class Shop:
    """A store with a clock of its own, and rows that are numbered."""

    def __init__(self, folder: Path, limits: OutboxLimits = TIGHT) -> None:
        self.now_ns = 1_000
        self.seq = 0
        self.folder, self.limits = folder, limits
        self.open()

    def open(self) -> None:
        self.store = OutboxStore(self.folder, self.limits, lambda: self.now_ns)

    def put(self, lane: int, size: int = 904, key: str = "") -> int:
        """Store one row of ``size`` + 96 bytes; its number."""
        return self.fill(lane, 1, size, key)[0]

    def fill(self, lane: int, count: int, size: int = 904, key: str = "") -> list[int]:
        """Store rows in one commit; their numbers."""
        numbers = list(range(self.seq + 1, self.seq + 1 + count))
        self.seq += count
        body = b"x" * size
        self.store.commit([Row(boot=7, seq=seq, priority=lane, body=body, coalesce_key=key) for seq in numbers], [])
        return numbers

    def lanes(self) -> list[list[int]]:
        """The numbers of the waiting rows by lane."""
        with closing(sqlite3.connect(self.folder / "outbox.db")) as db:
            rows = db.execute("SELECT lane, seq FROM outbox WHERE dead IS NULL ORDER BY n").fetchall()
        return [[seq for place, seq in rows if place == lane] for lane in range(4)]

    def lost(self) -> dict[tuple[str, str], int]:
        return {(loss.reason, loss.lane): loss.count for loss in self.store.losses()}

    def claim(self, limit: int = 1000) -> list[int]:
        return [row.seq for row in self.store.claim(limit=limit, max_bytes=10**9, priorities=4).rows]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


ALARM, EVENT, TELEMETRY, BLOB = range(4)
NAMES: tuple[Priority, ...] = ("alarm", "event", "telemetry", "blob")


def test_a_flood_of_telemetry_drops_its_own_oldest_and_leaves_room_for_the_others(shop: Shop) -> None:
    numbers = shop.fill(TELEMETRY, 200)
    kept = shop.lanes()[TELEMETRY]
    # 100 kB less 1/16 for alarms, 1/8 for events, 1/32 each for blobs and the dead.
    assert len(kept) == 75
    assert kept == numbers[-75:]
    assert shop.lost() == {("evicted", "telemetry"): 125}
    assert shop.store.counts().refused == 0
    for lane, room in ((ALARM, 6), (EVENT, 12), (BLOB, 3)):
        shop.fill(lane, room)
    assert [len(rows) for rows in shop.lanes()] == [6, 12, 75, 3]


def test_alarms_and_events_take_back_what_telemetry_has_beyond_its_own_and_no_more(shop: Shop) -> None:
    shop.fill(TELEMETRY, 100)
    shop.fill(EVENT, 200)
    shop.fill(ALARM, 200)
    alarms, events, telemetry, _ = (len(rows) for rows in shop.lanes())
    assert (alarms, events, telemetry) == (67, 13, 13)  # 1/8 each, to the next whole event
    counts = shop.store.counts()
    assert (counts.accepted - counts.evicted, counts.refused) == (67 + 13 + 13, 500 - counts.accepted)
    assert shop.lost()[("refused_full", "alarm")] + shop.lost()[("refused_full", "event")] == counts.refused


def test_what_is_on_its_way_never_gives_way(shop: Shop) -> None:
    first = shop.fill(TELEMETRY, 75)
    assert shop.claim() == first
    shop.put(TELEMETRY)
    assert shop.lanes()[TELEMETRY] == first
    assert shop.lost() == {("refused_full", "telemetry"): 1}
    assert shop.put(ALARM) in shop.lanes()[ALARM]


def test_a_lane_holds_its_quota_and_no_more(tmp_path: Path) -> None:
    lanes: dict[Priority, LaneLimits] = {
        "telemetry": LaneLimits(quota_bytes=5_000),
        "event": LaneLimits(quota_bytes=3_000),
        "alarm": LaneLimits(quota_bytes=2_000, when_full="drop_oldest"),
    }
    shop = Shop(tmp_path, OutboxLimits(quota_bytes=QUOTA, floor_bytes=0, ballast_bytes=0, lanes=lanes))
    numbers = [shop.fill(lane, 8) for lane in (ALARM, EVENT, TELEMETRY)]
    assert shop.lanes() == [numbers[0][-2:], numbers[1][:3], numbers[2][-5:], []]
    assert shop.lost() == {("evicted", "alarm"): 6, ("evicted", "telemetry"): 3, ("refused_full", "event"): 5}


def test_an_outbox_that_an_older_edgecv_filled_gives_up_no_more_than_comes(tmp_path: Path) -> None:
    wide = OutboxLimits(
        quota_bytes=2 * QUOTA,
        floor_bytes=0,
        ballast_bytes=0,
        lanes={name: LaneLimits(reserved_bytes=0) for name in NAMES},
    )
    shop = Shop(tmp_path, wide)
    shop.fill(TELEMETRY, 150)
    shop.store.close()
    shop.limits = TIGHT
    shop.open()
    shop.put(TELEMETRY)
    shop.put(ALARM)
    assert [len(rows) for rows in shop.lanes()] == [1, 0, 149, 0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LaneLimits(quota_bytes=-1), "quota_bytes of a lane"),
        (lambda: LaneLimits(ttl_s=float("nan")), "ttl_s of a lane"),
        (lambda: LaneLimits(when_full="wait"), "cannot do 'wait'"),  # type: ignore[arg-type]
        (lambda: OutboxLimits(lanes={"alerts": LaneLimits()}), "no lane 'alerts'"),  # type: ignore[dict-item]
        (lambda: OutboxLimits(quota_bytes=1000, lanes={"event": LaneLimits(reserved_bytes=990)}), "keep"),
    ],
)
def test_limits_that_cannot_be_are_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        make()
    assert caught.value.message


def test_a_lane_has_a_time_to_live_and_a_single_event_may_have_another(tmp_path: Path) -> None:
    now_ns = [10**9]
    limits = OutboxLimits(floor_bytes=0, ballast_bytes=0, lanes={"event": LaneLimits(ttl_s=5.0)})
    outbox = Outbox(tmp_path, limits=limits, clock=lambda: now_ns[0])
    outbox.put(make_envelope(outbox))
    outbox.put(make_envelope(outbox), ttl_s=50.0)
    outbox.put(make_envelope(outbox, priority="alarm"))
    until(lambda: outbox.stats().accepted == 3, "all are accepted")
    now_ns[0] += 6 * 10**9
    assert len(outbox.claim(limit=10, max_bytes=10**6, priorities=1).rows) == 1
    assert len(outbox.claim(limit=10, max_bytes=10**6).rows) == 1
    outbox.close()
    assert [(loss.reason, loss.lane, loss.count) for loss in outbox.losses()] == [("expired", "event", 1)]


def test_a_newer_state_takes_the_place_of_one_that_was_not_sent(shop: Shop) -> None:
    shop.put(EVENT, key="a")
    other = shop.put(EVENT, key="b")
    plain = shop.put(EVENT)
    newer = shop.put(EVENT, key="a")
    assert shop.lanes()[EVENT] == [other, plain, newer]
    assert shop.claim() == [other, plain, newer]
    last = shop.put(EVENT, key="a")  # the one before is on its way: it stays
    assert shop.lanes()[EVENT] == [other, plain, newer, last]
    counts = shop.store.counts()
    assert (counts.accepted, counts.coalesced, counts.pending) == (5, 1, 4)
    assert shop.lost() == {}


def test_a_state_changes_its_lane_with_its_urgency(shop: Shop) -> None:
    shop.put(EVENT, key="door")
    shop.put(ALARM, key="door")
    assert [len(rows) for rows in shop.lanes()] == [1, 0, 0, 0]


def test_a_state_that_finds_no_room_leaves_the_older_one(tmp_path: Path) -> None:
    shop = Shop(tmp_path, OutboxLimits(quota_bytes=QUOTA, floor_bytes=0, ballast_bytes=0))
    older = shop.put(EVENT, key="a")
    while not shop.lost():
        shop.put(EVENT)
    assert shop.put(EVENT, size=5_000, key="a") not in shop.lanes()[EVENT]
    assert older in shop.lanes()[EVENT]
    newer = shop.put(EVENT, key="a")  # of the same size: the older one makes its room
    assert newer in shop.lanes()[EVENT]
    assert older not in shop.lanes()[EVENT]


def test_states_coalesce_over_a_restart(shop: Shop) -> None:
    shop.put(EVENT, key="a")
    shop.store.close()
    shop.open()
    newer = shop.put(EVENT, key="a")
    assert shop.lanes()[EVENT] == [newer]


def test_an_event_takes_its_key_through_the_sink(tmp_path: Path) -> None:
    sink = MqttSink(f"mqtt://127.0.0.1:{free_port()}", tenant="t", device="d", outbox=tmp_path, drain_s=0.0)
    for number in range(5):
        sink.emit_event(Event(kind="door", time_ns=number, coalesce_key="door"))
        sink.emit_event(Event(kind="crossed", time_ns=number))
    sink.close()
    stats = sink.stats()
    assert (stats.emitted, stats.accepted, stats.coalesced, stats.pending) == (10, 10, 4, 6)


def test_a_key_of_an_event_is_bounded() -> None:
    with pytest.raises(ConfigError, match="coalesce_key of 201"):
        Event(kind="x", time_ns=0, coalesce_key="k" * 201)


def test_dead_letters_have_their_own_bound_and_none_is_lost_uncounted(shop: Shop) -> None:
    numbers = [shop.put(lane) for lane in (ALARM, EVENT, TELEMETRY, EVENT, EVENT)]
    for number in numbers:
        shop.now_ns += 1
        assert shop.store.bury((7, number), "schema")
    assert shop.store.counts().dead == 3  # 1/32 of 100 kB
    assert shop.lost() == {("dead_evicted", "alarm"): 1, ("dead_evicted", "event"): 1}
    shop.fill(TELEMETRY, 200)
    assert shop.store.counts().dead == 3  # what comes does not push them out


def test_dead_letters_are_offered_again(shop: Shop) -> None:
    numbers = shop.fill(EVENT, 3)
    assert shop.claim() == numbers
    for number in numbers:
        shop.store.bury((7, number), "schema")
    with closing(sqlite3.connect(shop.folder / "outbox.db")) as db, db:
        db.execute("UPDATE outbox SET body=x'00' WHERE seq=3")
    assert shop.store.retry_dead([(7, 1)]) == 1
    assert shop.claim() == [1]
    assert shop.store.retry_dead(None) == 1  # the third is damaged: it stays
    assert shop.claim() == [2]
    assert (shop.store.counts().dead, shop.store.counts().pending) == (1, 2)


def test_the_ledger_is_added_up_over_restarts(shop: Shop) -> None:
    for _ in range(2):
        shop.fill(TELEMETRY, 100)
        shop.now_ns += 1_000
        shop.store.close()
        shop.open()
    (loss,) = shop.store.losses()
    assert (loss.reason, loss.lane, loss.count) == ("evicted", "telemetry", 25 + 100)
    assert (loss.first_ns, loss.last_ns) == (1_000, 2_000)


def test_refusals_of_a_bad_disk_are_counted_exactly_and_written_when_it_recovers(shop: Shop) -> None:
    shop.put(EVENT)
    shop.store._db._db.execute("PRAGMA query_only=1")  # writing fails, as on a full disk or one that became read-only
    shop.fill(ALARM, 7)
    assert shop.store.counts().refused == 7
    assert shop.lost() == {("refused_disk", "alarm"): 7}
    assert "the disk failed" in shop.store.counts().last_error
    shop.store._db._db.execute("PRAGMA query_only=0")
    assert shop.store.owes
    shop.store.commit([], [(7, 1, 1)])
    assert not shop.store.owes
    assert shop.store.counts().pending == 0
    shop.store.close()
    shop.open()
    assert shop.lost() == {("refused_disk", "alarm"): 7}


def test_new_events_do_not_use_up_the_ballast_that_deletions_need(tmp_path: Path) -> None:
    shop = Shop(tmp_path, OutboxLimits(floor_bytes=0, ballast_bytes=4096))
    shop.put(EVENT)
    db = shop.store._db._db
    db.execute("PRAGMA query_only=1")
    shop.put(EVENT)
    assert (tmp_path / "ballast").exists()
    shop.store.commit([], [(7, 1, 1)])
    assert not (tmp_path / "ballast").exists()
    db.execute("PRAGMA query_only=0")
    shop.store.commit([], [])
    assert shop.lanes() == [[], [], [], []]


def test_low_disk_space_is_in_the_ledger(tmp_path: Path) -> None:
    shop = Shop(tmp_path, OutboxLimits(floor_bytes=2**62))
    shop.put(EVENT)
    shop.store.close()
    shop.open()
    assert shop.lost() == {("refused_disk", "event"): 1}


def test_what_the_outbox_does_not_take_is_in_the_ledger(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, limits=OutboxLimits(queue_rows=1, group_s=30.0, floor_bytes=0, ballast_bytes=0))
    with pytest.raises(OutboxFull):
        outbox.put(make_envelope(outbox, bulk=300_000))
    until(lambda: _on_disk(tmp_path) == [("too_large", "event", 1)], "it is written though nothing else comes")
    outbox.put(make_envelope(outbox))
    for _ in range(3):
        with pytest.raises(OutboxFull, match="queue in memory"):
            outbox.put(make_envelope(outbox, priority="alarm"))
    outbox.close()
    with pytest.raises(OutboxFull, match="closed"):
        outbox.put(make_envelope(outbox))
    assert _on_disk(tmp_path) == [("refused_memory", "alarm", 3), ("too_large", "event", 1)]
    assert ("refused_closed", 1) in [(loss.reason, loss.count) for loss in outbox.losses()]
    assert sum(loss.count for loss in outbox.losses()) == outbox.stats().refused == 5


def _on_disk(folder: Path) -> list[tuple[str, str, int]]:
    with closing(sqlite3.connect(folder / "outbox.db")) as db:
        return db.execute("SELECT reason, lane, count FROM losses ORDER BY reason, lane").fetchall()


def _reports(folder: Path) -> list[dict[str, object]]:
    with closing(sqlite3.connect(folder / "outbox.db")) as db:
        bodies = [body for (body,) in db.execute("SELECT body FROM outbox ORDER BY n")]
    found = [json.loads(body) for body in bodies]
    return [event for event in found if event["type"] == "edgecv.event.sync.losses"]


def test_the_ledger_is_sent_as_one_event_that_counts_nowhere(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, limits=SMALL)
    put_accepted(outbox, 2)
    made: list[int] = []

    def make(losses: object, seq: int) -> object:
        made.append(seq)
        envelope = make_envelope(outbox)
        data = {"losses": [loss.as_dict() for loss in losses]}  # type: ignore[attr-defined]
        return msgspec.structs.replace(
            envelope, id=f"{outbox.boot}:{seq}", seq=seq, type="edgecv.event.sync.losses", data=data
        )

    outbox.report_losses(make, every_s=0.2)  # type: ignore[arg-type]
    for count in (1, 2, 3):
        with pytest.raises(OutboxFull):
            outbox.put(make_envelope(outbox, bulk=300_000))
        until(lambda count=count: _counts_of(_reports(tmp_path)) == [count], "the newest report, and it alone")
    assert len(made) == 3
    time.sleep(0.3)
    assert len(made) == 3  # nothing changed
    stats = outbox.stats()
    assert (stats.accepted, stats.refused, stats.coalesced, stats.pending) == (2, 3, 0, 3)
    outbox.close()


def _counts_of(reports: list[dict[str, object]]) -> list[int]:
    return [report["data"]["losses"][0]["count"] for report in reports]  # type: ignore[index]


def test_the_sink_tells_of_losses_at_most_once_a_minute(tmp_path: Path) -> None:
    sink = MqttSink(f"mqtt://127.0.0.1:{free_port()}", tenant="t", device="d", outbox=tmp_path, drain_s=0.0)
    sink.emit(make_result())
    sink.emit_event(Event(kind="broken", time_ns=0, data={"x": object()}))
    until(lambda: len(_reports(tmp_path)) == 1, "the first report")
    sink.emit_event(Event(kind="broken", time_ns=0, data={"x": object()}))
    until(lambda: _on_disk(tmp_path) == [("not_json", "event", 2)], "the ledger")
    (report,) = _reports(tmp_path)
    sink.close()
    assert report["data"]["total"] == 1  # type: ignore[index]
    assert report["lane"] == "event"
    # The next start tells what this one did not.
    later = MqttSink(f"mqtt://127.0.0.1:{free_port()}", tenant="t", device="d", outbox=tmp_path, drain_s=0.0)
    until(lambda: [found["data"]["total"] for found in _reports(tmp_path)] == [2], "the second report")  # type: ignore[index]
    later.close()

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgecv.cloud_sync.acks import to_ranges
from edgecv.cloud_sync.envelope import Envelope
from edgecv.cloud_sync.outbox.limits import OutboxLimits
from edgecv.cloud_sync.outbox.outbox import Outbox
from edgecv.cloud_sync.outbox.rows import Row
from edgecv.cloud_sync.outbox.store import OutboxStore
from edgecv.errors import OutboxFull, OutboxLocked, SyncError
from tests.unit.cloud_sync.support import SMALL, Child, counts, make_envelope, put_accepted, until


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    opened = Outbox(tmp_path, limits=SMALL)
    yield opened
    assert opened.close(10.0)


def claimed_ids(outbox: Outbox, **more: Any) -> list[str]:
    return [f"{row.boot}:{row.seq}" for row in outbox.claim(limit=1000, max_bytes=10**9, **more).rows]


def rows_on_disk(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "outbox.db")) as db:
        return [f"{boot}:{seq}" for boot, seq in db.execute("SELECT boot, seq FROM outbox ORDER BY n")]


def refusal(outbox: Outbox, envelope: Envelope) -> str:
    """Why an event was refused at once; empty when it was taken."""
    try:
        outbox.put(envelope)
    except OutboxFull as error:
        return error.message
    return ""


def test_accepted_events_are_on_disk_in_order(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, limits=SMALL)
    ids = put_accepted(outbox, 600)
    # Before any close: another connection sees what was committed.
    assert rows_on_disk(tmp_path) == ids
    assert outbox.close(10.0)
    assert rows_on_disk(tmp_path) == ids


def test_events_of_earlier_boots_come_first_after_a_restart(tmp_path: Path) -> None:
    first = Outbox(tmp_path, limits=SMALL)
    ids = put_accepted(first, 5)
    first.close()
    second = Outbox(tmp_path, limits=SMALL)
    assert second.boot != first.boot
    ids += put_accepted(second, 5)
    assert claimed_ids(second) == ids
    assert claimed_ids(second) == []
    second.close()


def test_a_wiped_outbox_does_not_reuse_keys(tmp_path: Path) -> None:
    boots = set()
    for name in ("a", "b", "c"):
        outbox = Outbox(tmp_path / name, limits=SMALL)
        boots.add(outbox.boot)
        outbox.close()
    assert len(boots) == 3


def test_an_outbox_restored_from_a_backup_does_not_reuse_keys(tmp_path: Path) -> None:
    Outbox(tmp_path / "image", limits=SMALL).close()
    boots = set()
    for name in ("a", "b", "c"):  # the same image on three devices, or on one whose root file system forgets
        shutil.copytree(tmp_path / "image", tmp_path / name)
        outbox = Outbox(tmp_path / name, limits=SMALL)
        boots.add(outbox.boot)
        outbox.close()
    assert len(boots) == 3
    assert all(0 < boot <= 2**53 for boot in boots)


def test_the_order_of_events_does_not_follow_their_boots(tmp_path: Path) -> None:
    ids: list[str] = []
    for _ in range(8):  # eight random boots in rising order are one case in 40,000
        outbox = Outbox(tmp_path, limits=SMALL)
        ids += put_accepted(outbox, 2)
        outbox.close()
    outbox = Outbox(tmp_path, limits=SMALL)
    assert claimed_ids(outbox) == ids
    outbox.close()


def test_put_waits_for_nothing(outbox: Outbox) -> None:
    slowest_s = 0.0
    envelopes = [make_envelope(outbox) for _ in range(2000)]
    for envelope in envelopes:
        start_s = time.perf_counter()
        outbox.put(envelope)
        slowest_s = max(slowest_s, time.perf_counter() - start_s)
    until(lambda: outbox.stats().accepted == 2000, "all are accepted")
    assert slowest_s < 0.25  # a preempted thread on a busy machine; one fsync a put would be seconds in all


def test_acknowledged_events_are_deleted_and_others_stay(outbox: Outbox) -> None:
    ids = put_accepted(outbox, 10)
    outbox.acknowledge([*to_ranges([(outbox.boot, seq) for seq in (1, 2, 3, 7)]), (outbox.boot + 1, 1, 99)])
    until(lambda: outbox.stats().acknowledged == 4, "four deletions")
    assert outbox.stats().pending == 6
    assert claimed_ids(outbox) == [name for name in ids if name.split(":")[1] not in ("1", "2", "3", "7")]


def test_claims_go_on_after_the_table_was_empty(outbox: Outbox) -> None:
    for _ in range(3):
        ids = put_accepted(outbox, 3)
        assert claimed_ids(outbox) == ids
        outbox.acknowledge([(outbox.boot, 0, 10**6)])
        until(lambda: outbox.stats().pending == 0, "an empty outbox")


def test_urgent_events_are_claimed_first(outbox: Outbox) -> None:
    blob, event, alarm = (put_accepted(outbox, 2, priority=priority) for priority in ("blob", "event", "alarm"))
    assert claimed_ids(outbox, priorities=1) == alarm
    assert claimed_ids(outbox, priorities=1) == []
    assert [claimed_ids(outbox), claimed_ids(outbox)] == [event, blob]


def test_a_claim_is_bounded_in_bytes_but_never_empty(outbox: Outbox) -> None:
    put_accepted(outbox, 3, bulk=5000)
    assert [len(outbox.claim(limit=10, max_bytes=limit).rows) for limit in (1, 12_000)] == [1, 2]


def test_full_outbox_refuses_events_and_counts_them(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, limits=OutboxLimits(quota_bytes=20_000, floor_bytes=0, ballast_bytes=0))
    for _ in range(40):
        outbox.put(make_envelope(outbox, bulk=1000))
    until(lambda: outbox.stats().queued == 0, "all decided")
    stats = outbox.stats()
    assert 0 < stats.accepted < 40
    assert stats.accepted + stats.refused == 40
    assert stats.accepted == stats.pending == len(rows_on_disk(tmp_path))
    assert stats.last_error == "the outbox is full"
    outbox.acknowledge([(outbox.boot, 1, 40)])
    until(lambda: outbox.stats().last_error == "", "room again, though nothing new came")
    put_accepted(outbox, 1, bulk=1000)
    outbox.close()


def test_an_event_that_is_stored_ends_the_trouble_of_a_large_one_that_was_not(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, limits=OutboxLimits(quota_bytes=20_000, floor_bytes=0, ballast_bytes=0))
    outbox.put(make_envelope(outbox, bulk=30_000))
    until(lambda: outbox.stats().last_error == "the outbox is full", "a refusal")
    put_accepted(outbox, 1, bulk=1000)
    assert outbox.stats().last_error == ""
    outbox.close()


def test_full_outbox_gives_up_less_urgent_events_and_counts_them(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, limits=OutboxLimits(quota_bytes=20_000, floor_bytes=0, ballast_bytes=0))
    telemetry = put_accepted(outbox, 10, priority="telemetry", bulk=1000)
    assert claimed_ids(outbox) == telemetry  # what is on its way is never evicted
    outbox.put(make_envelope(outbox, priority="alarm", bulk=15_000))
    until(lambda: outbox.stats().refused == 1, "a refusal")
    outbox.close()
    outbox = Outbox(tmp_path, limits=OutboxLimits(quota_bytes=20_000, floor_bytes=0, ballast_bytes=0))
    alarms = put_accepted(outbox, 6, priority="alarm", bulk=1500)
    stats = outbox.stats()
    assert stats.evicted > 0
    left = rows_on_disk(tmp_path)
    assert left == telemetry[stats.evicted :] + alarms
    outbox.close()


def test_memory_is_bounded_while_the_disk_is_busy(tmp_path: Path) -> None:
    limits = OutboxLimits(queue_rows=50, queue_bytes=10_000, floor_bytes=0, ballast_bytes=0)
    outbox = Outbox(tmp_path, limits=limits)
    release = threading.Event()
    outbox.when_stored(lambda: release.wait(10.0) and None)  # the StoreThread stands still after its next commit
    put_accepted(outbox, 1)
    refused = [why for _ in range(200) if (why := refusal(outbox, make_envelope(outbox)))]
    assert 0 < outbox.stats().queued <= 50
    assert sum("queue in memory" in why for why in refused) == 200 - outbox.stats().queued
    release.set()
    assert outbox.close(10.0)
    stats = outbox.stats()
    assert (stats.accepted + stats.refused, stats.queued) == (201, 0)


def test_low_disk_space_refuses_events_but_not_acknowledgements(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, limits=SMALL)
    put_accepted(outbox, 3)
    outbox.close()
    boot = outbox.boot
    outbox = Outbox(tmp_path, limits=OutboxLimits(floor_bytes=2**62))
    outbox.put(make_envelope(outbox))
    until(lambda: outbox.stats().refused == 1, "a refusal")
    assert outbox.stats().last_error == "the disk is almost full"
    outbox.acknowledge([(boot, 1, 3)])
    until(lambda: outbox.stats().pending == 0, "deletions on a full disk")
    outbox.close()


def test_an_event_too_large_is_refused(outbox: Outbox) -> None:
    assert "larger than" in refusal(outbox, make_envelope(outbox, bulk=300_000))
    assert outbox.stats().refused == 1


def test_expired_events_are_dropped_and_counted(tmp_path: Path) -> None:
    now_ns = [1_000_000_000]
    outbox = Outbox(tmp_path, limits=SMALL, clock=lambda: now_ns[0])
    kept = make_envelope(outbox)
    outbox.put(make_envelope(outbox), ttl_s=5.0)
    outbox.put(kept)
    until(lambda: outbox.stats().accepted == 2, "both are accepted")
    now_ns[0] += 6_000_000_000
    assert claimed_ids(outbox) == [kept.id]
    assert (outbox.stats().expired, outbox.stats().pending) == (1, 1)
    outbox.close()


def test_expired_events_make_room_in_a_full_outbox_nobody_empties(tmp_path: Path) -> None:
    now_ns = [1_000_000_000]
    limits = OutboxLimits(quota_bytes=20_000, floor_bytes=0, ballast_bytes=0)
    outbox = Outbox(tmp_path, limits=limits, clock=lambda: now_ns[0])
    for _ in range(40):
        outbox.put(make_envelope(outbox, bulk=1000), ttl_s=5.0)
    until(lambda: outbox.stats().queued == 0, "all decided")
    full = outbox.stats()
    assert full.refused > 0
    now_ns[0] += 6_000_000_000
    ids = put_accepted(outbox, 10, bulk=1000)
    assert (outbox.stats().expired, outbox.stats().refused) == (full.accepted, full.refused)
    assert rows_on_disk(tmp_path) == ids
    outbox.close()


def test_expired_events_that_the_disk_does_not_let_go_hold_no_others_up(tmp_path: Path) -> None:
    now_ns = [1_000_000_000]
    store = OutboxStore(tmp_path, SMALL, lambda: now_ns[0])
    rows = [
        Row(boot=store.boot, seq=1, priority=2, body=b"{}", expires_ns=2_000_000_000),
        Row(boot=store.boot, seq=2, priority=1, body=b"{}"),
    ]
    store.commit(rows, [])
    now_ns[0] += 6_000_000_000
    store._db._db.execute("PRAGMA query_only=1")  # writing fails, as on a full disk
    assert [row.seq for row in store.claim(limit=10, max_bytes=10**9, priorities=4).rows] == [2]
    store._db._db.execute("PRAGMA query_only=0")
    store.claim(limit=10, max_bytes=10**9, priorities=4)
    assert (store.counts().expired, store.counts().pending) == (1, 1)
    store.close()


def test_times_to_live_go_on_over_a_restart(tmp_path: Path) -> None:
    first = Outbox(tmp_path, limits=SMALL, clock=lambda: 1_000_000_000)
    first.put(make_envelope(first), ttl_s=5.0)
    assert first.close()
    second = Outbox(tmp_path, limits=SMALL, clock=lambda: 5_900_000_000)
    assert len(claimed_ids(second)) == 1
    second.close()
    third = Outbox(tmp_path, limits=SMALL, clock=lambda: 6_100_000_000)
    assert claimed_ids(third) == []
    assert (third.stats().expired, third.stats().pending, third.stats().used_bytes) == (1, 0, 0)
    third.close()


def test_a_buried_event_stays_on_disk_and_is_not_offered_again(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, limits=SMALL)
    ids = put_accepted(outbox, 2)
    assert outbox.bury((outbox.boot, 1), "too large for the broker")
    assert not outbox.bury((outbox.boot, 1), "again")
    assert claimed_ids(outbox) == ids[1:]
    assert (outbox.stats().dead, outbox.stats().pending) == (1, 1)
    outbox.close()
    assert rows_on_disk(tmp_path) == ids


def test_two_puts_of_one_key_store_it_once(outbox: Outbox) -> None:
    envelope = make_envelope(outbox)
    outbox.put(envelope)
    outbox.put(envelope)
    until(lambda: outbox.stats().accepted == 2, "both are accepted")
    assert outbox.stats().pending == 1


def test_every_event_is_accepted_or_refused(tmp_path: Path) -> None:
    limits = OutboxLimits(quota_bytes=100_000, queue_rows=64, floor_bytes=0, ballast_bytes=0)
    outbox = Outbox(tmp_path, limits=limits)

    def work() -> None:
        for _ in range(300):
            refusal(outbox, make_envelope(outbox, bulk=300))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)
    assert outbox.close(10.0)
    stats = outbox.stats()
    assert stats.accepted + stats.refused == 1200, counts(stats)
    assert stats.queued == 0
    assert len(rows_on_disk(tmp_path)) == stats.accepted == stats.pending


def test_a_closed_outbox_refuses(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, limits=SMALL)
    assert outbox.close(5.0)
    assert outbox.close(5.0)
    assert "the outbox is closed" in refusal(outbox, make_envelope(outbox))
    with pytest.raises(SyncError, match="closed"):
        outbox.claim(limit=1, max_bytes=1)


def test_a_second_process_is_told_who_owns_the_outbox(tmp_path: Path) -> None:
    with Child("hold", tmp_path / "outbox", tmp_path / "flag") as child:
        until((tmp_path / "flag").exists, "the other process owns the outbox")
        with pytest.raises(OutboxLocked, match=r"running process \d+") as caught:
            Outbox(tmp_path / "outbox", limits=SMALL)
        assert caught.value.hint
        child.kill()
    Outbox(tmp_path / "outbox", limits=SMALL).close()  # a dead owner holds nothing


def test_a_folder_that_cannot_be_made_is_a_sync_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SyncError, match="cannot be written"):
        Outbox(tmp_path / "file" / "outbox", limits=SMALL)


def test_the_ballast_is_there_before_it_is_needed(tmp_path: Path) -> None:
    Outbox(tmp_path, limits=OutboxLimits(floor_bytes=0, ballast_bytes=65_536)).close()
    assert (tmp_path / "ballast").stat().st_blocks * 512 >= 65_536


def test_what_comes_after_the_mark_is_claimed_before_the_backlog(outbox: Outbox) -> None:
    old = [put_accepted(outbox, 2, priority=priority) for priority in ("alarm", "event", "telemetry")]
    outbox.mark_backlog()
    new = [put_accepted(outbox, 2, priority=priority) for priority in ("telemetry", "event", "alarm")]
    live_first = [new[2], old[0], new[1], new[0]]
    assert [claimed_ids(outbox, backlog=False) for _ in range(5)] == [*live_first, []]
    assert [claimed_ids(outbox) for _ in range(3)] == [old[1], old[2], []]


def test_no_mark_makes_an_event_wait_for_ever_or_go_twice(outbox: Outbox) -> None:
    expected, found = [], []
    for turn in range(70):  # more marks than spans are kept
        expected += put_accepted(outbox, 3)
        outbox.mark_backlog()
        expected += put_accepted(outbox, 2)
        found += [f"{row.boot}:{row.seq}" for row in outbox.claim(limit=1 + turn % 2, max_bytes=10**9).rows]
    while more := claimed_ids(outbox):
        found += more
    assert set(found) == set(expected)
    assert len(found) - len(expected) < 70  # what is offered again where gaps had to be closed


def test_a_rewind_offers_everything_again_and_later_events_first(outbox: Outbox) -> None:
    old = put_accepted(outbox, 3)
    assert claimed_ids(outbox) == old
    outbox.rewind()
    new = put_accepted(outbox, 2)
    assert [claimed_ids(outbox), claimed_ids(outbox)] == [new, old]


def test_a_full_outbox_gives_up_the_oldest_of_what_is_unclaimed_before_and_after_the_mark(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, limits=OutboxLimits(floor_bytes=0, ballast_bytes=4096, quota_bytes=8 * 1400))
    old = put_accepted(outbox, 4, priority="telemetry", bulk=1000)
    outbox.mark_backlog()
    new = put_accepted(outbox, 4, priority="telemetry", bulk=1000)
    claimed = [row.seq for row in outbox.claim(limit=1, max_bytes=1, backlog=False).rows]
    put_accepted(outbox, 5, priority="event", bulk=1000)
    assert outbox.stats().evicted >= 4
    left = rows_on_disk(tmp_path)
    assert set(left).isdisjoint(old)
    assert next(name for name in left if name in new) == f"{outbox.boot}:{claimed[0]}"  # under way: not given up
    outbox.close()

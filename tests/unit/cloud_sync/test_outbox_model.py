"""A model of the outbox, in a few lists, beside the outbox: whatever comes in whatever order, both hold the same."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgecv.cloud_sync.envelope import PRIORITIES
from edgecv.cloud_sync.outbox.accounts.tally import measure
from edgecv.cloud_sync.outbox.limits import LaneLimits, OutboxLimits
from edgecv.cloud_sync.outbox.rows import ROW_OVERHEAD_BYTES, Row
from edgecv.cloud_sync.outbox.store import OutboxStore

BOOT = 7
SIZES = st.lists(st.sampled_from([10, 300, 900]), min_size=1, max_size=5)
LIMITS = OutboxLimits(
    quota_bytes=5_000,
    floor_bytes=0,
    ballast_bytes=0,
    lanes={"blob": LaneLimits(quota_bytes=1_000), "alarm": LaneLimits(reserved_bytes=700)},
)


@dataclass
class Known:
    """What the model knows of one accepted event."""

    lane: int
    cost: int
    key: str = ""
    expires_ns: int | None = None
    is_claimed: bool = False
    is_old: bool = False  # it was there at a rewind


@dataclass
class Model:
    waiting: dict[int, Known] = field(default_factory=dict)  # by number, in the order of the queue
    dead: dict[int, Known] = field(default_factory=dict)
    gone: Counter[str] = field(default_factory=Counter)  # by reason


class OutboxMachine(RuleBasedStateMachine):
    """Each accepted event is in exactly one place: it waits, is dead, was delivered, replaced or lost; the counts say which."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.now_ns = 1
        self.seq = 0
        self.model = Model()
        self.before: Counter[str] = Counter()  # counts of the stores that were closed
        self.open()

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    def open(self) -> None:
        self.store = OutboxStore(Path(self.folder.name), LIMITS, lambda: self.now_ns)
        self.store._db._db.execute("PRAGMA synchronous=OFF")  # a power cut is not part of this model

    # What may happen.

    @rule(lane=st.integers(0, 3), sizes=SIZES, key=st.sampled_from(["", "", "a"]), ttl=st.sampled_from([None, None, 3]))
    def put(self, lane: int, sizes: list[int], key: str, ttl: int | None) -> None:
        rows = self.rows(lane, sizes, key, ttl)
        self.store.commit(rows, [])
        self.look(rows)

    @rule(lane=st.integers(0, 3), sizes=SIZES)
    def put_on_a_disk_that_fails(self, lane: int, sizes: list[int]) -> None:
        self.store._db._db.execute("PRAGMA query_only=1")
        self.store.commit(self.rows(lane, sizes, "", None), [])
        self.model.gone["refused_disk"] += len(sizes)
        self.store._db._db.execute("PRAGMA query_only=0")

    def rows(self, lane: int, sizes: list[int], key: str, ttl: int | None) -> list[Row]:
        first = self.seq + 1
        self.seq += len(sizes)
        expires_ns = None if ttl is None else self.now_ns + ttl
        return [
            Row(boot=BOOT, seq=seq, priority=lane, body=b"x" * size, expires_ns=expires_ns, coalesce_key=key)
            for seq, size in enumerate(sizes, first)
        ]

    @rule(limit=st.integers(1, 5), lanes=st.integers(1, 4))
    def claim(self, limit: int, lanes: int) -> None:
        got = [row.seq for row in self.store.claim(limit=limit, max_bytes=10**6, priorities=lanes).rows]
        self.look([])
        # Alarms, then what came after the last rewind, then the rest.
        places = [(0, False), (0, True), *((lane, old) for old in (False, True) for lane in range(1, lanes))]
        offered = next((found for place in places if (found := self.unclaimed(*place))), [])
        assert got == offered[:limit], "the oldest of the most urgent lane"
        for seq in got:
            self.model.waiting[seq].is_claimed = True

    @precondition(lambda self: self.model.waiting)
    @rule(data=st.data(), more=st.integers(0, 2))
    def acknowledge(self, data: st.DataObject, more: int) -> None:
        lo = data.draw(st.sampled_from(sorted(self.model.waiting)))
        self.store.commit([], [(BOOT, lo, lo + more)])
        for seq in range(lo, lo + more + 1):
            if self.model.waiting.pop(seq, None) is not None:
                self.model.gone["acknowledged"] += 1
        self.look([])

    @precondition(lambda self: self.model.waiting)
    @rule(data=st.data())
    def bury(self, data: st.DataObject) -> None:
        seq = data.draw(st.sampled_from(sorted(self.model.waiting)))
        self.now_ns += 1
        assert self.store.bury((BOOT, seq), "schema")
        assert not self.store.bury((BOOT, seq), "again")
        self.model.dead[seq] = self.model.waiting.pop(seq)
        while (
            len(self.model.dead) > 1 and sum(known.cost for known in self.model.dead.values()) > LIMITS.most_dead_bytes
        ):
            del self.model.dead[next(iter(self.model.dead))]
            self.model.gone["dead_evicted"] += 1

    @rule()
    def retry(self) -> None:
        assert self.store.retry_dead(None) == len(self.model.dead)
        for seq, known in sorted(self.model.dead.items()):
            known.is_claimed = known.is_old = False
            self.model.waiting[seq] = known
        # Those that came first go first; their places are behind all others.
        self.model.dead.clear()
        self.reorder()

    @rule()
    def rewind(self) -> None:
        self.store.rewind()
        for known in self.model.waiting.values():
            known.is_claimed, known.is_old = False, True

    @rule(ns=st.integers(1, 4))
    def time_goes_on(self, ns: int) -> None:
        self.now_ns += ns

    @rule()
    def restart(self) -> None:
        self.store.close()  # it may have a last commit to do
        self.before = self.counted()
        self.open()
        self.look([])
        for known in self.model.waiting.values():
            known.is_claimed = known.is_old = False

    # How the model follows.

    def look(self, rows: list[Row]) -> None:
        """Take over which rows the outbox has now, after checking that each of the others may be gone."""
        there = self.on_disk()
        for seq, known in list(self.model.waiting.items()):
            if seq not in there:
                expired = known.expires_ns is not None and known.expires_ns <= self.now_ns
                reason = "expired" if expired else self.why_gone(known, rows)
                del self.model.waiting[seq]
                self.model.gone[reason] += 1
        for row in rows:
            known = Known(row.priority, row.cost_bytes, row.coalesce_key, row.expires_ns)
            if row.seq in there:
                self.model.waiting[row.seq] = known
            elif self.refused() > self.model.gone["refused_full"]:
                self.model.gone["refused_full"] += 1
            else:
                self.model.gone[self.why_gone(known, rows)] += 1
        assert set(there) == set(self.model.waiting)

    def why_gone(self, known: Known, rows: list[Row]) -> str:
        assert not known.is_claimed, "what is on its way never gives way"
        (lane,) = {row.priority for row in rows}
        if (
            known.key
            and known.key == rows[0].coalesce_key
            and self.counted()["coalesced"] > self.model.gone["coalesced"]
        ):
            return "coalesced"
        own = known.lane == lane and LIMITS.drops_oldest(PRIORITIES[lane])
        assert own or known.lane > lane, "only less urgent ones give way, or the oldest of a lane that drops them"
        return "evicted"

    def reorder(self) -> None:
        self.model.waiting = {seq: self.model.waiting[seq] for seq in self.on_disk()}

    def on_disk(self) -> list[int]:
        rows = self.store._db._db.execute("SELECT seq FROM outbox WHERE dead IS NULL ORDER BY n").fetchall()
        return [seq for (seq,) in rows]

    def unclaimed(self, lane: int, is_old: bool) -> list[int]:
        return [
            seq
            for seq, known in self.model.waiting.items()
            if (known.lane, known.is_old, known.is_claimed) == (lane, is_old, False)
        ]

    def refused(self) -> int:
        return sum(loss.count for loss in self.store.losses() if loss.reason == "refused_full")

    def counted(self) -> Counter[str]:
        stats = self.store.counts()
        names = ("accepted", "refused", "acknowledged", "coalesced", "evicted", "expired")
        return self.before + Counter({name: int(getattr(stats, name)) for name in names})

    # What always holds.

    @invariant()
    def every_event_is_in_one_place(self) -> None:
        counted, gone = self.counted(), self.model.gone
        stats = self.store.counts()
        assert counted["accepted"] + counted["refused"] == self.seq
        assert stats.pending == len(self.model.waiting)
        assert stats.dead == len(self.model.dead)
        for name in ("acknowledged", "coalesced", "evicted", "expired"):
            assert counted[name] == gone[name], name
        ways_out = sum(gone[name] for name in ("acknowledged", "coalesced", "evicted", "expired", "dead_evicted"))
        assert counted["accepted"] == stats.pending + stats.dead + ways_out

    @invariant()
    def the_ledger_says_the_same(self) -> None:
        lost: Counter[str] = Counter()
        for loss in self.store.losses():
            lost[loss.reason] += loss.count
        expected = self.model.gone - Counter(acknowledged=10**9, coalesced=10**9)
        assert lost == expected

    @invariant()
    def the_tally_is_that_of_the_rows(self) -> None:
        tally, measured = self.store._db._books.tally, measure(self.store._db._db)
        assert (tally.rows, tally.used) == (measured.rows, measured.used)
        assert all(known.cost >= ROW_OVERHEAD_BYTES for known in self.model.waiting.values())

    @invariant()
    def lanes_keep_to_their_bounds(self) -> None:
        tally = self.store._db._books.tally
        held = sum(tally.used[lane] for lane in range(4))
        retried = sum(known.cost for known in self.model.waiting.values())  # the same by another way
        assert held == retried
        assert tally.used[3] <= 1_000 + 996, "a lane with a quota, and what was retried into it"
        assert held + tally.used[-1] <= LIMITS.quota_bytes + 996


OutboxMachine.TestCase.settings = settings(
    max_examples=12, stateful_step_count=40, deadline=None, phases=[Phase.generate]
)
test_the_outbox_and_its_model_agree = OutboxMachine.TestCase

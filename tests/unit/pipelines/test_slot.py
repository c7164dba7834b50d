"""The bounded hand-over: nothing lost without being counted, nobody waits for ever."""

from __future__ import annotations

import random
import threading
import time

import pytest

from edgecv.pipelines.loop.handover import FrameSlot, SlotClosed

DEADLINE_S = 10.0


def _produce(slot: FrameSlot[int], count: int, pauses: random.Random) -> None:
    for item in range(count):
        if pauses.random() < 0.1:
            time.sleep(0.0005)
        assert slot.put(item, DEADLINE_S)
    slot.close()


def _consume(slot: FrameSlot[int], pauses: random.Random) -> list[int]:
    taken: list[int] = []
    while True:
        try:
            item = slot.get(DEADLINE_S)
        except SlotClosed:
            return taken
        assert item is not None
        assert len(slot._items) <= slot._capacity
        taken.append(item)
        if pauses.random() < 0.1:
            time.sleep(0.0005)


@pytest.mark.parametrize("capacity", [1, 2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_lossless_hands_over_everything_in_order(capacity: int, seed: int) -> None:
    slot: FrameSlot[int] = FrameSlot(capacity, "lossless")
    producer = threading.Thread(target=_produce, args=(slot, 300, random.Random(seed)))
    producer.start()
    taken = _consume(slot, random.Random(seed + 100))
    producer.join(DEADLINE_S)
    assert taken == list(range(300))
    assert slot.dropped == 0


@pytest.mark.parametrize("capacity", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_latest_keeps_order_and_counts_what_it_gives_up(capacity: int, seed: int) -> None:
    slot: FrameSlot[int] = FrameSlot(capacity, "latest")
    producer = threading.Thread(target=_produce, args=(slot, 300, random.Random(seed)))
    producer.start()
    taken = _consume(slot, random.Random(seed + 100))
    producer.join(DEADLINE_S)
    assert taken == sorted(set(taken))
    assert taken[-1] == 299
    assert len(taken) + slot.dropped == 300


def test_latest_overwrites_the_oldest() -> None:
    slot: FrameSlot[str] = FrameSlot(1, "latest")
    assert slot.put("old", 0)
    assert slot.put("new", 0)
    assert slot.get(0) == "new"
    assert slot.dropped == 1


def test_lossless_put_into_a_full_slot_gives_up_at_its_deadline() -> None:
    slot: FrameSlot[int] = FrameSlot(1)
    assert slot.put(1, 0)
    start = time.monotonic()
    assert not slot.put(2, 0.05)
    assert 0.04 < time.monotonic() - start < DEADLINE_S
    assert slot.get(0) == 1


def test_get_from_an_empty_slot_gives_up_at_its_deadline() -> None:
    assert FrameSlot().get(0.01) is None


@pytest.mark.parametrize("side", ["put", "get"])
def test_closing_wakes_a_waiting_side(side: str) -> None:
    slot: FrameSlot[int] = FrameSlot(1)
    if side == "put":
        slot.put(0, 0)
    outcome: list[str] = []

    def wait() -> None:
        try:
            slot.put(1, DEADLINE_S) if side == "put" else slot.get(DEADLINE_S)
        except SlotClosed:
            outcome.append("closed")

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.02)
    start = time.monotonic()
    slot.give_up() if side == "get" else slot.close()
    thread.join(DEADLINE_S)
    assert outcome == ["closed"]
    assert time.monotonic() - start < 1.0


def test_closing_lets_the_rest_be_taken_unless_given_up() -> None:
    kept: FrameSlot[int] = FrameSlot(2)
    kept.put(1, 0)
    kept.close()
    assert kept.get(0) == 1
    with pytest.raises(SlotClosed):
        kept.get(0)
    discarded: FrameSlot[int] = FrameSlot(2)
    discarded.put(1, 0)
    assert discarded.give_up() == [1]
    with pytest.raises(SlotClosed):
        discarded.get(0)


@pytest.mark.parametrize("policy", ["lossless", "latest"])
def test_a_closed_slot_takes_nothing(policy: str) -> None:
    slot: FrameSlot[int] = FrameSlot(1, policy)  # type: ignore[arg-type]
    slot.close()
    with pytest.raises(SlotClosed):
        slot.put(1, 0)


def test_looking_takes_nothing() -> None:
    slot: FrameSlot[int] = FrameSlot(2)
    assert slot.peek() is None
    slot.put(1, DEADLINE_S)
    slot.put(2, DEADLINE_S)
    slot.close()
    assert [slot.peek(), slot.peek(), slot.get(0.0), slot.peek(), slot.get(0.0)] == [1, 1, 1, 2, 2]
    with pytest.raises(SlotClosed):
        slot.peek()

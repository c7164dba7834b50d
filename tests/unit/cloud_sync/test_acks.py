from __future__ import annotations

import random

import pytest

from edgecv.cloud_sync.acks import MAX_RANGES, decode_acks, encode_acks, to_ranges
from edgecv.errors import SyncError


def test_neighbours_become_one_range() -> None:
    assert to_ranges([(2, 1), (1, 3), (1, 1), (1, 2), (1, 5), (1, 2)]) == [(1, 1, 3), (1, 5, 5), (2, 1, 1)]


def test_ranges_hold_exactly_the_keys() -> None:
    rng = random.Random(1)
    keys = {(rng.randrange(3), rng.randrange(60)) for _ in range(80)}
    ranges = to_ranges(keys)
    assert {(boot, seq) for boot, lo, hi in ranges for seq in range(lo, hi + 1)} == keys


def test_many_ranges_travel_in_several_messages() -> None:
    ranges = [(1, 2 * n, 2 * n) for n in range(MAX_RANGES + 5)]
    messages = encode_acks(ranges)
    assert len(messages) == 2
    assert [found for message in messages for found in decode_acks(message)] == ranges


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[1]",
        b"[[1,2]]",
        b"[[1,2,3,4]]",
        b'[["1",2,3]]',
        b"[[1,3,2]]",
        b"[[-1,0,2]]",
        b"[[1.5,0,2]]",
        b"\xff",
        b"[" * 50_000,
        b"[[1,1,1]" + b",[1,1,1]" * MAX_RANGES + b"]",
        b" " * 70_000,
    ],
    ids=lambda payload: repr(payload[:12]),
)
def test_garbage_is_a_sync_error(payload: bytes) -> None:
    with pytest.raises(SyncError):
        decode_acks(payload)

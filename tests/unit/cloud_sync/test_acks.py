from __future__ import annotations

import random

import pytest

from edgecv.cloud_sync.acks import MAX_ACK_BYTES, MAX_RANGES, Ack, decode_acks, encode_acks, to_ranges
from edgecv.errors import SyncError

NONCE = "0123456789abcdef" * 2


def test_neighbours_become_one_range() -> None:
    assert to_ranges([(2, 1), (1, 3), (1, 1), (1, 2), (1, 5), (1, 2)]) == [(1, 1, 3), (1, 5, 5), (2, 1, 1)]


def test_ranges_hold_exactly_the_keys() -> None:
    rng = random.Random(1)
    keys = {(rng.randrange(3), rng.randrange(60)) for _ in range(80)}
    ranges = to_ranges(keys)
    assert {(boot, seq) for boot, lo, hi in ranges for seq in range(lo, hi + 1)} == keys


def test_many_ranges_travel_in_several_messages() -> None:
    ranges = tuple((2**53, 2**52 + 2 * n, 2**52 + 2 * n) for n in range(MAX_RANGES + 5))
    messages = encode_acks([Ack(nonce=NONCE, ranges=ranges)])
    assert len(messages) == 2
    found = [ack for message in messages for ack in decode_acks(message)]
    assert {ack.nonce for ack in found} == {NONCE}
    assert tuple(one for ack in found for one in ack.ranges) == ranges


def test_many_batches_share_messages_that_a_device_takes() -> None:
    acks = [Ack(nonce=f"{n:064x}", ranges=((2**53, n, n),)) for n in range(1000)]
    messages = encode_acks(acks)
    assert [ack for message in messages for ack in decode_acks(message)] == acks
    assert len(messages) < 10
    assert max(map(len, messages)) <= MAX_ACK_BYTES


def message(ranges: bytes, nonce: bytes = NONCE.encode(), version: bytes = b"2") -> bytes:
    return b'{"v":%s,"acks":[{"nonce":"%s","ranges":%s}]}' % (version, nonce, ranges)


def test_the_message_of_the_tests_below_is_an_acknowledgement() -> None:
    assert decode_acks(message(b"[[1,2,3]]")) == (Ack(nonce=NONCE, ranges=((1, 2, 3),)),)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[[1,2,3]]",
        message(b"[1]"),
        message(b"[[1,2]]"),
        message(b"[[1,2,3,4]]"),
        message(b'[["1",2,3]]'),
        message(b"[[1,3,2]]"),
        message(b"[[-1,0,2]]"),
        message(b"[[1.5,0,2]]"),
        message(b"[[1,0,99999999999999999999]]"),
        message(b"[[1,0,2]]", version=b"3"),
        message(b"[[1,0,2]]", nonce=b"short"),
        message(b"[[1,0,2]]", nonce=NONCE.encode() + b"\\n"),
        b"\xff",
        b"[" * 30_000,
        b'{"acks":' * 3_000,
        message(b"[[1,1,1]" + b",[1,1,1]" * MAX_RANGES + b"]"),
        message(b"[[1,2,3]]") + b" " * 70_000,
    ],
    ids=lambda payload: repr(payload[-40:]),
)
def test_garbage_is_a_sync_error(payload: bytes) -> None:
    with pytest.raises(SyncError):
        decode_acks(payload)

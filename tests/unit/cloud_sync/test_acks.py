from __future__ import annotations

import random
from typing import Literal

import msgspec
import pytest

from edgecv.cloud_sync.acks import (
    MAX_ACK_BYTES,
    MAX_RANGES,
    MAX_REASON,
    Ack,
    Answer,
    Refused,
    decode_answer,
    encode_acks,
    encode_refusals,
    reason_text,
    to_ranges,
)
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
    found = [ack for message in messages for ack in decode_answer(message).acks]
    assert {ack.nonce for ack in found} == {NONCE}
    assert tuple(one for ack in found for one in ack.ranges) == ranges


def test_many_batches_share_messages_that_a_device_takes() -> None:
    acks = [Ack(nonce=f"{n:064x}", ranges=((2**53, n, n),)) for n in range(1000)]
    messages = encode_acks(acks)
    assert [ack for message in messages for ack in decode_answer(message).acks] == acks
    assert len(messages) < 10
    assert max(map(len, messages)) <= MAX_ACK_BYTES


def message(ranges: bytes, nonce: bytes = NONCE.encode(), version: bytes = b"2") -> bytes:
    return b'{"v":%s,"acks":[{"nonce":"%s","ranges":%s}]}' % (version, nonce, ranges)


def nacks(listed: bytes) -> bytes:
    return b'{"v":2,"acks":[{"nonce":"%s","ranges":[],"nacks":%s}]}' % (NONCE.encode(), listed)


def test_reasons_travel_in_messages_that_a_device_takes() -> None:
    worst = "\U0001f4a3" * MAX_REASON
    acks = [Ack(nonce=NONCE, ranges=((1, 1, 1),), nacks=tuple((n, worst) for n in range(1000)))]
    messages = encode_acks(acks)
    assert max(map(len, messages)) <= MAX_ACK_BYTES
    found = [nack for message in messages for ack in decode_answer(message).acks for nack in ack.nacks]
    assert found == list(acks[0].nacks)
    refused = [Refused(digest=f"{n:064x}", reason=worst, later=n == 1) for n in range(100)]
    messages = encode_refusals(refused)
    assert max(map(len, messages)) <= MAX_ACK_BYTES
    assert [one for message in messages for one in decode_answer(message).refused] == refused  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["", "a" * 1000, "\x1b[31m\n\u202e", '"\\' * 200, "\ud800"])
def test_a_reason_is_printable_short_and_never_empty(text: str) -> None:
    (message,) = encode_refusals([Refused(digest="0" * 64, reason=reason_text(text))])
    answer = decode_answer(message)
    assert answer.refused[0].reason.isprintable()  # type: ignore[union-attr, index]


class AckOfAnOlderDevice(msgspec.Struct, frozen=True, kw_only=True):
    nonce: str
    ranges: tuple[tuple[int, int, int], ...]


class MessageOfAnOlderDevice(msgspec.Struct, frozen=True, kw_only=True):
    v: Literal[2] = 2
    acks: tuple[AckOfAnOlderDevice, ...]


def test_a_device_that_knows_no_reasons_reads_the_acknowledgements() -> None:
    (message,) = encode_acks([Ack(nonce=NONCE, ranges=((1, 2, 3),)), Ack(nonce=NONCE, ranges=(), nacks=((0, "why"),))])
    read = msgspec.json.decode(message, type=MessageOfAnOlderDevice).acks
    assert [ack.ranges for ack in read] == [((1, 2, 3),), ()]
    (message,) = encode_refusals([Refused(digest="0" * 64, reason="why")])
    assert msgspec.json.decode(message, type=MessageOfAnOlderDevice).acks == ()


def test_an_acknowledgement_without_reasons_is_the_message_it_was() -> None:
    (message,) = encode_acks([Ack(nonce=NONCE, ranges=((1, 2, 3),))])
    assert message == b'{"v":2,"acks":[{"nonce":"%s","ranges":[[1,2,3]]}]}' % NONCE.encode()
    assert decode_answer(message) == Answer(acks=(Ack(nonce=NONCE, ranges=((1, 2, 3),)),))


def test_the_message_of_the_tests_below_is_an_acknowledgement() -> None:
    assert decode_answer(message(b"[[1,2,3]]")).acks == (Ack(nonce=NONCE, ranges=((1, 2, 3),)),)


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
        nacks(b'[[0,"why"],[-1,"why"]]'),
        nacks(b'[[0,""]]'),
        nacks(b'[[0,"%s"]]' % (b"x" * 121)),
        nacks(b'["why"]'),
        nacks(b'[["0","why"]]'),
        b'{"v":2,"refused":[{"digest":"%s","reason":"why"}]}' % NONCE.encode(),
        b'{"v":2,"refused":[{"digest":"%s"}]}' % (2 * NONCE.encode()),
        b'{"v":2,"refused":null}',
    ],
    ids=lambda payload: repr(payload[-40:]),
)
def test_garbage_is_a_sync_error(payload: bytes) -> None:
    with pytest.raises(SyncError):
        decode_answer(payload)

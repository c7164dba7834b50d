"""Acknowledgements of ingest, sent after its own commit.

``{"v": 2, "acks": [{"nonce": "…", "ranges": [[boot, lo, hi], …]}, …]}``: the nonce is that of the batch the events came
in. Only who received the batch knows it, so nobody else can have an event deleted. Batches of devices older than version 2
carry no nonce; they are answered with the bare list of ranges that those devices understand, and no newer device takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Literal

import msgspec

from edgecv.errors import SyncError

Key = tuple[int, int]
"""``(boot, seq)`` of one event."""

AckRange = tuple[int, int, int]
"""``boot, lo, hi``: the events ``lo`` to ``hi`` of that boot, both included."""

MAX_RANGES = 256
MAX_ACK_BYTES = 32 * 1024

Nonce = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32,64}\Z")]
"""At least 128 random bits that only one batch held."""

_Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Range = tuple[_Number, _Number, _Number]


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """Which events of one batch ingest has."""

    nonce: Nonce  # of the batch
    ranges: tuple[_Range, ...]  # its events that are committed


class _Message(msgspec.Struct, frozen=True, kw_only=True):
    v: Literal[2] = 2
    acks: tuple[Ack, ...]


def to_ranges(keys: Iterable[Key]) -> list[AckRange]:
    """The fewest ranges that hold exactly these keys."""
    ranges: list[AckRange] = []
    for boot, seq in sorted(set(keys)):
        if ranges and ranges[-1][0] == boot and ranges[-1][2] == seq - 1:
            ranges[-1] = (boot, ranges[-1][1], seq)
        else:
            ranges.append((boot, seq, seq))
    return ranges


def encode_acks(acks: Iterable[Ack]) -> list[bytes]:
    """JSON messages of at most ``MAX_RANGES`` ranges each."""
    messages: list[list[Ack]] = [[]]
    room = MAX_RANGES
    for ack in acks:
        for chunk in _chunks(ack.ranges):
            cost = max(len(chunk), 2)  # a nonce alone is as long as two ranges
            if cost > room:
                messages.append([])
                room = MAX_RANGES
            messages[-1].append(Ack(nonce=ack.nonce, ranges=tuple(chunk)))
            room -= cost
    return [msgspec.json.encode(_Message(acks=tuple(message))) for message in messages if message]


def encode_bare_acks(ranges: Sequence[AckRange]) -> list[bytes]:
    """The same for batches without a nonce, as devices older than version 2 understand it."""
    return [msgspec.json.encode(chunk) for chunk in _chunks(ranges)]


def decode_acks(payload: bytes) -> tuple[Ack, ...]:
    """What one message acknowledges.

    Raises:
        SyncError: it is too large, no acknowledgement with nonces, or a range is upside down.
    """
    if len(payload) > MAX_ACK_BYTES:
        raise SyncError(f"An acknowledgement is larger than {MAX_ACK_BYTES} bytes.")
    try:
        acks = _decoder.decode(payload).acks
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SyncError(f"Not an acknowledgement: {error}") from error
    ranges = [found for ack in acks for found in ack.ranges]
    if len(ranges) > MAX_RANGES or any(lo > hi for _, lo, hi in ranges):
        raise SyncError("An acknowledgement has too many ranges, or one that is upside down.")
    return acks


def _chunks(ranges: Sequence[AckRange]) -> Iterator[Sequence[AckRange]]:
    return (ranges[start : start + MAX_RANGES] for start in range(0, len(ranges), MAX_RANGES))


_decoder = msgspec.json.Decoder(_Message)

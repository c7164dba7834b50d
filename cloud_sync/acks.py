"""What ingest answers, after its own commit: which events it has, and which it will never take.

``{"v": 2, "acks": [{"nonce": "…", "ranges": [[boot, lo, hi], …], "nacks": [[index, "reason"], …]}, …]}``: the nonce is that of
the batch the events came in, the index that of an event in it. Only who received the batch knows its nonce, so nobody else can
have an event deleted or buried. A message of which not even the nonce can be read is refused by its SHA-256:
``"refused": [{"digest": "…", "reason": "…"}]``.

Batches of devices older than version 2 carry no nonce; they are answered with the bare list of ranges that those devices
understand, and no newer device takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Literal

import msgspec

from edgecv._internal.printable import printable
from edgecv.errors import SyncError

Key = tuple[int, int]
"""``(boot, seq)`` of one event."""

AckRange = tuple[int, int, int]
"""``boot, lo, hi``: the events ``lo`` to ``hi`` of that boot, both included."""

MAX_RANGES = 256
MAX_ACK_BYTES = 32 * 1024
MAX_REASON = 120  # characters

_NACK_COST = 9  # a reason is at most as long as so many ranges
_NONCE_COST = 2

Nonce = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32,64}\Z")]
"""At least 128 random bits that only one batch held."""

Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
"""SHA-256 of a message as it was sent."""

_Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_REASON)]
_Index = Annotated[int, msgspec.Meta(ge=0, lt=1_000_000)]
_Nack = tuple[_Index, _Reason]
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Range = tuple[_Number, _Number, _Number]


class Ack(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which events of one batch ingest has, and which it will never take."""

    nonce: Nonce  # of the batch
    ranges: tuple[_Range, ...]  # its events that are committed
    nacks: tuple[_Nack, ...] = ()  # of the others: their index in the batch, and what is wrong with them


class Refused(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message that ingest could not read at all."""

    digest: Digest  # of the message
    reason: _Reason  # in words
    later: bool = False  # whether the device is newer than ingest, which takes the message once it is updated


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One message of ingest to a device; older devices know ``acks`` alone, and the others do no harm there."""

    v: Literal[2] = 2
    acks: tuple[Ack, ...] = ()
    refused: tuple[Refused, ...] | msgspec.UnsetType = msgspec.UNSET


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
    """JSON messages of at most ``MAX_RANGES`` ranges each, or as many reasons as take the same room."""
    messages: list[list[Ack]] = [[]]
    room = MAX_RANGES
    for ack in acks:
        for piece, cost in _pieces(ack):
            if cost > room:
                messages.append([])
                room = MAX_RANGES
            messages[-1].append(piece)
            room -= cost
    return [msgspec.json.encode(Answer(acks=tuple(message))) for message in messages if message]


def encode_refusals(refused: Sequence[Refused]) -> list[bytes]:
    """JSON messages that say which messages were refused."""
    size = MAX_RANGES // _NACK_COST
    chunks = (refused[start : start + size] for start in range(0, len(refused), size))
    return [msgspec.json.encode(Answer(refused=tuple(chunk))) for chunk in chunks]


def encode_bare_acks(ranges: Sequence[AckRange]) -> list[bytes]:
    """The same for batches without a nonce, as devices older than version 2 understand it."""
    return [msgspec.json.encode(chunk) for chunk in _chunks(ranges)]


def decode_answer(payload: bytes) -> Answer:
    """What one message says.

    Raises:
        SyncError: it is too large, no answer with nonces or digests, or a range is upside down.
    """
    if len(payload) > MAX_ACK_BYTES:
        raise SyncError(f"An acknowledgement is larger than {MAX_ACK_BYTES} bytes.")
    try:
        answer = _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SyncError(f"Not an acknowledgement: {error}") from error
    if not answer.acks and answer.refused is msgspec.UNSET:
        raise SyncError("Not an acknowledgement: it answers nothing.")
    ranges = [found for ack in answer.acks for found in ack.ranges]
    if len(ranges) > MAX_RANGES or any(lo > hi for _, lo, hi in ranges):
        raise SyncError("An acknowledgement has too many ranges, or one that is upside down.")
    return answer


def reason_text(text: str) -> str:
    """A reason, fit for an answer: printable, short and never empty."""
    return printable(text, MAX_REASON)[:MAX_REASON] or "refused"


def _pieces(ack: Ack) -> Iterator[tuple[Ack, int]]:
    """One acknowledgement in parts that fit into a message, and what each takes of its room."""
    for chunk in _chunks(ack.ranges):
        yield Ack(nonce=ack.nonce, ranges=tuple(chunk)), max(len(chunk), _NONCE_COST)
    size = (MAX_RANGES - _NONCE_COST) // _NACK_COST
    for start in range(0, len(ack.nacks), size):
        nacks = ack.nacks[start : start + size]
        yield Ack(nonce=ack.nonce, ranges=(), nacks=nacks), _NONCE_COST + len(nacks) * _NACK_COST


def _chunks(ranges: Sequence[AckRange]) -> Iterator[Sequence[AckRange]]:
    return (ranges[start : start + MAX_RANGES] for start in range(0, len(ranges), MAX_RANGES))


_decoder = msgspec.json.Decoder(Answer)

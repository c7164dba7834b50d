"""Acknowledgements of ingest: ``[[boot, lo, hi], ...]``, sent after ingest's own commit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from edgecv.errors import SyncError

Key = tuple[int, int]
"""``(boot, seq)`` of one event."""

AckRange = tuple[int, int, int]
"""``boot, lo, hi``: the events ``lo`` to ``hi`` of that boot, both included."""

MAX_RANGES = 256
MAX_ACK_BYTES = 64 * 1024


def to_ranges(keys: Iterable[Key]) -> list[AckRange]:
    """The fewest ranges that hold exactly these keys."""
    ranges: list[AckRange] = []
    for boot, seq in sorted(set(keys)):
        if ranges and ranges[-1][0] == boot and ranges[-1][2] == seq - 1:
            ranges[-1] = (boot, ranges[-1][1], seq)
        else:
            ranges.append((boot, seq, seq))
    return ranges


def encode_acks(ranges: Sequence[AckRange]) -> list[bytes]:
    """JSON messages of at most ``MAX_RANGES`` ranges each."""
    chunks = (ranges[start : start + MAX_RANGES] for start in range(0, len(ranges), MAX_RANGES))
    return [msgspec.json.encode(chunk) for chunk in chunks]


def decode_acks(payload: bytes) -> list[AckRange]:
    """The ranges of one message.

    Raises:
        SyncError: it is too large, no list of ranges, or a range is upside down.
    """
    if len(payload) > MAX_ACK_BYTES:
        raise SyncError(f"An acknowledgement is larger than {MAX_ACK_BYTES} bytes.")
    try:
        ranges = _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SyncError(f"Not an acknowledgement: {error}") from error
    if len(ranges) > MAX_RANGES or any(not boot >= 0 or not 0 <= lo <= hi for boot, lo, hi in ranges):
        raise SyncError("An acknowledgement has too many ranges, or one that is upside down.")
    return ranges


_decoder = msgspec.json.Decoder(list[AckRange])

"""Events as CloudEvents that every reader of the standard takes: the names and types of what is ours in them.

An outbox stores ``mono_ns`` and numbers up to 2^63. CloudEvents allows lower-case letters and digits in names, and integers of
32 bits: so ``monons`` and ``clocksynced``, and the large numbers as texts.
"""

from __future__ import annotations

import msgspec

from edgecv.cloud_sync.boxes import with_normalised_boxes
from edgecv.errors import SyncError

CONTENT_TYPE = "application/cloudevents-batch+json"


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    specversion: str
    id: str
    source: str
    type: str
    time: str
    boot: int
    seq: int
    mono_ns: int
    clock_synced: bool
    model: str = ""
    lane: str = "event"
    data: msgspec.Raw


class _Written(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    specversion: str
    id: str
    source: str
    type: str
    time: str
    boot: str
    seq: str
    monons: str
    clocksynced: bool
    model: str = ""  # CloudEvents has no empty attributes
    lane: str
    data: msgspec.Raw


class _Read(msgspec.Struct, frozen=True, kw_only=True):
    """Readers in between may have made numbers of the texts, or left attributes out that are empty."""

    specversion: str
    id: str
    source: str
    type: str
    time: str
    boot: int
    seq: int
    monons: int
    clocksynced: bool
    model: str = ""
    lane: str = "event"
    data: msgspec.Raw


def as_cloud_event(body: bytes) -> bytes:
    """An event of an outbox as one CloudEvent in JSON; its payload stays as it was written, with ``xyxyn`` for boxes."""
    event = _stored.decode(body)
    return msgspec.json.encode(
        _Written(
            specversion=event.specversion,
            id=event.id,
            source=event.source,
            type=event.type,
            time=event.time,
            boot=str(event.boot),
            seq=str(event.seq),
            monons=str(event.mono_ns),
            clocksynced=event.clock_synced,
            model=event.model,
            lane=event.lane,
            data=readable(event.type, event.data),
        )
    )


def readable(kind: str, data: msgspec.Raw) -> msgspec.Raw:
    """The payload as readers other than ingest get it: a result with normalised boxes."""
    if kind != "edgecv.result":
        return data
    return msgspec.Raw(with_normalised_boxes(bytes(data).decode()).encode())


def as_stored(text: bytes | msgspec.Raw) -> bytes:
    """The way back; nothing but names and types is checked here.

    Raises:
        SyncError: it is no such event.
    """
    try:
        event = _read.decode(text)
        return msgspec.json.encode(
            _Stored(
                specversion=event.specversion,
                id=event.id,
                source=event.source,
                type=event.type,
                time=event.time,
                boot=event.boot,
                seq=event.seq,
                mono_ns=event.monons,
                clock_synced=event.clocksynced,
                model=event.model,
                lane=event.lane,
                data=event.data,
            )
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise SyncError(f"Not an event of EdgeCV in CloudEvents: {error}") from error


_stored = msgspec.json.Decoder(_Stored)
_read = msgspec.json.Decoder(_Read, strict=False)

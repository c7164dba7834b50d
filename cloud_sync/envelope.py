"""``Envelope``: a result or an event on its way, in CloudEvents 1.0 fields, and the zlib batches it travels in."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Annotated, Any, Literal

import msgspec

from edgecv._internal.printable import printable
from edgecv.cloud_sync.acks import Nonce
from edgecv.cloud_sync.boxes import with_normalised_boxes
from edgecv.cloud_sync.mqtt.topics import Address
from edgecv.cloud_sync.wire.cloud_events import as_stored
from edgecv.errors import SyncError
from edgecv.events import Event, Priority
from edgecv.results import Result

PRIORITIES: tuple[Priority, ...] = ("alarm", "event", "telemetry", "blob")
"""Most urgent first; a full outbox gives up the later ones first. The position is what the database stores."""

MAX_EVENT_BYTES = 256 * 1024
MAX_BATCH_BYTES = 1024 * 1024
MAX_BATCH_EVENTS = 1000
BATCH_VERSION = 2

# JSON numbers stay exact up to 2^53 in every reader.
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Nanoseconds = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class EnvelopeHead(msgspec.Struct, frozen=True, kw_only=True):
    """One event on its way, without its payload; ``(source, id)`` is its key wherever it is stored."""

    specversion: Literal["1.0"] = "1.0"
    id: Annotated[str, msgspec.Meta(min_length=3, max_length=64)]  # `boot:seq`
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]  # `edgecv/<tenant>/<device>`
    type: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]  # `edgecv.result` or `edgecv.event.<kind>`
    time: Annotated[str, msgspec.Meta(min_length=1, max_length=40)]  # RFC 3339, UTC, nanoseconds
    # number of the outbox opening, at random: it says which events belong together, and nothing about their order
    boot: _Count
    seq: _Count  # position within the boot, from 1; gaps are events that were refused
    mono_ns: _Nanoseconds  # the same moment on the device's monotonic clock
    clock_synced: bool  # whether the device's clock was known to follow a time server
    model: Annotated[str, msgspec.Meta(max_length=200)] = ""  # bundle and variant, or empty
    priority: Priority = msgspec.field(name="lane", default="event")  # how urgent; one of `PRIORITIES`

    def __post_init__(self) -> None:
        if self.id != f"{self.boot}:{self.seq}":
            raise ValueError("id is not boot:seq")
        if not _TIME.fullmatch(self.time):
            raise ValueError("time is not RFC 3339 in UTC")
        datetime.fromisoformat(self.time[:19])


class Envelope(EnvelopeHead, frozen=True, kw_only=True):
    """An event that a device sends."""

    data: dict[str, Any]  # the payload


class Arrived(EnvelopeHead, frozen=True, kw_only=True):
    """An event that came in. Its payload stays text: as Python objects it could be thirty times as large."""

    data: msgspec.Raw  # the payload, checked to be one JSON object

    def __post_init__(self) -> None:
        super().__post_init__()
        if not bytes(self.data).decode().startswith("{"):  # an error of UTF-8 is a ValueError, too
            raise ValueError("data is no object")

    @property
    def payload(self) -> str:
        """The payload as JSON: as the device wrote it, a result with normalised boxes besides."""
        text = bytes(self.data).decode()
        return with_normalised_boxes(text) if self.type == "edgecv.result" else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What the outbox adds to a result or event: who says it, and which one it is."""

    address: Address
    boot: int
    seq: int
    clock_synced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A decoded message: the envelopes in it, and why the others in it are none."""

    envelopes: tuple[Arrived, ...]
    places: tuple[int, ...] = ()  # where in the message each envelope stands
    errors: tuple[tuple[int, str], ...] = ()  # the same of the others, and why they are none
    nonce: str | None = None  # what its acknowledgement has to return; `None` from devices older than version 2
    text_bytes: int = 0  # its size before compression


class NewerBatch(SyncError):
    """Raised for a batch of a version that this ingest does not know."""


class _BatchHead(msgspec.Struct, frozen=True, kw_only=True):
    v: int
    nonce: Nonce
    events: list[msgspec.Raw]


def envelope_from_result(result: Result, stamp: Stamp) -> Envelope:
    """The result of one frame, as telemetry: its JSON form plus ``frame_wh``; readers get ``xyxyn`` besides (``boxes.py``)."""
    frame = result.frame
    return _stamped(
        stamp,
        type="edgecv.result",
        time=_rfc3339(frame.captured_ns),
        mono_ns=frame.monotonic_ns,
        model=result.model,
        priority="telemetry",
        data=_document(result),
    )


def envelope_from_event(event: Event, stamp: Stamp, *, mono_ns: int, model: str = "") -> Envelope:
    """Something that happened; ``mono_ns`` is the moment on the monotonic clock."""
    return _stamped(
        stamp,
        type=f"edgecv.event.{event.kind}",
        time=_rfc3339(event.time_ns),
        mono_ns=mono_ns,
        model=model,
        priority=event.priority,
        data={"source_id": event.source_id, **event.data},
    )


def encode(envelope: Envelope) -> bytes:
    """Encode an envelope as JSON bytes.

    Raises:
        SyncError: the payload holds something that JSON cannot.
    """
    try:
        return _encoder.encode(envelope)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise SyncError(
            f"The event {envelope.type} cannot be written as JSON: {error}",
            "Put only numbers, strings, lists and dicts into Event.data.",
        ) from error


def decode(body: bytes | msgspec.Raw) -> Arrived:
    """Decode an envelope from JSON bytes.

    Raises:
        SyncError: it is too large, no JSON, or not an envelope.
    """
    if len(memoryview(body)) > MAX_EVENT_BYTES:
        raise SyncError(f"An event is larger than {MAX_EVENT_BYTES} bytes.")
    try:
        return _decoder.decode(body)
    except _MALFORMED as error:
        raise SyncError(f"Not an envelope: {error}") from error


def encode_batch(bodies: Iterable[bytes], nonce: str | None = None) -> bytes:
    """Compress several encoded envelopes into one message; its acknowledgement has to return ``nonce``.

    Without one it is the bare list of version 1, for readers that are no ``edgecv ingest``.
    """
    events = b"[" + b",".join(bodies) + b"]"
    if nonce is not None:
        events = b'{"v":%d,"nonce":"%s","events":%s}' % (BATCH_VERSION, nonce.encode(), events)
    return zlib.compress(events, 6)


def decode_batch(payload: bytes) -> Batch:
    """The envelopes of a message; a bad one does not spoil its neighbours.

    Raises:
        NewerBatch: the message is of a newer version.
        SyncError: it is not zlib, grows beyond ``MAX_BATCH_BYTES``, is no JSON batch, or lists too many events.
    """
    # Messages of `--wire json`, for other readers, may come by here too. zlib never begins so.
    is_json = payload[:1] == b"["
    text = payload if is_json else _inflate(payload)
    if len(text) > MAX_BATCH_BYTES:
        raise SyncError(f"A batch is larger than {MAX_BATCH_BYTES} bytes.")
    try:
        found = _batch_decoder.decode(text)
    except _MALFORMED as error:
        raise SyncError(f"Not a batch of events: {error}") from error
    if isinstance(found, list):
        found = _BatchHead(v=1, nonce="", events=found)
    elif found.v != BATCH_VERSION:
        raise NewerBatch(f"A batch of version {found.v}; this ingest knows 1 and {BATCH_VERSION}.", "Update ingest.")
    raws = found.events
    if len(raws) > MAX_BATCH_EVENTS:
        raise SyncError(f"A batch lists {len(raws)} events; {MAX_BATCH_EVENTS} are allowed.")
    envelopes: dict[int, Arrived] = {}
    errors: list[tuple[int, str]] = []
    for index, raw in enumerate(raws):
        try:
            envelopes[index] = decode(as_stored(raw) if is_json else raw)
        except SyncError as error:
            errors.append((index, error.message))
    return Batch(
        envelopes=tuple(envelopes.values()),
        places=tuple(envelopes),
        errors=tuple(errors),
        nonce=found.nonce or None,
        text_bytes=len(text),
    )


def _inflate(payload: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(payload, MAX_BATCH_BYTES + 1)
    except zlib.error as error:
        raise SyncError(f"Not zlib: {error}") from error
    if len(text) > MAX_BATCH_BYTES:
        raise SyncError(f"A batch inflates beyond {MAX_BATCH_BYTES} bytes.")
    if not inflater.eof or inflater.unused_data:
        raise SyncError("The zlib stream is cut short or has a tail.")
    return text


def _stamped(stamp: Stamp, *, type: str, model: str, **fields: Any) -> Envelope:  # noqa: A002 (its name on the wire)
    return Envelope(
        type=printable(type, 200),
        model=printable(model, 200),
        id=f"{stamp.boot}:{stamp.seq}",
        source=stamp.address.source,
        boot=stamp.boot,
        seq=stamp.seq,
        clock_synced=stamp.clock_synced,
        **fields,
    )


def _document(result: Result) -> dict[str, Any]:
    document = result.as_dict(masks=False)  # they stay on the device: a few would fill an event
    document.pop("events", None)  # they travel in envelopes of their own
    height, width = result.frame.image.shape[:2]
    document["frame_wh"] = [width, height]
    return document


def _rfc3339(time_ns: int) -> str:
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, tz=timezone.utc)
    return f"{moment.isoformat()[:19]}.{nanoseconds:09d}Z"  # strftime takes as long as all the rest of an envelope


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays are what steps compute with."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")


_MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_encoder = msgspec.json.Encoder(enc_hook=_plain)
_decoder = msgspec.json.Decoder(Arrived)
_batch_decoder: msgspec.json.Decoder[list[msgspec.Raw] | _BatchHead] = msgspec.json.Decoder(
    list[msgspec.Raw] | _BatchHead
)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", re.ASCII)

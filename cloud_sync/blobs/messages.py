"""What device and ingest say to each other about pictures.

On ``…/blob`` a device announces one that waits; on ``…/blob-part`` it sends parts, or says that an upload ended; on
``…/blob-reply`` ingest answers. An answer returns the nonce of the announcement, and what follows it the session of the
answer: whoever did not read the one cannot say the other.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

import msgspec

from edgecv.cloud_sync.acks import Nonce
from edgecv.errors import SyncError

MAX_BLOB_BYTES = 8 * 2**20
PART_BYTES = 48 * 1024
MAX_MESSAGE_BYTES = 8 * 1024  # of announcements and answers
MAX_HEADERS = 8
MEDIA_TYPE: Literal["image/jpeg"] = "image/jpeg"

Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Size = Annotated[int, msgspec.Meta(ge=1, le=MAX_BLOB_BYTES)]
Way = Literal["put", "parts"]
State = Literal["stored", "claimed"]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
_Reason = Annotated[str, msgspec.Meta(max_length=200)]

_T = TypeVar("_T")
_PART = struct.Struct(">c16sQ")
_MARK = b"\0"  # no JSON begins so


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """How an event names its picture: ``data.snapshot``."""

    sha256: Sha256
    bytes: Size
    type: Literal["image/jpeg"] = MEDIA_TYPE


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """A picture waits on a device, which asks where to send it."""

    v: Literal[1] = 1
    nonce: Nonce
    sha256: Sha256
    bytes: Size
    type: Literal["image/jpeg"] = MEDIA_TYPE
    ways: Annotated[tuple[Way, ...], msgspec.Meta(min_length=1, max_length=2)]


class Uploaded(msgspec.Struct, frozen=True, kw_only=True):
    """The receiver of a PUT answered with 2xx."""

    v: Literal[1] = 1
    session: Nonce


class _Reply(msgspec.Struct, frozen=True, kw_only=True, tag_field="do"):
    v: Literal[1] = 1
    nonce: Nonce  # of the announcement
    sha256: Sha256


class PutHere(_Reply, frozen=True, kw_only=True, tag="put"):
    """PUT it to a URL that was signed for it, with these headers, then say so within the session."""

    session: Nonce
    url: Annotated[str, msgspec.Meta(min_length=10, max_length=4096)]
    headers: Annotated[dict[str, str], msgspec.Meta(max_length=MAX_HEADERS)] = {}
    expires_s: _Seconds  # from now on


class SendParts(_Reply, frozen=True, kw_only=True, tag="parts"):
    """Send it in parts within the session, at most ``window`` of them unanswered."""

    session: Nonce
    part_bytes: Annotated[int, msgspec.Meta(ge=256, le=PART_BYTES)] = PART_BYTES
    window: Annotated[int, msgspec.Meta(ge=1, le=16)] = 2


class More(_Reply, frozen=True, kw_only=True, tag="more"):
    """The first ``have`` bytes of a session are there."""

    session: Nonce
    have: Annotated[int, msgspec.Meta(ge=0, le=MAX_BLOB_BYTES)]


class Done(_Reply, frozen=True, kw_only=True, tag="done"):
    """It is there, and the device may delete its copy."""

    state: State


class Wait(_Reply, frozen=True, kw_only=True, tag="wait"):
    """Not now; ask again later."""

    wait_s: _Seconds
    reason: _Reason = ""


class Drop(_Reply, frozen=True, kw_only=True, tag="drop"):
    """Never: it is too large for this ingest, for example."""

    reason: _Reason = ""


Reply = PutHere | SendParts | More | Done | Wait | Drop


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some bytes of a picture."""

    session: str
    offset: int
    data: bytes


def encode(message: Announcement | Uploaded | Reply) -> bytes:
    """The JSON of a message, as it is published."""
    return msgspec.json.encode(message)


def decode_announcement(payload: bytes) -> Announcement:
    """What a device announces; raises ``SyncError`` when it is no announcement."""
    return _decode(_announcements, payload)


def decode_reply(payload: bytes) -> Reply:
    """What ingest answers; raises ``SyncError`` when it is no answer."""
    return _decode(_replies, payload)


def encode_part(part: Part) -> bytes:
    """A part: a zero byte, the session, the offset, the bytes."""
    return _PART.pack(_MARK, bytes.fromhex(part.session), part.offset) + part.data


def decode_part(payload: bytes) -> Part | Uploaded:
    """What a device says within a session; raises ``SyncError`` when it is neither a part nor the end of an upload."""
    if not payload.startswith(_MARK):
        return _decode(_uploads, payload)
    if not _PART.size < len(payload) <= _PART.size + PART_BYTES:
        raise SyncError("A part of a picture is empty or too large.")
    _, session, offset = _PART.unpack_from(payload)
    return Part(session=session.hex(), offset=offset, data=payload[_PART.size :])


def _decode(decoder: msgspec.json.Decoder[_T], payload: bytes) -> _T:
    if len(payload) > MAX_MESSAGE_BYTES:
        raise SyncError(f"A message about a picture is larger than {MAX_MESSAGE_BYTES} bytes.")
    try:
        return decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SyncError(f"Not a message about a picture: {error}") from error


_announcements = msgspec.json.Decoder(Announcement)
_uploads = msgspec.json.Decoder(Uploaded)
_replies: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)

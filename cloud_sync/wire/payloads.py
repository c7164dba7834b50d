"""How the events of a batch become the payload of one message, by the name of the form."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from edgecv.cloud_sync.envelope import encode_batch
from edgecv.cloud_sync.wire.cloud_events import CONTENT_TYPE, as_cloud_event
from edgecv.cloud_sync.wire.thingsboard import Telemetry

Wire = Literal["zlib", "json"]
"""``zlib``: compressed, for ``edgecv ingest``. ``json``: for every other reader."""

Body = Literal["cloudevents", "cloudevents-object", "thingsboard"]
"""The forms that ``json`` has."""

Pack = Callable[[Iterable[bytes], str | None], bytes]
"""The events as an outbox stores them, and the nonce that an acknowledgement has to return, as one payload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One way to write a message."""

    pack: Pack
    content_type: str  # said with MQTT 5; empty: nothing


def _list(bodies: Iterable[bytes], _nonce: str | None = None) -> bytes:
    return b"[" + b",".join(map(as_cloud_event, bodies)) + b"]"


def _object(bodies: Iterable[bytes], _nonce: str | None = None) -> bytes:
    return b'{"events":' + _list(bodies) + b"}"


def _telemetry() -> Form:
    write = Telemetry()
    return Form(pack=lambda bodies, _nonce: write(bodies), content_type="application/json")


ZLIB = Form(pack=encode_batch, content_type="")

JSON: dict[Body, Callable[[], Form]] = {
    "cloudevents": lambda: Form(pack=_list, content_type=CONTENT_TYPE),
    # Rules of AWS and routes of IoT Hub look into an array by its name, and have no way into one without.
    "cloudevents-object": lambda: Form(pack=_object, content_type="application/json"),
    "thingsboard": _telemetry,
}
"""What makes the form for one device; a new one is an entry here and in ``Body``."""

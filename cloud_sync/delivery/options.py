"""What may be chosen about sending."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from edgecv._internal.strict import check_number
from edgecv._internal.timing import Backoff
from edgecv.cloud_sync.blobs.options import UploadPace
from edgecv.errors import ConfigError

_LEAST_BYTES = 1024
_MOST_BYTES = 2**28

AckMode = Literal["ingest", "broker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOptions:
    """In which portions events are sent, how they are acknowledged, and when they are sent again."""

    # `ingest`: an event is deleted when ingest says it committed it. `broker`: when the broker took it, which is
    # weaker, since brokers may lose what they took.
    ack: AckMode = "ingest"
    window: int = 32  # most batches unacknowledged at a time
    window_bytes: int = 60 * 1024  # most bytes of them that the broker has not taken; Azure Event Grid allows 64 KB
    batch_events: int = 100  # most events in a batch; with 50, one device brought an ingest 10 % fewer events a second
    batch_bytes: int = 60 * 1024  # most bytes of a batch; an event that is larger travels alone
    # most events of the backlog in a second; what comes while a connection stands goes first, and is not counted
    drain_events_s: float | None = None
    # delays until a batch without an answer is published again
    resend: Backoff = field(default_factory=lambda: Backoff(initial_s=5.0, cap_s=60.0))
    reconnect: Backoff = field(default_factory=Backoff)  # delays between connections
    keepalive_s: int = 15  # a broker that says nothing is asked after this long, and given up after twice this
    snapshots: UploadPace = field(default_factory=UploadPace)  # delays between attempts to bring a picture to the cloud

    def __post_init__(self) -> None:
        if self.ack not in ("ingest", "broker"):
            raise ConfigError(f"There is no acknowledgement mode {self.ack!r}.", "Use 'ingest' or 'broker'.")
        check_number("window_bytes", self.window_bytes, _LEAST_BYTES, _MOST_BYTES)
        check_number("batch_bytes", self.batch_bytes, _LEAST_BYTES, _MOST_BYTES)
        if self.drain_events_s is not None:
            check_number("drain_events_s", self.drain_events_s, 0.01, 1e9)

"""Which events get a picture, how it is made, and how it may leave the device."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec

from edgecv._internal.timing import Backoff

_Kind = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class SnapshotOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``[mqtt.snapshots]``. Pictures leave the device, so there are none unless ``events`` names them.

    Attributes:
        events: Kinds of events that get a picture of their frame, such as ``line.crossed``; ``*`` stands for any text.
        quality: Of the JPEG, 1 to 100.
        max_side: The longer side in pixels; a larger frame is made smaller.
        quota_mb: What may wait on disk; beyond it the oldest picture that was not sent is dropped, and counted.
        free_mb: No picture is written when the disk would have less left than this.
        max_per_minute: Most pictures of a source in any minute; further events go without one, and are counted.
        upload: ``auto``: to the URL that the cloud gives, else in parts over MQTT. ``http`` and ``mqtt``: only that way.
        url_hosts: Hosts to which pictures may be sent; ``*.example.com`` stands for all below a name. Empty: any host over https.
            Plain http is for this machine only (``127.0.0.1``), and only when it is listed.
        ca_file: Certificates to trust instead of the system's, for the URL.
        url_wait_s: How long to wait for a URL before the parts.
        timeout_s: For one attempt to upload a picture.
    """

    events: list[_Kind]
    quality: Annotated[int, msgspec.Meta(ge=1, le=100)] = 85
    max_side: Annotated[int, msgspec.Meta(ge=32, le=8192)] = 1280
    quota_mb: Annotated[float, msgspec.Meta(gt=0, le=1_000_000)] = 64.0
    free_mb: Annotated[float, msgspec.Meta(ge=0)] = 100.0
    max_per_minute: Annotated[int, msgspec.Meta(ge=1, le=6000)] = 30
    upload: Literal["auto", "http", "mqtt"] = "auto"
    url_hosts: list[Annotated[str, msgspec.Meta(min_length=1, max_length=253)]] = []
    ca_file: str = ""
    url_wait_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 10.0
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPace:
    """Waits between attempts to bring a picture to the cloud."""

    ask: Backoff = field(
        default_factory=lambda: Backoff(initial_s=10.0, cap_s=120.0)
    )  # an announcement without an answer
    put: Backoff = field(default_factory=lambda: Backoff(initial_s=1.0, cap_s=30.0))  # a PUT that failed
    part: Backoff = field(default_factory=lambda: Backoff(initial_s=5.0, cap_s=60.0))  # parts without an answer
    calm_s: float = 0.2  # between looks whether events still wait

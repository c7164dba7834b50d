"""``Packet``: one image as a camera encoded it, kept beside the frames for whoever makes videos of events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TICKS_PER_S = 90_000  # of the times of a packet; the clock of RTP and MPEG

Codec = Literal["h264", "hevc", "jpeg"]
"""How packets are encoded: Annex B of H.264 or H.265, or one JPEG image each."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PacketStream:
    """What packets that belong together share. Another object is another stream, also when it says the same.

    Attributes:
        codec: How its packets are encoded.
        width: In pixels, as ``height``.
        height: In pixels.
        parameters: The parameter sets (SPS, PPS, of H.265 VPS too) in Annex B; empty where each key frame brings its own.
    """

    codec: Codec
    width: int
    height: int
    parameters: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packet:
    """One encoded image.

    Attributes:
        stream: What it belongs to.
        data: Its bytes, as they came.
        pts: When it is shown, in ``TICKS_PER_S``, on the clock of its stream.
        dts: When it is decoded; ``None`` where the camera does not tell.
        is_key: Whether decoding can begin with it.
        captured_ns: When it arrived, UTC nanoseconds since the epoch.
        scene_ns: The same moment as ``Frame.scene_ns`` counts it.
    """

    stream: PacketStream
    data: bytes
    pts: int
    dts: int | None
    is_key: bool
    captured_ns: int
    scene_ns: int

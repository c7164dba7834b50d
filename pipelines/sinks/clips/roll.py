"""``Roll``: what is remembered of one source, as it comes: packets of its camera, or frames that are encoded here."""

from __future__ import annotations

import threading
import time
from typing import Any

from edgecv._internal.extras import require
from edgecv.media.packets import TICKS_PER_S, Packet, PacketStream
from edgecv.pipelines.sinks.clips.options import ClipsOptions
from edgecv.pipelines.sinks.clips.ring import BACK_NS, PacketRing
from edgecv.pipelines.sources.supervised.rate import RateLimit
from edgecv.results import Frame

_LATE_NS = 3_000_000_000  # a result comes after its frame; then the time before it must still be there
_LIVE_NS = 60_000_000_000
_QUALITY = 85
_ROOM_S = 5.0
_SILENT_NS = 5_000_000_000  # frames without packets for so long: none will come


class Roll:
    """One source. Packets come from a thread of the source, frames from that of the sink.

    Attributes:
        source_id: Its name.
        ring: Its last seconds.
        gives_packets: Whether its camera's packets are kept; then its frames are not encoded.
        is_live: Whether the time of the scene is that of this machine.
        scene: How often the time of the scene went back, as when a video is played again.
    """

    def __init__(self, source_id: str, options: ClipsOptions) -> None:
        self.source_id, self._fps = source_id, options.fps
        self.ring = PacketRing(round(options.pre_s * 1e9) + _LATE_NS, round(options.ring_mb * 1e6))
        self.gives_packets, self.is_live, self.scene = False, True, 0
        self._may_give = options.originals
        self._choosing = threading.Lock()  # between packets and frames
        self._packet_ns = 0  # scene time of the last packet
        self._stream: PacketStream | None = None  # of frames
        self._rate, self._last_ns = RateLimit(self._fps), 0
        self._shift_ns = 0  # from the time of capture to that of the scene

    def take_packet(self, packet: Packet) -> None:
        """What the camera encoded; JPEG images at most ``fps`` a second.

        The first comes after some frames. A clip that is being made of those is not torn: packets are taken once it is whole.
        When more came since the last key frame than the ring can hold, frames are taken up to the next one.
        """
        with self._choosing:
            if self._may_give and not self.gives_packets:
                self.gives_packets = packet.is_key and not self.ring.is_held
            if self.gives_packets:
                self._packet_ns = packet.scene_ns
                if packet.stream.codec != "jpeg" or self._is_due(packet.scene_ns):
                    self.ring.put(packet)
                self.gives_packets = not self.ring.is_empty

    def refuse_packets(self) -> None:
        """Forget what the camera encoded, and take frames from now on."""
        with self._choosing:
            self._may_give = self.gives_packets = False
            self.ring.clear()

    def take_frame(self, frame: Frame, *, is_wanted: bool) -> None:
        """Encode a frame, at most ``fps`` a second and every one that ``is_wanted``, unless packets come."""
        behind_ns = abs(time.monotonic_ns() - frame.scene_ns)
        self.is_live = frame.position_ns is None and behind_ns < _LIVE_NS  # a recording has times of its own
        self._shift_ns = frame.scene_ns - frame.captured_ns
        if self.gives_packets and frame.scene_ns - self._packet_ns > _SILENT_NS:
            with self._choosing:
                self.gives_packets = False
        if not self.gives_packets and (self._is_due(frame.scene_ns) or is_wanted):
            self.ring.put(self._encoded(frame))

    @property
    def has_room(self) -> bool:
        """Whether more may come at once; packets always may: nobody holds up a camera."""
        return self.gives_packets or self.ring.has_room

    def wait_for_room(self) -> None:
        """While a clip is written of frames that come faster: wait."""
        self.ring.wait_for_room(_ROOM_S)

    def scene_ns(self, captured_ns: int) -> int:
        """The time of the scene at a moment."""
        return captured_ns + self._shift_ns

    def _is_due(self, scene_ns: int) -> bool:
        if scene_ns < self._last_ns - BACK_NS:
            self._rate, self._stream = RateLimit(self._fps), None
            self.scene += 1
        self._last_ns = scene_ns
        return self._rate.keep(scene_ns)

    def _encoded(self, frame: Frame) -> Packet:
        cv2: Any = require("cv2", "vision")
        height, width = frame.image.shape[:2]
        if self._stream is None or (self._stream.width, self._stream.height) != (width, height):
            self._stream = PacketStream(codec="jpeg", width=width, height=height)
        data: Any = cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
        ticks = frame.scene_ns * TICKS_PER_S // 10**9
        return Packet(
            stream=self._stream,
            data=bytes(data),
            pts=ticks,
            dts=ticks,
            is_key=True,
            captured_ns=frame.captured_ns,
            scene_ns=frame.scene_ns,
        )

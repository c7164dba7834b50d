"""What a camera sends, image by image and still encoded, for whoever keeps it beside the frames."""

from __future__ import annotations

import time
from typing import Any

from edgecv.media.annex_b import parameter_sets
from edgecv.media.packets import TICKS_PER_S, Codec, Packet, PacketStream

_CODECS: dict[str, Codec] = {"h264": "h264", "hevc": "hevc", "mjpeg": "jpeg"}
_NO_ANNEX_B = b"\x01"  # begins the parameters of FLV, MP4 and Matroska, whose units have lengths for start codes
_MOST_PARAMETERS = 4096  # bytes; some hundred are usual
_JUMP_TICKS = 5 * TICKS_PER_S  # the camera's clock was set, or it began anew


class VideoPackets:
    """Makes a ``Packet`` of each of PyAV's; one connection, one thread.

    A new ``PacketStream`` begins when the size or the parameter sets change, or the camera's clock jumps.
    """

    def __init__(self) -> None:
        self._stream: PacketStream | None = None
        self._pts: int | None = None
        self._behind: int | None = None  # by how much its clock differs from ours

    def made(self, packet: Any, decoder: Any) -> Packet | None:
        """The packet, once it was decoded.

        ``None`` for a codec or a form that is not kept (the frames are, then), or one before the first key frame.
        """
        codec = _CODECS.get(decoder.name)
        if codec is None or not packet.size or bytes(decoder.extradata or b"")[:1] == _NO_ANNEX_B:
            return None
        now_ns, pts, dts = time.monotonic_ns(), self._ticks(packet.pts, packet), self._ticks(packet.dts, packet)
        pts = pts if pts is not None else dts if dts is not None else self._pts or 0
        data = bytes(packet)
        is_key = bool(packet.is_keyframe) or codec == "jpeg"
        behind = now_ns * TICKS_PER_S // 10**9 - pts
        jumped = self._behind is not None and abs(behind - self._behind) > _JUMP_TICKS
        self._pts, self._behind = pts, behind
        if is_key:
            self._stream = self._now(codec, decoder, data, jumped)
        elif jumped:
            self._stream = None
        if self._stream is None:
            return None
        return Packet(
            stream=self._stream,
            data=data,
            pts=pts,
            dts=dts,
            is_key=is_key,
            captured_ns=time.time_ns(),
            scene_ns=now_ns,
        )

    def _now(self, codec: Codec, decoder: Any, key: bytes, jumped: bool) -> PacketStream:
        """The stream of a key frame: that of before, unless something changed."""
        before = None if jumped else self._stream
        parameters = parameter_sets(codec, key) or (before.parameters if before else bytes(decoder.extradata or b""))
        size = (decoder.width, decoder.height)
        if before is not None and (before.width, before.height) == size and before.parameters == parameters:
            return before
        return PacketStream(codec=codec, width=size[0], height=size[1], parameters=parameters[:_MOST_PARAMETERS])

    def _ticks(self, value: int | None, packet: Any) -> int | None:
        return None if value is None else round(value * packet.time_base * TICKS_PER_S)


class JpegPackets:
    """Makes a ``Packet`` of each JPEG image of a stream."""

    def __init__(self) -> None:
        self._stream: PacketStream | None = None

    def made(self, data: bytes, size_wh: tuple[int, int]) -> Packet:
        """The image, which could be decoded."""
        if self._stream is None or (self._stream.width, self._stream.height) != size_wh:
            self._stream = PacketStream(codec="jpeg", width=size_wh[0], height=size_wh[1])
        now_ns = time.monotonic_ns()
        ticks = now_ns * TICKS_PER_S // 10**9
        return Packet(
            stream=self._stream,
            data=data,
            pts=ticks,
            dts=ticks,
            is_key=True,
            captured_ns=time.time_ns(),
            scene_ns=now_ns,
        )

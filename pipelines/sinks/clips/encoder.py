"""JPEG images as H.264, which every browser plays; only when a clip is written."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv.errors import SinkError
from edgecv.media.packets import TICKS_PER_S, Packet, PacketStream

_ENCODERS = ("libx264", "libopenh264")  # the second is in builds without GPL parts
_BITS_PER_PIXEL = 0.15  # for an encoder that wants a rate; at the rate of images that is kept


class JpegEncoder:
    """Encodes the JPEG images of one stream; each comes out at once."""

    def __init__(self, stream: PacketStream, fps: float) -> None:
        """A key frame about each second of ``fps``. Raises ``SinkError``: this PyAV has no encoder for H.264."""
        self._av, self._cv2 = require("av", "video"), require("cv2", "vision")
        width, height = stream.width + stream.width % 2, stream.height + stream.height % 2
        self.stream = PacketStream(codec="h264", width=width, height=height)
        self._context = self._made(width, height, fps)

    def encoded(self, packet: Packet) -> list[Packet]:
        """The image, or nothing where it cannot be read."""
        image = self._cv2.imdecode(np.frombuffer(packet.data, np.uint8), self._cv2.IMREAD_COLOR)
        if image is None:
            return []
        down, right = self.stream.height - image.shape[0], self.stream.width - image.shape[1]
        if down or right:
            if min(down, right) < 0 or max(down, right) > 1:
                return []  # another size than its head says
            image = self._cv2.copyMakeBorder(image, 0, down, 0, right, self._cv2.BORDER_REPLICATE)
        frame = self._av.VideoFrame.from_ndarray(image, format="bgr24")
        frame.pts, frame.time_base = packet.pts, Fraction(1, TICKS_PER_S)
        return [self._packet(out, packet) for out in self._context.encode(frame)]

    def _packet(self, out: Any, packet: Packet) -> Packet:
        return Packet(
            stream=self.stream,
            data=bytes(out),
            pts=out.pts,
            dts=out.dts,
            is_key=bool(out.is_keyframe),
            captured_ns=packet.captured_ns,
            scene_ns=packet.scene_ns,
        )

    def _made(self, width: int, height: int, fps: float) -> Any:
        for name in _ENCODERS:
            try:
                context = self._av.CodecContext.create(name, "w")
            except ValueError:  # PyAV's error for a codec that it does not know
                continue
            context.width, context.height, context.pix_fmt = width, height, "yuv420p"
            context.time_base, context.framerate = Fraction(1, TICKS_PER_S), Fraction(fps).limit_denominator(1001)
            context.gop_size, context.max_b_frames, context.thread_count = max(1, round(fps)), 0, 1
            if name == "libx264":  # as in `VideoWriter`
                context.options = {"preset": "superfast", "tune": "zerolatency", "crf": "23"}
            else:
                context.bit_rate = round(width * height * fps * _BITS_PER_PIXEL)
            return context
        raise SinkError(
            "This PyAV has no encoder for H.264.", "Install PyAV from PyPI; clips of H.264 cameras need none."
        )

"""Packets as a camera sends them, made by a real encoder."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np

from edgecv.media.packets import TICKS_PER_S, Packet, PacketStream

FPS = 20
GOP = 20


def made_stream(width: int = 160, height: int = 120, parameters: bytes = b"") -> PacketStream:
    """A stream of H.264; its key frames bring their parameter sets."""
    return PacketStream(codec="h264", width=width, height=height, parameters=parameters)


def h264_packets(
    seconds: float, *, start_s: float = 0.0, b_frames: int = 0, size_wh: tuple[int, int] = (160, 120)
) -> list[Packet]:
    """Noise that moves, with a key frame each second; times are those of the scene."""
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height = size_wh
    context.pix_fmt = "yuv420p"
    context.time_base, context.framerate = Fraction(1, TICKS_PER_S), Fraction(FPS)
    context.gop_size, context.max_b_frames = GOP, b_frames
    context.options = {"preset": "veryfast", "b-adapt": "0", "rc-lookahead": "3", "sc_threshold": "0"}
    noise = np.random.default_rng(0).integers(0, 255, (size_wh[1], size_wh[0], 3), np.uint8)
    stream = made_stream(*size_wh)
    packets = []
    for number in [*range(round(seconds * FPS)), None]:
        frame = None
        if number is not None:
            frame = av.VideoFrame.from_ndarray(np.roll(noise, number * 4, axis=1), format="bgr24")
            frame.pts, frame.time_base = number * TICKS_PER_S // FPS, Fraction(1, TICKS_PER_S)
        packets.extend(context.encode(frame))
    return [
        Packet(
            stream=stream,
            data=bytes(packet),
            pts=packet.pts,
            dts=packet.dts,
            is_key=packet.is_keyframe,
            captured_ns=round((start_s + at / FPS) * 1e9),
            scene_ns=round((start_s + at / FPS) * 1e9),
        )
        for at, packet in enumerate(packets)
    ]

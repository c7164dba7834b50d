"""What PyAV reads of a camera, as packets for whoever keeps them."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from edgecv.media.packets import Packet
from edgecv.pipelines.sources.packets import VideoPackets


def video(container_format: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container_format) as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number, np.uint8), format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def packets(data: bytes) -> list[Packet | None]:
    made, maker = [], VideoPackets()
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            if packet.size:
                packet.decode()
                made.append(maker.made(packet, stream.codec_context))
    return made


def test_images_with_start_codes_are_kept() -> None:
    made = packets(video("mpegts"))
    assert len(made) == 20
    assert all(one is not None and one.data[:3] in (b"\0\0\0", b"\0\0\1") for one in made)


@pytest.mark.parametrize("container_format", ["flv", "matroska", "mp4"])
def test_images_with_lengths_are_not_taken_for_such(container_format: str) -> None:
    """Clips are made of the frames, then: what is copied as if it had start codes plays nowhere."""
    assert set(packets(video(container_format))) == {None}

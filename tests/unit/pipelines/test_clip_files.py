"""MP4 files of encoded images: whole, killed at any byte, and mended."""

from __future__ import annotations

import io
import stat
from dataclasses import replace
from pathlib import Path

import av
import pytest

from edgecv.errors import SinkError
from edgecv.media.annex_b import nal_units, parameter_sets
from edgecv.media.packets import Packet
from edgecv.pipelines.sinks.clips.mp4 import Mp4Writer, mended
from tests.unit.pipelines.made_packets import FPS, h264_packets


def written(path: Path, packets: list[Packet]) -> Path:
    writer = Mp4Writer(path, packets[0].stream)
    for packet in packets:
        writer.write(packet)
    writer.close()
    return path


def read(data: bytes) -> tuple[list[float], float]:
    """The times at which images are shown, and how long the file says that it is."""
    with av.open(io.BytesIO(data)) as container:
        return [frame.time for frame in container.decode(video=0)], (container.duration or 0) / 1e6


def units(path: Path) -> list[bytes]:
    """What an MP4 holds, unit by unit, as libav gives it back."""
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    found = []
    for data in packets:
        at = 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 4], "big")
            found.append(data[at + 4 : at + 4 + size])
            at += 4 + size
    return found


@pytest.mark.parametrize("b_frames", [0, 2])
def test_a_file_shows_every_image_at_its_time_and_holds_the_bytes_of_the_camera(tmp_path: Path, b_frames: int) -> None:
    packets = h264_packets(3.0, b_frames=b_frames)
    path = written(tmp_path / "a.mp4", packets)
    times, duration_s = read(path.read_bytes())
    assert times == pytest.approx([number / FPS for number in range(60)], abs=1e-4)
    assert duration_s == pytest.approx(3.0, abs=0.06)
    assert units(path) == [unit for packet in packets for unit in nal_units(packet.data)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_camera_that_does_not_tell_when_to_decode(tmp_path: Path) -> None:
    packets = [replace(packet, dts=None) for packet in h264_packets(2.0, b_frames=2)]
    times, _ = read(written(tmp_path / "a.mp4", packets).read_bytes())
    assert times == pytest.approx([number / FPS for number in range(40)], abs=1e-4)


@pytest.mark.parametrize("b_frames", [0, 2])
def test_a_file_without_times_of_decoding_says_how_long_it_is(tmp_path: Path, b_frames: int) -> None:
    packets = [replace(packet, dts=None) for packet in h264_packets(3.0, b_frames=b_frames)]
    times, duration = read(written(tmp_path / "a.mp4", packets).read_bytes())
    assert times == pytest.approx([number / FPS for number in range(3 * FPS)], abs=0.002)
    assert duration == pytest.approx(3.0, abs=0.1)


def test_times_that_go_back_do_not_break_it(tmp_path: Path) -> None:
    packets = h264_packets(2.0)
    odd = [replace(packet, dts=packet.dts - 9000 * (number % 3)) for number, packet in enumerate(packets)]
    times, _ = read(written(tmp_path / "a.mp4", odd).read_bytes())
    assert len(times) == 40
    assert times == sorted(times)


def test_what_comes_before_the_first_key_frame_is_left_out(tmp_path: Path) -> None:
    times, _ = read(written(tmp_path / "a.mp4", h264_packets(3.0)[7:]).read_bytes())
    assert len(times) == 40
    assert times[0] == 0.0


def test_parameters_of_the_connection_serve_where_key_frames_bring_none(tmp_path: Path) -> None:
    packets = h264_packets(2.0)
    stream = replace(packets[0].stream, parameters=parameter_sets("h264", packets[0].data))

    def bare(packet: Packet) -> Packet:
        kept = [unit for unit in nal_units(packet.data) if unit[0] & 0x1F not in (7, 8)]
        return replace(packet, stream=stream, data=b"".join(b"\x00\x00\x01" + unit for unit in kept))

    times, _ = read(written(tmp_path / "a.mp4", [bare(packet) for packet in packets]).read_bytes())
    assert len(times) == 40


def test_without_parameter_sets_there_is_no_file_that_nobody_can_play(tmp_path: Path) -> None:
    packets = h264_packets(1.0)
    packet = replace(packets[0], data=b"\x00\x00\x00\x01\x65" + bytes(range(1, 60)))
    writer = Mp4Writer(tmp_path / "a.mp4", packet.stream)
    with pytest.raises(SinkError, match="lacks parameter sets"):
        writer.write(packet)
    writer.abandon()


def test_at_every_moment_of_its_making_it_can_be_read(tmp_path: Path) -> None:
    """A copy of the file after each image is what a kill at that moment leaves."""
    packets = h264_packets(4.0, b_frames=2)
    path = tmp_path / "a.mp4"
    writer = Mp4Writer(path, packets[0].stream)
    for number, packet in enumerate(packets, 1):
        writer.write(packet)
        times, _ = read(path.read_bytes()) if number > 2 * FPS else ([], 0.0)
        assert len(times) >= number - 1.2 * FPS or number <= 2 * FPS, "a kill loses about a second"
    writer.close()


@pytest.mark.parametrize("share", [0.35, 0.5, 0.77, 0.99, 1.0])
def test_a_file_that_was_cut_anywhere_is_mended(tmp_path: Path, share: float) -> None:
    growing = tmp_path / "growing.mp4"
    writer = Mp4Writer(growing, h264_packets(0.1)[0].stream)
    for packet in h264_packets(4.0):
        writer.write(packet)
    writer.abandon()
    data = growing.read_bytes()
    growing.write_bytes(data[: round(len(data) * share)])
    assert mended(growing)
    times, _ = read(growing.read_bytes())
    assert len(times) in (FPS, 2 * FPS, 3 * FPS)


def test_a_file_that_was_cut_at_its_very_end_is_mended(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp4", h264_packets(4.0))
    whole = path.read_bytes()
    assert mended(path)
    assert path.read_bytes() == whole, "it was whole, only its name was missing"
    at = whole.index(b"ftyp") - 4 + int.from_bytes(whole[:4], "big")
    unmarked = whole[:at] + b"\x00\x00\x00\x10free" + bytes(8) + whole[at + 16 :]
    for data in (unmarked, unmarked[:-100]):  # with the index, and with a part of it
        path.write_bytes(data)
        assert mended(path)
        assert len(read(path.read_bytes())[0]) == 80


@pytest.mark.parametrize("data", [b"", b"abc", bytes(1000), b"\x00\x00\x00\x04ftyp" * 20], ids=range(4))
def test_what_is_no_clip_is_not_mended(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    assert not mended(path)


def test_a_head_without_images_is_not_mended(tmp_path: Path) -> None:
    writer = Mp4Writer(tmp_path / "a.mp4", h264_packets(0.1)[0].stream)
    writer.write(h264_packets(0.1)[0])
    writer.abandon()
    assert not mended(tmp_path / "a.mp4")

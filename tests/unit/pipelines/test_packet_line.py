"""Packets on their way from the process of a camera, which is believed nothing."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import msgspec
import pytest

from edgecv.media.packets import Packet
from edgecv.pipelines.sources.supervised import packet_line
from edgecv.pipelines.sources.supervised.packet_line import PacketReceiver, PacketSender
from tests.cameras.world import wait_until
from tests.unit.pipelines.made_packets import h264_packets


@pytest.fixture
def line() -> Iterator[tuple[PacketReceiver, socket.socket]]:
    receiver, theirs = PacketReceiver.pair()
    yield receiver, theirs
    receiver.close()
    theirs.close()


@pytest.fixture
def sender() -> Iterator[PacketSender]:
    sender = PacketSender()
    yield sender
    sender.close()
    wait_until(lambda: not any(one.name == "edgecv-packets" for one in threading.enumerate()), "the sender ended")


def collected(receiver: PacketReceiver, count: int) -> list[Packet]:
    found: list[Packet] = []

    def all_came() -> bool:
        found.extend(receiver.receive())
        return len(found) >= count

    wait_until(all_came, f"{count} packets")
    return found


def said(packet: Packet) -> tuple[object, ...]:
    return (packet.data, packet.pts, packet.dts, packet.is_key, packet.captured_ns, packet.scene_ns)


def test_packets_arrive_as_they_were(line: tuple[PacketReceiver, socket.socket], sender: PacketSender) -> None:
    receiver, theirs = line
    packets = h264_packets(2.0, b_frames=2)
    other = replace(packets[0].stream, width=80)
    packets = [packets[0], *(replace(packet, stream=other) for packet in packets[20:])]
    assert not sender.is_wanted
    sender.begin(theirs)
    assert sender.is_wanted
    for packet in packets:
        sender.put(packet)
    found = collected(receiver, len(packets))
    assert [said(packet) for packet in found] == [said(packet) for packet in packets]
    assert [packet.stream.width for packet in found[:2]] == [160, 80]
    assert len({packet.stream for packet in found}) == 2


def test_a_large_key_frame_comes_in_parts(line: tuple[PacketReceiver, socket.socket], sender: PacketSender) -> None:
    receiver, theirs = line
    packet = replace(h264_packets(0.1)[0], data=bytes(range(256)) * 12_000)
    sender.begin(theirs)
    sender.put(packet)
    assert collected(receiver, 1)[0].data == packet.data


def test_what_finds_no_room_is_left_out_up_to_the_next_key_frame(
    line: tuple[PacketReceiver, socket.socket], sender: PacketSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packet_line, "_MOST_WAITING", 1_000_000)
    receiver, theirs = line
    packets = [replace(packet, data=bytes(50_000)) for packet in h264_packets(3.0)]
    for packet in packets:  # nobody reads: a camera is never held up
        sender.put(packet)
    sender.begin(theirs)
    found = collected(receiver, 20)
    for packet in packets[20:]:
        sender.put(packet)
    found += collected(receiver, 20)
    assert [packet.scene_ns for packet in found] == [packet.scene_ns for packet in packets[:40]]
    assert found[20].is_key


def test_a_stream_begins_with_a_key_frame(line: tuple[PacketReceiver, socket.socket], sender: PacketSender) -> None:
    receiver, theirs = line
    sender.begin(theirs)
    for packet in h264_packets(2.0)[5:]:
        sender.put(packet)
    assert collected(receiver, 20)[0].is_key


def test_once_the_parent_hung_up_nothing_waits_and_another_line_begins_with_a_key_frame(sender: PacketSender) -> None:
    packets = h264_packets(4.0)
    receiver, theirs = PacketReceiver.pair()
    sender.begin(theirs)
    for packet in packets[:30]:
        sender.put(packet)
    collected(receiver, 30)
    receiver.close()
    sender.put(packets[30])
    wait_until(lambda: not sender.is_wanted, "the end of the line")
    for packet in packets[31:45]:
        sender.put(packet)
    receiver, theirs = PacketReceiver.pair()
    sender.begin(theirs)
    for packet in packets[45:]:
        sender.put(packet)
    found = collected(receiver, 20)
    receiver.close()
    assert [packet.scene_ns for packet in found] == [packet.scene_ns for packet in packets[60:]]


def _headed(document: dict[str, object]) -> bytes:
    data = msgspec.msgpack.encode(document)
    return len(data).to_bytes(4, "big") + data


STREAM = {"type": "StreamHead", "codec": "h264", "width": 64, "height": 48, "parameters": b""}
PACKET = {"type": "PacketHead", "size": 3, "pts": 0, "dts": None, "is_key": True, "captured_ns": 0, "scene_ns": 0}


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x05abcde",
        _headed(PACKET) + b"abc",
        _headed({**STREAM, "codec": "theora"}),
        _headed({**STREAM, "width": 0}),
        _headed({**STREAM, "height": 10**6}),
        _headed({**STREAM, "parameters": bytes(9000)}),
        _headed(STREAM) + _headed({**PACKET, "size": 10**9}),
        _headed(STREAM) + _headed({**PACKET, "size": -1}),
        _headed(STREAM) + _headed({**PACKET, "pts": "now"}),
    ],
    ids=range(10),
)
def test_what_makes_no_sense_ends_the_line_and_nothing_else(
    line: tuple[PacketReceiver, socket.socket], data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    receiver, theirs = line
    theirs.sendall(data)
    with caplog.at_level(logging.WARNING):
        assert list(receiver.receive()) == []
    assert receiver.is_over
    assert "make no sense" in caplog.text
    assert list(receiver.receive()) == []


def test_the_end_of_the_process_is_no_fault(
    line: tuple[PacketReceiver, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    receiver, theirs = line
    theirs.sendall((_headed(STREAM) + _headed(PACKET) + b"abc")[:-1])
    theirs.close()
    with caplog.at_level(logging.WARNING):
        assert list(receiver.receive()) == []
    assert receiver.is_over
    assert not caplog.text


def test_a_parent_that_hung_up_is_sent_nothing_more(
    line: tuple[PacketReceiver, socket.socket], sender: PacketSender
) -> None:
    receiver, theirs = line
    sender.begin(theirs)
    receiver.close()
    packets = iter(h264_packets(3.0))

    def is_over() -> bool:
        sender.put(next(packets))
        return not sender.is_wanted

    wait_until(is_over, "it noticed")

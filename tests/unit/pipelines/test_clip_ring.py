"""The ring of a source: whole groups, bounded by time and bytes, held for a clip."""

from __future__ import annotations

import threading
from dataclasses import replace

from edgecv.media.packets import Packet, PacketStream
from edgecv.pipelines.sinks.clips.ring import PACKET_BYTES, PacketRing

STREAM = PacketStream(codec="h264", width=64, height=48)
FPS, GOP, SIZE = 10, 10, 100
TAKEN = SIZE + PACKET_BYTES  # in memory
SECOND = 10**9


def packet(number: int, stream: PacketStream = STREAM) -> Packet:
    at_ns = number * SECOND // FPS
    return Packet(
        stream=stream,
        data=bytes(SIZE),
        pts=0,
        dts=0,
        is_key=number % GOP == 0,
        captured_ns=at_ns,
        scene_ns=at_ns,
    )


def filled(count: int, *, keep_s: float = 3.0, most_bytes: int = 10**6) -> PacketRing:
    ring = PacketRing(round(keep_s * SECOND), most_bytes)
    for number in range(count):
        ring.put(packet(number))
    return ring


def held(ring: PacketRing) -> list[float]:
    return [one.scene_ns / SECOND for one in ring.after(0)[0]]


def test_it_holds_what_is_asked_for_and_at_most_a_group_more() -> None:
    times = held(filled(100))
    assert times[0] == 6.0, "the newest is 9.9 s: 3 s before it lies in the group that began at 6.0"
    assert times[-1] == 9.9
    assert len(times) == 40


def test_a_clip_begins_with_the_key_frame_before_and_holds_what_follows() -> None:
    ring = filled(100)
    number = ring.begin(event_ns=round(9.5 * SECOND), pre_ns=2 * SECOND)
    for later in range(100, 200):
        ring.put(packet(later))
    found, following = ring.after(number)
    assert found[0].scene_ns == 7 * SECOND
    assert found[0].is_key
    assert following == 200
    assert len(found) == 130
    ring.hold(None)
    assert held(ring)[0] == 16.0, "what no clip needs any more is let go"


def test_without_so_much_before_the_event_a_clip_begins_with_the_oldest() -> None:
    ring = filled(25, keep_s=10)
    number = ring.begin(event_ns=2 * SECOND, pre_ns=5 * SECOND)
    assert ring.after(number)[0][0].scene_ns == 0


def test_a_clip_does_not_begin_in_another_stream_than_that_of_its_event() -> None:
    ring = filled(25, keep_s=100)
    other = replace(STREAM)
    for number in range(40, 60):
        ring.put(packet(number, other))
    at = ring.begin(event_ns=5 * SECOND, pre_ns=5 * SECOND)
    assert {one.stream for one in ring.after(at)[0]} == {other}


def test_bytes_are_bounded_also_while_a_clip_needs_them() -> None:
    ring = PacketRing(100 * SECOND, 35 * TAKEN)
    ring.put(packet(0))
    number = ring.begin(event_ns=0, pre_ns=0)
    for later in range(1, 500):
        ring.put(packet(later))
        assert ring.size_bytes <= 35 * TAKEN
    found, _ = ring.after(number)
    assert found[0].is_key
    assert not ring.has_room


def test_a_group_that_is_too_large_alone_is_left_out_up_to_the_next_key_frame() -> None:
    ring = PacketRing(10 * SECOND, 5 * TAKEN)
    for number in range(14):
        ring.put(packet(number))
    assert held(ring) == [1.0, 1.1, 1.2, 1.3]


def test_nothing_is_kept_before_the_first_key_frame() -> None:
    ring = PacketRing(10 * SECOND, 10**6)
    for number in range(5, 12):
        ring.put(packet(number))
    assert held(ring) == [1.0, 1.1]


def test_a_scene_that_begins_anew_forgets_the_one_before() -> None:
    ring = filled(25, keep_s=100)
    number = ring.begin(event_ns=2 * SECOND, pre_ns=0)
    again = replace(STREAM)
    ring.put(packet(0, again))
    assert held(ring) == [2.0, 2.1, 2.2, 2.3, 2.4, 0.0], "a clip of the first still takes what it needs"
    assert ring.after(number)[0][0].scene_ns == 2 * SECOND
    ring.hold(None)
    assert held(ring) == [0.0]


def test_who_waits_for_room_goes_on_once_a_clip_took_what_it_needs() -> None:
    ring = PacketRing(100 * SECOND, 30 * SIZE)
    ring.put(packet(0))
    ring.begin(event_ns=0, pre_ns=0)
    for later in range(1, 29):
        ring.put(packet(later))
    waiting = threading.Thread(target=ring.wait_for_room, args=(20.0,))
    waiting.start()
    ring.hold(28)
    waiting.join(10)
    assert not waiting.is_alive()
    assert ring.has_room

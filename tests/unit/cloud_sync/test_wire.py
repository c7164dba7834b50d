"""What is written for readers other than ingest: CloudEvents and ThingsBoard's telemetry."""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

import msgspec
import pytest

from edgecv.cloud_sync.envelope import (
    MAX_BATCH_BYTES,
    Stamp,
    decode_batch,
    encode,
    envelope_from_event,
    envelope_from_result,
)
from edgecv.cloud_sync.wire.payloads import JSON, ZLIB
from edgecv.errors import SyncError
from edgecv.events import Event
from tests.unit.cloud_sync.support import ADDRESS, make_result

TIME_NS = 1_700_000_000_123_456_789
LARGE = 2**53


def event_body(
    seq: int, kind: str = "line.crossed", time_ns: int = TIME_NS, source: str | None = "door", **data: Any
) -> bytes:
    stamp = Stamp(address=ADDRESS, boot=LARGE, seq=seq, clock_synced=True)
    event = Event(kind=kind, time_ns=time_ns, source_id=source, data=data)
    return encode(envelope_from_event(event, stamp, mono_ns=2**62, model="yolo/int8"))


def result_body(seq: int, boxes: int = 2) -> bytes:
    return encode(envelope_from_result(make_result(seq, boxes), Stamp(address=ADDRESS, boot=1, seq=seq)))


def list_of(*bodies: bytes) -> bytes:
    return JSON["cloudevents"]().pack(bodies, None)


def telemetry_of(*bodies: bytes) -> list[dict[str, Any]]:
    return json.loads(JSON["thingsboard"]().pack(bodies, None))  # type: ignore[no-any-return]


def test_a_batch_in_json_is_a_batch_of_cloud_events() -> None:
    """CloudEvents 1.0.2: names of lower-case letters and digits, integers of 32 bits, no empty attributes."""
    for event in json.loads(list_of(event_body(1), result_body(2))):
        assert {"specversion", "id", "source", "type"} <= event.keys()
        assert all(re.fullmatch(r"[a-z0-9]{1,20}", name) for name in event)
        attributes = {name: value for name, value in event.items() if name != "data"}
        assert all(isinstance(value, (str, bool)) and value != "" for value in attributes.values())


def test_cloud_events_say_what_the_outbox_says() -> None:
    (event,) = json.loads(list_of(event_body(7, x=[1, {"y": None}])))
    assert event == {
        "specversion": "1.0",
        "id": f"{LARGE}:7",
        "source": "edgecv/acme/cam-1",
        "type": "edgecv.event.line.crossed",
        "time": "2023-11-14T22:13:20.123456789Z",
        "boot": str(LARGE),
        "seq": "7",
        "monons": str(2**62),
        "clocksynced": True,
        "model": "yolo/int8",
        "lane": "event",
        "data": {"source_id": "door", "x": [1, {"y": None}]},
    }


def test_a_batch_inside_an_object_holds_the_same_events() -> None:
    inside = json.loads(JSON["cloudevents-object"]().pack([event_body(1), event_body(2)], None))
    assert inside == {"events": json.loads(list_of(event_body(1), event_body(2)))}


def test_ingest_reads_both_forms_alike() -> None:
    bodies = [event_body(1, x=1.50), result_body(2), event_body(3, source=None)]
    from_json, from_zlib = decode_batch(list_of(*bodies)), decode_batch(ZLIB.pack(bodies, None))
    heads = [
        [msgspec.structs.replace(one, data=msgspec.Raw(b"{}")) for one in read.envelopes]
        for read in (from_json, from_zlib)
    ]
    assert heads[0] == heads[1]
    assert [one.payload for one in from_json.envelopes] == [one.payload for one in from_zlib.envelopes]
    assert not from_json.errors


def test_a_bad_event_does_not_spoil_its_neighbours_in_json() -> None:
    good = list_of(event_body(1))[1:-1]
    text = (
        b"[" + b",".join([good, b"1", b'{"id":"1:2"}', good.replace(b'"boot":"', b'"boot":"x'), b'{"a":"\xff"}']) + b"]"
    )
    batch = decode_batch(text)
    assert [one.seq for one in batch.envelopes] == [1]
    assert len(batch.errors) == 4


@pytest.mark.parametrize(
    "text", [b"[", b"[]x", b"[" + b" " * MAX_BATCH_BYTES + b"]", b"[" * 100_000], ids=lambda t: t[:5]
)
def test_what_is_no_json_batch_is_refused(text: bytes) -> None:
    with pytest.raises(SyncError):
        decode_batch(text)


def test_zlib_is_still_told_from_json() -> None:
    assert zlib.compress(b"[]")[:1] != b"["
    assert decode_batch(ZLIB.pack([event_body(1)], None)).envelopes


def test_telemetry_has_times_in_milliseconds_and_numbers_for_charts() -> None:
    first, second = telemetry_of(event_body(1, direction="in"), result_body(5, boxes=2))
    assert first["ts"] == 1_700_000_000_123
    assert first["values"] == {
        "door.line.crossed": [{"id": f"{LARGE}:1", "data": {"source_id": "door", "direction": "in"}}],
        "door.line.crossed.count": 1,
    }
    assert second["ts"] == 1_700_000_000_000
    assert (second["values"]["cam.result.objects"], second["values"]["cam.result.cat"]) == (2, 2)
    assert second["values"]["cam.result"][0]["data"]["detections"][0]["label"] == "cat"


def test_nothing_of_one_millisecond_takes_the_place_of_another_in_telemetry() -> None:
    """ThingsBoard keeps one value per key and time: what two messages say together must hold every event."""
    bodies = [event_body(seq, n=seq) for seq in range(1, 21)] + [event_body(21, kind="stopped")]
    bodies += [event_body(22, time_ns=TIME_NS + 1_000_000), event_body(23, source=None)]
    for cut in range(len(bodies)):
        pack = JSON["thingsboard"]().pack
        kept: dict[tuple[int, str], Any] = {}
        # The second message is written again, whole and in two halves: a connection ended, and it was too large.
        for message in (bodies[:cut], bodies[cut:], bodies[cut:], bodies[cut : cut + 3], bodies[cut + 3 :]):
            for row in json.loads(pack(message, None)):
                kept |= {(row["ts"], key): value for key, value in row["values"].items()}
        found = {one["id"] for value in kept.values() if isinstance(value, list) for one in value}
        assert found == {json.loads(body)["id"] for body in bodies}, cut


def test_a_message_of_telemetry_written_again_is_the_same() -> None:
    pack = JSON["thingsboard"]().pack
    messages = [[event_body(seq) for seq in range(first, first + 5)] for first in (1, 6, 11)]
    assert [pack(message, None) for message in messages] == [pack(message, None) for message in messages]


def test_telemetry_takes_any_payload() -> None:
    odd = event_body(1, source=None, detections="none", label=3)
    (row,) = telemetry_of(odd)
    assert row["values"]["line.crossed.count"] == 1


@pytest.mark.parametrize("time_ns", [0, 1, 999_999_999, TIME_NS, 4_102_444_799_999_000_000])
def test_the_milliseconds_of_telemetry_are_those_of_the_event(time_ns: int) -> None:
    (row,) = telemetry_of(event_body(1, time_ns=time_ns))
    assert row["ts"] == time_ns // 1_000_000

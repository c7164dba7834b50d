from __future__ import annotations

import json
import random
import zlib

import msgspec
import numpy as np
import pytest

from edgecv.cloud_sync import envelope as module
from edgecv.cloud_sync.boxes import with_normalised_boxes
from edgecv.cloud_sync.envelope import (
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    MAX_EVENT_BYTES,
    Stamp,
    decode,
    decode_batch,
    encode,
    encode_batch,
    envelope_from_event,
    envelope_from_result,
)
from edgecv.cloud_sync.wire.cloud_events import as_cloud_event
from edgecv.cloud_sync.wire.thingsboard import Telemetry
from edgecv.errors import SyncError
from edgecv.events import Event
from tests.unit.cloud_sync.support import ADDRESS, make_result

STAMP = Stamp(address=ADDRESS, boot=7, seq=3, clock_synced=True)


def good_body() -> bytes:
    return encode(envelope_from_result(make_result(), STAMP))


def changed(**changes: object) -> bytes:
    return msgspec.json.encode({**json.loads(good_body()), **changes})


def test_a_result_becomes_a_cloudevent() -> None:
    document = json.loads(good_body())
    assert {name: document[name] for name in ("specversion", "id", "source", "type", "time")} == {
        "specversion": "1.0",
        "id": "7:3",
        "source": "edgecv/acme/cam-1",
        "type": "edgecv.result",
        "time": "2023-11-14T22:13:20.000000000Z",
    }
    assert (document["boot"], document["seq"], document["mono_ns"], document["clock_synced"]) == (7, 3, 1000, True)
    assert (document["model"], document["lane"]) == ("demo/onnx-int8", "telemetry")


def test_boxes_travel_in_pixels_and_are_normalised_where_they_are_read() -> None:
    body = encode(envelope_from_result(make_result(), STAMP))
    data = json.loads(body)["data"]
    assert data["frame_wh"] == [100, 50]
    assert data["detections"][0]["xyxy"] == [10.0, 5.0, 50.0, 25.0]
    assert "xyxyn" not in data["detections"][0]
    for read in (as_cloud_event(body), Telemetry()([body])):
        assert b'"xyxyn":[0.1,0.1,0.5,0.5]' in read
    row = json.loads(with_normalised_boxes(json.dumps(data)))["detections"][0]
    assert (row["xyxyn"], row["label"]) == ([0.1, 0.1, 0.5, 0.5], "cat")


@pytest.mark.parametrize(
    "payload",
    [
        "{}",
        '{"frame_wh": [0, 50], "detections": [{"xyxy": [1, 2, 3, 4]}]}',
        '{"frame_wh": [100], "detections": [{"xyxy": [1, 2, 3, 4]}]}',
        '{"frame_wh": [100, 50], "detections": [{"xyxy": [1, 2, 3]}]}',
        '{"frame_wh": [100, 50], "detections": [{"xyxy": [1, 2, 3, "4"]}]}',
        '{"frame_wh": [100, 50], "detections": [{"xyxy": [1, 2, 3, 4], "xyxyn": 5}]}',
        '{"frame_wh": [100, 50], "detections": {"xyxy": [1, 2, 3, 4]}}',
        '{"frame_wh": [100, 50], "detections": []}',
    ],
)
def test_a_payload_that_is_no_result_stays_as_it_was_written(payload: str) -> None:
    assert with_normalised_boxes(payload) == payload


def test_normalised_boxes_stay_within_the_frame_and_the_rest_as_it_was() -> None:
    payload = '{"x":1.50,"frame_wh":[3,7],"detections":[{"xyxy":[-1,0,4,1e0],"note":"\\u00e9"}]}'
    done = with_normalised_boxes(payload)
    assert done == payload.replace(r'"\u00e9"', r'"\u00e9","xyxyn":[0.0,0.0,1.0,0.142857]')


def test_an_event_keeps_its_kind_and_priority_and_takes_numpy_values() -> None:
    event = Event(kind="line.crossed", time_ns=1, source_id="cam", data={"n": np.int64(2)}, priority="alarm")
    found = decode(encode(envelope_from_event(event, STAMP, mono_ns=5)))
    assert (found.type, found.priority, found.mono_ns) == ("edgecv.event.line.crossed", "alarm", 5)
    assert json.loads(found.payload) == {"source_id": "cam", "n": 2}


def test_a_payload_that_is_no_json_is_a_sync_error() -> None:
    event = Event(kind="bad", time_ns=1, data={"x": object()})
    with pytest.raises(SyncError, match="JSON"):
        encode(envelope_from_event(event, STAMP, mono_ns=0))


def test_batches_round_trip() -> None:
    envelopes = [envelope_from_result(make_result(n), Stamp(address=ADDRESS, boot=1, seq=n)) for n in range(50)]
    payload = encode_batch([encode(one) for one in envelopes])
    assert [encode(one) for one in decode_batch(payload).envelopes] == [encode(one) for one in envelopes]
    assert len(payload) < sum(len(encode(one)) for one in envelopes) / 5


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b'{"a":' * 100_000,
        b" " * (MAX_EVENT_BYTES + 1),
        changed(specversion="2.0"),
        changed(id="7:4"),
        changed(boot=-1),
        changed(boot=2**60),
        changed(seq="3"),
        changed(lane="urgent"),
        changed(data=[]),
        changed(source=""),
        changed(type="x" * 201),
        changed(mono_ns=2**63),
        changed(clock_synced=1),
    ],
    ids=lambda body: repr(body[:12]),
)
def test_a_malformed_envelope_is_a_sync_error(body: bytes) -> None:
    with pytest.raises(SyncError):
        decode(body)


def test_fields_of_a_later_version_are_ignored() -> None:
    assert decode(changed(subject="new")).id == "7:3"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"no zlib",
        zlib.compress(b""),
        zlib.compress(b"{}"),
        zlib.compress(b"[1,"),
        zlib.compress(b"[]")[:-1],
        zlib.compress(b"[]") + b"tail",
        zlib.compress(b"[" * 200_000),
        zlib.compress(b" " * (MAX_BATCH_BYTES + 1)),
        zlib.compress(b"[" + b",".join([b"1"] * (MAX_BATCH_EVENTS + 1)) + b"]"),
    ],
    ids=lambda payload: repr(payload[:12]),
)
def test_a_malformed_batch_is_a_sync_error(payload: bytes) -> None:
    with pytest.raises(SyncError):
        decode_batch(payload)


def test_a_bomb_is_not_inflated_beyond_the_limit() -> None:
    bomb = zlib.compress(b"\0" * 50_000_000, 9)
    assert len(bomb) < 64_000
    with pytest.raises(SyncError, match="inflates"):
        decode_batch(bomb)


def test_a_bad_event_does_not_spoil_its_neighbours() -> None:
    batch = decode_batch(encode_batch([good_body(), b'{"bad":1}', good_body()]))
    assert len(batch.envelopes) == 2
    assert batch.places == (0, 2)
    assert [index for index, _ in batch.errors] == [1]


def test_random_bytes_never_raise_anything_else() -> None:
    rng = random.Random(0)
    good = encode_batch([good_body()])
    for _ in range(300):
        flipped = bytearray(rng.choice([good, zlib.decompress(good)]))
        for _ in range(rng.randrange(1, 4)):
            flipped[rng.randrange(len(flipped))] = rng.randrange(256)
        for reader in (decode_batch, decode, lambda body: decode_batch(zlib.compress(body))):
            try:
                reader(bytes(flipped))
            except SyncError:
                continue


def test_priorities_are_the_priorities_of_events() -> None:
    assert module.PRIORITIES == ("alarm", "event", "telemetry", "blob")

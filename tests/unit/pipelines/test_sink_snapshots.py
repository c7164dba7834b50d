"""Snapshots: which frames, how often, how many stay."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.errors import SinkError
from edgecv.events import EventMedia
from edgecv.pipelines.sinks import open_sink
from edgecv.pipelines.sinks.video.snapshots import SnapshotsOptions, SnapshotsSink
from edgecv.results import Result
from tests.conftest import names_in
from tests.unit.pipelines.made_results import classified, made_event, made_result


def take(folder: Path, results: list[Result], **options: object) -> list[str]:
    sink = SnapshotsSink(folder, options=SnapshotsOptions(**options))
    for result in results:
        sink.emit(result)
    sink.close()
    return sorted(path.name for path in folder.glob("*.jpg"))


def test_an_image_and_its_document_lie_side_by_side(tmp_path: Path) -> None:
    result = made_result(0.0, size_wh=(320, 240), source_id="rtsp://host/1")
    (name,) = take(tmp_path, [result], quality=100)
    assert name.startswith("20261121T154418.123Z_rtsp-host-1-")
    image = cv2.imread(str(tmp_path / name))
    assert np.abs(image.astype(int) - result.frame.image).mean() < 20, "as it was: nothing is drawn"
    assert json.loads((tmp_path / name).with_suffix(".json").read_text())["detections"][0]["label"] == "person"


def test_boxes_are_drawn_when_asked_for(tmp_path: Path) -> None:
    result = made_result(0.0, size_wh=(320, 240))
    (plain,) = take(tmp_path / "plain", [result])
    (drawn,) = take(tmp_path / "drawn", [result], draw=True)
    both = [cv2.imread(str(tmp_path / kind / name)).astype(int) for kind, name in (("plain", plain), ("drawn", drawn))]
    assert np.abs(both[0] - both[1]).max() > 100


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, [1, 2, 4]),
        ({"classes": "car"}, [2, 4]),
        ({"classes": "0, car"}, [1, 2, 4]),
        ({"on": "events"}, [3]),
        ({"on": "all"}, [0, 1, 2, 3, 4]),
    ],
    ids=str,
)
def test_which_frames_are_taken(tmp_path: Path, options: dict[str, object], wanted: list[int]) -> None:
    results = [
        made_result(0.0, class_ids=()),
        made_result(1.0, class_ids=(0,)),
        made_result(2.0, class_ids=(0, 1)),
        made_result(3.0, class_ids=(), events=(made_event(),)),
        classified(4.0),
    ]
    names = take(tmp_path, results, every_s=0, **options)
    assert [int(name[13:15]) - 18 for name in names] == wanted


def test_a_class_that_the_model_has_not_is_said(tmp_path: Path) -> None:
    sink = open_sink(f"snapshots:{tmp_path}?classes=persn")
    with pytest.raises(SinkError, match="no class 'persn'") as caught:
        sink.emit(made_result(0.0))
    assert "person" in caught.value.hint
    sink.close()


def test_images_keep_their_distance_per_source(tmp_path: Path) -> None:
    results = [made_result(step / 10, source_id=name) for step in range(30) for name in ("a", "b")]
    sink = SnapshotsSink(tmp_path, options=SnapshotsOptions(every_s=1.0))
    for result in results:
        sink.emit(result)
    sink.close()
    assert len(list(tmp_path.glob("*Z_a.jpg"))) == len(list(tmp_path.glob("*Z_b.jpg"))) == 3
    assert sink.skipped == 54


def test_each_event_has_its_image_unless_a_distance_is_asked_for(tmp_path: Path) -> None:
    results = [made_result(step / 10, events=(made_event(),)) for step in range(40)]
    assert len(take(tmp_path / "each", results, on="events")) == 40
    assert len(take(tmp_path / "some", results, on="events", every_s=1.0)) == 4
    assert len(take(tmp_path / "found", results)) == 4, "and of what is only found, one each second"


def test_no_minute_has_more_than_allowed(tmp_path: Path) -> None:
    names = take(tmp_path, [made_result(step * 1.0) for step in range(150)], every_s=0, max_per_minute=4)
    assert [int(name[11:13]) * 60 + int(name[13:15]) - (44 * 60 + 18) for name in names] == [
        *range(4),
        *range(60, 64),
        *range(120, 124),
    ]


def test_the_oldest_go_with_their_documents(tmp_path: Path) -> None:
    results = [made_result(float(step)) for step in range(30)]
    everything = take(tmp_path / "all", results)
    bytes_each = max(path.stat().st_size for path in (tmp_path / "all").glob("*.jpg")) + 600
    kept = take(tmp_path / "some", results, keep_mb=bytes_each * 5 / 1e6)
    assert 4 <= len(kept) <= 12
    assert kept == everything[-len(kept) :]
    documents = sorted(path.stem for path in (tmp_path / "some").glob("*.json"))
    assert documents == [Path(name).stem for name in kept]


@pytest.mark.parametrize("days", [30, -30, -20_000])
def test_a_frame_with_a_wrong_time_deletes_no_image(tmp_path: Path, days: int) -> None:
    results = [made_result(float(step)) for step in range(0, 60, 6)]  # the folder is looked after every five seconds
    wrong = replace(results[3].frame, captured_ns=results[3].frame.captured_ns + days * 24 * 3600 * 10**9)
    results[3] = replace(results[3], frame=wrong)
    assert len(take(tmp_path, results, keep_hours=1.0)) == 10


def test_what_a_kill_left_unfinished_goes_and_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / ".20261121T154418.123Z_cam.jpg.tmp").write_bytes(b"half")
    (tmp_path / ".mine.tmp").write_bytes(b"mine")
    SnapshotsSink(tmp_path).close()
    assert names_in(tmp_path) == [".edgecv.jpg.lock", ".mine.tmp"]


def test_a_folder_that_went_away_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    sink = SnapshotsSink(tmp_path / "dir")
    (tmp_path / "dir" / ".edgecv.jpg.lock").unlink()
    (tmp_path / "dir").rmdir()
    with pytest.raises(SinkError, match="cannot be written"):
        sink.emit(made_result(0.0))
    sink.close()
    assert names_in(tmp_path) == []


def test_an_image_of_events_is_told_of_with_their_keys(tmp_path: Path) -> None:
    sink = SnapshotsSink(tmp_path, options=SnapshotsOptions(every_s=0))
    told: list[EventMedia] = []
    sink.on_media = told.append
    events = (made_event(), made_event("zone.left"))
    sink.emit(made_result(0.0))
    sink.emit(made_result(1.0, events=events))
    sink.close()
    (media,) = told
    assert (media.kind, media.keys) == ("snapshot", tuple(event.key for event in events))
    assert media.path.suffix == ".jpg"
    assert media.path.exists()

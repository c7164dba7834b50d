"""How long the files of each camera stay, also while none of them gives a frame."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from edgecv.pipelines.loop import sink_worker
from edgecv.pipelines.loop.sink_worker import SinkWorker
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.sinks.video.segments import SegmentsOptions, SegmentsSink
from edgecv.pipelines.sinks.video.snapshots import SnapshotsOptions, SnapshotsSink
from edgecv.pipelines.source_config import SourceConfig
from tests.unit.pipelines.blob import DEADLINE_S, BlobModel
from tests.unit.pipelines.made_results import made_result
from tests.unit.pipelines.test_sink_segments import Times


def emit(sink: SegmentsSink | SnapshotsSink, times: Times, source_id: str) -> None:
    result = made_result((times.steady_ns - 5 * 3600 * 10**9) / 1e9, source_id=source_id)
    sink.emit(replace(result, frame=replace(result.frame, captured_ns=times.wall_ns)))


def of_source(folder: Path, source: str) -> int:
    return len([path for path in folder.iterdir() if f"_{source}." in path.name])


@pytest.mark.parametrize("kind", ["segments", "snapshots"])
def test_each_camera_has_its_own_retention_and_keep_hours_holds_for_all(tmp_path: Path, kind: str) -> None:
    times = Times()
    sink: SegmentsSink | SnapshotsSink
    if kind == "segments":
        sink = SegmentsSink(tmp_path, options=SegmentsOptions(keep_hours=5.5), clocks=times.clocks())
    else:
        sink = SnapshotsSink(tmp_path, options=SnapshotsOptions(on="all", keep_hours=5.5), clocks=times.clocks())
    sink.retain("door", 2.5 * 3600)
    sink.retain("yard", 100 * 3600)
    for _ in range(8):
        times.go_on(1)
        for source in ("door", "yard", "gate"):
            emit(sink, times, source)
    times.go_on(0.1)
    sink.expire()
    files = 1 if kind == "segments" else 2
    kept = {source: of_source(tmp_path, source) // files for source in ("door", "yard", "gate")}
    assert kept == {"door": 3, "yard": 6, "gate": 6}
    sink.close()


def test_a_camera_that_gives_nothing_any_more_keeps_no_file_open_for_ever(tmp_path: Path) -> None:
    times = Times()
    sink = SegmentsSink(tmp_path, clocks=times.clocks())
    sink.retain("door", 3600)
    emit(sink, times, "door")
    sink.expire()
    assert of_source(tmp_path, "door") == 1, "the file is in use"
    times.go_on(2)
    sink.expire()
    assert of_source(tmp_path, "door") == 0
    sink.close()


def test_a_sink_deletes_what_is_too_old_while_it_gets_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_worker, "_EXPIRE_S", 0.1)
    times = Times()
    sink = SnapshotsSink(tmp_path, options=SnapshotsOptions(on="all"), clocks=times.clocks())
    emit(sink, times, "door")
    worker = SinkWorker("snapshots", sink)
    worker.retain("door", 3600)
    worker.start()
    assert of_source(tmp_path, "door") == 2
    times.go_on(1.5)
    deadline_s = time.monotonic() + DEADLINE_S
    while of_source(tmp_path, "door") and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert of_source(tmp_path, "door") == 0
    worker.close(DEADLINE_S)


def test_a_pipeline_tells_its_sinks_also_of_a_source_that_comes_later(tmp_path: Path) -> None:
    times = Times()
    old = SnapshotsSink(tmp_path, options=SnapshotsOptions(on="all"), clocks=times.clocks())
    for source in ("door", "yard", "gate"):
        emit(old, times, source)
    old.close()
    times.go_on(3)
    sink = SnapshotsSink(tmp_path, options=SnapshotsOptions(on="events"), clocks=times.clocks())
    clip = "synthetic://?frames=3&width=64&height=48"
    pipeline = Pipeline(SourceConfig(clip, "door", retention="2h"), BlobModel(), sinks=[sink])
    pipeline.add_source(SourceConfig(clip, "yard", retention="1h"))
    pipeline.run()
    assert {source: of_source(tmp_path, source) for source in ("door", "yard", "gate")} == {
        "door": 0,
        "yard": 0,
        "gate": 2,
    }

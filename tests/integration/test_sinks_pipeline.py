"""Every sink behind a real pipeline, by its URI."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import av

from edgecv.pipelines.pipeline import Pipeline
from tests.unit.pipelines.blob import BlobModel, assert_no_threads
from tests.unit.pipelines.receiver import Receiver

FRAMES = 30


def test_every_sink_gets_every_result_of_one_run(tmp_path: Path) -> None:
    with Receiver() as receiver:
        sinks = [
            f"jsonl:{tmp_path / 'out.jsonl'}",
            f"csv:{tmp_path / 'out.csv'}",
            f"segments:{tmp_path / 'segments'}?seconds=1",
            f"snapshots:{tmp_path / 'shots'}?on=all&every_s=0&max_per_minute=100&draw=1",
            f"video:{tmp_path / 'out.mkv'}",
            f"webhook:{receiver.url}?events=all",
            "metrics:0",
        ]
        source = f"synthetic://?frames={FRAMES}&width=64&height=48"
        summary = Pipeline(source, BlobModel(), sinks=sinks).run()
    assert [(sink.emitted, sink.failed, sink.dropped) for sink in summary.sinks] == [(FRAMES, 0, 0)] * len(sinks)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert receiver.documents == lines
    with (tmp_path / "out.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == sum(len(line["detections"]) for line in lines) > 0
    assert len(list((tmp_path / "shots").glob("*.jpg"))) == len(list((tmp_path / "shots").glob("*.json"))) == FRAMES
    assert sum(count_frames(path) for path in (tmp_path / "segments").glob("*.mp4")) == FRAMES
    assert count_frames(tmp_path / "out.mkv") == FRAMES
    assert_no_threads()


def count_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))

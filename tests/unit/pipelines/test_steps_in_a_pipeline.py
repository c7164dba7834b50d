"""The steps in the loop: what a model finds is tracked, counted and told, from frame to JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.sources.synthetic import SyntheticSource, square_at
from edgecv.pipelines.steps import Confidence, Line, Track, Zone
from edgecv.results import Frame
from tests.unit.pipelines.blob import BlobModel

FRAMES, WIDTH, HEIGHT = 200, 320, 240


class TimedSource(SyntheticSource):
    """Its frames are 0.1 s apart, however fast they are read."""

    def read(self) -> Frame | None:
        frame = super().read()
        return frame and replace(frame, monotonic_ns=frame.index * 10**8, captured_ns=10**18 + frame.index * 10**8)


def clip() -> TimedSource:
    return TimedSource(f"synthetic://?frames={FRAMES}&width={WIDTH}&height={HEIGHT}&fps=10")


def test_a_wandering_square_is_counted_at_every_turn(tmp_path: Path) -> None:
    model, out = BlobModel(), tmp_path / "out.jsonl"
    door = Line(name="door", points=[[160, 0], [160, 240]], anchor="center", settle_s=0).build(model.labels)
    half = [[160, 0], [320, 0], [320, 240], [160, 240]]
    yard = Zone(name="yard", points=half, anchor="center", settle_s=0).build(model.labels)
    steps = [Confidence(least=0.5).build(model.labels), Track(confirm=1).build(), door, yard]
    results = Pipeline(clip(), model, steps=steps, sinks=[f"jsonl:{out}"])
    events = [event for result in results for event in result.events]
    centres = [(left + side / 2) for left, _, side in (square_at(at, WIDTH, HEIGHT) for at in range(FRAMES))]
    turns = [is_right for is_right, _ in groupby(centre >= 160 for centre in centres)]
    assert len(turns) >= 4
    crossed = [event.data["direction"] for event in events if event.kind == "line.crossed"]
    assert crossed == ["out" if is_right else "in" for is_right in turns[1:]]
    (source_id,) = {event.source_id for event in events}
    assert dict(door.counts(source_id)) == {"door.in": crossed.count("in"), "door.out": crossed.count("out")}
    assert yard.counts(source_id)["yard.entered"] == turns.count(True)
    rows = [json.loads(line)["detections"] for line in out.read_text().splitlines()]
    assert [row["tracker_id"] for (row,) in rows] == [1] * FRAMES

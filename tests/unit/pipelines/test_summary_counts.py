"""Counts in the summary of a pipeline, and in the lines that a person reads."""

from __future__ import annotations

from edgecv.cli.counts_view import counts_at_end, counts_so_far
from edgecv.detections import Detections
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.steps.per_source import PerSource
from edgecv.results import Result
from tests.unit.pipelines.blob import BlobModel


class CountsBlobs:
    """A counter of one source."""

    def __init__(self, _: str) -> None:
        self.total = 0

    def __call__(self, result: Result) -> Result:
        self.total += len(result.detections or Detections.empty())
        return result

    def counts(self) -> dict[str, int]:
        return {"blobs.seen": self.total}


def clip(frames: int) -> str:
    return f"synthetic://?frames={frames}&width=64&height=48"


def test_the_summary_has_the_counts_of_each_source() -> None:
    pipeline = Pipeline({"a": clip(8), "b": clip(5)}, BlobModel(), steps=[PerSource(CountsBlobs)])
    assert pipeline.summary.counts == {"a": {}, "b": {}}
    summary = pipeline.run()
    assert summary.counts == {"a": {"blobs.seen": 8}, "b": {"blobs.seen": 5}}
    assert summary.as_dict()["counts"] == summary.counts


def test_the_counts_of_a_removed_source_stay() -> None:
    with Pipeline({"a": clip(300), "b": clip(20)}, BlobModel(), steps=[PerSource(CountsBlobs)]) as pipeline:
        seen = 0
        for result in pipeline:
            seen += result.frame.source_id == "a"
            if seen == 3 and result.frame.source_id == "a":
                pipeline.remove_source("a")
    counts = pipeline.summary.counts
    assert counts["b"] == {"blobs.seen": 20}
    assert counts["a"] == {"blobs.seen": seen}
    assert seen < 300


def test_the_counts_of_a_removed_source_that_came_back_are_those_since_then() -> None:
    with Pipeline({"a": clip(300), "b": clip(40)}, BlobModel(), steps=[PerSource(CountsBlobs)]) as pipeline:
        for number, _ in enumerate(pipeline):
            if number == 5:
                pipeline.remove_source("a")
            if number == 20:
                pipeline.add_source(clip(7), "a")
    assert pipeline.summary.counts == {"a": {"blobs.seen": 7}, "b": {"blobs.seen": 40}}


def test_the_progress_line_sums_over_sources_and_stays_short() -> None:
    one = {"door.in": 3, "door.out": 2, "door.in.person": 3, "yard.inside": 1}
    assert counts_so_far({"a": one, "b": {"door.in": 1, "door.out": 0}}) == "door in 4, out 2; yard inside 1"
    many = {f"line{at}.in": at for at in range(9)}
    assert counts_so_far({"a": many}) == "line0 in 0; line1 in 1; line2 in 2; line3 in 3; 5 more counters"
    assert counts_so_far({"a": {}}) == ""


def test_the_end_says_every_count_of_every_source() -> None:
    counts = {"a": {"door.in": 3, "door.out": 2, "door.in.person": 3, "yard.inside": 1}, "b": {"seen": 4}, "c": {}}
    assert list(counts_at_end(counts)) == ["a: door in 3, out 2, in.person 3", "a: yard inside 1", "b: seen 4"]

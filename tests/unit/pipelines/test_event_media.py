"""Keys of events, files that show them, and steps that are for some sources alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecv.cli.app_config import AppFile, check_app
from edgecv.errors import ConfigError
from edgecv.events import Event, EventMedia
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.source_config import SourceConfig
from edgecv.pipelines.sources.synthetic import SyntheticSource
from edgecv.pipelines.steps.per_source import PerSource
from edgecv.results import Frame, Result
from tests.unit.pipelines.blob import BlobModel


def clip(frames: int = 3) -> SyntheticSource:
    return SyntheticSource(f"synthetic://?frames={frames}&width=64&height=48&fps=10")


def test_the_key_of_an_event_says_what_happened_when_and_where() -> None:
    event = Event(kind="line.crossed", time_ns=5, source_id="door", data={"total": 1, "box": (1.5, 2)})
    same = Event(kind="line.crossed", time_ns=5, source_id="door", data={"box": [1.5, 2], "total": 1}, priority="alarm")
    others = (
        replace(event, kind="zone.left"),
        replace(event, time_ns=6),
        replace(event, source_id="yard"),
        replace(event, data={"total": 2}),
    )
    assert event.key == same.key
    assert len({event.key, *(other.key for other in others)}) == 5


def test_with_event_adds_an_event_of_the_frame() -> None:
    frame = Frame(image=np.zeros((8, 8, 3), np.uint8), source_id="door", captured_ns=7)
    first = Result(frame=frame).with_event("crowd.began", people=5)
    result = first.with_event("crowd.ended", priority="alarm", kind="odd")
    assert [event.kind for event in result.events] == ["crowd.began", "crowd.ended"]
    assert result.events[0] == Event(kind="crowd.began", time_ns=7, source_id="door", data={"people": 5})
    assert (result.events[1].priority, result.events[1].data) == ("alarm", {"kind": "odd"})
    assert len(first.events) == 1


class Photographer:
    """A sink that makes a file of each event."""

    def __init__(self) -> None:
        self.on_media = None

    def emit(self, result: Result) -> None:
        for event in result.events:
            self.on_media(EventMedia(keys=(event.key,), kind="snapshot", path=Path("a.jpg"), source_id="door"))

    def close(self) -> None: ...


class Reader:
    """A sink that wants to know of files, and can break."""

    def __init__(self, breaks: bool = False) -> None:
        self.breaks, self.keys, self.taken = breaks, [], []

    def take_media(self, media: EventMedia) -> None:
        if self.breaks:
            raise OSError("no space")
        self.taken.append(media.keys)

    def emit(self, result: Result) -> None:
        self.keys += [(event.key,) for event in result.events]

    def close(self) -> None: ...


def test_a_file_that_one_sink_makes_reaches_the_others_even_when_one_breaks() -> None:
    broken, reader = Reader(breaks=True), Reader()
    steps = [lambda result: result.with_event("seen.it")]
    pipeline = Pipeline({"door": clip()}, BlobModel(), sinks=[Photographer(), broken, reader], steps=steps)
    with pytest.raises(Exception, match="no space"):
        pipeline.run()
    assert len(reader.keys) == 3
    assert reader.taken == reader.keys


def test_a_step_for_one_source_gives_back_the_results_of_others() -> None:
    step = PerSource(lambda _: lambda result: result.with_event("seen.it"), only=("door",))
    told: list[str] = []
    pipeline = Pipeline(
        {"door": clip(), "yard": clip()},
        BlobModel(),
        steps=[step],
        sinks=[lambda result: told.extend(event.source_id for event in result.events)],
    )
    pipeline.run()
    assert told == ["door"] * 3


def test_a_step_for_a_source_that_does_not_exist_is_an_error_with_the_nearest_name() -> None:
    line = {"type": "line", "name": "in", "points": [[0, 30], [64, 30]], "sources": ["dor"]}
    file = AppFile(sources=[SourceConfig("synthetic://", name="door")], steps=[{"type": "track"}, line])
    with pytest.raises(ConfigError, match="for the source 'dor'") as caught:
        check_app(file, "app.toml")
    assert "door" in caught.value.hint

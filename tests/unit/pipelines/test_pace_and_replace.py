"""The seam for a governor: the pace of a pipeline, and another model between two frames."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgecv
from edgecv.bundles.manifest import MANIFEST, dump_manifest
from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.model import Model
from edgecv.pipelines.loop.pace import Pace
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.steps import Track
from tests.models import write_bundle

CLIP = "synthetic://?frames=40&width=64&height=64"


@pytest.fixture
def models(tmp_path: Path) -> Iterator[tuple[Model, Model]]:
    path = write_bundle(tmp_path / "tiny.ecv").path
    with Model.load(path, precision="fp32", threads=1) as one, Model.load(path, precision="int8", threads=1) as other:
        yield one, other


def test_a_file_waits_for_the_pace_and_no_frame_is_lost(models: tuple[Model, Model]) -> None:
    with Pipeline("synthetic://?frames=12&width=64&height=64", models[0]) as pipeline:
        pipeline.pace = 40
        began = time.monotonic()
        indices = [result.frame.index for result in pipeline]
        elapsed_s = time.monotonic() - began
    assert indices == list(range(12))
    assert elapsed_s >= 11 / 40 * 0.9


def test_a_live_source_drops_what_comes_faster_and_results_stay_fresh(models: tuple[Model, Model]) -> None:
    with Pipeline("synthetic://?frames=40&width=64&height=64&live=1&fps=100", models[0]) as pipeline:
        pipeline.pace = 20
        results = list(pipeline)
    assert 2 <= len(results) <= 20
    assert pipeline.summary.dropped.get("latest", 0) >= 15


def test_a_pace_that_is_taken_back_slows_nothing(models: tuple[Model, Model]) -> None:
    with Pipeline(CLIP, models[0]) as pipeline:
        pipeline.pace = 0.1
        pipeline.pace = None
        began = time.monotonic()
        assert len(list(pipeline)) == 40
    assert time.monotonic() - began < 10
    assert pipeline.pace is None


def test_a_pipeline_that_waits_for_its_pace_can_be_stopped(models: tuple[Model, Model]) -> None:
    pipeline = Pipeline(CLIP, models[0])
    pipeline.pace = 0.02
    with pipeline:
        began = time.monotonic()
        for _ in pipeline:
            pipeline.stop()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("pace", [0, -1, float("nan"), True, "fast"])
def test_what_is_no_rate_is_refused(models: tuple[Model, Model], pace: object) -> None:
    with Pipeline(CLIP, models[0]) as pipeline:
        with pytest.raises(ConfigError, match="pace"):
            pipeline.pace = pace  # type: ignore[assignment]
        assert pipeline.pace is None


def test_the_pace_is_kept_on_average_and_no_burst_follows_a_pause() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    assert pace.wait_s() == 0.0
    pace.fps = 10
    pace.took()
    now[0] = 0.13  # a little late: the next one may come that much sooner
    assert pace.wait_s() == 0.0
    pace.took()
    assert pace.wait_s() == pytest.approx(0.07)
    now[0] = 5.0
    pace.took()
    assert pace.wait_s() == pytest.approx(0.1), "what was missed is not made up for"
    pace.fps = 2
    assert pace.wait_s() == pytest.approx(0.5), "a new pace holds at once"


def tracks_of(model: Model, replacement: Model | None = None) -> tuple[list[list[int]], list[str]]:
    """Tracker ids and the model of every frame; the model is replaced after frame 15."""
    ids, names = [], []
    with Pipeline(CLIP, model, steps=[Track()]) as pipeline:
        for number, result in enumerate(pipeline):
            assert result.frame.index == number
            found = result.detections.tracker_id if result.detections is not None else None
            ids.append([] if found is None else sorted(map(int, found)))
            names.append(result.model)
            if number == 15 and replacement is not None:
                pipeline.replace_model(replacement)
                assert pipeline.status().model == replacement.name
    return ids, names


def test_another_model_goes_on_between_two_frames_with_every_frame_and_every_track(
    models: tuple[Model, Model],
) -> None:
    before, after = models
    ids, names = tracks_of(before, after)
    assert len(names) == 40
    change = names.index(after.name)
    assert 16 <= change <= 22, "what was prepared for the model before ends with it"
    assert names == [before.name] * change + [after.name] * (40 - change)
    assert ids == tracks_of(before)[0], "both models find the same, so the tracks are those of a run with one model"


def test_a_model_with_another_input_size_can_take_over(tmp_path: Path, models: tuple[Model, Model]) -> None:
    class Half(Model):
        """The same model, which is given each image in a form that only it takes."""

        def prepare(self, image):  # type: ignore[no-untyped-def]
            feeds, transform = super().prepare(image)
            return {"only mine": feeds}, transform

        def infer(self, feeds):  # type: ignore[no-untyped-def]
            return super().infer(feeds["only mine"])

    first = models[0]
    half = Half("half", first.spec, first.session)
    with Pipeline(CLIP, first) as pipeline:
        indices = []
        for result in pipeline:
            indices.append(result.frame.index)
            if result.frame.index == 5:
                pipeline.replace_model(half)
    assert indices == list(range(40))
    assert result.model == "half"


def test_a_model_with_other_classes_is_refused(tmp_path: Path, models: tuple[Model, Model]) -> None:
    other = write_bundle(tmp_path / "other.ecv")
    text = dump_manifest(other.manifest).replace(b'"bright"', b'"dark"')
    (other.path / MANIFEST).write_bytes(text)
    with Model.load(other.path, threads=1) as stranger, Pipeline(CLIP, models[0]) as pipeline:
        with pytest.raises(ConfigError, match="other classes"):
            pipeline.replace_model(stranger)
        with pytest.raises(ConfigError, match="must be a loaded one"):
            pipeline.replace_model("yolo.ecv")  # type: ignore[arg-type]
        assert len(list(pipeline)) == 40


def test_an_event_that_belongs_to_no_frame_reaches_sinks_and_app(models: tuple[Model, Model]) -> None:
    told: list[Event] = []
    with edgecv.Pipeline(CLIP, models[0], on_event=told.append) as pipeline:
        pipeline.tell(Event(kind="governor", time_ns=1))
        list(pipeline)
    assert [event.kind for event in told] == ["governor"]

"""``?speed=1&loop=1``: files that play as a camera would show them, with times of their own."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.errors import ConfigError, SourceError
from edgecv.events import Event
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.recording.replay import open_replay
from edgecv.pipelines.source_config import SourceConfig
from edgecv.pipelines.sources import open_source
from edgecv.pipelines.sources.played import PlayedSource, PlayOptions
from edgecv.results import Frame, Result
from tests.unit.pipelines.blob import BlobModel
from tests.unit.test_media import write_mp4

FRAMES, FPS = 6, 10  # what write_mp4 makes here


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_mp4(path, frames=FRAMES)
    return path


@pytest.fixture(scope="module")
def recording(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "clip.rec"
    Pipeline(clip, BlobModel(), sinks=[f"record:{path}"]).run()
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((48, 64, 3), 60 * number, np.uint8))
    return folder


def read(uri: str, count: int) -> list[Frame]:
    source = open_source(uri)
    frames = [source.read() for _ in range(count)]
    source.close()
    return [frame for frame in frames if frame is not None]


def test_without_speed_and_loop_nothing_is_played(clip: Path, images: Path, recording: Path) -> None:
    for path in (clip, images, recording):
        source = open_source(path)
        assert not isinstance(source, PlayedSource)
        assert not source.live
        first = source.read()
        assert first is not None and first.scene_time_ns is None
        source.close()


def test_a_clip_plays_at_its_own_pace_with_times_of_its_own(clip: Path) -> None:
    before_ns, begun_s = time.time_ns(), time.monotonic()
    frames = read(f"{clip}?speed=4", FRAMES + 1)
    lasted_s = time.monotonic() - begun_s
    assert len(frames) == FRAMES
    assert lasted_s >= (FRAMES - 1) / FPS / 4
    assert all(before_ns <= frame.captured_ns <= time.time_ns() for frame in frames)
    gaps_s = [(b.monotonic_ns - a.monotonic_ns) / 1e9 for a, b in pairwise(frames)]
    assert sum(gaps_s) >= (FRAMES - 1) / FPS / 4 * 0.95
    assert [frame.position_s for frame in frames] == pytest.approx([n / FPS for n in range(FRAMES)], abs=1e-3)
    assert [frame.scene_ns / 1e9 for frame in frames] == pytest.approx([n / FPS for n in range(FRAMES)], abs=1e-3)


@pytest.mark.parametrize("kind", ["clip", "images", "recording"])
def test_over_the_seam_of_a_loop_the_scene_goes_forward_and_the_place_goes_back(
    kind: str, clip: Path, images: Path, recording: Path
) -> None:
    path, length = {"clip": (clip, FRAMES), "images": (images, 3), "recording": (recording, FRAMES)}[kind]
    frames = read(f"{path}?loop=1", 2 * length + 2)
    assert [frame.index for frame in frames] == list(range(2 * length + 2))
    places = [frame.position_ns for frame in frames]
    assert places[:length] == places[length : 2 * length]
    steps_ns = {b.scene_ns - a.scene_ns for a, b in pairwise(frames)}
    assert min(steps_ns) > 0
    assert max(steps_ns) <= 1.1 * min(steps_ns), "the seam is as long as any other step"
    times = [frame.captured_ns for frame in frames]
    assert times == sorted(set(times)), "no two frames have one time: events would share a key"


def test_a_loop_ends_by_max_frames_and_says_each_time_that_it_begins_anew(clip: Path) -> None:
    heard: list[Event] = []
    config = SourceConfig(f"{clip}?loop=1", name="door")
    pipeline = Pipeline(config, BlobModel(), max_frames=2 * FRAMES + 1, on_event=heard.append)
    assert len(list(pipeline)) == 2 * FRAMES + 1
    looped = [event for event in heard if event.kind == "source.looped"]
    assert [(event.source_id, event.data["passes"]) for event in looped[:2]] == [("door", 1), ("door", 2)]


def test_the_age_of_what_is_played_is_right_and_a_slow_model_drops_frames(clip: Path) -> None:
    ages: list[float] = []

    def keep(result: Result) -> None:
        ages.append(result.age_ms)

    pipeline = Pipeline(f"{clip}?speed=4&loop=1", BlobModel(busy_s=0.1), on_result=keep, max_frames=6)
    assert pipeline.run().dropped["latest"] >= 5
    (source,) = pipeline.status().sources
    assert source.health.state == "ended"
    assert max(ages) < 1000
    assert min(ages) >= 100


def test_a_recording_that_is_played_has_ages_of_now(recording: Path) -> None:
    ages = [result.age_ms for result in Pipeline(f"{recording}?speed=5", BlobModel())]
    assert ages and max(ages) < 1000
    replayed = list(open_replay(recording, speed=5))
    assert max(result.age_ms for result in replayed) < 1000
    original = list(open_replay(recording))
    assert [r.frame.captured_ns for r in replayed] == [r.frame.captured_ns for r in original]
    assert [r.frame.scene_ns for r in replayed] == [r.frame.scene_ns for r in original]


def test_what_is_played_and_recorded_keeps_its_scene(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "looped.rec"
    shown = [r.frame.scene_ns for r in Pipeline(f"{clip}?loop=1", BlobModel(), sinks=[f"record:{path}"], max_frames=9)]
    assert [r.frame.scene_ns for r in open_replay(path)] == shown
    assert len(set(shown)) == 9


class Paused:
    """A file whose third frame takes a second to come."""

    source_id, live, fps = "paused", False, 10.0

    def __init__(self) -> None:
        self._given = 0

    def read(self) -> Frame | None:
        self._given += 1
        if self._given > 20:
            return None
        if self._given == 3:
            time.sleep(1.0)
        position_ns = (self._given - 1) * 50_000_000
        return Frame(image=np.zeros((8, 8, 3), np.uint8), index=self._given - 1, position_ns=position_ns)

    def close(self) -> None: ...


def test_after_a_pause_nothing_is_shown_in_fast_motion() -> None:
    source = PlayedSource(Paused, PlayOptions(speed=1))
    frames = [source.read() for _ in range(12)]
    late = [frame.monotonic_ns for frame in frames[2:] if frame is not None]
    assert (late[-1] - late[0]) / 1e9 >= 0.4


def test_an_empty_file_is_not_begun_anew() -> None:
    class Empty(Paused):
        made = 0

        def __init__(self) -> None:
            Empty.made += 1

        def read(self) -> Frame | None:
            return None

    source = PlayedSource(Empty, PlayOptions(loop=True))
    assert source.read() is None
    assert Empty.made == 1
    assert source.health().state == "ended"


def test_a_file_that_breaks_off_ends_with_its_error_and_is_not_begun_anew(clip: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.mkv"
    whole = tmp_path / "whole.mkv"
    write_mp4(whole, frames=60)
    torn.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    source = open_source(f"{torn}?loop=1")
    with pytest.raises(SourceError):
        for _ in range(200):
            source.read()
    assert isinstance(source, PlayedSource)
    assert source.health().state == "failed"
    assert source.read() is None


def test_closing_does_not_wait_for_the_next_picture(images: Path) -> None:
    begun = time.monotonic()
    with Pipeline(f"{images}?speed=1&loop=1&fps=0.01", BlobModel()) as pipeline:
        for _ in pipeline:
            break
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("query", ["speed=-1", "speed=fast", "loop=2", "speeed=1"])
def test_a_wrong_option_is_refused(clip: Path, query: str) -> None:
    with pytest.raises(ConfigError):
        open_source(f"{clip}?{query}")

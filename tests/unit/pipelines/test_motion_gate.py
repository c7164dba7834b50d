"""The gate: shut while nothing moves, open while something does, and now and then for a look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.errors import ConfigError
from edgecv.media.video_reader import VideoReader
from edgecv.pipelines.steps import Motion
from edgecv.results import Image
from tests.conftest import SHARED
from tests.unit.pipelines.recorded import at_s

SHAPE = (288, 384, 3)
Scene = Callable[[int], Image]


def scenery(seed: int = 0) -> np.ndarray:
    """Blocks of all brightnesses, as float."""
    blocks = np.random.default_rng(seed).uniform(20, 220, (SHAPE[0] // 24, SHAPE[1] // 24, 3))
    return blocks.repeat(24, axis=0).repeat(24, axis=1).astype(np.float32)


@cache
def _noise(at: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(at).normal(0, 6, shape).astype(np.float32)


def noisy(image: np.ndarray, at: int) -> Image:
    """As a sensor sees it: every pixel is off by 6 grey levels or so, each time by others."""
    return (image + _noise(at % 7, image.shape)).clip(0, 255).astype(np.uint8)


def with_square(image: np.ndarray, x: int, side: int = 24) -> np.ndarray:
    changed = image.copy()
    changed[120 : 120 + side, x : x + side] = 255 - changed[120 : 120 + side, x : x + side]
    return changed


def opened(scene: Scene, frames: int, frame_s: float = 0.1, **options: Any) -> list[bool]:
    """Whether the gate was open, frame by frame."""
    gate = Motion(**{"hold_s": 0.0, "refresh_s": 0.0, **options}).build()
    return [gate(replace(at_s(at * frame_s, at), image=scene(at))) for at in range(frames)]


def test_a_still_scene_with_noise_is_skipped_after_its_first_frame() -> None:
    still = scenery()
    assert opened(lambda at: noisy(still, at), 50) == [True] + [False] * 49


def test_motion_opens_it_for_as_long_as_it_lasts_and_hold_longer() -> None:
    still = scenery()

    def scene(at: int) -> Image:
        return noisy(with_square(still, 10 * at) if 20 <= at < 30 else still, at)

    # What the square leaves behind in the background is as good as gone at once: it follows in 10 s.
    assert opened(scene, 60)[1:] == [20 <= at < 30 for at in range(1, 60)]
    assert opened(scene, 60, hold_s=1.0)[11:] == [20 <= at < 40 for at in range(11, 60)]


def test_hold_is_measured_in_seconds() -> None:
    still = scenery()
    scene = {True: with_square(still, 100), False: still}
    seen = opened(lambda at: noisy(scene[at == 5], at), 20, frame_s=0.5, hold_s=2.0)
    assert seen[5:11] == [True] * 5 + [False]


def test_a_still_scene_is_looked_at_every_so_often() -> None:
    still = scenery()
    seen = opened(lambda at: noisy(still, at), 51, refresh_s=2.0)
    assert [at for at, is_open in enumerate(seen) if is_open] == [0, 20, 40]


@pytest.mark.parametrize("swing", [0.05, 0.12])
def test_flickering_light_is_no_motion(swing: float) -> None:
    still = scenery()
    seen = opened(lambda at: noisy(still * (1 + swing * np.sin(1.3 * at)), at), 50)
    assert sum(seen[1:]) == 0


def test_motion_is_seen_under_flickering_light() -> None:
    still = scenery()
    seen = opened(lambda at: noisy(with_square(still, 8 * at) * (1 + 0.08 * np.sin(1.3 * at)), at), 30)
    assert sum(seen[2:]) >= 27


def test_what_stays_becomes_background() -> None:
    still, parked = scenery(), with_square(scenery(), 100, side=48)
    seen = opened(lambda at: noisy(parked if at >= 10 else still, at), 400, adapt_s=5.0)
    assert seen[10] and not any(seen[200:])


def test_another_light_opens_it_once() -> None:
    day, night = scenery(0), scenery(7)
    seen = opened(lambda at: noisy(night if at >= 10 else day, at), 30)
    assert [at for at, is_open in enumerate(seen) if is_open] == [0, 10]


def test_small_changes_are_a_matter_of_the_share() -> None:
    still = scenery()

    def scene(at: int) -> Image:
        return noisy(with_square(still, 8 * at, side=16), at)

    assert sum(opened(scene, 20, share=0.0005)) == 20
    assert sum(opened(scene, 20, share=0.05)) == 1


def test_a_change_of_resolution_opens_it() -> None:
    gate = Motion(hold_s=0, refresh_s=0).build()
    small, large = noisy(scenery(), 0), noisy(scenery().repeat(2, axis=0), 0)
    assert [gate(replace(at_s(at / 10), image=image)) for at, image in enumerate([small, small, large, large])] == [
        True,
        False,
        True,
        False,
    ]


def test_sources_have_their_own_background() -> None:
    gate = Motion(hold_s=0, refresh_s=0).build()
    first, second = noisy(scenery(0), 0), noisy(scenery(1), 0)
    seen = [
        gate(replace(at_s(at / 10, source_id=source), image=image))
        for at in range(3)
        for source, image in (("a", first), ("b", second))
    ]
    assert seen == [True, True, False, False, False, False]


def test_it_leaves_the_frame_as_it_is() -> None:
    image = noisy(scenery(), 0)
    before = image.copy()
    image.setflags(write=False)
    opened(lambda _: image, 3)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("wrong", [{"share": 2}, {"difference": 0}, {"adapt_s": 0}, {"hold_s": -1}])
def test_wrong_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Motion(**wrong).build()


def test_a_street_with_people_is_never_skipped_and_its_first_frame_held_still_is() -> None:
    video: Path = SHARED / "data/vtest.avi"
    if not video.exists():
        pytest.skip("../shared/data/vtest.avi is not on this machine")
    reader = VideoReader(video)
    frames = [image for image in (reader.read() for _ in range(100)) if image is not None]
    assert sum(opened(lambda at: frames[at], 100)) >= 99
    first = frames[0].astype(np.float32)
    assert sum(opened(lambda at: noisy(first, at), 20)) == 1

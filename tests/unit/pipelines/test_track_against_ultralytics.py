"""The same detections, the same identities: our tracker and the ByteTrack that Ultralytics maintains.

Their ids count from the first sight, ours from the confirmation, so that ids are compared as a bijection, over all frames.
Two differences are known. They confirm at once what they see in their very first frame: no detections are in it here. And
they take a track whose time is over off their list of lost ones a frame late; if it is matched in that frame, it vanishes as
soon as it is lost again. Where the buffer is short that happens; ``_finish`` does what that bookkeeping means to do.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgecv.pipelines.steps.track.tracker import ByteTracker, Track
from edgecv.results import Detections
from tests.unit.pipelines.recorded import SIZE_WH, Crowd, boxes, street

pytest.importorskip("ultralytics")
pytest.importorskip("lap")

Rows = list[np.ndarray]
FRAME_NS = 50_000_000  # they count frames; in ours this is one
SETTINGS = {
    "theirs": Track(high=0.25, low=0.1, start=0.25, match=0.8, lost_s=1.5),
    "authors": Track(high=0.5, low=0.1, start=0.6, match=0.8, lost_s=1.5),
    "short": Track(high=0.5, low=0.1, start=0.6, match=0.7, lost_s=0.2),
}


def ours(scene: list[Detections], options: Track) -> Rows:
    tracker = ByteTracker(options)
    return [tracker.follow(found, (at + 1) * FRAME_NS) for at, found in enumerate(scene)]


def theirs(scene: list[Detections], options: Track) -> Rows:
    from ultralytics.engine.results import Boxes
    from ultralytics.trackers.byte_tracker import BYTETracker

    tracker = BYTETracker(
        SimpleNamespace(
            track_high_thresh=options.high,
            track_low_thresh=options.low,
            new_track_thresh=options.start,
            match_thresh=options.match,
            track_buffer=round(options.lost_s * 1e9 / FRAME_NS),
            fuse_score=True,
        )
    )
    return [_ids(tracker, Boxes, found) for found in scene]


def _ids(tracker: Any, kind: Any, found: Detections) -> np.ndarray:
    table = np.column_stack([found.xyxy, found.confidence, found.class_id]).astype(np.float32)
    ids = np.full(len(found), -1)
    for row in tracker.update(kind(table.reshape(-1, 6), SIZE_WH[::-1])):
        ids[int(row[7])] = int(row[4])
    _finish(tracker)
    return ids


def _finish(tracker: Any) -> None:
    gone = {id(track) for track in tracker.removed_stracks}
    tracker.lost_stracks = [track for track in tracker.lost_stracks if id(track) not in gone]
    tracker.removed_stracks = []


def assert_same_identities(first: Rows, second: Rows) -> int:
    """Every detection is tracked by both or by neither, and each id of one stands for one id of the other; how many."""
    pairs = set()
    for at, (a, b) in enumerate(zip(first, second, strict=True)):
        assert ((a >= 0) == (b >= 0)).all(), f"frame {at}: {a} {b}"
        pairs |= {(int(x), int(y)) for x, y in zip(a, b, strict=True) if x >= 0}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}), sorted(pairs)
    return len(pairs)


@pytest.mark.parametrize("name", SETTINGS)
def test_on_what_a_detector_saw_in_a_street(name: str) -> None:
    scene = [boxes(), *street()]
    found = ours(scene, SETTINGS[name])
    assert assert_same_identities(found, theirs(scene, SETTINGS[name])) >= 15
    assert sum(int((row >= 0).sum()) for row in found) > 2500


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", SETTINGS)
def test_in_crowds_that_cross_hide_and_vanish(name: str, seed: int) -> None:
    scene = [boxes(), *Crowd(seed=seed).detections()]
    assert assert_same_identities(ours(scene, SETTINGS[name]), theirs(scene, SETTINGS[name])) >= 10


def test_the_comparison_sees_a_swap() -> None:
    scene = [boxes(), *Crowd(seed=1).detections()]
    found = ours(scene, SETTINGS["authors"])
    found[60] = np.where(found[60] == 1, 2, np.where(found[60] == 2, 1, found[60]))
    with pytest.raises(AssertionError):
        assert_same_identities(found, theirs(scene, SETTINGS["authors"]))

"""Calibration from videos and recordings: frames spread over time, split by stretches of it."""

from __future__ import annotations

import gc
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.errors import CalibrationError
from edgecv.media.images import read_image
from edgecv.media.video_writer import VideoWriter
from edgecv.quantize.calibration.calibration_set import open_calibration
from edgecv.quantize.calibration.video import array_frames, spread, video_frames
from tests.unit.quantize.test_calibration_checks import scene

SIZE = 96


def clip(path: Path, frames: int, per_scene: int = 1) -> Path:
    """A video whose scene changes every ``per_scene`` frames; frame n is brighter by n in its corner."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (SIZE, SIZE))
    for number in range(frames):
        writer.write(scene(number // per_scene, number % per_scene, SIZE))
    writer.release()
    return path


def numbers(paths: tuple[Path, ...]) -> set[int]:
    return {int(path.stem.rpartition("-")[2]) for path in paths}


@pytest.mark.parametrize(("total", "count"), [(1, 1), (10, 3), (7, 200), (795, 200), (0, 5), (100_000, 200)])
def test_indices_are_spread_evenly(total: int, count: int) -> None:
    found = spread(total, count)
    assert len(found) == len(set(found)) == min(total, count)
    assert found == sorted(found)
    assert all(0 <= index < total for index in found)
    steps = np.diff([-(found[0] if found else 0), *found])[1:]
    assert len(steps) < 2 or steps.max() - steps.min() <= 1


def test_frames_are_the_videos_own_and_lossless(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.avi", 90)
    found = video_frames(path, 30)
    assert len(found.paths) == 30
    capture = cv2.VideoCapture(str(path))
    everything = [capture.read()[1] for _ in range(90)]
    for frame, index in zip(found.paths, spread(90, 30), strict=True):
        assert frame.name == f"clip-{index:08d}.png"
        assert np.array_equal(read_image(frame), everything[index])


def fragmented(path: Path, frames: int) -> Path:
    """H.264 with distant key frames and no index, as our recordings are."""
    writer = VideoWriter(path, 25)
    for number in range(frames):
        writer.write(scene(number), number / 25)
    writer.close()
    return path


@pytest.mark.parametrize(("make", "name"), [(clip, "clip.avi"), (fragmented, "clip.mp4")])
def test_long_gaps_are_jumped_to_the_right_frame(tmp_path: Path, make, name: str) -> None:
    path = make(tmp_path / name, 1400)
    found = video_frames(path, 2)
    capture = cv2.VideoCapture(str(path))
    everything = [capture.read()[1] for _ in range(1400)]
    assert [np.array_equal(read_image(p), everything[i]) for p, i in zip(found.paths, (350, 1050), strict=True)] == [
        True,
        True,
    ]


def test_a_recording_of_our_own_serves(tmp_path: Path) -> None:
    pytest.importorskip("av")
    writer = VideoWriter(tmp_path / "out.mp4", 10)
    for number in range(60):
        writer.write(scene(number), number / 10)
    writer.close()
    found = open_calibration(tmp_path / "out.mp4", frames=40)
    assert len(found) + found.facts["unused"] == 40


@pytest.mark.parametrize("seed", [0, 3])
def test_held_out_frames_are_no_neighbours_of_calibration_frames(tmp_path: Path, seed: int) -> None:
    found = open_calibration(clip(tmp_path / "clip.avi", 200), seed=seed)
    held_out, calibrate = numbers(found.held_out), numbers(found.calibrate)
    assert len(held_out) == 48
    assert not {number + step for number in held_out for step in (-1, 0, 1)} & calibrate
    starts = [number for number in held_out if number - 1 not in held_out]
    assert len(starts) == 4


def test_the_same_video_gives_the_same_set(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.avi", 60)
    first, second, other = open_calibration(path), open_calibration(path), open_calibration(path, seed=5)
    assert first.sha256 == second.sha256
    assert [p.name for p in first.held_out] == [p.name for p in second.held_out]
    assert {p.name for p in first.held_out} != {p.name for p in other.held_out}


def test_a_camera_that_stands_still_is_told(tmp_path: Path) -> None:
    order = [number % 20 for number in range(200)]
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (SIZE, SIZE))
    for number, seed in enumerate(order):
        writer.write(scene(seed, number // 20))
    writer.release()
    found = open_calibration(tmp_path / "clip.avi")
    assert any("stands still" in text for text in found.warnings)
    assert any("look almost like another" in text for text in found.warnings)


def test_a_scene_on_both_sides_of_a_border_is_left_out_of_calibration(tmp_path: Path) -> None:
    found = open_calibration(clip(tmp_path / "clip.avi", 200, per_scene=4))
    assert not {n // 4 for n in numbers(found.held_out)} & {n // 4 for n in numbers(found.calibrate)}
    assert not any("stands still" in text for text in found.warnings)


def test_a_folder_of_frames_from_one_camera_is_split_by_time(tmp_path: Path) -> None:
    ends = [scene(seed).astype(float) for seed in range(5)]
    for number in range(200):
        at, part = divmod(number, 50)
        image = ends[at] + (ends[at + 1] - ends[at]) * part / 50
        cv2.imwrite(str(tmp_path / f"f-{number:04d}.png"), image.astype(np.uint8))
    found = open_calibration(tmp_path)
    assert len(found.held_out) == 48
    assert any("one camera" in text for text in found.warnings)
    assert not {n + s for n in numbers(found.held_out) for s in (-1, 1)} & numbers(found.calibrate)


def test_frames_live_as_long_as_the_set(tmp_path: Path) -> None:
    found = open_calibration(clip(tmp_path / "clip.avi", 40))
    folder = found.held_out[0].parent
    assert folder.is_dir()
    del found
    gc.collect()
    assert not folder.exists()


def test_recorded_arrays_calibrate_beside_images(tmp_path: Path) -> None:
    for number in range(60):
        if number % 2:
            np.save(tmp_path / f"{number:03d}.npy", scene(number))
        else:
            cv2.imwrite(str(tmp_path / f"{number:03d}.png"), scene(number))
    found = open_calibration(tmp_path)
    assert len(found) + found.facts["unused"] == 60
    wanted = {scene(number).tobytes() for number in range(60)}
    assert {read_image(path).tobytes() for path in (*found.calibrate, *found.held_out)} <= wanted


@pytest.mark.parametrize(
    ("array", "named"),
    [
        (np.zeros((4, 4), np.uint8), r"\(4, 4\) uint8"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((0, 4, 3), np.uint8), "without pixels"),
        (np.array([{"a": 1}], object), "cannot be read"),
    ],
)
def test_arrays_that_are_no_frames_are_refused(tmp_path: Path, array: np.ndarray, named: str) -> None:
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(CalibrationError, match=named):
        array_frames([tmp_path / "x.npy"])


def cut_off(path: Path) -> None:
    data = clip(path, 100).read_bytes()
    path.write_bytes(data[: len(data) // 2])


def no_video(path: Path) -> None:
    path.write_bytes(b"no video at all")


def still(path: Path) -> None:
    clip(path, 100, per_scene=100)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (cut_off, "broke off|cannot be read"),
        (no_video, "is a text, no video"),
        (still, "that differ visibly|different images"),
        (lambda path: path.touch(), "is empty"),
        (lambda _path: None, "does not exist"),
    ],
)
def test_videos_that_prove_nothing_are_refused(tmp_path: Path, make, named: str) -> None:
    make(tmp_path / "clip.avi")
    with pytest.raises(CalibrationError, match=named) as caught:
        open_calibration(tmp_path / "clip.avi")
    assert caught.value.hint


def test_nothing_is_left_behind_when_a_recording_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    np.save(tmp_path / "a.npy", scene(1))
    (tmp_path / "b.npy").write_bytes(b"damaged")
    with pytest.raises(CalibrationError, match=r"b\.npy"):
        array_frames([tmp_path / "a.npy", tmp_path / "b.npy"])
    assert list((tmp_path / "t").iterdir()) == []

"""Which images calibrate, which judge, and which prove nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.errors import CalibrationError
from edgecv.media.images import read_image
from edgecv.quantize.calibration.calibration_set import HELD_OUT_FRACTION, MINIMUM_IMAGES, open_calibration


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)


def write(folder: Path, count: int, suffix: str = ".png", first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        assert cv2.imwrite(str(folder / f"{seed:03d}{suffix}"), image(seed))
    return folder


def test_a_quarter_is_held_out_and_never_calibrates(tmp_path: Path) -> None:
    found = open_calibration(write(tmp_path / "i", 40))
    assert len(found) == 40
    assert len(found.held_out) == round(40 * HELD_OUT_FRACTION)
    assert not set(found.calibrate) & set(found.held_out)


def test_the_split_depends_on_pixels_alone(tmp_path: Path) -> None:
    first = open_calibration(write(tmp_path / "a", 40))
    (tmp_path / "b/sub").mkdir(parents=True)
    for number, path in enumerate(sorted((tmp_path / "a").iterdir(), reverse=True)):
        folder = tmp_path / "b" / ("sub" if number % 2 else "")
        cv2.imwrite(str(folder / f"renamed-{number}.bmp"), read_image(path))
    second = open_calibration(tmp_path / "b")
    assert first.sha256 == second.sha256
    for ours, theirs in ((first.calibrate, second.calibrate), (first.held_out, second.held_out)):
        assert [read_image(p).tobytes() for p in ours] == [read_image(p).tobytes() for p in theirs]


def test_the_same_folder_gives_the_same_split(tmp_path: Path) -> None:
    folder = write(tmp_path / "i", 24)
    assert open_calibration(folder) == open_calibration(folder)


def test_another_image_changes_the_hash(tmp_path: Path) -> None:
    before = open_calibration(write(tmp_path / "i", 20)).sha256
    assert open_calibration(write(tmp_path / "i", 1, first=99)).sha256 != before


def test_copies_count_once_even_under_another_format(tmp_path: Path) -> None:
    write(tmp_path / "i", 20)
    write(tmp_path / "i/again", 20, ".bmp")
    assert len(open_calibration(tmp_path / "i")) == 20


def few(folder: Path) -> Path:
    return write(folder, MINIMUM_IMAGES - 1)


def copies(folder: Path) -> Path:
    folder.mkdir()
    for number in range(100):
        cv2.imwrite(str(folder / f"{number}.png"), image(0))
    return folder


def unreadable(folder: Path) -> Path:
    (write(folder, 20) / "bad.jpg").write_bytes(b"no image")
    return folder


def truncated(folder: Path) -> Path:
    path = write(folder, 20) / "000.png"
    path.write_bytes(path.read_bytes()[:20])
    return folder


def empty_file(folder: Path) -> Path:
    (write(folder, 20) / "empty.jpg").touch()
    return folder


def empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def other_files(folder: Path) -> Path:
    folder.mkdir()
    (folder / "notes.txt").write_text("x")
    return folder


def one_image(folder: Path) -> Path:
    return write(folder, 1) / "000.png"


def yaml_file(text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        folder.mkdir()
        (folder / "data.yaml").write_text(text)
        return folder / "data.yaml"

    return make


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (few, "15 different images; at least 16"),
        (copies, r"1 different images \(100 files, the rest are copies\)"),
        (empty, "holds no images"),
        (other_files, "holds no images"),
        (lambda folder: folder / "missing", "not a folder"),
        (one_image, "1 different images"),
        (yaml_file(""), "neither 'train' nor 'val'"),
        (yaml_file("- a\n- b\n"), "not a mapping"),
        (yaml_file("{a: ["), "cannot be read"),
        (yaml_file("nc: 3\n"), "neither 'train' nor 'val'"),
        (yaml_file("train: nowhere\n"), "nowhere"),
        (lambda folder: folder / "missing.yaml", "cannot be read"),
    ],
)
def test_images_that_prove_nothing_are_refused_and_say_why(tmp_path: Path, make, named: str) -> None:
    with pytest.raises(CalibrationError, match=named) as caught:
        open_calibration(make(tmp_path / "i"))
    assert caught.value.hint
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("make", "name", "left"),
    [(unreadable, "bad.jpg", 20), (truncated, "000.png", 19), (empty_file, "empty.jpg", 20)],
)
def test_images_that_cannot_be_read_are_left_out_and_named(tmp_path: Path, make, name: str, left: int) -> None:
    found = open_calibration(make(tmp_path / "i"))
    assert len(found) == left
    assert f"1 of {20 + (left == 20)} images cannot be read" in found.warnings[0]
    assert name in found.warnings[0]


def test_a_folder_of_unreadable_images_says_which(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.jpg").write_bytes(b"no image")
    with pytest.raises(CalibrationError, match=r"None of the 20 images .*0\.jpg"):
        open_calibration(tmp_path)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("train: images/train\nval: images/val\n", 20),
        ("val: images/val\n", 18),
        ("train: [images/train, images/val]\n", 38),
        ("path: images\ntrain: train\nnames: {0: a}\n", 20),
        ("path: {absolute}/images\ntrain: train\n", 20),
        ("train: {absolute}/images/train\n", 20),
    ],
)
def test_a_data_yaml_names_the_folders(tmp_path: Path, text: str, wanted: int) -> None:
    write(tmp_path / "images/train", 20)
    write(tmp_path / "images/val", 18, first=50)
    path = tmp_path / "data.yaml"
    path.write_text(text.replace("{absolute}", str(tmp_path)))
    assert len(open_calibration(path)) == wanted


def test_progress_ends_at_the_number_of_files(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    open_calibration(write(tmp_path / "i", 16), lambda _step, done, total: told.append((done, total)))
    assert told[0] == (0, 16)
    assert told[-1] == (16, 16)

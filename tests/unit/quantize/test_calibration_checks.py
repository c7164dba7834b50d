"""Near-duplicates, images far from photographs, and the overlap with what judges."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.errors import CalibrationError
from edgecv.quantize.calibration.calibration_set import check_overlap, open_calibration
from edgecv.quantize.calibration.checks import NEAR_BITS, distinct_count, fingerprint, near_groups


def scene(seed: int, shift: int = 0, size: int = 96) -> np.ndarray:
    """Large soft blobs: photographs vary in the large as noise does not."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), np.uint8)
    image = cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(image.astype(int) + shift, 0, 255).astype(np.uint8)


def write(folder: Path, images: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        assert cv2.imwrite(str(folder / name), image)
    return folder


def scenes(count: int, shifts: tuple[int, ...] = (0,)) -> dict[str, np.ndarray]:
    return {f"{seed}-{shift}.png": scene(seed, shift) for seed in range(count) for shift in shifts}


def side_of(paths: tuple[Path, ...]) -> set[str]:
    return {path.name.split("-")[0] for path in paths}


def test_near_duplicates_stand_on_one_side(tmp_path: Path) -> None:
    found = open_calibration(write(tmp_path / "i", scenes(30, (0, 2, 4))))
    assert not side_of(found.calibrate) & side_of(found.held_out)
    assert len(found) == 90
    assert 0.2 < len(found.held_out) / len(found) <= 0.25


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_seed_chooses_the_split_and_keeps_the_hash(tmp_path: Path, seed: int) -> None:
    folder = write(tmp_path / "i", scenes(40))
    first, again, plain = (open_calibration(folder, seed=each) for each in (seed, seed, 0))
    assert first == again
    assert first.sha256 == plain.sha256
    assert (first.held_out == plain.held_out) == (seed == 0)
    assert not set(first.calibrate) & set(first.held_out)


def test_many_near_duplicates_are_told_with_figures(tmp_path: Path) -> None:
    found = open_calibration(write(tmp_path / "i", scenes(20, (0, 2, 4))))
    assert found.facts["distinct"] == 20
    assert found.facts["near_duplicates"] == pytest.approx(40 / 60, abs=1e-4)
    assert any("67%" in text and "60 images" in text and "20 differ" in text for text in found.warnings)


def test_few_scenes_are_refused_however_many_files_show_them(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="45 images, but only 15") as caught:
        open_calibration(write(tmp_path / "i", scenes(15, (0, 2, 4))))
    assert caught.value.hint


def test_different_scenes_are_not_called_alike(tmp_path: Path) -> None:
    folder = write(tmp_path / "i", scenes(60))
    prints = [fingerprint(path) for path in sorted(folder.iterdir())]
    assert len(set(near_groups(prints).tolist())) == distinct_count(prints) == 60


def test_a_chain_of_small_steps_is_one_group(tmp_path: Path) -> None:
    """Every step is near, the ends are not: the split may not pass through the middle."""
    ends = scene(1).astype(float), scene(2).astype(float)
    steps = {f"{at:02d}.png": (ends[0] + (ends[1] - ends[0]) * at / 60).astype(np.uint8) for at in range(61)}
    prints = [fingerprint(path) for path in sorted(write(tmp_path / "i", steps).iterdir())]
    assert (prints[0].dhash ^ prints[-1].dhash).bit_count() > NEAR_BITS
    assert len(set(near_groups(prints).tolist())) == 1
    assert distinct_count(prints) > 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda image: (image * 0.15).astype(np.uint8), "are dark"),
        (lambda image: (255 - image * 0.15).astype(np.uint8), "are bright"),
        (lambda image: (image * 0.1 + 100).astype(np.uint8), "are flat"),
        (lambda image: cv2.resize(image, (160, 120)), "are small: 160 x 120"),
    ],
)
def test_images_far_from_photographs_are_told(tmp_path: Path, change, said: str) -> None:
    images = {name: change(cv2.resize(image, (640, 480))) for name, image in scenes(16).items()}
    found = open_calibration(write(tmp_path / "i", images))
    assert any(said in text for text in found.warnings)


def test_photographs_raise_no_warning(tmp_path: Path) -> None:
    images = {name: cv2.resize(image, (640, 480)) for name, image in scenes(16).items()}
    assert open_calibration(write(tmp_path / "i", images)).warnings == ()


@pytest.mark.parametrize(
    "copy",
    [
        lambda folder, image: cv2.imwrite(str(folder / "copy.bmp"), image),
        lambda folder, image: cv2.imwrite(str(folder / "copy.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 70]),
        lambda folder, image: cv2.imwrite(str(folder / "copy.png"), cv2.resize(image, (64, 64))),
    ],
)
def test_an_evaluation_image_that_calibrated_is_an_error(tmp_path: Path, copy) -> None:
    found = open_calibration(write(tmp_path / "i", scenes(20)))
    other = write(tmp_path / "e", {f"{seed}.png": scene(seed) for seed in range(100, 120)})
    check_overlap(found, other.iterdir())
    copy(other, scene(7))
    with pytest.raises(CalibrationError, match=r"1 of 21 .* copy\.\w+ = 7-0\.png") as caught:
        check_overlap(found, other.iterdir())
    assert caught.value.hint


def test_images_without_structure_overlap_only_when_every_pixel_is_equal(tmp_path: Path) -> None:
    calibration = scenes(20) | {"black.png": np.zeros((50, 50, 3), np.uint8)}
    found = open_calibration(write(tmp_path / "i", calibration))
    dark = write(tmp_path / "e", {"dark.png": np.full((50, 50, 3), 1, np.uint8)})
    check_overlap(found, dark.iterdir())
    write(dark, {"same.png": np.zeros((50, 50, 3), np.uint8)})
    with pytest.raises(CalibrationError, match=r"same\.png = black\.png"):
        check_overlap(found, dark.iterdir())


def test_an_overlap_of_many_names_some(tmp_path: Path) -> None:
    folder = write(tmp_path / "i", scenes(20))
    with pytest.raises(CalibrationError, match=r"20 of 20 .* \.\.\."):
        check_overlap(open_calibration(folder), sorted(folder.iterdir()))

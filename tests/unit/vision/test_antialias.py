"""``antialias`` is Pillow's bilinear filter, and ``crop`` rounds as torchvision does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecv.converters.families.ultralytics_import import tasks
from edgecv.media.images import read_image
from edgecv.results import Image
from edgecv.specs import PreprocessSpec
from edgecv.vision.antialias import resize_antialiased
from edgecv.vision.letterbox import fit

Pillow = pytest.importorskip("PIL.Image")

IMAGENET = PreprocessSpec(size_wh=(224, 224), resize="crop", crop_fraction=224 / 256, interpolation="antialias")
YOLO = PreprocessSpec(size_wh=(224, 224), resize="crop", interpolation="antialias")


def noise(width: int, height: int) -> Image:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("size_wh", "new_wh"),
    [
        ((640, 480), (224, 224)),
        ((101, 77), (33, 50)),
        ((77, 1000), (77, 100)),
        ((300, 200), (299, 199)),
        ((40, 30), (96, 64)),
        ((500, 20), (100, 60)),
        ((5, 7), (1, 1)),
        ((1, 1), (8, 8)),
    ],
)
def test_noise_becomes_what_pillow_makes_of_it(size_wh: tuple[int, int], new_wh: tuple[int, int]) -> None:
    image = noise(*size_wh)
    wanted = np.asarray(Pillow.fromarray(image).resize(new_wh, Pillow.Resampling.BILINEAR)).astype(int)
    given = resize_antialiased(image, new_wh)
    assert given.shape == wanted.shape
    assert np.abs(given - wanted).max() <= 1
    assert np.abs(given - wanted).mean() < 0.3


def test_a_window_is_that_part_of_the_whole() -> None:
    image = noise(333, 201)
    whole = resize_antialiased(image, (100, 60))
    part = resize_antialiased(image, (100, 60), (13, 7, 71, 52))
    assert np.abs(part.astype(int) - whole[7:52, 13:71]).max() <= 1
    assert np.array_equal(part.shape, (45, 58, 3))


@pytest.mark.parametrize(("spec", "short_side"), [(IMAGENET, 256), (YOLO, 224)])
def test_photographs_reach_classifiers_as_in_torchvision(
    spec: PreprocessSpec, short_side: int, coco_images: list[Path]
) -> None:
    tasks()
    from torchvision.transforms import CenterCrop, Compose, Resize

    transform = Compose([Resize(short_side), CenterCrop(224)])
    means = []
    for path in coco_images[::8]:
        image = read_image(path)
        wanted = np.asarray(transform(Pillow.fromarray(image))).astype(int)
        means.append(np.abs(fit(image, spec)[0] - wanted).mean())
    assert max(means) < 0.3


@pytest.mark.parametrize(
    "size_wh", [(640, 427), (427, 640), (500, 375), (333, 333), (1023, 767), (225, 224), (227, 224)]
)
def test_cutting_rounds_as_torchvision_does(size_wh: tuple[int, int]) -> None:
    tasks()
    from torchvision.transforms import CenterCrop, Compose, Resize

    for spec, short_side in ((IMAGENET, 256), (YOLO, 224)):
        image = noise(*size_wh)
        wanted = np.asarray(Compose([Resize(short_side), CenterCrop(224)])(Pillow.fromarray(image))).astype(int)
        given, transform = fit(image, spec)
        assert np.abs(given - wanted).mean() < 0.3
        assert all(offset <= 0 for offset in transform.offset_xy)

"""Before any export: do the held-out images show enough to judge INT8 by?"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from edgecv._internal.progress import silent
from edgecv.bundles.manifest import Source
from edgecv.converters.held_out import with_enough_objects
from edgecv.converters.source import Part, SourceModel
from edgecv.errors import CalibrationError
from edgecv.quantize.calibration.calibration_set import CalibrationSet, open_calibration
from edgecv.specs import TensorSpec
from tests.models import CELL, CELLS, IMAGE, PREDICTION, SIDE, SPEC, detector


@pytest.fixture
def source(tmp_path: Path) -> SourceModel:
    """It finds white cells."""
    session = onnxruntime.InferenceSession(str(detector(tmp_path / "d.onnx")), providers=["CPUExecutionProvider"])
    output: TensorSpec = PREDICTION
    part = Part(
        name="main",
        inputs=(IMAGE,),
        outputs=(output,),
        reference=lambda feeds: {output.name: session.run(None, {"image": feeds["image"]})[0]},
    )
    origin = Source(file="d.onnx", sha256="0" * 64)
    return SourceModel(name="d", family="yolov8", licence="MIT", origin=origin, spec=SPEC, parts=(part,))


def calibration_images(folder: Path, count: int, with_object: int) -> CalibrationSet:
    """Dark images that differ; each of the first ``with_object`` shows one white cell."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for at in range(count):
        dark = rng.integers(0, 60, (8, 8, 3), np.uint8).repeat(SIDE // 8, 0).repeat(SIDE // 8, 1)
        if at < with_object:
            row, column = divmod(int(rng.integers(CELLS * CELLS)), CELLS)
            dark[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = 255
        cv2.imwrite(str(folder / f"{at}.png"), dark)
    return open_calibration(folder)


def test_a_hundred_images_with_one_object_each_are_enough(source: SourceModel, tmp_path: Path) -> None:
    """What the README promises: a quarter of them would show 25 objects, so half of them is held out."""
    images = calibration_images(tmp_path / "a", 100, 100)
    assert len(images.held_out) == 25
    more = with_enough_objects(source, images, silent)
    assert (len(more.held_out), len(more.calibrate)) == (50, 50)
    assert not set(more.held_out) & set(more.calibrate)
    assert more.sha256 == images.sha256


def test_images_that_show_enough_are_split_as_ever(source: SourceModel, tmp_path: Path) -> None:
    images = calibration_images(tmp_path / "a", 240, 240)
    assert with_enough_objects(source, images, silent) is images


def test_too_few_objects_are_said_with_the_number_of_images_that_would_do(source: SourceModel, tmp_path: Path) -> None:
    images = calibration_images(tmp_path / "a", 60, 60)
    with pytest.raises(CalibrationError, match=r"only 30 objects in the 30 held-out images; at least 50") as caught:
        with_enough_objects(source, images, silent)
    assert caught.value.hint.startswith("About 100 images like these would do.")
    with pytest.raises(CalibrationError, match="only 0 objects") as caught:
        with_enough_objects(source, calibration_images(tmp_path / "b", 60, 0), silent)
    assert caught.value.hint.startswith("Give more images")

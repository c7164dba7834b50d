"""An export that computes something else is not written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecv._internal.progress import silent
from edgecv.bundles.golden import cosine
from edgecv.converters.families.ultralytics_import import photographs
from edgecv.converters.families.yolov8 import open_architecture
from edgecv.converters.parity import check_parity, parity_examples
from edgecv.converters.source import Example, Part, SourceOptions, Tolerance
from edgecv.errors import ParityError
from edgecv.quantize.quantizer import Exported
from edgecv.runtimes.ort import OnnxRuntimeSession
from edgecv.specs import RuntimeOptions
from tests.models import IMAGE, PREDICTION, bright_cell, detector


def unused(_feeds) -> dict[str, np.ndarray]:
    raise AssertionError("the source is asked once for all formats, not here")


PART = Part(name="main", inputs=(IMAGE,), outputs=(PREDICTION,), reference=unused)
EXPORTED = Exported(files=(), inputs=(IMAGE,), outputs=(PREDICTION,))


@pytest.fixture
def session(tmp_path: Path) -> OnnxRuntimeSession:
    return OnnxRuntimeSession(detector(tmp_path / "m.onnx"), RuntimeOptions())


FEEDS = [{"image": image[None]} for image in (bright_cell(0, 0), bright_cell(2, 1))]


def examples(session: OnnxRuntimeSession, change) -> list[Example]:
    """What a source would have given that differs from the export by ``change``."""
    return [
        Example(feeds=feed, outputs={name: change(value) for name, value in session.run(feed).items()})
        for feed in FEEDS
    ]


@pytest.mark.parametrize("change", [lambda v: v, lambda v: v + 1e-4], ids=["equal", "rounding"])
def test_an_export_that_computes_the_same_passes(session, change) -> None:
    (found,) = check_parity(PART, EXPORTED, session, examples(session, change))
    assert (found.part, found.name) == ("main", "prediction")
    assert found.worst_absolute <= 2e-4
    assert found.worst < 1e-5
    assert found.cosine > 0.99999


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v[:, ::-1],
        lambda v: -v,
        lambda v: v * 1.05,
        lambda v: np.where(np.arange(v.size).reshape(v.shape) == 7, v + 2, v),
        np.zeros_like,
        lambda v: np.full_like(v, np.nan),
        lambda v: v + np.random.default_rng(0).normal(0, 3, v.shape),
    ],
    ids=["order", "sign", "scale", "one element", "zero", "nan", "noise"],
)
def test_an_export_that_computes_something_else_is_refused(session, change) -> None:
    with pytest.raises(ParityError, match="prediction cosine"):
        check_parity(PART, EXPORTED, session, examples(session, change))


def test_nothing_but_numbers_in_the_first_image_alone_is_seen(session) -> None:
    images = iter([np.nan, 0.0])
    with pytest.raises(ParityError, match="prediction cosine"):
        check_parity(PART, EXPORTED, session, examples(session, lambda value: value + next(images)))


def test_a_family_has_tolerances_of_its_own(session) -> None:
    near = examples(session, lambda value: value * 1.005)
    assert check_parity(PART, EXPORTED, session, near, Tolerance(cosine=0.9999, worst=0.01))
    with pytest.raises(ParityError, match=r"worst element .* of the largest"):
        check_parity(PART, EXPORTED, session, near)


def test_without_calibration_images_the_source_sees_photographs() -> None:
    source = open_architecture(Path("yolov8n-cls.yaml"), SourceOptions(random_weights=True, size_wh=(64, 64)))
    found = parity_examples(source, None, silent)
    assert len(photographs()) == 2
    first, second, noise = (example["main"].feeds["image"] for example in found)
    assert first.shape == (1, 64, 64, 3)
    neighbours = np.corrcoef(first[0, :, :-1, 1].ravel(), first[0, :, 1:, 1].ravel())[0, 1]
    assert neighbours > 0.8
    assert (
        abs(np.corrcoef(noise[0, :, :-1, 1].ravel(), noise[0, :, 1:, 1].ravel())[0, 1]) < 0.1
    )  # last: what a bundle keeps
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ([1, np.nan], [1, 0], 0),
        ([1, 0], [1, 0], 1),
        ([1, 0], [0, 1], 0),
        ([1, 0], [-2, 0], -1),
        ([0, 0], [0, 0], 1),
        ([0, 0], [1, 0], 0),
    ],
)
def test_cosine(first, second, wanted) -> None:
    assert cosine(np.array(first), np.array(second)) == pytest.approx(wanted)

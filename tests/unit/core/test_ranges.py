"""Numbers that cannot be meant are refused with what is allowed, wherever a model or a pipeline takes them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgecv
from edgecv.errors import ConfigError
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.source_config import SourceConfig
from tests.models import METADATA, bright_cell, detector

NAN = math.nan


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detector(tmp_path_factory.mktemp("ranges") / "model.onnx", METADATA, floats=True)


@pytest.fixture(scope="module")
def model(path: Path) -> edgecv.Model:
    return edgecv.load(path, threads=1)


def refused(call: Any, name: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        call()
    assert name in caught.value.message
    assert allowed in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        *(("threads", value, "0 to 1024") for value in (-1, 10**9)),
        *(("lanes", value, "1 to 8") for value in (0, -1, 9)),
        *(("threads", value, "int") for value in (1.5, "2", True, None)),
        ("extra", 5, "object"),
        ("precision", "FP32", "auto, fp32, fp16, int8 or bf16"),
    ],
)
def test_options_of_load(path: Path, name: str, value: Any, allowed: str) -> None:
    refused(lambda: edgecv.load(path, **{name: value}), name, allowed)


BAD_SHARES = (-0.1, 1.1, 25, NAN, "0.5", True)
BAD_COUNTS = (0, -1, 1.5, "3", True, NAN)


@pytest.mark.parametrize("name", ["confidence", "iou"])
@pytest.mark.parametrize("value", BAD_SHARES)
def test_shares(model: edgecv.Model, name: str, value: Any) -> None:
    image = bright_cell(0, 0)
    refused(lambda: model(image, **{name: value}), name, "0 to 1")
    refused(lambda: model.many([image], **{name: value}), name, "0 to 1")
    refused(lambda: Pipeline("synthetic://?frames=2", model, **{name: value}), name, "0 to 1")


@pytest.mark.parametrize("value", BAD_COUNTS)
def test_counts(model: edgecv.Model, value: Any) -> None:
    refused(lambda: model(bright_cell(0, 0), max_detections=value), "max_detections", "at least 1")
    refused(lambda: Pipeline("synthetic://?frames=2", model, max_frames=value), "max_frames", "at least 1")
    refused(lambda: SourceConfig("clip.mp4", policy="every_nth", nth=value), "nth", "at least 1")


@pytest.mark.parametrize("value", [0, -1, NAN, "5", True])
def test_ages(value: Any) -> None:
    refused(lambda: SourceConfig("clip.mp4", max_age_ms=value), "max_age_ms", "at least")


@pytest.mark.parametrize("value", [-1, 99, 1.5, True, "nobody"])
def test_classes(model: edgecv.Model, value: Any) -> None:
    refused(lambda: Pipeline("synthetic://?frames=2", model, classes=[value]), str(value), "bright, never")


def test_what_is_at_the_ends_is_taken_and_so_are_numbers_of_numpy(model: edgecv.Model) -> None:
    image = bright_cell(0, 0)
    assert len(model(image, confidence=0, iou=1, max_detections=1)) == 1
    assert len(model(image, confidence=np.float32(0.5), iou=np.float64(0.5), max_detections=np.int64(3))) == 1

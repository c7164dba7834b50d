"""The step ``blur`` hides boxes from everything that comes after it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgecv.errors import ConfigError, SpecMismatch
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.steps import Blur
from edgecv.results import Detections, Result
from tests.unit.pipelines.blob import BlobModel
from tests.unit.pipelines.made_results import classified, made_result
from tests.unit.pipelines.recorded import boxes


def noisy(at_s: float, found: Detections | None) -> Result:
    image = np.random.default_rng(round(at_s * 100)).integers(0, 256, (96, 128, 3), np.uint8)
    result = made_result(at_s)
    return replace(result, frame=replace(result.frame, image=image), detections=found)


def is_hidden(before: Result, after: Result, box: tuple[int, int, int, int]) -> bool:
    left, top, right, bottom = box
    part = after.frame.image[top:bottom, left:right]
    assert before.frame.image.std() > 60, "the image that was given is left alone"
    return bool(part.std() < 30)


def test_boxes_of_a_class_are_hidden_and_held_for_each_source() -> None:
    step = Blur(classes=("car",), hold=2).build(("person", "car"))
    here, there = (10, 10, 42, 42), (80, 50, 112, 82)
    both = boxes((*here, 0.9, 0), (*there, 0.9, 1))
    results = [noisy(0, both), *(noisy(at / 10, Detections.empty()) for at in range(1, 5))]
    after = [step(result) for result in results]
    assert [is_hidden(a, b, there) for a, b in zip(results, after, strict=True)] == [True] * 3 + [False] * 2
    assert not any(is_hidden(a, b, here) for a, b in zip(results, after, strict=True))
    other = noisy(9, Detections.empty())
    other = replace(other, frame=replace(other.frame, source_id="yard"))
    step(noisy(0, both))
    assert not is_hidden(other, step(other), there)


def test_without_classes_every_box_is_hidden_in_a_pipeline() -> None:
    seen = []
    sinks = [lambda result: seen.append(result.frame.image)]
    Pipeline("synthetic://?frames=3&width=64&height=48", BlobModel(), steps=[Blur()], sinks=sinks).run()
    plain = [result.frame.image for result in Pipeline("synthetic://?frames=3&width=64&height=48", BlobModel())]
    assert len(seen) == 3
    assert all((a != b).any() for a, b in zip(seen, plain, strict=True))


def test_a_model_without_boxes_and_boxes_that_are_none_end_it() -> None:
    with pytest.raises(ConfigError):
        Blur().build()(classified(0))
    with pytest.raises(SpecMismatch):
        Blur().build()(noisy(0, boxes((float("nan"), 0, 1, 1))))
    with pytest.raises(ConfigError, match="no class"):
        Blur(classes=("persn",)).build(("person",))

"""The bootstrap against what theory says; average precision of draws against pycocotools itself."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest

from edgecv.quantize.labels.average_precision import class_precisions, mean_over_classes, mean_precision
from edgecv.quantize.labels.bootstrap import draws, paired_interval
from edgecv.quantize.labels.coco import Truth, match_boxes
from edgecv.results import Detections
from tests.pycoco import coco_map

CLASSES = 6
Pairs = Sequence[tuple[Truth, Detections]]


def images(count: int, seed: int = 0, objects: int = 6, boxes: int = 20) -> list[tuple[Truth, Detections]]:
    """Labels, and detections of which most are the labels moved a little; scores repeat often."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        corner = random.uniform(0, 400, (random.integers(0, objects + 1), 2))
        truth = np.concatenate([corner, corner + random.uniform(20, 120, corner.shape)], axis=1).astype(np.float32)
        labels = random.integers(0, CLASSES - 1, len(truth))  # the last class is never labelled
        near = np.repeat(truth, 2, axis=0) + random.normal(0, 6, (2 * len(truth), 4))
        noise = random.uniform(0, 400, (boxes, 2))
        boxes_there = np.concatenate([near, np.concatenate([noise, noise + 50], axis=1)])
        classes = np.concatenate([np.repeat(labels, 2), random.integers(0, CLASSES, boxes)])
        scores = np.round(random.uniform(0.001, 1, len(boxes_there)), 1)
        order = np.argsort(-scores, kind="stable")
        detections = Detections(
            xyxy=boxes_there[order].astype(np.float32),
            confidence=scores[order].astype(np.float32),
            class_id=classes[order].astype(np.int64),
        )
        found.append((Truth(xyxy=truth, class_id=labels), detections))
    return found


def once(pairs: Pairs) -> np.ndarray:
    return np.ones((1, len(pairs)), np.int64)


@pytest.mark.parametrize("seed", range(8))
def test_every_image_once_gives_what_pycocotools_gives(seed: int) -> None:
    pairs = images(12, seed)
    wanted, matches = coco_map(pairs, CLASSES), match_boxes(pairs, CLASSES)
    assert mean_precision(matches, once(pairs))[0] == pytest.approx(wanted.map50_95, abs=1e-12)
    at_50 = class_precisions(matches, once(pairs))[:, :, 0]
    assert mean_over_classes(at_50)[0] == pytest.approx(wanted.map50, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_an_image_drawn_twice_counts_as_two_images(seed: int) -> None:
    pairs = images(10, seed)
    counts = next(iter(draws(len(pairs), 1, seed)))
    repeated = [pair for pair, count in zip(pairs, counts[0], strict=True) for _ in range(count)]
    wanted = coco_map(repeated, CLASSES).map50_95
    # Where scores are equal the copies stand in another order than the copies of pycocotools would: a little may differ.
    assert mean_precision(match_boxes(pairs, CLASSES), counts)[0] == pytest.approx(wanted, abs=0.01)


def test_an_image_drawn_twice_is_exact_where_no_scores_are_equal() -> None:
    pairs = [
        (truth, Detections(xyxy=d.xyxy, class_id=d.class_id, confidence=np.sort(random_scores(len(d), number))[::-1]))
        for number, (truth, d) in enumerate(images(10))
    ]
    counts = next(iter(draws(len(pairs), 1, 3)))
    repeated = [pair for pair, count in zip(pairs, counts[0], strict=True) for _ in range(count)]
    wanted = coco_map(repeated, CLASSES).map50_95
    assert mean_precision(match_boxes(pairs, CLASSES), counts)[0] == pytest.approx(wanted, abs=1e-12)


def random_scores(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.01, 1, count).astype(np.float32)


def test_nothing_found_scores_nothing_and_nothing_labelled_is_not_a_number() -> None:
    empty = Truth(xyxy=np.zeros((0, 4), np.float32), class_id=np.zeros(0, np.int64))
    truth = Truth(xyxy=np.array([[0, 0, 9, 9]], np.float32), class_id=np.array([1]))
    pairs = [(truth, Detections.empty()), (empty, Detections.empty())]
    found = mean_precision(match_boxes(pairs, 2), np.array([[1, 1], [0, 2]]))
    assert found[0] == 0.0
    assert np.isnan(found[1])


def test_two_hundred_draws_of_a_hundred_images_take_seconds() -> None:
    matches = match_boxes(images(128, objects=8, boxes=100), CLASSES)
    begun = time.monotonic()
    paired_interval(
        lambda counts: mean_precision(matches, counts), lambda counts: mean_precision(matches, counts), 128, 200
    )
    assert time.monotonic() - begun < 20  # 1 s on a machine that is not shared


def test_draws_depend_on_the_seed_alone_and_have_the_size_of_the_sample() -> None:
    first, again = (np.concatenate(list(draws(7, 250, seed=4))) for _ in range(2))
    assert first.shape == (250, 7)
    assert (first.sum(axis=1) == 7).all()
    assert np.array_equal(first, again)
    assert not np.array_equal(first, np.concatenate(list(draws(7, 250, seed=5))))


def test_the_interval_of_two_shares_is_as_wide_as_theory_says() -> None:
    """The difference of paired shares has the variance ``(b + c - (b - c)^2 / n) / n^2`` with b and c discordant pairs."""
    right = np.ones(400)
    worse = right.copy()
    worse[:40] = 0  # ten points lost on 40 of 400
    found = paired_interval(lambda c: c @ right / 400, lambda c: c @ worse / 400, 400)
    spread = 1.96 * np.sqrt((40 - 40**2 / 400) / 400**2)
    assert found.low == pytest.approx(0.1 - spread, abs=0.005)
    assert found.high == pytest.approx(0.1 + spread, abs=0.005)


def test_equal_models_differ_by_nothing() -> None:
    figures = np.random.default_rng(0).uniform(size=50)
    found = paired_interval(lambda c: c @ figures, lambda c: c @ figures, 50)
    assert (found.low, found.high) == (0.0, 0.0)

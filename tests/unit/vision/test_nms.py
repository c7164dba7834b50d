"""Suppression against the definition, written out."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, strategies as st

from edgecv.vision.nms import iou_matrix, iou_one_to_many, kept_by_matrix, kept_by_rows, nms

Box = tuple[int, int, int, int]

edges = st.integers(0, 12)
boxes = st.tuples(edges, edges, edges, edges).map(lambda b: (min(b[::2]), min(b[1::2]), max(b[::2]), max(b[1::2])))
scenes = st.lists(st.tuples(boxes, st.integers(0, 5), st.integers(0, 2)), max_size=25)
# Half way between the fractions that boxes of at most 144 pixels can have: float rounding decides nothing.
limits = st.sampled_from([0.30001, 0.45001, 0.50001, 0.70001, 0.90001])


def exact_iou(a: Box, b: Box) -> Fraction:
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return Fraction(width * height, union) if union else Fraction(0)


def brute_force(scene: list[tuple[Box, int, int]], iou: float, most: int) -> list[int]:
    kept: list[int] = []
    for index in sorted(range(len(scene)), key=lambda i: (-scene[i][1], i)):
        box, _, label = scene[index]
        rivals = [scene[k][0] for k in kept if scene[k][2] == label]
        if all(exact_iou(box, rival) <= iou for rival in rivals):
            kept.append(index)
    return kept[:most]


def arrays(scene: list[tuple[Box, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        np.array([box for box, _, _ in scene], np.float32).reshape(-1, 4),
        np.array([score / 5 for _, score, _ in scene], np.float32),
        np.array([label for _, _, label in scene], np.int64),
    )


@given(scenes, limits, st.integers(1, 30))
def test_it_keeps_what_the_definition_keeps(scene, iou, most) -> None:
    assert nms(*arrays(scene), iou, most).tolist() == brute_force(scene, iou, most)


@given(st.lists(boxes, min_size=1, max_size=8), st.lists(boxes, max_size=8))
def test_overlap_is_intersection_over_union(first, second) -> None:
    matrix = iou_matrix(np.array(first, np.float32), np.array(second, np.float32).reshape(-1, 4))
    wanted = [[float(exact_iou(a, b)) for b in second] for a in first]
    assert matrix.shape == (len(first), len(second))
    assert np.allclose(matrix, np.array(wanted).reshape(matrix.shape), atol=1e-6)


def test_no_boxes_give_no_boxes() -> None:
    assert nms(*arrays([]), 0.5, 300).tolist() == []
    assert iou_matrix(np.zeros((0, 4)), np.zeros((3, 4))).shape == (0, 3)


def test_equal_confidences_keep_their_order() -> None:
    scene = [((10 * i, 0, 10 * i + 5, 5), 3, 0) for i in range(5)]
    assert nms(*arrays(scene), 0.5, 300).tolist() == [0, 1, 2, 3, 4]


def test_a_limit_of_one_keeps_even_copies_and_of_zero_everything_apart() -> None:
    copies = [((0, 0, 4, 4), 3, 0)] * 3
    touching = [((0, 0, 4, 4), 3, 0), ((4, 0, 8, 4), 2, 0), ((3, 0, 7, 4), 1, 0)]
    assert len(nms(*arrays(copies), 1.0, 300)) == 3
    assert nms(*arrays(touching), 0.0, 300).tolist() == [0, 1]


def test_empty_boxes_overlap_nothing() -> None:
    point = np.array([2, 2, 2, 2], np.float32)
    assert iou_one_to_many(point, np.array([[2, 2, 2, 2], [0, 0, 4, 4]], np.float32)).tolist() == [0, 0]


@given(scenes, limits, st.integers(1, 6))
def test_few_boxes_and_many_are_suppressed_alike(scene: list[tuple[Box, int, int]], iou: float, most: int) -> None:
    """Two ways to the same: all overlaps at once for few boxes, a row at a time for many."""
    xyxy, _, class_id = arrays(scene)
    by_matrix = kept_by_matrix(xyxy, class_id, iou, most).tolist()
    assert by_matrix == kept_by_rows(xyxy, class_id, iou, most).tolist()

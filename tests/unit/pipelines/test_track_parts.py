"""The filter against its textbook matrices, the assignment against trying everything."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
from hypothesis import given, strategies as st

from edgecv.pipelines.steps.track.association import assign, overlaps
from edgecv.pipelines.steps.track.kalman import Motion, to_boxes, to_measured
from edgecv.vision.nms import iou_matrix


class Textbook:
    """One object with all of its 8 × 8 covariance, as SORT and DeepSORT write it down."""

    def __init__(self, measured: np.ndarray) -> None:
        height = measured[3]
        deviation = [height / 10, height / 10, 1e-2, height / 10, height / 16, height / 16, 1e-5, height / 16]
        self.mean = np.concatenate([measured, np.zeros(4)])
        self.covariance = np.diag(np.square(deviation))

    def predict(self, frames: float) -> None:
        move = np.eye(8)
        move[:4, 4:] = np.eye(4) * frames
        height = self.mean[3]
        noise = [height / 20, height / 20, 1e-2, height / 20, height / 160, height / 160, 1e-5, height / 160]
        self.mean = move @ self.mean
        self.covariance = move @ self.covariance @ move.T + np.diag(np.square(noise)) * frames

    def update(self, measured: np.ndarray) -> None:
        see = np.eye(4, 8)
        height = self.mean[3]
        spread = see @ self.covariance @ see.T + np.diag(np.square([height / 20, height / 20, 1e-1, height / 20]))
        gain = self.covariance @ see.T @ np.linalg.inv(spread)
        self.mean = self.mean + gain @ (measured - see @ self.mean)
        self.covariance = self.covariance - gain @ spread @ gain.T


@given(st.integers(0, 10**6), st.lists(st.one_of(st.none(), st.sampled_from([0.5, 1.0, 2.5])), max_size=12))
def test_three_numbers_per_coordinate_are_the_whole_filter(seed: int, steps: list[float | None]) -> None:
    rng = np.random.default_rng(seed)
    start = rng.uniform((0, 0, 0.3, 20), (700, 500, 3, 200), (3, 4))
    motion, textbooks = Motion.start(start), [Textbook(one) for one in start]
    for frames in steps:
        if frames is None:
            seen = start + rng.normal(0, 0.05, start.shape) * start
            motion.update(np.array([2, 0]), seen[[2, 0]])
            textbooks[2].update(seen[2])
            textbooks[0].update(seen[0])
        else:
            motion.predict(np.full((3, 1), frames))
            for textbook in textbooks:
                textbook.predict(frames)
    for row, textbook in enumerate(textbooks):
        assert np.allclose(np.concatenate([motion.at[row], motion.velocity[row]]), textbook.mean)
        at, velocity = np.diag(textbook.covariance)[:4], np.diag(textbook.covariance)[4:]
        assert np.allclose(motion.var_at[row], at) and np.allclose(motion.var_velocity[row], velocity)
        assert np.allclose(motion.var_both[row], np.diag(textbook.covariance[:4, 4:]))


@given(st.integers(0, 4), st.integers(0, 4), st.integers(0, 10**6), st.floats(0.1, 0.9))
def test_the_assignment_saves_the_most(rows: int, columns: int, seed: int, limit: float) -> None:
    cost = np.random.default_rng(seed).uniform(0, 1, (rows, columns))
    chosen = assign(cost, limit)
    assert (cost[chosen] < limit).all()
    assert len(set(chosen[0].tolist())) == len(chosen[0]) and len(set(chosen[1].tolist())) == len(chosen[1])
    most = max(
        (
            sum(limit - cost[pair] for pair in zip(some, order, strict=True))
            for count in range(min(rows, columns) + 1)
            for some in combinations(range(rows), count)
            for order in permutations(range(columns), count)
        ),
        default=0.0,
    )
    assert np.isclose((limit - cost[chosen]).sum(), most)


@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 10**6))
def test_overlaps_are_those_of_the_suppression(first: int, second: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (
        np.concatenate([c := rng.uniform(0, 50, (n, 2)), c + rng.uniform(0, 50, (n, 2))], 1) for n in (first, second)
    )
    assert np.allclose(overlaps(a, b), iou_matrix(a, b).reshape(first, second))
    assert np.allclose(to_boxes(to_measured(a)), a, atol=1e-3)

"""Golden vectors hold a sample of each output, all of it in reach."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.golden import SAMPLE, sample


@pytest.mark.parametrize("size", [1, SAMPLE, SAMPLE + 1, 2 * SAMPLE - 1, 100_000])
def test_a_sample_reaches_from_the_first_to_the_last_element(size: int) -> None:
    found = sample(np.arange(size).reshape(1, -1))
    assert len(found) == min(size, SAMPLE)
    assert (found[0], found[-1]) == (0, size - 1)
    steps = np.diff(found)
    assert size == 1 or (steps.min() >= 1 and steps.max() <= -(-size // SAMPLE))


def test_an_empty_output_has_an_empty_sample() -> None:
    assert sample(np.zeros((1, 0, 4))).shape == (0,)

"""Which box belongs to which object."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgecv._internal.extras import require

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


def overlaps(first: Floats, second: Floats) -> Floats:
    """Intersection over union of every one of ``(N, 4)`` boxes with every one of ``(M, 4)``: ``(N, M)``."""
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = (bottom_right - top_left).clip(0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def grown(boxes: Floats, share: float) -> Floats:
    """``(N, 4)`` boxes with a share of their own size more on each side."""
    if not share:
        return boxes
    more = (boxes[:, 2:] - boxes[:, :2]) * share
    return np.concatenate([boxes[:, :2] - more, boxes[:, 2:] + more], axis=1)


def assign(cost: Floats, limit: float) -> tuple[Indices, Indices]:
    """Pairs of rows and columns ``(K,)``, each used once, at the least cost in total, where a pair may not cost ``limit``.

    What a pair saves against leaving both alone is ``limit - cost``; the most is saved where pairs that save nothing count
    as left alone. This is the optimum of an assignment with a cost limit, as ``lap.lapjv(cost_limit=...)`` defines it.
    """
    if not cost.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    rows, columns = require("scipy.optimize", "track").linear_sum_assignment(np.minimum(cost - limit, 0))
    cheap = cost[rows, columns] < limit
    return rows[cheap], columns[cheap]

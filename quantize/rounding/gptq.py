"""Round the weights of a layer so that its output changes least, not each weight to its nearest step.

Inputs of a layer are alike: neighbouring pixels, channels that go together. Errors of rounding that cancel over such inputs do
no harm, and the second moments of the inputs say which do. GPTQ (Frantar et al. 2022, arXiv:2210.17323) rounds column by
column and lets the columns to come take up the error. Coordinate descent goes on from there until no single step helps.
Measured on YOLOv8n with float activations: the squared error of the class scores falls from 0.0617 (nearest) to 0.0050.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecv.quantize.rounding.grid import Grid
from edgecv.quantize.rounding.moments import Moments, RealArray

# Of the mean variance, the first as in the paper: columns that hardly vary must not take up everything.
_DAMPINGS = (0.01, 0.1, 1.0)
_BLOCK = 64  # columns whose errors reach the later ones together: one large product instead of many small ones
_SWEEPS = 4  # ten gained 4 %, nearly all of it in the first


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoundedLayer:
    """A layer on its grid.

    Attributes:
        weights: Integers times scales, ``(groups, rows, columns)`` float32.
        shift: What the bias must take back, ``(groups, rows)``: the mean change of each output.
        nearest_error: Squared error of the outputs with each weight at its nearest step, as a part of their variance.
        error: The same of this rounding.
    """

    weights: npt.NDArray[np.float32]
    shift: RealArray
    nearest_error: float
    error: float


def round_layer(weights: npt.NDArray[np.float32], moments: Moments, grid: Grid) -> RoundedLayer:
    """Round ``weights (groups, rows, columns)`` for inputs of these moments.

    Where the inputs do not vary, weights go to their nearest step, and the bias takes all of the change.
    """
    floats = weights.astype(np.float64)
    scales, fixed, covariance = grid.scales(floats), grid.fixed(floats), moments.covariance()
    nearest = np.where(np.isnan(fixed), np.clip(np.rint(floats / scales), grid.least, grid.most), fixed)
    rounded = nearest
    if np.isfinite(covariance).all() and covariance.trace(axis1=1, axis2=2).any():
        found = _descend(_gptq(floats, scales, fixed, covariance, grid), floats, scales, fixed, covariance, grid)
        better = _errors(found, floats, scales, covariance) <= _errors(nearest, floats, scales, covariance)
        rounded = np.where(better[..., None], found, nearest)
    changed = (floats - rounded * scales).astype(np.float64)
    signal = max(float(((floats @ covariance) * floats).sum()), 1e-30)
    return RoundedLayer(
        weights=(rounded.astype(np.float32) * scales.astype(np.float32)),
        shift=(changed @ moments.mean[:, :, None])[..., 0],
        nearest_error=float(_errors(nearest, floats, scales, covariance).sum()) / signal,
        error=float(_errors(rounded, floats, scales, covariance).sum()) / signal,
    )


def _errors(integers: RealArray, floats: RealArray, scales: RealArray, covariance: RealArray) -> RealArray:
    """Variance of the change of each output ``(groups, rows)``."""
    change = integers * scales - floats
    return ((change @ covariance) * change).sum(axis=-1)


def _gptq(floats: RealArray, scales: RealArray, fixed: RealArray, covariance: RealArray, grid: Grid) -> RealArray:
    """Integers ``(groups, rows, columns)``, column by column; those that vary most come first."""
    order = np.argsort(-np.diagonal(covariance, axis1=1, axis2=2), axis=1, kind="stable")
    by_column = order[:, None, :]
    work = np.take_along_axis(floats, by_column, axis=2)
    pins = np.take_along_axis(fixed, by_column, axis=2)
    factor = _inverse_factor(np.take_along_axis(np.take_along_axis(covariance, by_column, 2), order[:, :, None], 1))
    integers = np.empty_like(work)
    columns = work.shape[2]
    for start in range(0, columns, _BLOCK):
        end = min(columns, start + _BLOCK)
        errors = np.empty((*work.shape[:2], end - start))
        for at in range(start, end):
            free = np.clip(np.rint(work[..., at] / scales[..., 0]), grid.least, grid.most)
            integers[..., at] = np.where(np.isnan(pins[..., at]), free, pins[..., at])
            error = (work[..., at] - integers[..., at] * scales[..., 0]) / factor[:, None, at, at]
            work[..., at:end] -= error[..., None] * factor[:, None, at, at:end]
            errors[..., at - start] = error
        work[..., end:] -= errors @ factor[:, start:end, end:]
    found = np.empty_like(integers)
    np.put_along_axis(found, np.broadcast_to(by_column, integers.shape), integers, axis=2)
    return found


def _inverse_factor(covariance: RealArray) -> RealArray:
    """The upper Cholesky factor of the inverse, ``(groups, columns, columns)``.

    Sums in float32 can leave a covariance slightly negative in some direction: more damping mends it.
    """
    # In a group whose inputs do not vary, any positive number will do: all of its errors are zero.
    level = np.maximum(np.diagonal(covariance, axis1=1, axis2=2).mean(axis=1), 1e-30)[:, None, None]
    unit = np.eye(covariance.shape[-1])
    for damping in _DAMPINGS:
        damped = covariance + damping * level * unit
        try:
            # With H = R R^T and R upper, the inverse is (R^-1)^T R^-1. R is the lower factor of H read backwards.
            return np.linalg.inv(np.linalg.cholesky(damped[:, ::-1, ::-1])[:, ::-1, ::-1])
        except np.linalg.LinAlgError:
            continue
    return np.broadcast_to(unit, covariance.shape)  # as nearest rounding does


def _descend(
    integers: RealArray, floats: RealArray, scales: RealArray, fixed: RealArray, covariance: RealArray, grid: Grid
) -> RealArray:
    """Move one weight after the other to its best integer, the others held, until nothing changes."""
    integers = integers.copy()
    slopes = (integers * scales - floats) @ covariance
    variances = np.diagonal(covariance, axis1=1, axis2=2)
    columns = [at for at in range(variances.shape[1]) if (variances[:, at] > 0).any()]
    for _ in range(_SWEEPS):
        moved = False
        for at in columns:
            curvature = np.maximum(variances[:, None, at], 1e-30) * scales[..., 0]
            wanted = np.clip(integers[..., at] - np.rint(slopes[..., at] / curvature), grid.least, grid.most)
            free = np.isnan(fixed[..., at]) & (variances[:, None, at] > 0)
            step = np.where(free, wanted - integers[..., at], 0.0)
            groups, rows = np.nonzero(step)
            if not len(rows):
                continue
            moved = True
            integers[groups, rows, at] += step[groups, rows]
            change = (step * scales[..., 0])[groups, rows]
            slopes[groups, rows] += change[:, None] * covariance[groups, at]
        if not moved:
            break
    return integers

"""Constant-velocity Kalman filters for the boxes of many objects at once.

Each of centre x, centre y, width / height and height moves for itself: of the 8 × 8 covariance of SORT (Bewley et al. 2016)
only three numbers per coordinate are ever other than zero, so that is all there is here. The standard deviations are those
of DeepSORT (Wojke et al. 2017) and ByteTrack (Zhang et al. 2022), as shares of the height of the box and per frame.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_POSITION, _VELOCITY = 1 / 20, 1 / 160  # standard deviations, as shares of the height of the box
_ASPECT_START, _ASPECT_STEP, _ASPECT_SEEN = 1e-2, 1e-2, 1e-1
_ASPECT_VELOCITY = 1e-5
_ASPECT = 2  # column of the aspect ratio in the state


@dataclass(slots=True, kw_only=True, eq=False)
class Motion:
    """Where ``T`` objects are and how they move; ``(T, 4)`` each."""

    at: Floats  # centre x, centre y, width / height, height
    velocity: Floats  # of these, per frame
    var_at: Floats  # variance of the first
    var_both: Floats  # covariance of the two
    var_velocity: Floats

    @classmethod
    def start(cls, measured: Floats) -> Motion:
        """Objects seen for the first time, at rest."""
        zero = np.zeros_like(measured)
        return cls(
            at=measured.copy(),
            velocity=zero,
            var_at=_variance(measured, 2 * _POSITION, _ASPECT_START),
            var_both=zero.copy(),
            var_velocity=_variance(measured, 10 * _VELOCITY, _ASPECT_VELOCITY),
        )

    def predict(self, frames: Floats) -> None:
        """Move on by a time for each object: ``(T, 1)`` frames, which may be fractions."""
        drift_at = _variance(self.at, _POSITION, _ASPECT_STEP) * frames
        drift_velocity = _variance(self.at, _VELOCITY, _ASPECT_VELOCITY) * frames
        self.at = self.at + self.velocity * frames
        self.var_at = self.var_at + (2 * self.var_both + self.var_velocity * frames) * frames + drift_at
        self.var_both = self.var_both + self.var_velocity * frames
        self.var_velocity = self.var_velocity + drift_velocity

    def update(self, rows: npt.NDArray[np.int64], measured: Floats) -> None:
        """Correct some objects by what was seen of them: ``(K,)`` different rows, ``(K, 4)`` measurements."""
        at, var_at, var_both = self.at[rows], self.var_at[rows], self.var_both[rows]
        spread = var_at + _variance(at, _POSITION, _ASPECT_SEEN)
        gain_at, gain_velocity = var_at / spread, var_both / spread
        missed = measured - at
        self.at[rows] = at + gain_at * missed
        self.velocity[rows] += gain_velocity * missed
        self.var_at[rows] = var_at - gain_at * var_at
        self.var_both[rows] = var_both - gain_at * var_both
        self.var_velocity[rows] -= gain_velocity * var_both

    def scaled(self, across: float, down: float) -> Motion:
        """The same in an image that is so many times as wide and as high."""
        by = np.array([across, down, across / down, down])
        return Motion(
            at=self.at * by,
            velocity=self.velocity * by,
            var_at=self.var_at * by**2,
            var_both=self.var_both * by**2,
            var_velocity=self.var_velocity * by**2,
        )

    def take(self, rows: npt.NDArray[np.int64]) -> Motion:
        """Select the motions of the objects in these rows."""
        return Motion(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def joined(self, other: Motion) -> Motion:
        """These objects, then the others."""
        both = {f.name: np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)}
        return Motion(**both)


def _variance(at: Floats, share: float, aspect: float) -> Floats:
    deviation = np.repeat(at[:, 3:] * share, 4, axis=1)
    deviation[:, _ASPECT] = aspect
    return np.square(deviation)


def to_measured(xyxy: npt.NDArray[np.floating]) -> Floats:
    """Boxes ``(N, 4)`` to centre x, centre y, width / height, height."""
    corners = xyxy.astype(np.float64)
    size = corners[:, 2:] - corners[:, :2]
    return np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, size[:, :1] / size[:, 1:], size[:, 1:]], axis=1)


def to_boxes(at: Floats) -> Floats:
    """Back to boxes ``(N, 4)``."""
    half = np.stack([at[:, 2] * at[:, 3], at[:, 3]], axis=1) / 2
    return np.concatenate([at[:, :2] - half, at[:, :2] + half], axis=1)

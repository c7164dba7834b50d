"""What the inputs of a layer are like: the mean and the second moments of the columns that its weights meet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RealArray = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.float32]


_NOISE = 1e-6  # of the second moment: a variance below it is what float32 left of a constant


@dataclass(slots=True, kw_only=True, eq=False)
class Moments:
    """Sums over rows of im2col, the patches ``(columns,)`` that meet one row of weights; one set for each group.

    Attributes:
        count: How many rows were added.
        total: Their sum ``(groups, columns)``.
        products: The sum of their outer products ``(groups, columns, columns)``, in float32: it is the bulk of the memory.
    """

    count: int
    total: RealArray
    products: FloatArray

    @classmethod
    def empty(cls, groups: int, columns: int) -> Moments:
        """Moments of nothing."""
        products = np.zeros((groups, columns, columns), np.float32)
        return cls(count=0, total=np.zeros((groups, columns)), products=products)

    def add(self, rows: FloatArray) -> None:
        """Add ``rows (groups, count, columns)``."""
        self.count += rows.shape[1]
        with np.errstate(invalid="ignore", over="ignore"):  # whoever reads them sees what is not finite
            self.total += rows.sum(axis=1, dtype=np.float64)
            np.add(self.products, rows.transpose(0, 2, 1) @ rows, out=self.products)

    @property
    def mean(self) -> RealArray:
        """``(groups, columns)``."""
        return self.total / max(1, self.count)

    def covariance(self) -> RealArray:
        """``(groups, columns, columns)``: moments about the mean, since the bias takes the mean for itself.

        A column that does not vary is all zeros.
        """
        mean = self.mean
        found = self.products.astype(np.float64) / max(1, self.count)
        raw = np.diagonal(found, axis1=1, axis2=2).copy()
        found -= mean[:, :, None] * mean[:, None, :]
        still = np.diagonal(found, axis1=1, axis2=2) <= _NOISE * raw
        found *= ~still[:, :, None]
        found *= ~still[:, None, :]
        return found

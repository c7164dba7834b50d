"""``GradientStats``: what is known of every tensor of a torch network, and which tensor of an exported file is which of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgecv.protocols import Array
from edgecv.quantize.ranges import TensorStats
from edgecv.results import FloatArray, IntArray

_PLACES = 4096  # values of a tensor that are compared one by one
# An exported file computes the same values in another order: differences of 1e-5 of the spread were measured, and those of
# tensors that only look alike are above 1e-1.
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fingerprint:
    """What is kept of the values of a tensor on the first image, whatever its size.

    Attributes:
        shape: Of the tensor; the first axis is the batch.
        summary: Mean, standard deviation, minimum and maximum.
        places: Indices ``(K,)`` into the tensor laid flat.
        values: The values there.
    """

    shape: tuple[int, ...]
    summary: FloatArray
    places: IntArray
    values: FloatArray

    @classmethod
    def of(cls, tensor: Array, seed: int = 0) -> Fingerprint:
        """The fingerprint of a tensor; ``seed`` draws the places."""
        places = np.random.default_rng(seed).integers(0, tensor.size, min(_PLACES, tensor.size))
        return cls(
            shape=tensor.shape,
            summary=summary_of(tensor),
            places=places,
            values=np.asarray(tensor.reshape(-1)[places], np.float32),
        )

    def size(self) -> int:
        """How many values the tensor has."""
        return int(np.prod(self.shape, dtype=np.int64))

    def fits(self, summary: FloatArray) -> bool:
        """Whether a tensor of that summary may be this one."""
        spread = float(self.summary[1])
        return spread > 0 and bool((np.abs(self.summary - summary) <= 10 * _TOLERANCE * _reach(self.summary)).all())

    def matches(self, flat: Array) -> bool:
        """Whether a flat tensor of another program holds the same values, in this order or with the channels moved."""
        limit = _TOLERANCE * float(self.summary[1])
        return any(float(np.abs(flat[places] - self.values).mean()) <= limit for places in self._arrangements())

    def _arrangements(self) -> Iterator[IntArray]:
        yield self.places
        if len(self.shape) > 2:
            batch, channels, *inner = self.shape
            yield _moved(self.places, batch, channels, int(np.prod(inner)))
            *_, last = self.shape
            yield _moved(self.places, batch, self.size() // (batch * last), last)


def _moved(places: IntArray, batch: int, rows: int, columns: int) -> IntArray:
    """Where the values at ``places`` of a ``(batch, rows, columns)`` tensor lie once rows and columns change places."""
    at, row, column = np.unravel_index(places, (batch, rows, columns))
    moved: IntArray = (at * columns + column) * rows + row
    return moved


def _reach(summary: FloatArray) -> float:
    return max(float(summary[3] - summary[2]), 1e-12)


def summary_of(tensor: Array) -> FloatArray:
    """Mean, standard deviation, minimum and maximum ``(4,)``."""
    return np.array([tensor.mean(dtype=np.float64), tensor.std(dtype=np.float64), tensor.min(), tensor.max()])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeenTensor:
    """One tensor of the network."""

    name: str  # of the node that makes it
    stats: TensorStats  # weighted by the squared gradient of the outputs
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GradientStats:
    """Weighted statistics of the tensors of a network.

    Attributes:
        tensors: In the order in which the network computes them; empty where ``missing`` says why.
        missing: Why there are none, as a sentence.
        images: How many runs they come from.
    """

    tensors: Sequence[SeenTensor] = ()
    missing: str = ""
    images: int = 0

    def stats_for(self, tensors: Mapping[str, Array]) -> dict[str, TensorStats]:
        """Statistics of those tensors of a file that the network has, too, by the file's names.

        A tensor of equal values made twice is the one that was made first: only its gradient holds all uses.

        Args:
            tensors: The file's float tensors on the first image that ``collect`` was given.
        """
        by_size: dict[int, list[SeenTensor]] = {}
        for seen in self.tensors:
            by_size.setdefault(seen.fingerprint.size(), []).append(seen)
        found = ((name, _twin(tensor, by_size.get(tensor.size, ()))) for name, tensor in tensors.items())
        return {name: seen.stats for name, seen in found if seen is not None}


def _twin(tensor: Array, candidates: Sequence[SeenTensor]) -> SeenTensor | None:
    if not candidates or not np.isfinite([tensor.min(), tensor.max()]).all():
        return None
    summary, flat = summary_of(tensor), tensor.reshape(-1)
    return next((c for c in candidates if c.fingerprint.fits(summary) and c.fingerprint.matches(flat)), None)

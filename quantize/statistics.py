"""``Statistics``: what calibration knows of every float tensor of a file, for each way to choose a range."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain

from edgecv.protocols import Array
from edgecv.quantize.gradients.stats import GradientStats
from edgecv.quantize.ranges import TensorStats, collect

# Images that tell the ranges of the few tensors of which the network's own statistics say nothing.
FEW = 8


class Statistics:
    """Statistics of a file's tensors: of their values alone, or weighted by what they count at the outputs."""

    def __init__(
        self,
        runs: Callable[[Sequence[Array]], Iterable[Mapping[str, Array]]],
        images: Sequence[Array] = (),
        gradients: GradientStats | None = None,
        seed: int = 0,
    ) -> None:
        """Measure what is sure to be asked for.

        Args:
            runs: Gives the file's float tensors for each image.
            images: ``(N, H, W, 3)``, in the order in which ``gradients`` were collected.
            gradients: Of the network that the file was made from.
            seed: Draws the sample of values.
        """
        self._runs = runs
        self._images = images
        self._seed = seed
        self._values: dict[str, TensorStats] | None = None
        self._weighted = self._matched(gradients) if gradients is not None and gradients.tensors else None
        if self._weighted is None and images:
            self._values = collect(runs(images), len(images), seed)

    def of(self, method: str) -> Mapping[str, TensorStats]:
        """What an estimator of that name needs; with ``gradient``, values alone of tensors that have no gradient."""
        if method == "gradient" and self._weighted is not None:
            return self._weighted
        if self._values is None:
            self._values = collect(self._runs(self._images), len(self._images), self._seed) if self._images else {}
        return self._values

    def weighted(self) -> int:
        """Of how many tensors it is known what they count at the outputs."""
        return sum(stats.weights is not None for stats in (self._weighted or {}).values())

    def _matched(self, gradients: GradientStats) -> dict[str, TensorStats] | None:
        """``None`` where the file has none of the network's tensors: then values of all images are better than those of a few."""
        few = self._images[:FEW]
        runs = iter(self._runs(few))
        first = next(runs)
        known = gradients.stats_for(first)
        if not known:
            return None
        rest = ({name: t for name, t in run.items() if name not in known} for run in chain([first], runs))
        return collect(rest, len(few), self._seed) | known

"""How far INT8 moves the scores of the classes, before the sigmoid or softmax makes confidences of them.

Boxes on 32 images cannot tell a good recipe from a better one: their F1 moves by 0.01 by chance. The scores behind them can, since
each image holds thousands. Only the cells count in which the float model sees something; they alone are kept, in half precision,
so memory does not grow with the size of the grids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgecv.protocols import Array, Session, Tensors
from edgecv.quantize.recipes import GateLimits
from edgecv.quantize.record import Check
from edgecv.results import IntArray
from edgecv.specs import TensorSpec
from edgecv.vision.tensors import cells_last, real_values, sigmoid

SEEN = (
    0.05  # best confidence of a cell from which on it counts: far below any box that is shown, far above the background
)
DETECTOR, CLASSIFIER = "logit_error", "logit_noise"

RealArray = npt.NDArray[np.float64]
Look = Callable[[int, Mapping[str, Array], Sequence[TensorSpec]], None]
"""Takes the number of an image, its raw outputs by name, and their specs."""


def has_class_scores(outputs: Sequence[TensorSpec]) -> bool:
    """Whether scores before the sigmoid or softmax are among the outputs."""
    return any(_is_score(spec) for spec in outputs)


class TappedSession:
    """A session that shows the raw outputs of each image that it computes, in their order."""

    def __init__(self, session: Session, images: int, look: Look) -> None:
        """``images`` is how many there are: the last run of a batch holds empty rows beyond them."""
        self.inputs, self.outputs, self.providers = session.inputs, session.outputs, session.providers
        self._session, self._images, self._look = session, images, look
        self._done = 0

    def run(self, feeds: Tensors) -> dict[str, Array]:
        """Compute as the session does, and show what came out."""
        found = self._session.run(feeds)
        rows = next(iter(feeds.values())).shape[0]
        for row in range(min(rows, self._images - self._done)):
            self._look(self._done, {name: tensor[row : row + 1] for name, tensor in found.items()}, self.outputs)
            self._done += 1
        return found

    def close(self) -> None:
        """Free the session."""
        self._session.close()


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """Of one output on one image: the cells in which the float model sees something, and its scores there."""

    cells: IntArray
    scores: Array  # `(classes, cells)` float16


@dataclass(slots=True, eq=False)
class FloatScores:
    """What the float model says in each image, by the role of the output."""

    least: float = SEEN  # the best confidence of a cell from which on it counts
    images: dict[int, dict[str, _Seen]] = field(default_factory=dict)

    def look(self, image: int, outputs: Mapping[str, Array], specs: Sequence[TensorSpec]) -> None:
        """Keep the scores of an image."""
        self.images[image] = {
            spec.role: _seen(outputs[spec.name], spec, self.least) for spec in specs if _is_score(spec)
        }

    def seen(self) -> bool:
        """Whether there is any cell that counts."""
        return any(len(seen.cells) for image in self.images.values() for seen in image.values())

    def variance(self) -> float:
        """How far the scores are spread around their mean."""
        kept = [seen.scores.ravel() for image in self.images.values() for seen in image.values()]
        return float(np.concatenate(kept).astype(np.float64).var()) if kept else 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoreError:
    """How far the scores of one candidate are from the float model's, image by image."""

    metric: str  # how the figure is called
    squared: RealArray  # `(I,)`, the squared differences of an image, summed
    count: IntArray  # `(I,)`, how many they are
    unit: float = (
        1.0  # what a squared difference is divided by: of a classifier, the variance of the float model's scores
    )

    @property
    def value(self) -> float:
        """The mean of the squared differences, in its unit."""
        return float(self.squared.sum() / max(1, self.count.sum()) / self.unit)

    def check(self, limits: GateLimits) -> Check:
        """The figure against its limit, which only ``--strict`` has."""
        most = {DETECTOR: limits.logit_error, CLASSIFIER: limits.logit_noise}[self.metric]
        if most is not None:
            return Check.of(self.metric, self.value, least=0.0, most=most)
        return Check(metric=self.metric, value=self.value, least=0.0, most=np.inf, passed=True, limited=False)


@dataclass(slots=True, eq=False)
class ScoreErrors:
    """Adds up, image by image, how far the scores of a candidate are from the float model's."""

    floats: FloatScores
    found: dict[int, tuple[float, int]] = field(default_factory=dict)

    def look(self, image: int, outputs: Mapping[str, Array], specs: Sequence[TensorSpec]) -> None:
        """Compare the scores of an image."""
        wanted = self.floats.images[image]
        gaps = [_gap(outputs[spec.name], spec, wanted[spec.role]) for spec in specs if spec.role in wanted]
        self.found[image] = sum(float((gap**2).sum()) for gap in gaps), sum(gap.size for gap in gaps)

    def error(self) -> ScoreError:
        """The error of every image that was looked at."""
        rows = [self.found[image] for image in sorted(self.found)]
        is_detector = any(role != "logits" for seen in self.floats.images.values() for role in seen)
        return ScoreError(
            metric=DETECTOR if is_detector else CLASSIFIER,
            squared=np.array([squared for squared, _ in rows], np.float64),
            count=np.array([count for _, count in rows], np.int64),
            # A sigmoid fixes what a score is worth. A softmax takes scores of any size.
            unit=1.0 if is_detector else self.floats.variance() or 1.0,
        )


def _is_score(spec: TensorSpec) -> bool:
    return spec.role == "logits" or spec.role.startswith("class/")


def _columns(stored: Array, spec: TensorSpec) -> Array:
    """The stored scores ``(classes, cells)``; a classifier has one cell."""
    return cells_last(stored, spec) if stored.ndim == 4 else stored.reshape(-1, 1)


def _seen(stored: Array, spec: TensorSpec, least: float) -> _Seen:
    scores = real_values(_columns(stored, spec), spec)
    best = sigmoid(scores.max(axis=0))
    cells = np.arange(1) if spec.role == "logits" else np.flatnonzero(best > least)
    return _Seen(cells, scores[:, cells].astype(np.float16))


def _gap(stored: Array, spec: TensorSpec, wanted: _Seen) -> Array:
    return real_values(_columns(stored, spec)[:, wanted.cells], spec) - wanted.scores.astype(np.float32)

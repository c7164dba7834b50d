"""Statistics of every tensor of a torch network, weighted by how much each value counts at the outputs.

One pass forward and one back per run. Of every tensor a few values are drawn and nothing else is kept, so memory does not grow
with the number of images.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv._internal.foreign import foreign_errors
from edgecv._internal.quiet import quiet
from edgecv.errors import QuantizationError
from edgecv.protocols import Array
from edgecv.quantize.gradients.loss import signed_sum
from edgecv.quantize.gradients.network import graph_of, outputs_of, silu_inputs, watched
from edgecv.quantize.gradients.stats import Fingerprint, GradientStats, SeenTensor
from edgecv.quantize.ranges import TensorStats
from edgecv.results import FloatArray
from edgecv.specs import TensorSpec

IMAGES = 32  # runs
SAMPLES = 1 << 14  # of one tensor over all runs


def collect(module: Any, images: Sequence[Array], outputs: Sequence[TensorSpec], seed: int = 0) -> GradientStats:
    """Weighted statistics of every tensor between the images and the outputs.

    Args:
        module: A torch module that takes ``(N, H, W, 3)`` uint8 tensors; ``None`` where the source is a graph.
        images: Such arrays. The first ``IMAGES`` are run.
        outputs: Specs of what the module returns, in its order.
        seed: Draws the signs and the samples.

    Returns:
        The statistics; where the network has no gradient, or cannot be run this way, a ``GradientStats`` that says why.
    """
    if module is None:
        return GradientStats(missing="The source is a graph, not a torch module.")
    chosen = images[:IMAGES]
    try:
        with foreign_errors(QuantizationError, "The network cannot be differentiated", "Use another method."), quiet():
            tensors = _run(module, chosen, outputs, seed)
    except QuantizationError as error:
        return GradientStats(missing=error.message)
    if not tensors:
        return GradientStats(missing="No tensor before the outputs has finite values and a finite gradient.")
    return GradientStats(tensors=tensors, images=len(chosen))


def _run(module: Any, images: Sequence[Array], outputs: Sequence[TensorSpec], seed: int) -> tuple[SeenTensor, ...]:
    torch = require("torch", "convert")
    graph = graph_of(module, torch.from_numpy(images[0]))
    recorder = _Recorder(share=max(1, SAMPLES // len(images)), seed=seed, before=silu_inputs(graph))
    interpreter = watched(graph, recorder.watch)
    for number, image in enumerate(images):
        recorder.begin(number)
        with torch.enable_grad():
            made = interpreter.run(torch.from_numpy(image))
        signs = torch.Generator().manual_seed(seed * 1_000_003 + number)
        loss = signed_sum(made if isinstance(made, (tuple, list)) else (made,), outputs, signs)
        if loss is None:
            raise QuantizationError("No output has a gradient.", "Use another method.")
        loss.backward()
    found = recorder.tensors()
    # Behind an ArgMax at the end, or dead layers, the outputs alone have a gradient, and their ranges are not chosen.
    return found if any(tensor.name not in outputs_of(graph) for tensor in found) else ()


@dataclass(slots=True)
class _Seen:
    """What was kept of one tensor so far."""

    fingerprint: Fingerprint
    low: float = np.inf
    high: float = -np.inf
    samples: list[FloatArray] = field(default_factory=list)
    weights: list[FloatArray] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class _Recorder:
    """Sees tensors on the way forward and their gradients on the way back."""

    share: int  # samples of one tensor in one run
    seed: int
    before: Mapping[str, str]  # names of tensors that feed a SiLU, by the name of the product that comes out
    _number: int = 0
    _held: dict[str, Any] = field(default_factory=dict)  # tensors of this run that wait for their gradient
    _seen: dict[str, _Seen] = field(default_factory=dict)

    @property
    def _after(self) -> Collection[str]:
        return self.before.values()

    def begin(self, number: int) -> None:
        """Begin a run: what waited in the last one had no gradient."""
        self._number = number
        self._held.clear()

    def watch(self, name: str, tensor: Any) -> Any:
        """Note a tensor, and see to it that its gradient arrives."""
        tensor = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
        if self._number == 0:
            self._seen[name] = _Seen(Fingerprint.of(tensor.detach().numpy(), self.seed))
        # Detached: a hook that held the tensor itself would keep the whole run alive.
        self._held[name] = tensor.detach()
        if name not in self._after:
            tensor.register_hook(partial(self._arrived, name))
        return tensor

    def _arrived(self, name: str, gradient: Any) -> None:
        """Draw from a tensor; where it comes out of a SiLU, from what went in as well: errors are judged behind the SiLU.

        To first order a value of -3 could stand for all below it, where a SiLU is flat; but SiLU(-3) is -0.14 and not 0.
        """
        made = self._held.pop(name)
        self._draw(name, made, made, gradient)
        if name in self.before:
            self._draw(self.before[name], self._held.pop(self.before[name]), made, gradient)

    def _draw(self, name: str, tensor: Any, made: Any, gradient: Any) -> None:
        seen = self._seen[name]
        low, high = (float(value) for value in tensor.aminmax())
        seen.low, seen.high = min(seen.low, low), max(seen.high, high)
        rng = np.random.default_rng((self.seed, self._number, len(self._held)))
        at, weights = weighted_places(made.reshape(-1), gradient.reshape(-1), self.share, rng)
        seen.samples.append(tensor.reshape(-1)[at].numpy().astype(np.float32))
        seen.weights.append(weights)

    def tensors(self) -> tuple[SeenTensor, ...]:
        """What was seen of tensors that have finite values and count at the outputs."""
        return tuple(
            SeenTensor(name=name, stats=stats, fingerprint=seen.fingerprint)
            for name, seen in self._seen.items()
            if (stats := _stats_of(seen, name in self._after)) is not None
        )


def _stats_of(seen: _Seen, silu: bool) -> TensorStats | None:
    if not (seen.samples and np.isfinite([seen.low, seen.high]).all()):
        return None
    values, weights = np.concatenate(seen.samples), np.concatenate(seen.weights)
    total = float(weights.sum(dtype=np.float64))
    if not (np.isfinite(total) and total > 0):
        return None
    return TensorStats(low=seen.low, high=seen.high, sample=values, weights=weights, silu=silu)


def weighted_places(values: Any, gradients: Any, count: int, rng: np.random.Generator) -> tuple[Any, FloatArray]:
    """Draw ``count`` places, with weights: in the mean the weighted sum of any f is the sum of g^2 f over all places.

    What matters is drawn more often and weighs less in return: squared gradients differ by orders of magnitude, and large
    values are those that a range cuts off.

    Args:
        values: A flat torch tensor.
        gradients: Those of its values.
        count: How many are drawn.
        rng: Draws them.
    """
    torch = require("torch", "convert")
    size = values.square()
    size += size.mean()
    chance = gradients.square().mul_(size)
    ends = chance.cumsum(0, dtype=torch.float64)
    total = float(ends[-1])
    points = torch.from_numpy((np.arange(count) + rng.random(count)) / count * total)
    at = torch.searchsorted(ends, points).clamp_(max=len(ends) - 1)
    weights = total / count / size[at].double().clamp_(min=1e-30)
    return at, weights.numpy().astype(np.float32)

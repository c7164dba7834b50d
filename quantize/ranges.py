"""Which range of values each tensor needs: statistics from one pass, estimators that choose from them.

Eight bits are few. The full range from minimum to maximum spends most of them on rare values, so the range is chosen by the
error it leaves. Where a convolution feeds a SiLU, x * sigmoid(x), the error that counts is the one after the activation: it maps
everything far below zero to nearly zero, so the negative tail may be cut (measured on YOLOv8n, 64 unseen images: F1 against
the float model 0.867 with min/max, 0.917 with SiLU-aware ranges, 0.941 with MSE on the other tensors too).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from edgecv.protocols import Array
from edgecv.results import FloatArray

SAMPLES_PER_TENSOR = 1 << 16  # bounds memory whatever the number of images: 0.25 MB a tensor
_KEPT = 0.9999
_TINY = 1e-6  # a tensor that is always 0 needs a scale, too
_SHRINK = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
# SiLU(-3) is -0.14 and SiLU(-32) is 0 to the last float bit: between them lies every sensible place to cut.
_SILU_FLOORS = (-32.0, -24.0, -16.0, -12.0, -10.0, -8.0, -7.0, -6.0, -5.0, -4.0, -3.5, -3.0)

# Where the error at the outputs is known, the search is finer.
_FINE_SHRINK = np.linspace(1.0, 0.3, 15, dtype=np.float32)

Range = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TensorStats:
    """What was seen of one tensor.

    Attributes:
        low: The least value.
        high: The largest value.
        sample: Some of the values ``(S,)``.
        weights: How much an error of each of them counts at the outputs ``(S,)``; ``None`` where that is not known.
        silu: The tensor feeds a SiLU, and the weights are for errors after it.
    """

    low: float
    high: float
    sample: FloatArray
    weights: FloatArray | None = None
    silu: bool = False


def collect(runs: Iterable[Mapping[str, Array]], count: int, seed: int = 0) -> dict[str, TensorStats]:
    """Statistics of every tensor over ``count`` runs, with memory that does not grow with ``count``."""
    rng = np.random.default_rng(seed)
    share = max(1, SAMPLES_PER_TENSOR // count)
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    samples: dict[str, list[FloatArray]] = {}
    for tensors in runs:
        for name, tensor in tensors.items():
            values = _finite(tensor.reshape(-1))
            low[name] = min(low.get(name, np.inf), float(values.min()))
            high[name] = max(high.get(name, -np.inf), float(values.max()))
            step = max(1, values.size // share)
            samples.setdefault(name, []).append(values[int(rng.integers(step)) :: step].astype(np.float32))
    return {name: TensorStats(low=low[name], high=high[name], sample=np.concatenate(samples[name])) for name in low}


def _finite(values: Array) -> Array:
    """Without the infinities that pad a maximum pooling: no range holds them, and the pooling takes them away again."""
    extremes = values.min(), values.max()
    return values if np.isfinite(extremes).all() else values[np.isfinite(values)]


def minmax(stats: TensorStats) -> Range:
    """The full range of the values that were seen."""
    return stats.low, stats.high


def percentile(stats: TensorStats) -> Range:
    """The middle 99.99 % of the sample, cut alike on both sides (as onnxruntime's percentile calibrator does)."""
    low, high = np.quantile(stats.sample, ((1 - _KEPT) / 2, (1 + _KEPT) / 2))
    return float(low), float(high)


def mse(stats: TensorStats) -> Range:
    """The range whose quantization error, in the mean of squares over the sample, is least."""
    floors = [stats.low * part for part in (1.0, 0.8, 0.6, 0.4)] if stats.low < 0 else [stats.low]
    return _best(stats, floors, lambda values: values)


def silu_aware(stats: TensorStats) -> Range:
    """The range whose error is least after x * sigmoid(x)."""
    floors = [stats.low, *(floor for floor in _SILU_FLOORS if floor > stats.low)]
    return _best(stats, floors, _silu)


def gradient(stats: TensorStats) -> Range:
    """The range whose error counts least at the outputs; ``mse`` where nothing is known of the outputs."""
    if stats.weights is None:
        return mse(stats)
    floors = [stats.low * part for part in _FINE_SHRINK] if stats.low < 0 else [stats.low]
    if stats.silu:
        floors = [stats.low, *(floor for floor in _SILU_FLOORS if floor > stats.low)]
    highs = stats.high * _FINE_SHRINK
    errors = [_weighted_errors(stats, stats.weights, floor, highs) for floor in floors]
    best = int(np.argmin([error.min() for error in errors]))
    return floors[best], float(highs[int(errors[best].argmin())])


def joined(stats: Sequence[TensorStats]) -> TensorStats:
    """The statistics of several tensors that get one range."""
    weights = [one.weights for one in stats if one.weights is not None]
    return TensorStats(
        low=min(one.low for one in stats),
        high=max(one.high for one in stats),
        sample=np.concatenate([one.sample for one in stats]),
        weights=np.concatenate(weights) if len(weights) == len(stats) else None,
        silu=all(one.silu for one in stats),
    )


def largest_magnitude(stats: TensorStats, method: str) -> float:
    """Where integers from -127 to 127 with zero point 0 end: their range is the same on both sides of zero."""
    largest = max(-stats.low, stats.high, _TINY)
    if method == "minmax":
        return largest
    sizes = np.abs(stats.sample)
    if method == "percentile":
        return max(float(np.quantile(sizes, _KEPT)), _TINY)
    candidates = [largest * part for part in _SHRINK]
    errors = [
        float(np.average((_rounded_evenly(sizes, end) - sizes) ** 2, weights=stats.weights)) for end in candidates
    ]
    return candidates[int(np.argmin(errors))]


ESTIMATORS: Mapping[str, Callable[[TensorStats], Range]] = MappingProxyType(
    {
        "minmax": minmax,
        "percentile": percentile,
        "mse": mse,
        "silu": silu_aware,
        "gradient": gradient,
    }
)


def range_of(stats: TensorStats, method: str, silu_method: str, feeds_silu: bool) -> Range:
    """The range of one tensor by the methods of a recipe; weighted statistics can only be read with their weights.

    `gradient` without weights is `silu` before a SiLU, and `mse` elsewhere.
    """
    if stats.weights is not None:
        return gradient(stats)
    if feeds_silu:
        return ESTIMATORS["silu" if silu_method == "gradient" else silu_method](stats)
    return ESTIMATORS[method](stats)


def copy_groups(copies: Iterable[Sequence[str]], names: Iterable[str]) -> list[set[str]]:
    """Which tensors get one range, since operators only copy them into each other: concatenating is then copying, not rescaling.

    For TFLite it takes 29 rescaling operators out of YOLOv8n. In onnxruntime it saves 3 % of the time and costs 0.003 mAP, so
    it is not done there (docs/adr/0002). ``copies`` names the tensors of each copying operator.
    """
    group: dict[str, set[str]] = {name: {name} for name in names}
    for copied in copies:
        joint = [name for name in copied if name in group]
        merged = set().union(*(group[name] for name in joint))
        group |= dict.fromkeys(merged, merged)
    return list({id(one): one for one in group.values()}.values())


def union(ranges: Iterable[Range]) -> Range:
    """The range that holds several."""
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)


def _best(stats: TensorStats, floors: Sequence[float], activation: Callable[[FloatArray], FloatArray]) -> Range:
    wanted = activation(stats.sample)
    candidates = [(floor, stats.high * part) for floor in floors for part in _SHRINK]
    errors = [float(((activation(_rounded(stats.sample, *c)) - wanted) ** 2).mean()) for c in candidates]
    return candidates[int(np.argmin(errors))]


def _weighted_errors(stats: TensorStats, weights: FloatArray, low: float, highs: FloatArray) -> FloatArray:
    """Weighted squared errors of uint8 quantization from ``low`` to each of ``highs``, as in ``_rounded``."""
    start = np.float32(min(low, 0.0))
    scale = (np.maximum(highs, 0.0).astype(np.float32) - start) / np.float32(255)
    scale[scale == 0] = 1
    scale = scale[:, None]
    zero_point = np.rint(-start / scale)
    found = np.rint(stats.sample / scale)
    np.clip(found, -zero_point, 255 - zero_point, out=found)
    found *= scale
    if stats.silu:
        found = _silu(found)
    found -= _silu(stats.sample) if stats.silu else stats.sample
    found *= found
    errors: FloatArray = found @ weights
    return errors


def _rounded(values: FloatArray, low: float, high: float) -> FloatArray:
    """Values after uint8 quantization over a range that holds zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255 or 1.0
    zero_point = round(-low / scale)
    return ((np.clip(np.rint(values / scale) + zero_point, 0, 255) - zero_point) * scale).astype(np.float32)


def _rounded_evenly(values: FloatArray, end: float) -> FloatArray:
    """Values after int8 quantization from ``-end`` to ``end``."""
    scale = end / 127
    return (np.clip(np.rint(values / scale), -127, 127) * scale).astype(np.float32)


def _silu(values: FloatArray) -> FloatArray:
    return values / (1 + np.exp(-values.clip(-80, None)))

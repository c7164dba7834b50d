"""Which layers lose most in INT8, and what leaving each of them float would cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np

from edgecv.protocols import Array
from edgecv.quantize.record import LayerLoss

SENSITIVITY = "sensitivity.json"
IMAGES = 4  # the order of the layers is settled: on YOLOv8n its rank correlation with that of 8 is 0.995
COSTED = 8  # blocks whose cost is measured: each means quantizing and timing once more
_HIGHEST_DB = 200.0  # of a layer without any error; JSON knows no infinity


class FormatSensitivity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One INT8 variant: the layers of one recipe, those that lose most first."""

    variant: str
    recipe: str
    layers: tuple[LayerLoss, ...]


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of ``sensitivity.json``, one entry per variant."""

    schema: int = 1
    variants: tuple[FormatSensitivity, ...]


@dataclass(slots=True)
class _Energy:
    signal: float = 0.0
    noise: float = 0.0


@dataclass(slots=True)
class _Energies:
    layers: dict[str, _Energy] = field(default_factory=dict)

    def add(self, layer: str, wanted: Array, found: Array) -> None:
        sums = self.layers.setdefault(layer, _Energy())
        exact = wanted.astype(np.float64)
        sums.signal += float((exact**2).sum())
        sums.noise += float(((exact - found) ** 2).sum())


def sqnr_db(signal: float, noise: float) -> float:
    """Signal to quantization noise, 10 log10(sum x² / sum (x - q)²), in dB, at most 200.

    (Widrow and Kollár, Quantization Noise, 2008; as `qdq_loss_debug` of onnxruntime computes it, too.)
    """
    if noise <= 0:
        return _HIGHEST_DB
    return min(_HIGHEST_DB, 10 * float(np.log10(max(signal, 1e-30) / noise)))


def rank_layers(images: Iterable[tuple[Mapping[str, Array], Mapping[str, Array]]]) -> tuple[LayerLoss, ...]:
    """The layers by what INT8 loses at their outputs, the most first.

    For each image there are outputs by layer: of the float and of the INT8 model.
    """
    energies = _Energies()
    for wanted, found in images:
        for layer, tensor in wanted.items():
            energies.add(layer, tensor, found[layer])
    losses = [
        LayerLoss(name=name, sqnr_db=round(sqnr_db(sums.signal, sums.noise), 2))
        for name, sums in energies.layers.items()
    ]
    return tuple(sorted(losses, key=lambda loss: loss.sqnr_db))


def with_costs(
    layers: tuple[LayerLoss, ...], base_ms: float, latency_without_ms: Callable[[str], float | None]
) -> tuple[LayerLoss, ...]:
    """The same with the cost of leaving each of the first ``COSTED`` float, against the ``base_ms`` of the INT8 model.

    ``latency_without_ms`` gives the latency with one layer float; ``None`` where there is no such model.
    """
    costed = []
    for layer in layers[:COSTED]:
        latency_ms = latency_without_ms(layer.name)
        cost = None if latency_ms is None else round(latency_ms - base_ms, 3)
        costed.append(msgspec.structs.replace(layer, float_cost_ms=cost))
    return (*costed, *layers[COSTED:])

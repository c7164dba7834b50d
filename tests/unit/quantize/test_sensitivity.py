"""Signal to quantization noise per layer."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.quantize.record import LayerLoss
from edgecv.quantize.sensitivity import COSTED, rank_layers, sqnr_db, with_costs


def test_sqnr_is_ten_times_the_logarithm_of_the_ratio_of_energies() -> None:
    assert sqnr_db(100.0, 1.0) == pytest.approx(20.0)
    assert sqnr_db(1.0, 1.0) == 0.0
    assert sqnr_db(1.0, 0.0) == sqnr_db(1e30, 1e-30) == 200.0
    assert sqnr_db(0.0, 1.0) < -200.0


def test_energies_add_up_over_images_and_the_worst_layer_comes_first() -> None:
    rng = np.random.default_rng(0)
    signal = {name: [rng.normal(0, 1, (2, 3)).astype(np.float32) for _ in range(3)] for name in ("good", "bad")}
    noise = {"good": 0.01, "bad": 0.5}
    images = [
        ({n: s[i] for n, s in signal.items()}, {n: s[i] + np.float32(noise[n]) for n, s in signal.items()})
        for i in range(3)
    ]
    found = rank_layers(images)
    assert [layer.name for layer in found] == ["bad", "good"]
    for layer in found:
        every = np.concatenate(signal[layer.name]).astype(np.float64)
        gap = np.concatenate([s + np.float32(noise[layer.name]) for s in signal[layer.name]]).astype(np.float64) - every
        assert layer.sqnr_db == pytest.approx(10 * np.log10((every**2).sum() / (gap**2).sum()), abs=0.01)


def test_no_images_no_layers() -> None:
    assert rank_layers([]) == ()


def test_the_cost_of_leaving_a_layer_float_is_measured_for_the_first_few() -> None:
    layers = tuple(LayerLoss(name=f"conv{n}", sqnr_db=float(n)) for n in range(COSTED + 2))
    asked: list[str] = []

    def latency_ms(layer: str) -> float | None:
        asked.append(layer)
        return None if layer == "conv1" else 12.5

    found = with_costs(layers, 10.0, latency_ms)
    assert asked == [layer.name for layer in layers[:COSTED]]
    assert [layer.float_cost_ms for layer in found] == [2.5, None, *[2.5] * (COSTED - 2), None, None]

"""Numbers as the report writes them; a dash stands for what was not measured."""

from __future__ import annotations

import math

from edgecv.quantize.record import LayerLoss

_UNLIMITED = 1e300


def figure(value: float) -> str:
    """Three digits after the point at most; JSON holds no infinity, so that the largest number stands for it."""
    if math.isnan(value):
        return "not a number"
    if abs(value) > _UNLIMITED:
        return "no limit"
    if float(value).is_integer() and abs(value) >= 2:
        return f"{value:.0f}"
    return "0" if abs(value) < 5e-4 else f"{value:.3f}".rstrip("0").rstrip(".")


def milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}\N{NO-BREAK SPACE}ms"


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}\N{NO-BREAK SPACE}MB" if size else "–"


def ratio(value: float | None, base: float) -> str:
    return f"{value / base:.2f}" if value and base > 0 else "–"


def decibels(value: float) -> str:
    return f"{value:.1f} dB" if abs(value) < _UNLIMITED else "no noise" if value > 0 else "lost"


def noise(layer: LayerLoss) -> float:
    """Noise as a share of the signal's amplitude, at most 10."""
    return float(min(10.0, 10 ** (-max(-20.0, layer.sqnr_db) / 20)))

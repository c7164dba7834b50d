"""Boards as two heat capacities: a fast one (the chip) on a slow one (board and heat sink), each behind a resistance.

The constants are assumed, not fitted; they are those of devices.md section 6 for the first four boards.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One board; resistances in C per watt, times in seconds, powers in watts."""

    name: str
    ambient_c: float
    chip_r: float
    chip_s: float
    sink_r: float
    sink_s: float
    idle_w: float
    span_w: float  # what the full load adds
    limit_c: float

    def steady_c(self, share: float) -> float:
        """Where the chip ends at a constant load."""
        return self.ambient_c + (self.chip_r + self.sink_r) * (self.idle_w + self.span_w * share)


def _board(name: str, limit_c: float, *values: float) -> Board:
    names = ("ambient_c", "chip_r", "chip_s", "sink_r", "sink_s", "idle_w", "span_w")
    return Board(name=name, limit_c=limit_c, **dict(zip(names, values, strict=True)))


BOARDS = (
    _board("Raspberry Pi 5, bare", 80, 25, 2.5, 8, 7.5, 240, 2.5, 4.5),
    _board("Raspberry Pi 4, bare", 80, 25, 3, 10, 9, 300, 2.3, 3.4),
    _board("Raspberry Pi 3, bare", 80, 25, 6, 8, 12, 200, 1.3, 3),
    _board("Raspberry Pi 5, active cooler", 80, 25, 1.5, 6, 2.5, 120, 2.5, 4.5),
    _board("Jetson Orin Nano, warm place", 95, 45, 1, 10, 3, 400, 5, 14),
    _board("N100, no fan", 95, 35, 1.5, 5, 4.5, 500, 4, 9),
)


class ThermalBoard:
    """A board at some load, second by second; its sensor has noise and steps."""

    def __init__(self, board: Board, seed: int, noise_c: float = 0.3, step_c: float = 0.5) -> None:
        self.board, self._random = board, random.Random(seed)
        self._noise_c, self._step_c = noise_c, step_c
        self.sink_c = board.ambient_c + board.sink_r * board.idle_w
        self.chip_c = self.sink_c + board.chip_r * board.idle_w

    def advance(self, share: float, other_w: float = 0.0) -> None:
        """One second at a share of the full load, and what other programs use."""
        board = self.board
        watts = board.idle_w + board.span_w * share + other_w
        self.sink_c += (board.ambient_c + board.sink_r * watts - self.sink_c) / board.sink_s
        self.chip_c += (self.sink_c + board.chip_r * watts - self.chip_c) / board.chip_s

    def read_c(self) -> float:
        """What the sensor says."""
        value = self.chip_c + self._random.gauss(0, self._noise_c)
        return round(value / self._step_c) * self._step_c

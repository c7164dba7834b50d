"""TensorRT's engines are built before anything is measured, outside of the budget, and nowhere else (docs/adr/0018)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from edgecv._internal.progress import Progress
from edgecv.devices.tuning.cells import Cell
from edgecv.errors import SessionError

_FIRST_S = 15.0


class Builds(Protocol):
    """What builds engines: a ``Workshop``."""

    def build(self, cell: Cell, told: Callable[[float], None]) -> None:
        """Build the engine of a cell's variant, where there is none yet; ``told`` hears how many seconds it has taken.

        Raises:
            SessionError: it cannot be built.
        """
        ...


def build_engines(cells: Iterable[Cell], shop: Builds, progress: Progress) -> dict[str, str]:
    """Build the engine of every variant that shall run on TensorRT.

    Args:
        cells: What is to be measured.
        shop: Builds one.
        progress: Told that a build takes minutes, and now and then how long it has taken.

    Returns:
        Why the engine of a variant could not be built, by its name; empty where all could.
    """
    failed: dict[str, str] = {}
    wanted = {cell.variant: cell for cell in cells if cell.device == "tensorrt"}
    for name, cell in wanted.items():
        step = f"TensorRT engine of {name}: building, the first time may take minutes"
        progress(step, 0, 1)
        try:
            shop.build(cell, _told(name, progress))
        except SessionError as error:
            failed[name] = error.message
        progress(step, 1, 1)
    return failed


def _told(name: str, progress: Progress) -> Callable[[float], None]:
    """Tells of a build that goes on after 15 s, 30 s, a minute, two ...: a line each in a log."""
    moments = _doubling(_FIRST_S)
    ahead = next(moments)

    def told(elapsed_s: float) -> None:
        nonlocal ahead
        if elapsed_s >= ahead:
            progress(f"TensorRT engine of {name}: building for {elapsed_s:.0f} s", 0, 1)
            ahead = next(moments)

    return told


def _doubling(first: float) -> Iterator[float]:
    while True:
        yield first
        first *= 2

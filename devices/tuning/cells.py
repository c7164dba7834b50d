"""What tuning compares: cells, each a variant of a bundle on a runtime with a number of threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from edgecv.choosing import MOST_THREADS
from edgecv.runtimes.accelerators import knows


class Cell(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to run a model on this device."""

    variant: str  # name of the variant in the bundle
    precision: str  # of the variant: `fp32`, `fp16` or `int8`
    runtime: str  # registered name
    threads: Annotated[int, msgspec.Meta(ge=1, le=MOST_THREADS)]
    device: str = "cpu"  # what the runtime computes on, as in `RuntimeOptions`
    shape: str = ""  # of the input, such as `640x384`; empty for the model's own

    def __str__(self) -> str:
        place = "" if self.device == "cpu" else f" ({self.device})"
        return f"{self.variant} on {self.runtime}{place}, {self.threads} thread{'s' if self.threads > 1 else ''}"


class CellResult(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was measured of a cell, or why nothing was."""

    cell: Cell
    stage: str  # how far it came: `refused`, `failed`, `not measured`, `screened`, `halved` or `final`
    median_ms: Annotated[float, msgspec.Meta(gt=0)] | None = (
        None  # of one run of the session, in the last stage that it reached
    )
    rss_bytes: int = 0  # memory of the process that measured it
    runs: int = 0  # how many runs were timed in all
    reason: str = ""  # why it went no further


def thread_counts(usable: int, more: int = 0) -> tuple[int, ...]:
    """Thread counts that are worth a try, the most likely first: all cores, another number, two, one.

    Args:
        usable: How many cores this process may keep busy.
        more: Another number worth a try, such as that of the big cores alone; 0 for none.
    """
    wanted = (usable, more, 2, 1)
    return tuple(dict.fromkeys(count for count in wanted if 1 <= count <= max(1, usable)))


def cells_of(
    pairs: Sequence[tuple[str, str, str]], threads: Sequence[int], devices: Sequence[str] = ("cpu",), shape: str = ""
) -> tuple[Cell, ...]:
    """Every cell, the most likely first: those with the first thread count come before those with the next.

    Args:
        pairs: Name of the variant, its precision and a runtime that runs it; in the order of preference.
        threads: As ``thread_counts`` gives them. An accelerator takes the first alone: its cores are not ours.
        devices: What the runtimes shall compute on; each takes part with the runtimes that know it.
        shape: The input shape that all these variants have.
    """
    found = [
        Cell(variant=variant, precision=precision, runtime=runtime, threads=count, device=device, shape=shape)
        for at, count in enumerate(dict.fromkeys(threads))
        for device in dict.fromkeys(devices)
        if device == "cpu" or at == 0
        for variant, precision, runtime in pairs
        if knows(runtime, device)
    ]
    return tuple(found)

"""What tuning compares: cells, each a variant of a bundle on a runtime with a number of threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
    cores: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] = ()  # that the threads stay on; empty for any
    shape: str = ""  # of the input, such as `640x384`; empty for the model's own

    def __str__(self) -> str:
        place = "" if self.device == "cpu" else f" ({self.device})"
        return f"{self.variant} on {self.runtime}{place}, {threads_in_words(self.threads, self.cores)}"


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


def winner_of(results: Sequence[CellResult]) -> Cell | None:
    """The cell to run, of results with the best first; ``None`` where none could be measured."""
    return results[0].cell if results and results[0].median_ms is not None else None


def threads_in_words(threads: int, cores: Sequence[int] = ()) -> str:
    """Such as ``4 threads on the cores 4, 5, 6, 7``."""
    where = f" on the core{'s' * (len(cores) > 1)} {', '.join(map(str, cores))}" if cores else ""
    return f"{threads} thread{'s' * (threads != 1)}{where}"


def thread_counts(usable: int, more: int = 0) -> tuple[int, ...]:
    """Thread counts that are worth a try, the most likely first: all cores, another number, two, one.

    Args:
        usable: How many cores this process may keep busy.
        more: Another number worth a try; 0 for none.
    """
    wanted = (usable, more, 2, 1)
    return tuple(dict.fromkeys(count for count in wanted if 1 <= count <= max(1, usable)))


def cells_of(
    pairs: Sequence[tuple[str, str, str]],
    threads: Sequence[int],
    devices: Sequence[str] = ("cpu",),
    big_cores: tuple[int, ...] = (),
    shape: str = "",
) -> tuple[Cell, ...]:
    """Every cell, the most likely first: those with the first thread count come before those with the next.

    Args:
        pairs: Name of the variant, its precision and a runtime that runs it; in the order of preference.
        threads: As ``thread_counts`` gives them. An accelerator takes the first alone: its cores are not ours.
        devices: What the runtimes shall compute on; each takes part with the runtimes that know it.
        big_cores: Of a chip with two kinds of cores: a session may stay on these, lest it waits for a slow one in every layer.
        shape: The input shape that all these variants have.
    """
    found = [
        Cell(
            variant=variant,
            precision=precision,
            runtime=runtime,
            threads=count,
            cores=cores,
            device=device,
            shape=shape,
        )
        for at, (count, cores) in enumerate(_ways(dict.fromkeys(threads), big_cores))
        for device in dict.fromkeys(devices)
        if device == "cpu" or at == 0
        for variant, precision, runtime in pairs
        if knows(runtime, device)
    ]
    return tuple(found)


def _ways(threads: Iterable[int], big_cores: tuple[int, ...]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Numbers of threads with the cores they stay on: those on the big cores come second."""
    first, *others = threads
    yield first, ()
    if big_cores:
        yield min(first, len(big_cores)), big_cores
    for count in others:
        yield count, ()

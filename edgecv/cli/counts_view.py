"""What counters counted, in words: in the progress line of a run, and at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

_MOST_SHOWN = 4  # counters in the progress line

Counts = Mapping[str, Mapping[str, int]]  # by source, then by name, such as `door.in`


def counts_so_far(counts: Counts) -> str:
    """The totals of all sources together, without those by class: ``door in 3, out 2; yard inside 1, entered 4, left 3``.

    Of more than four counters the others are only said to exist; empty where nothing counts.
    """
    summed: Counter[str] = Counter()
    for of_source in counts.values():
        summed.update({name: count for name, count in of_source.items() if name.count(".") == 1})
    counters = _by_counter(summed)
    shown = [f"{counter} {_words(names)}" for counter, names in list(counters.items())[:_MOST_SHOWN]]
    more = [f"{len(counters) - _MOST_SHOWN} more counters"] if len(counters) > _MOST_SHOWN else []
    return "; ".join([*shown, *more])


def counts_at_end(counts: Counts) -> Iterator[str]:
    """A line for each source and counter: ``cam: door in 3, out 2, in.person 3``."""
    for source, of_source in counts.items():
        for counter, names in _by_counter(of_source).items():
            yield f"{source}: {counter} {_words(names)}"


def _by_counter(counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
    counters: dict[str, dict[str, int]] = {}
    for name, count in counts.items():
        counter, _, what = name.partition(".")
        counters.setdefault(counter, {})[what] = count
    return counters


def _words(names: Mapping[str, int]) -> str:
    return ", ".join(f"{what} {count}".strip() for what, count in names.items())

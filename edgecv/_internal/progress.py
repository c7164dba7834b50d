"""How long steps tell how far they are: a callable that is handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")

Progress = Callable[[str, int, int], None]
"""``progress(step, done, total)``; called with ``done == total`` at the end of a step."""


def silent(_step: str, _done: int, _total: int) -> None:
    """Progress for callers that show none."""


@contextmanager
def one_step(progress: Progress, step: str) -> Iterator[None]:
    """Tell that a step begins, and that it ended unless something failed."""
    progress(step, 0, 1)
    yield
    progress(step, 1, 1)


def counted(progress: Progress, step: str, items: Sequence[Item]) -> Iterator[Item]:
    """The items one by one, telling how many are done."""
    for done, item in enumerate(items):
        progress(step, done, len(items))
        yield item
    progress(step, len(items), len(items))

"""How long steps tell how far they are: a callable that is handed in."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""``progress(step, done, total)``; called with ``done == total`` at the end of a step."""


def silent(_step: str, _done: int, _total: int) -> None:
    """Progress for callers that show none."""

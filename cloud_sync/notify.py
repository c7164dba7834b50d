"""Which events people are told of: a mark in the events themselves, of which none is held back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import msgspec

from edgecv.cloud_sync.stats import SyncStats
from edgecv.events import Event
from edgecv.notifications.choice import EventChoice, read_kinds
from edgecv.notifications.rates import Limiter, RateLimits

MARK = "notify"
"""The field of an event's data that says: tell people."""

_Kind = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class NotifyOptions(RateLimits, frozen=True, kw_only=True):
    """``[mqtt.notify]``: of which events people are told, and how often; limits as at ``RateLimits``.

    Attributes:
        events: Kinds of events, such as ``line.crossed``; ``*`` stands for any text.
    """

    events: tuple[_Kind, ...] = ("*",)


class Notifier:
    """Marks the events that people are told of: ``data.notify``, with what was held back before it, by kind.

    Every event goes on, marked or not: limits hold back the mark alone, so the store stays complete.
    """

    def __init__(self, options: NotifyOptions, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ``ConfigError`` when ``events`` names no kind, or a limit cannot be read."""
        self._choice = EventChoice(frames="none", kinds=read_kinds(options.events, "[mqtt.notify] events"))
        self._limiter = Limiter(options, clock)

    def __call__(self, event: Event) -> Event:
        """The event, with the mark if people are to be told of it.

        One with the mark is no longer a state that a newer event replaces: else nobody might be told.
        """
        held = self._limiter.admit(event) if self._choice.wants(event) else None
        if held is None:
            return event
        mark = {"more": sum(held.values()), "held_back": dict(held)}
        return replace(event, data={**event.data, MARK: mark}, coalesce_key="")

    def stats(self) -> SyncStats:
        """How many events have the mark, and how many were held back from it."""
        return SyncStats(notified=self._limiter.passed, held_back=self._limiter.held_back)

"""When to try again: soon at first, more and more seldom, never in step with other cameras."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgecv._internal.timing import Backoff


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Back-off with full jitter: a random wait below a limit that doubles with each try.

    Source: M. Brooker, «Exponential Backoff And Jitter», AWS Architecture Blog, 2015 (the variant «full jitter»).
    """

    first_s: float = 0.5  # the limit of the first wait
    early_cap_s: float = 3.0  # while the outage is young: a camera that restarts is soon seen
    early_s: float = 60.0  # how long an outage is young
    late_cap_s: float = 30.0  # what the limit may grow to afterwards
    final_tries: int = 3  # errors that trying again hardly mends are given up after so many in a row

    def limit_s(self, tries: int, late_tries: int) -> float:
        """The longest wait after ``tries`` failures, of which ``late_tries`` fell after ``early_s``."""
        early_s = Backoff(initial_s=self.first_s, cap_s=self.early_cap_s).longest_s(tries - 1)
        return Backoff(initial_s=early_s, cap_s=self.late_cap_s).longest_s(late_tries) if late_tries else early_s


class Outage:
    """The failures since the source was last live."""

    def __init__(self, retry: Retry, now_s: float, draw: Callable[[], float]) -> None:
        """An outage that begins; ``draw`` gives random numbers from 0 to 1."""
        self._retry = retry
        self._start_s = now_s
        self._draw = draw
        self._tries = self._late_tries = self._final = 0

    def note(self, now_s: float, *, final: bool) -> float | None:
        """Note a failure: seconds to wait before the next try, or ``None`` to give up."""
        self._tries += 1
        self._final = self._final + 1 if final else 0
        if self._final >= self._retry.final_tries:
            return None
        self._late_tries += now_s - self._start_s >= self._retry.early_s
        return self._draw() * self._retry.limit_s(self._tries, self._late_tries)

"""How often people are told of events: limits, and the counts of what was held back by them.

Nothing here waits or opens anything, and the clock is given: the same calls at the same times have the same answers.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import msgspec

from edgecv.errors import ConfigError
from edgecv.events import Event

Held: TypeAlias = Mapping[str, int]
"""How many events were held back, by kind."""

OTHER_KINDS = "other"
"""The kind under which events are counted once there are very many kinds."""

_UNITS_S = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_RATE = re.compile(r"\s*(\d{1,5})\s*/\s*(s|min|h|d)\s*")
_MOST = 10_000  # that `at_most` may allow: so many times are remembered
_MOST_KEYS = 4096  # rules and sources whose last time is remembered
_MOST_KINDS = 64  # that are counted each on its own
_RULE_NAMES = ("rule", "counter", "name")  # what the data of events call the step that made them


class RateLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How often people are told of events.

    Attributes:
        cooldown_s: Least time between two of one kind, rule and source.
        at_most: Most in any period, all together, such as ``10/h``; ``s``, ``min``, ``h`` and ``d`` are periods. Empty: any number.
        limit_alarms: Hold back alarms, too.
    """

    cooldown_s: Annotated[float, msgspec.Meta(ge=0, le=86_400 * 366)] = 0.0
    at_most: str = ""
    limit_alarms: bool = False

    def __post_init__(self) -> None:
        read_rate(self.at_most)

    @property
    def hold_back(self) -> bool:
        """Whether anything is ever held back."""
        return bool(self.cooldown_s or self.at_most)


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in any period of so many seconds."""

    count: int
    period_s: float


def read_rate(text: str) -> Rate | None:
    """``10/h`` as a rate; ``None`` for an empty text.

    Raises ``ConfigError`` when it is none.
    """
    if not text:
        return None
    found = _RATE.fullmatch(text)
    count = int(found[1]) if found else 0
    if found is None or not 1 <= count <= _MOST:
        raise ConfigError(
            f"at_most = '{text[:40]}' is no rate.",
            f"Write a number from 1 to {_MOST} and a period: 10/h, 2/min, 100/d.",
        )
    return Rate(count, _UNITS_S[found[2]])


def rule_of(event: Event) -> str:
    """The name of the rule or counter that an event comes from; empty where it comes from none."""
    said = (event.data.get(name) for name in _RULE_NAMES)
    return next((name for name in said if isinstance(name, str)), "")


class Limiter:
    """Lets some events through and counts the others, so that they can be told in number with the next one.

    Alarms pass, and count for ``at_most``. It may be used from several threads. What it remembers is bounded: beyond 4,096 rules
    and sources whose time is not over, the further ones share one time.

    Attributes:
        passed: Events that were let through.
        held_back: Events that were not.
    """

    def __init__(self, limits: RateLimits, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with nothing remembered; ``clock`` gives seconds that never go back."""
        self._limits = limits
        self._rate = read_rate(limits.at_most)
        self._clock = clock
        self._passed_s: deque[float] = deque(maxlen=self._rate.count if self._rate else 1)
        self._last_s: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self._untold: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.passed = self.held_back = 0

    @property
    def untold(self) -> int:
        """How many were held back and have not been told in number yet."""
        with self._lock:
            return self._untold.total()

    def admit(self, event: Event) -> Held | None:
        """Let an event through or hold it back.

        Returns:
            The counts by kind of those that were held back since the last one that passed; ``None``: this one is held back.
        """
        with self._lock:
            now_s = self._clock()
            must_pass = event.priority == "alarm" and not self._limits.limit_alarms
            key = self._key(event, now_s)
            if not must_pass and (self._is_too_soon(key, now_s) or self._is_full(now_s)):
                self._untold[self._counted_as(event.kind)] += 1
                self.held_back += 1
                return None
            self._pass(key, now_s)
            return self._tell()

    def rest(self) -> Held:
        """At the end: the counts of those that nobody was told of, if one more may pass now; else nothing."""
        with self._lock:
            now_s = self._clock()
            if not self._untold or self._is_full(now_s):
                return {}
            self._pass((), now_s)
            return self._tell()

    def take_back(self, held: Held) -> None:
        """What told these counts did not arrive: they are told with the next one."""
        with self._lock:
            for kind, count in held.items():
                self._untold[self._counted_as(kind)] += count

    def _key(self, event: Event, now_s: float) -> tuple[str, ...]:
        key = (event.kind, event.source_id, rule_of(event))
        if key in self._last_s or len(self._last_s) < _MOST_KEYS:
            return key
        oldest = next(iter(self._last_s))
        if now_s - self._last_s[oldest] >= self._limits.cooldown_s:
            del self._last_s[oldest]
            return key
        return ()

    def _is_too_soon(self, key: tuple[str, ...], now_s: float) -> bool:
        last_s = self._last_s.get(key)
        return last_s is not None and now_s - last_s < self._limits.cooldown_s

    def _is_full(self, now_s: float) -> bool:
        rate = self._rate
        return rate is not None and len(self._passed_s) == rate.count and now_s - self._passed_s[0] < rate.period_s

    def _pass(self, key: tuple[str, ...], now_s: float) -> None:
        self._passed_s.append(now_s)
        if self._limits.cooldown_s:
            self._last_s[key] = now_s
            self._last_s.move_to_end(key)  # the oldest stand first
        self.passed += 1

    def _tell(self) -> Held:
        told, self._untold = dict(self._untold), Counter()
        return told

    def _counted_as(self, kind: str) -> str:
        return kind if kind in self._untold or len(self._untold) < _MOST_KINDS else OTHER_KINDS

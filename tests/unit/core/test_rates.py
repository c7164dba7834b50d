"""Limits of notifications: whatever comes, never more than allowed, and nothing vanishes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings, strategies as st

from edgecv.errors import ConfigError
from edgecv.events import Event, Priority
from edgecv.notifications.rates import Limiter, Rate, RateLimits, read_rate


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def made(kind: str = "line.crossed", rule: str = "door", source: str = "cam", priority: Priority = "event") -> Event:
    return Event(kind=kind, time_ns=1, source_id=source, data={"counter": rule}, priority=priority)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10/h", Rate(10, 3600.0)),
        ("1/min", Rate(1, 60.0)),
        (" 3 / d ", Rate(3, 86_400.0)),
        ("5/s", Rate(5, 1.0)),
        ("", None),
    ],
)
def test_a_rate_is_a_number_and_a_period(text: str, rate: Rate | None) -> None:
    assert read_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["10", "10 per hour", "0/h", "-1/h", "1.5/h", "10/hour", "10/w", "99999/h", "/h", "10/h/h"]
)
def test_what_is_no_rate_is_refused_and_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ConfigError, match="is no rate") as caught:
        RateLimits(at_most=text)
    assert "10/h" in caught.value.hint


_offers = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, 1.0, 7.0, 59.9, 60.0, 61.0, 600.0]),
        st.sampled_from(["line.crossed", "zone.left", "crowd.began"]),
        st.sampled_from(["door", "yard"]),
        st.sampled_from(["cam", "other"]),
        st.sampled_from(["event", "event", "event", "alarm"]),
    ),
    max_size=80,
)


@settings(max_examples=150, deadline=None)
@given(
    offers=_offers,
    most=st.integers(1, 6),
    cooldown_s=st.sampled_from([0.0, 5.0, 60.0]),
    limit_alarms=st.booleans(),
)
def test_never_more_than_allowed_and_nothing_vanishes(
    offers: list[tuple[float, str, str, str, Priority]], most: int, cooldown_s: float, limit_alarms: bool
) -> None:
    clock = Clock()
    limiter = Limiter(RateLimits(cooldown_s=cooldown_s, at_most=f"{most}/min", limit_alarms=limit_alarms), clock)
    passed: list[tuple[float, Event]] = []
    told: Counter[str] = Counter()
    held: Counter[str] = Counter()
    for wait_s, kind, rule, source, priority in offers:
        clock.now_s += wait_s
        event = made(kind, rule, source, priority)
        counts = limiter.admit(event)
        if counts is None:
            assert limit_alarms or priority != "alarm", "an alarm passes"
            held[kind] += 1
        else:
            told.update(counts)
            passed.append((clock.now_s, event))
    assert len(passed) + held.total() == len(offers)
    assert told.total() + limiter.untold == held.total(), "each that was held back is told, or will be"
    assert all(told[kind] <= held[kind] for kind in told)
    assert (limiter.passed, limiter.held_back) == (len(passed), held.total())
    bound = [(at_s, event) for at_s, event in passed if limit_alarms or event.priority != "alarm"]
    for at_s, _ in bound:
        inside = [one for one in bound if at_s <= one[0] < at_s + 60.0]
        assert len(inside) <= most
    for at, (at_s, event) in enumerate(bound):
        same = [
            one
            for one in bound[:at]
            if (one[1].kind, one[1].source_id, one[1].data) == (event.kind, event.source_id, event.data)
        ]
        assert all(at_s - one[0] >= cooldown_s for one in same)


def test_what_was_held_back_is_told_once_with_the_next() -> None:
    clock = Clock()
    limiter = Limiter(RateLimits(cooldown_s=60.0), clock)
    answers = [limiter.admit(made(kind)) for kind in ("a", "b", "a", "a", "b")]
    assert answers == [{}, {}, None, None, None]
    clock.now_s += 60.0
    assert limiter.admit(made("a")) == {"a": 2, "b": 1}
    assert limiter.admit(made("b")) == {}


def test_cooldowns_of_rules_and_sources_are_apart() -> None:
    limiter = Limiter(RateLimits(cooldown_s=60.0), Clock())
    events = [made(rule="door"), made(rule="yard"), made(source="other"), made("zone.left"), made(rule="door")]
    assert [limiter.admit(event) is not None for event in events] == [True, True, True, True, False]


def test_counts_that_did_not_arrive_are_told_again() -> None:
    clock = Clock()
    limiter = Limiter(RateLimits(cooldown_s=1.0), clock)
    limiter.admit(made())
    limiter.admit(made())
    clock.now_s += 1.0
    counts = limiter.admit(made())
    assert counts == {"line.crossed": 1}
    limiter.take_back(counts)
    clock.now_s += 1.0
    assert limiter.admit(made()) == {"line.crossed": 1}


def test_the_rest_is_told_at_the_end_only_if_one_more_may_pass() -> None:
    clock = Clock()
    limiter = Limiter(RateLimits(at_most="1/h"), clock)
    assert limiter.rest() == {}, "nothing was held back"
    limiter.admit(made())
    limiter.admit(made())
    assert limiter.rest() == {}
    assert limiter.untold == 1
    clock.now_s += 3600.0
    assert limiter.rest() == {"line.crossed": 1}
    assert limiter.untold == 0


def test_a_flood_of_rules_and_kinds_is_bounded_and_still_counted() -> None:
    limiter = Limiter(RateLimits(cooldown_s=3600.0), Clock())
    answers = [limiter.admit(made(rule=f"rule {number}")) for number in range(20_000)]
    passed = [answer for answer in answers if answer is not None]
    assert len(passed) == 4097, "4,096 of their own, and one for all others together"
    assert limiter.untold == 20_000 - 4097
    many = Limiter(RateLimits(at_most="1/h"), Clock())
    for number in range(10_000):
        many.admit(made(kind=f"kind.{number}"))
    many.take_back({"kind.1": 5})
    assert many.untold == 10_004
    assert len(many._untold) <= 65

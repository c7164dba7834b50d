"""Schedules of rules: days, hours across midnight, and the two nights a year in which the clocks are changed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings, strategies as st

from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.pipelines.steps import Absence, Appear, Crowd, Dwell, Leave, Schedule
from edgecv.pipelines.steps.rules.schedule import OpenHours
from edgecv.results import Result
from tests.conftest import CHECKOUT
from tests.unit.pipelines.recorded import LABELS
from tests.unit.pipelines.scripted import Actor, frames, stand, told

BERLIN = "Europe/Berlin"


def utc_ns(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()) * 10**9


def is_open(schedule: Schedule, *times: str) -> list[bool]:
    hours = OpenHours(schedule, "rule")
    return [hours.is_open(utc_ns(time)) for time in times]


def test_days_and_hours_in_a_time_zone() -> None:
    office = Schedule(days=("mon-fri",), hours="08:00-18:00", time_zone=BERLIN)  # in winter an hour before UTC
    friday = ["2026-11-27T06:59", "2026-11-27T07:00", "2026-11-27T16:59", "2026-11-27T17:00"]
    assert is_open(office, *friday, "2026-11-28T10:00") == [False, True, True, False, False]


def test_hours_across_midnight_belong_to_the_day_on_which_they_begin() -> None:
    night = Schedule(days=("fri",), hours="22:00-06:00", time_zone="UTC")
    thursday, friday, saturday = "2026-11-26T23:00", "2026-11-27T23:00", "2026-11-28T05:59"
    assert is_open(night, thursday, "2026-11-27T05:00", friday, saturday, "2026-11-28T06:00", "2026-11-28T23:00") == [
        *(False, False, True, True),
        *(False, False),
    ]


def test_several_hours_and_days_round_the_end_of_the_week() -> None:
    schedule = Schedule(days=("sat-mon", "wed"), hours=("06:00-09:00", "22:00-24:00"), time_zone="UTC")
    days = [f"2026-11-{day}T08:00" for day in range(23, 30)]  # from Monday on
    assert is_open(schedule, *days) == [True, False, True, False, False, True, True]
    assert is_open(schedule, "2026-11-23T21:59", "2026-11-23T23:59", "2026-11-24T00:00") == [False, True, False]


def test_an_hour_that_comes_twice() -> None:
    """On 25 October 2026 the clocks in Berlin go from 03:00 back to 02:00, at 01:00 UTC."""
    schedule = Schedule(hours="02:15-02:45", time_zone=BERLIN)
    times = ["00:14", "00:15", "00:44", "00:45", "01:14", "01:15", "01:44", "01:45"]
    assert is_open(schedule, *(f"2026-10-25T{time}" for time in times)) == [False, True, True, False] * 2
    across = Schedule(hours="22:00-02:30", time_zone=BERLIN)
    times = ["00:29", "00:30", "00:59", "01:00", "01:29", "01:30"]
    assert is_open(across, *(f"2026-10-25T{time}" for time in times)) == [True, False, False, True, True, False]


def test_an_hour_that_never_comes() -> None:
    """On 29 March 2026 the clocks in Berlin go from 02:00 to 03:00, at 01:00 UTC."""
    day = [f"2026-03-29T{minute // 60:02}:{minute % 60:02}" for minute in range(0, 24 * 60, 5)]
    assert not any(is_open(Schedule(hours="02:15-02:45", time_zone=BERLIN), *day))
    begun = Schedule(hours="02:30-04:00", time_zone=BERLIN)
    assert is_open(begun, "2026-03-29T00:59", "2026-03-29T01:00", "2026-03-29T01:59", "2026-03-29T02:00") == [
        *(False, True, True),
        False,
    ]


CLOCK = st.integers(0, 24 * 60 - 1)


@settings(max_examples=30, deadline=None)
@given(
    CLOCK,
    CLOCK,
    st.lists(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), max_size=3),
    st.sampled_from([BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]),
    st.integers(utc_ns("2026-01-01T00:00") // 10**9, utc_ns("2027-01-01T00:00") // 10**9),
)
def test_it_is_what_a_clock_on_the_wall_shows(begin: int, end: int, days: list[str], zone: str, second: int) -> None:
    if begin == end:
        return
    hours = f"{begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}"
    opened = OpenHours(Schedule(days=tuple(days), hours=hours, time_zone=zone), "rule")

    def by_the_wall(at: int) -> bool:
        local = datetime.fromtimestamp(at, ZoneInfo(zone))
        clock, day = local.strftime("%H:%M"), local.strftime("%a").lower()
        before = (local.replace(tzinfo=None) - timedelta(days=1)).strftime("%a").lower()
        first, last = hours.split("-")
        if first < last:
            return first <= clock < last and (not days or day in days)
        return (clock >= first and (not days or day in days)) or (clock < last and (not days or before in days))

    assert opened.is_open(second * 10**9) == by_the_wall(second)
    changed_ns = opened.changed_ns(second * 10**9)
    if changed_ns is None:
        assert all(by_the_wall(second - back * 600) == by_the_wall(second) for back in range(0, 6 * 24 * 6, 6))
        return
    changed = changed_ns // 10**9
    assert changed <= second
    assert by_the_wall(changed - 1) != by_the_wall(changed)
    assert all(by_the_wall(at) == by_the_wall(second) for at in range(changed, second, 300))


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"hours": "08:00-18:00"}, "has no time zone"),
        ({"time_zone": "Europe/Berlim"}, "no time zone 'Europe/Berlim'"),
        ({"time_zone": "../../etc/passwd"}, "no time zone"),
        ({"time_zone": "Europe"}, "no time zone 'Europe'"),
        ({"time_zone": "UTC", "days": ["mon-fry"]}, "no day 'fry'"),
        ({"time_zone": "UTC", "hours": "8-18"}, "hours '8-18'"),
        ({"time_zone": "UTC", "hours": "08:00-25:00"}, "hours '08:00-25:00'"),
        ({"time_zone": "UTC", "hours": "08:60-09:00"}, "hours '08:60-09:00'"),
        ({"time_zone": "UTC", "hours": "08:00-08:00"}, "begin and end at once"),
    ],
)
def test_a_wrong_schedule_is_an_error_that_names_the_rule(schedule: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        told([Crowd(name="queue", least=2, schedule=schedule)], [])  # type: ignore[arg-type]
    assert "queue" in str(caught.value)
    assert caught.value.hint


def test_the_nearest_time_zone_is_suggested() -> None:
    with pytest.raises(ConfigError) as caught:
        OpenHours(Schedule(time_zone="Europe/Berlim"), "rule")
    assert "Europe/Berlin" in caught.value.hint


def test_a_system_without_time_zones_is_told_what_to_install() -> None:
    program = (
        "import sys; sys.modules['tzdata'] = None\n"
        "from edgecv.pipelines.steps.rules.schedule import OpenHours, Schedule\n"
        "OpenHours(Schedule(time_zone='UTC'), 'rule')\n"
        "try: OpenHours(Schedule(time_zone='Europe/Berlin'), 'rule')\n"
        "except Exception as error: print(type(error).__name__, error, error.hint)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=CHECKOUT,
        env={"PYTHONTZPATH": "", "PYTHONPATH": ":".join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "ConfigError" in ran.stdout
    assert "pip install tzdata" in ran.stdout


def at(results: Sequence[Result], begin: str) -> list[Result]:
    """The same scene, begun at a time of the day."""
    begin_ns = utc_ns(begin)
    return [
        replace(one, frame=replace(one.frame, captured_ns=begin_ns + one.frame.monotonic_ns - 5_000_000_000))
        for one in results
    ]


def seconds(events: Sequence[Event], begin: str) -> list[tuple[str, float, str | None]]:
    return [(one.kind, round((one.time_ns - utc_ns(begin)) / 1e9, 2), one.data.get("how")) for one in events]


SCENE = [Actor(way=stand(10, 500, (200, 200)))]
BEGIN = "2026-11-27T07:58:00"
HOURS = Schedule(hours="08:00-08:04", time_zone="UTC")  # from second 120 to 360


@pytest.mark.parametrize("fps", [2, 5])
def test_time_counts_from_when_the_rule_is_on_and_what_it_began_is_over_when_it_is_off(fps: int) -> None:
    rules = [
        Crowd(name="queue", least=1, for_s=5, schedule=HOURS),
        Dwell(name="stay", for_s=30, schedule=HOURS),
        Appear(name="come", schedule=HOURS),
        Leave(name="gone", schedule=HOURS),
    ]
    events = told(rules, at(list(frames(SCENE, 600, fps)), BEGIN))
    assert seconds(events, BEGIN) == [
        ("object.appeared", 120.5, None),
        ("crowd.began", 125.0, None),
        ("dwell.began", 150.0, None),
        ("crowd.ended", 360.0, "schedule"),
        ("dwell.ended", 360.0, "schedule"),
    ]
    assert events[1].data["since_ns"] == utc_ns("2026-11-27T08:00:00")


def test_a_gate_that_skips_still_frames_does_not_hide_when_a_rule_went_on() -> None:
    """Nobody from the begin on, and no frame from second 100 to 300: the rule was on from second 120."""
    empty = [one for one in frames([], 320, 2) if not 100 < (one.frame.monotonic_ns / 1e9 - 5) < 300]
    events = told([Absence(name="idle", for_s=60, schedule=HOURS)], at(empty, BEGIN))
    assert seconds(events, BEGIN) == [("absence.began", 180.0, None)]
    events = told([Absence(name="idle", for_s=300, schedule=HOURS)], at(empty, BEGIN))
    assert not events


def test_a_rule_may_be_told_its_schedule_as_a_table() -> None:
    table = {"days": ["mon"], "hours": "08:00-09:00", "time_zone": "UTC"}
    options = Crowd(name="queue", least=1, schedule=table)  # type: ignore[arg-type]
    assert callable(options.build(LABELS))

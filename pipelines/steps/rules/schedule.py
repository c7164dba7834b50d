"""When a rule is on: days and hours by the clock on a wall, of one time zone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from pathlib import Path

import msgspec

from edgecv._internal.printable import nearest, printable
from edgecv.errors import ConfigError

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_RANGE = re.compile(r"([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})")
_MINUTE_NS = 60_000_000_000
_DAY_MINUTES = 24 * 60
_LOOK_BACK_DAYS = 9  # a schedule changes within a week, or never
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LOCAL_ZONE = Path("/etc/localtime")


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a rule is on; at other times it says nothing.

    Attributes:
        days: Such as ``["mon-fri", "sun"]``; every day by default. Hours across midnight belong to the day on which they begin.
        hours: ``"08:00-18:00"``, or a list of such; across midnight ``"22:00-06:00"``. The whole day by default.
        time_zone: Such as ``Europe/Berlin`` or ``UTC``. It has no default, so that a recording gives the same on every machine.
    """

    days: tuple[str, ...] = ()
    hours: str | tuple[str, ...] = ()
    time_zone: str = ""


@dataclass(frozen=True, slots=True)
class _Hours:
    begin: int  # minutes since midnight
    end: int  # up to 24:00; below ``begin`` they end on the next day


class OpenHours:
    """A schedule that was checked. It is a function of the time alone: the clock of the machine is never read.

    A rule is on whenever a clock on the wall shows a time in its hours. When clocks are put back, an hour comes twice, and the rule
    is on both times; when they are put forward, an hour never comes, and hours that lie in it do not come on that day.
    """

    def __init__(self, schedule: Schedule, rule: str) -> None:
        """Check a schedule of the rule ``rule``.

        Raises ``ConfigError``: it has no time zone, there is no such zone or day, or the hours are none.
        """
        self._zone = _zone(schedule, rule)
        self._days = _days(schedule.days, rule)
        hours = (schedule.hours,) if isinstance(schedule.hours, str) else schedule.hours
        self._hours = tuple(_hours(text, rule) for text in hours) or (_Hours(0, _DAY_MINUTES),)

    def is_open(self, time_ns: int) -> bool:
        """Whether the rule is on at a time, UTC nanoseconds; it never changes within a minute."""
        return self._is_open(time_ns // _MINUTE_NS)

    def changed_ns(self, time_ns: int) -> int | None:
        """When it last went on or off before or at a time, UTC nanoseconds; ``None``: not within the last week."""
        minute = time_ns // _MINUTE_NS
        now = self._is_open(minute)
        for candidate in sorted(set(self._candidates(minute)), reverse=True):
            if candidate <= minute and self._is_open(candidate) == now and self._is_open(candidate - 1) != now:
                return candidate * _MINUTE_NS
        return None

    def _local(self, minute: int) -> datetime:
        return (_EPOCH + timedelta(minutes=minute)).astimezone(self._zone)

    def _is_open(self, minute: int) -> bool:
        local = self._local(minute)
        at, today = local.hour * 60 + local.minute, local.weekday()
        return any(
            (today in self._days and hours.begin <= at < (hours.end if hours.end > hours.begin else _DAY_MINUTES))
            or (hours.end < hours.begin and at < hours.end and (today - 1) % 7 in self._days)
            for hours in self._hours
        )

    def _candidates(self, minute: int) -> Iterator[int]:
        """Minutes at which it may go on or off, not long before a minute: its hours, midnights, and changes of the clocks."""
        today = self._local(minute).date()
        marks = {0, *(at % _DAY_MINUTES for hours in self._hours for at in (hours.begin, hours.end))}
        for back in range(_LOOK_BACK_DAYS):
            day = today - timedelta(days=back)
            for mark in marks:
                yield from self._minutes(day, mark)
            noon = next(self._minutes(day, _DAY_MINUTES // 2))
            yield self._clock_change(noon - _DAY_MINUTES, noon)
            yield self._clock_change(noon, noon + _DAY_MINUTES)

    def _minutes(self, day: date, mark: int) -> Iterator[int]:
        """The minutes at which the clock shows a time on a day: two where it shows it twice."""
        for fold in (0, 1):
            local = datetime.combine(day, time(mark // 60, mark % 60, fold=fold), self._zone)
            yield (local.astimezone(timezone.utc) - _EPOCH) // timedelta(minutes=1)

    def _clock_change(self, least: int, most: int) -> int:
        """The minute between two at which the clocks are changed; ``most`` where they are not."""
        before = self._local(least).utcoffset()
        while most - least > 1 and self._local(most).utcoffset() != before:
            middle = (least + most) // 2
            least, most = (middle, most) if self._local(middle).utcoffset() == before else (least, middle)
        return most


def _days(given: tuple[str, ...], rule: str) -> frozenset[int]:
    found: set[int] = set()
    for text in given:
        first, dash, last = text.strip().lower().partition("-")
        for name in (first, last) if dash else (first,):
            if name not in _DAYS:
                raise ConfigError(
                    f"The schedule of '{rule}' has no day '{printable(name)}'.",
                    f'Days are {", ".join(_DAYS)}; several in a row: "mon-fri".',
                )
        begin, end = _DAYS.index(first), _DAYS.index(last or first)
        found |= {day % 7 for day in range(begin, end + (7 if end < begin else 0) + 1)}
    return frozenset(found or range(7))


def _hours(text: str, rule: str) -> _Hours:
    match = _RANGE.fullmatch(text.strip())
    begin, end = (0, 0) if match is None else (int(match[at]) * 60 + int(match[at + 1]) for at in (1, 3))
    minutes = () if match is None else (int(match[2]), int(match[4]))
    if match is None or max(minutes) > 59 or begin >= _DAY_MINUTES or end > _DAY_MINUTES:
        raise ConfigError(
            f"The schedule of '{rule}' has the hours '{printable(text)}'.",
            'Write them as "08:00-18:00"; across midnight "22:00-06:00"; the whole day "00:00-24:00".',
        )
    if begin == end:
        raise ConfigError(
            f"The hours '{printable(text)}' of '{rule}' begin and end at once.", 'The whole day is "00:00-24:00".'
        )
    return _Hours(begin, end)


def _zone(schedule: Schedule, rule: str) -> tzinfo:
    name = schedule.time_zone
    if not name:
        here = _machine_zone()
        raise ConfigError(
            f"The schedule of '{rule}' has no time zone: a recording would give something else on another machine.",
            f'Add time_zone = "{here or "Europe/Berlin"}"' + (", that of this machine." if here else " or the like."),
        )
    if name == "UTC":
        return timezone.utc
    from zoneinfo import ZoneInfo, available_timezones

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # unknown; no plain name; a folder
        known = available_timezones()
        if not known:
            raise ConfigError(
                f"The time zone '{printable(name)}' of '{rule}' cannot be read: this system has no data of time zones.",
                "Install them with: pip install tzdata (or the package tzdata of the system).",
            ) from error
        raise ConfigError(
            f"There is no time zone '{printable(name)}', which '{rule}' names.",
            f"{nearest(name, sorted(known))}They are called like Europe/Berlin or America/New_York.",
        ) from error


def _machine_zone() -> str:
    """What the time zone of this machine is called, for a hint; empty where that cannot be told."""
    try:
        _, found, name = str(_LOCAL_ZONE.resolve()).partition("/zoneinfo/")
    except OSError:
        return ""
    return name if found else ""

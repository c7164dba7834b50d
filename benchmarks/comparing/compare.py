"""Compares reports of different days: what differs, and whether that is more than what days differ by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from statistics import median, stdev

from edgecv.benchmarks.comparing.differences import differences, in_words, refuse_unlike
from edgecv.benchmarks.report import Report
from edgecv.errors import ConfigError

DAY_SD = 0.03  # by which one device differs from day to day, unless its reports say better
_FEWEST_DAYS = 5
_LEAST_SD = 0.005
_QUANTILE = 2.326  # one-sided 99 % of the normal distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One scenario in two files.

    Attributes:
        old: The first file's report.
        new: The other's.
        files: Their names.
        change: By which part the new one takes longer: 0.1 is 10 % slower.
        verdict: In words.
        differs: In what they differ, in words.
    """

    old: Report
    new: Report
    files: tuple[str, str]
    change: float
    verdict: str
    differs: str


def compare(files: Sequence[tuple[Path, Sequence[Report]]], allowed: frozenset[str]) -> list[Compared]:
    """Hold every file against the first.

    Raises:
        ConfigError: two reports differ in more than what is allowed, or the files have no scenario in common.
    """
    first, *others = names_apart([path for path, _ in files])
    found = [
        _compared(old, new, (first, name), allowed)
        for name, (_, reports) in zip(others, files[1:], strict=True)
        for old, new in pairs(files[0][1], reports)
    ]
    if not found:
        raise ConfigError(
            f"{', '.join(str(path) for path, _ in files)} have no scenario in common.",
            "Measure the same scenarios, and name the variant where a file holds several.",
        )
    return found


def names_apart(paths: Sequence[Path]) -> list[str]:
    """The names of files, each with so many of its folders that no two are alike; the same file twice stays so."""
    wholes = [path.absolute().parts for path in paths]
    depth = next(
        count
        for count in range(1, max(map(len, wholes)) + 1)
        if len({parts[-count:] for parts in wholes}) == len(set(wholes))
    )
    return [str(Path(*parts[-depth:])) for parts in wholes]


def pairs(olds: Sequence[Report], news: Sequence[Report]) -> Iterator[tuple[Report, Report]]:
    """Reports that belong together: of the same scenario and variant; where a scenario stands once in each file, of that."""
    for old in olds:
        same = [new for new in news if new.scenario == old.scenario]
        exact = [new for new in same if _row(new) == _row(old)]
        alone = len(same) == 1 and sum(other.scenario == old.scenario for other in olds) == 1
        if exact or alone:
            yield old, (exact or same)[-1]


def known_day_sd(reports: Sequence[Report]) -> float:
    """By how much these reports of one thing differ among themselves; 3 % where they are fewer than five."""
    if len(reports) < _FEWEST_DAYS:
        return DAY_SD
    return max(stdev(log(report.headline_ms) for report in reports), _LEAST_SD)


def typical(reports: Sequence[Report]) -> float:
    """The median of their headlines."""
    return median(report.headline_ms for report in reports)


def verdict_of(old: Report, new: Report, day_sd: float = DAY_SD) -> str:
    """Whether a change between two days is more than days differ by, at 99 %."""
    noisy = [report.quality.verdict == "noisy" for report in (old, new)]
    if any(noisy):
        return f"cannot tell: {'both were' if all(noisy) else 'one was'} noisy"
    change, reach = log(new.headline_ms / old.headline_ms), _QUANTILE * day_sd * 2**0.5
    if abs(change) <= reach:
        return f"cannot tell: two days differ by up to {exp(reach) - 1:.0%}"
    return "slower" if change > 0 else "faster"


def _compared(old: Report, new: Report, files: tuple[str, str], allowed: frozenset[str]) -> Compared:
    refuse_unlike(old, new, allowed, files)
    return Compared(
        old=old,
        new=new,
        files=files,
        change=new.headline_ms / old.headline_ms - 1,
        verdict=verdict_of(old, new),
        differs=in_words(differences(old, new)),
    )


def _row(report: Report) -> tuple[str, str, int]:
    return report.variant, report.runtime, report.comparability.threads

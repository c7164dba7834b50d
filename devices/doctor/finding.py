"""What ``edgecv doctor`` says: one finding per question that it asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "warn", "fail"]
_ORDER: tuple[Level, ...] = ("fail", "warn", "note", "ok")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One answer of the doctor.

    Attributes:
        id: Of the question, such as ``power-supply``; it stays the same from release to release.
        level: ``fail``: something does not work. ``warn``: it works, and worse than it could. ``note``: good to know.
        what: What was found, in one line.
        why: Why that matters; empty when all is well.
        fix: One line to paste, made for this board; empty when all is well. Nobody runs it but the user.
    """

    id: str
    level: Level
    what: str
    why: str = ""
    fix: str = ""


Probe = Callable[[], Finding]
"""A question that the caller asks itself, such as whether a camera answers."""


def by_weight(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings, the worst first; those of one level keep their order."""
    return tuple(sorted(findings, key=lambda one: _ORDER.index(one.level)))


def has_failed(findings: Iterable[Finding]) -> bool:
    """Whether something does not work."""
    return any(one.level == "fail" for one in findings)


def summary(findings: Iterable[Finding]) -> str:
    """How many findings there are of each level, in one line."""
    levels = [one.level for one in findings]
    return ", ".join(f"{levels.count(level)} {level}" for level in _ORDER)

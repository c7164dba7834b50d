"""In what two reports differ, beside their times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from edgecv._internal.printable import nearest
from edgecv.benchmarks.report import Report
from edgecv.errors import ConfigError

# What may differ, by the name that ``--allow`` takes, and what it is called in a sentence.
NAMES: Mapping[str, str] = MappingProxyType(
    {
        "device": "the device",
        "power_mode": "the power mode",
        "governor": "the governor of the clock",
        "runtime": "the runtime",
        "runtimes": "the versions of the runtime",
        "threads": "the number of threads",
        "model": "the bundle",
        "variant": "the variant",
        "source": "the images",
        "images_per_run": "the images of a query",
        "edgecv": "the version of EdgeCV",
    }
)
# What a change is measured for: a new bundle, runtime or EdgeCV on the same device in the same state.
UNDER_TEST = frozenset({"model", "runtimes", "edgecv"})


def differences(first: Report, second: Report) -> dict[str, tuple[str, str]]:
    """What differs, by name: both values, the first report's before the other's."""
    before, after = _values(first), _values(second)
    return {name: (before[name], after[name]) for name in NAMES if before[name] != after[name]}


def in_words(found: Mapping[str, tuple[str, str]]) -> str:
    """The differences as a sentence without its end."""
    return "; ".join(f"{NAMES[name]}: {old or 'unknown'} and {new or 'unknown'}" for name, (old, new) in found.items())


def read_allowed(given: str | Sequence[str]) -> frozenset[str]:
    """The names in ``--allow``, with commas.

    Raises:
        ConfigError: there is no such name.
    """
    asked = [name.strip() for name in (given.split(",") if isinstance(given, str) else given)]
    for name in filter(None, asked):
        if name not in NAMES:
            raise ConfigError(f"--allow knows no '{name}'.", f"{nearest(name, NAMES)}Known: {', '.join(NAMES)}.")
    return frozenset(filter(None, asked))


def refuse_unlike(first: Report, second: Report, allowed: Iterable[str], names: tuple[str, str]) -> None:
    """Raise ``ConfigError`` where the reports differ in more than what is allowed; ``names`` are those of the two sides."""
    more = {name: pair for name, pair in differences(first, second).items() if name not in set(allowed)}
    if more:
        raise ConfigError(
            f"{names[0]} and {names[1]} cannot be compared in {first.scenario}. They differ in {in_words(more)}.",
            f"Measure both alike, or say that it is meant: --allow {','.join(more)}",
        )


def _values(report: Report) -> dict[str, str]:
    key = report.comparability
    return {
        "device": key.device,
        "power_mode": key.power_mode,
        "governor": key.governor,
        "runtime": report.runtime,
        "runtimes": key.runtimes,
        "threads": str(key.threads or "all"),
        "model": key.model,
        "variant": report.variant,
        "source": report.source,
        "images_per_run": str(report.images_per_run),
        "edgecv": report.versions.get("edgecv", ""),
    }

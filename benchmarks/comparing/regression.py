"""Whether a bundle got slower: against a file of another day, or in turns with another bundle."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edgecv._internal.progress import Progress, silent
from edgecv.benchmarks.comparing.compare import known_day_sd, typical
from edgecv.benchmarks.comparing.differences import UNDER_TEST, differences, in_words, refuse_unlike
from edgecv.benchmarks.options import BenchOptions
from edgecv.benchmarks.report import Report
from edgecv.benchmarks.run import run_scenario
from edgecv.errors import ConfigError
from edgecv.runtimes.paired import MOST_ROUNDS, Decision, Round, take_turns

_ROUND_S = 2.0
_ROUND_WAIT_S = 3.0
Run = Callable[[str, Path, BenchOptions], Report]  # of a scenario, a bundle and options
_PERCENT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%?\s*")
_MOST_PERCENT = 1000.0
_MOST_NOISY = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One scenario and what was decided about it.

    Attributes:
        scenario: Its name.
        decision: Of the rule.
        report: Of the last round.
        against: What it was held against.
        differs: In what the two sides differ, in words.
        because: Why nothing could be told, where noise is the reason.
    """

    scenario: str
    decision: Decision
    report: Report
    against: str
    differs: str
    because: str = ""

    @property
    def sentence(self) -> str:
        """The outcome for people."""
        found = self.decision
        change = f"{abs(found.change):.1%} {'slower' if found.change > 0 else 'faster'} than {self.against}"
        span = f"between {found.low:+.1%} and {found.high:+.1%} at 99 % after {len(found.rounds)} rounds"
        ends = {
            "slower": f"more than the {found.limit:.1%} that are allowed",
            "fine": f"within the {found.limit:.1%} that are allowed",
            "cannot tell": f"CANNOT TELL whether that is within {found.limit:.1%}",
        }
        small = found.unnoticeable and found.high > found.limit
        end = "less than a tenth of a millisecond, which nobody notices" if small else ends[found.judgement]
        return f"{self.scenario}: {change} ({span}): {end}{self.because and f', because {self.because}'}."


def read_percent(text: str) -> float:
    """``5%`` or ``5`` as 0.05.

    Raises:
        ConfigError: it is no percentage above 0.
    """
    found = _PERCENT.fullmatch(text)
    if found is None or not 0 < float(found[1]) <= _MOST_PERCENT:
        raise ConfigError(f"--max-regression '{text}' is no percentage above 0.", "Write for example: 5%")
    return float(found[1]) / 100


def against_file(
    bundle: Path,
    baseline: tuple[Path, Sequence[Report]],
    options: BenchOptions,
    limit: float,
    *,
    scenarios: Sequence[str] = (),
    allowed: frozenset[str] = frozenset(),
    progress: Progress = silent,
    run: Run = run_scenario,
) -> list[Judged]:
    """Hold a bundle against a file of another day. The change from day to day makes the bounds wider: by 3 %, unless five or
    more reports of one scenario in the file say how large it is on this device.

    Raises:
        ConfigError: the file has no such scenario, or was measured on another device or otherwise.
        EdgeCVError: the bundle cannot be measured.
    """
    path, reports = baseline
    chosen = list(dict.fromkeys(report.scenario for report in reports if not scenarios or report.scenario in scenarios))
    if not chosen:
        raise ConfigError(
            f"{path} has none of the scenarios {', '.join(scenarios)}.", "Measure the baseline with them."
        )
    judged = []
    for scenario in chosen:
        same = _of_one_kind(path, [report for report in reports if report.scenario == scenario], options)
        side = _Stored(path=path, reports=same, allowed=UNDER_TEST | allowed)
        asked = _as_before(_short(options), same[-1])
        once = partial(run, scenario, bundle, asked)
        judged.append(_against_stored(str(bundle), side, once, limit, progress))
    return judged


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """The reports of one scenario in a file, and what may differ from them."""

    path: Path
    reports: Sequence[Report]
    allowed: frozenset[str]


def _against_stored(
    bundle: str, stored: _Stored, run: Callable[[], Report], limit: float, progress: Progress
) -> Judged:
    old, old_ms = stored.reports[-1], typical(stored.reports)
    seen: list[Report] = []

    def measure(number: int) -> Round:
        progress(f"Comparing {old.scenario}", min(number, MOST_ROUNDS), MOST_ROUNDS)
        report = run()
        refuse_unlike(old, report, stored.allowed, (stored.path.name, bundle))
        seen.append(report)
        return Round(old_ms=old_ms, new_ms=report.headline_ms, noisy=report.quality.disturbed)

    decision = take_turns(measure, limit, known_day_sd(stored.reports))
    because = _doubt(decision, stored.reports)
    if because:
        decision = replace(decision, judgement="cannot tell")
    return replace(_judged(old.scenario, decision, old, seen[-1], str(stored.path)), because=because)


def _doubt(decision: Decision, stored: Sequence[Report]) -> str:
    """Why a decision against a file is none: noise makes one side slower, where in turns it would hit both."""
    if all(report.quality.disturbed for report in stored):
        return f"the file was measured on a busy machine ({', '.join(stored[-1].quality.reasons)})"
    if decision.judgement == "slower" and decision.noisy_share > _MOST_NOISY:
        return f"{decision.noisy_share:.0%} of the rounds were noisy"
    return ""


def against_bundle(
    bundle: Path,
    other: Path,
    options: BenchOptions,
    limit: float,
    *,
    scenarios: Sequence[str],
    progress: Progress = silent,
    run: Run = run_scenario,
) -> list[Judged]:
    """Measure two bundles in turns, each time in new processes: the way that finds the smallest changes.

    Raises:
        EdgeCVError: one of them cannot be measured.
    """
    short = _short(options)

    def one(path: Path, scenario: str) -> Report:
        return run(scenario, path, short)

    return [_in_turns((other, bundle), partial(one, scenario=scenario), limit, progress) for scenario in scenarios]


def _in_turns(sides: tuple[Path, Path], run: Callable[[Path], Report], limit: float, progress: Progress) -> Judged:
    """Measure the old side and the new one; in every second round the new one comes first."""
    seen: list[tuple[Report, Report]] = []

    def measure(number: int) -> Round:
        progress("Comparing in turns", min(number, MOST_ROUNDS), MOST_ROUNDS)
        if number % 2:
            new, old = run(sides[1]), run(sides[0])
        else:
            old, new = run(sides[0]), run(sides[1])
        seen.append((old, new))
        noisy = old.quality.disturbed or new.quality.disturbed
        return Round(old_ms=old.headline_ms, new_ms=new.headline_ms, noisy=noisy)

    decision = take_turns(measure, limit)
    old, new = seen[-1]
    return _judged(new.scenario, decision, old, new, str(sides[0]))


def _judged(scenario: str, decision: Decision, old: Report, new: Report, against: str) -> Judged:
    return Judged(
        scenario=scenario,
        decision=decision,
        report=new,
        against=against,
        differs=in_words(differences(old, new)),
    )


def _short(options: BenchOptions) -> BenchOptions:
    """As long as a round needs to be: ten rounds of two seconds tell more than one of twenty."""
    if options.runs is not None or options.mlperf:
        return options
    wait_s = _ROUND_WAIT_S if options.idle_wait_s is None else options.idle_wait_s
    return replace(options, seconds=options.seconds or _ROUND_S, idle_wait_s=wait_s)


def _as_before(options: BenchOptions, old: Report) -> BenchOptions:
    """The options with what the baseline was measured with, where nothing else was asked for."""
    return replace(
        options,
        variant=options.variant or (old.variant if options.precision == "auto" else ""),
        runtime=old.runtime if options.runtime == "auto" else options.runtime,
        threads=options.threads or old.comparability.threads,
        streams=old.images_per_run if old.scenario == "multi_stream" else options.streams,
    )


def _of_one_kind(path: Path, reports: Sequence[Report], options: BenchOptions) -> list[Report]:
    """The reports of one scenario, which are of one variant, runtime and number of threads.

    Raises:
        ConfigError: they are not, and the options do not say which is meant.
    """
    fitting = [report for report in reports if all(_fits(report, options))] or list(reports)
    kinds = {(report.variant, report.runtime, report.comparability.threads) for report in fitting}
    if len(kinds) > 1:
        said = ", ".join(sorted(" ".join(map(str, kind[:2])) for kind in kinds))
        raise ConfigError(
            f"{path} has several reports of {reports[0].scenario}: {said}.",
            "Say which: --variant, --runtime, --threads.",
        )
    last = fitting[-1]  # of several days, those that were measured as the last one was
    return [report for report in fitting if not differences(last, report).keys() - UNDER_TEST]


def _fits(report: Report, options: BenchOptions) -> Iterator[bool]:
    yield options.variant in ("", report.variant)
    yield options.runtime in ("auto", report.runtime)
    yield options.threads in (0, report.comparability.threads)

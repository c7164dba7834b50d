"""Writes what one run found into ``docs/benchmarks.md``: the part between two marks is the run's, the rest stays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from edgecv._internal.atomic import new_file
from edgecv.benchmarks.lab.peers.environments import HERE
from edgecv.benchmarks.lab.peers.figures import NOISY_SHARE, Figures
from edgecv.benchmarks.lab.peers.judged import Verdict
from edgecv.benchmarks.lab.peers.limits import Limits
from edgecv.benchmarks.lab.peers.rounds import Summary
from edgecv.benchmarks.lab.peers.sides import GROUPS, ours
from edgecv.errors import ConfigError

BEGIN = "<!-- bench-peers: begin. `make bench-peers` writes this part. -->"
END = "<!-- bench-peers: end -->"
_TIE = 0.03  # what differs by less is called equal
_DASH = "–"


def write_document(path: Path, figures: Figures) -> None:
    """Put the figures between the marks of a document.

    Raises:
        ConfigError: it has no marks.
    """
    text = path.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"{path} has no place for the figures.", f"It needs two lines: {BEGIN} and {END}")
    with new_file(path) as file:
        file.write(f"{before}{BEGIN}\n\n{section(figures)}\n{END}{after}".encode())


def section(figures: Figures) -> str:
    """The whole part, as Markdown."""
    parts = [
        _about(figures),
        "### Targets\n\n" + _targets(figures.verdicts),
        *(_group(name, [one for one in figures.summaries if one.side.group == name]) for name in GROUPS),
        _limits(figures.limits, figures.limits_reason),
        _threads(figures.summaries),
        _versions(figures),
    ]
    return "\n".join(part.rstrip() + "\n" for part in parts if part)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; the first ``left`` columns hold words, the others numbers."""
    marks = ["---"] * left + ["---:"] * (len(columns) - left)
    lines = [columns, marks, *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _about(figures: Figures) -> str:
    share = "unknown" if figures.foreign_share is None else f"{figures.foreign_share:.0%}"
    noisy = (
        f"\n**Noisy:** other programs used {share} of the processors, and {NOISY_SHARE:.0%} are the most that a clean "
        "measurement allows. Measure again before you believe these figures.\n"
        if figures.noisy
        else ""
    )
    return (
        f"Measured on {figures.started} with `{figures.command}`. Machine: {figures.machine}. Each tool ran "
        f"{figures.frames} frames of `vtest.avi` (768 × 576; the slow ones fewer) in a process of its own, in {figures.rounds} "
        f"rounds, with {figures.threads} threads on {figures.threads} processors. Other programs used {share} of them. All of it "
        f"took {figures.minutes:.0f} minutes.\n{noisy}"
    )


def _targets(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return "No two sides of a target were both measured.\n"
    rows = [
        (
            f"{one.target.group}: against {one.peer}",
            f"{one.speed:.2f} ({one.speed_range[0]:.2f} to {one.speed_range[1]:.2f})",
            f"≥ {one.target.speed:g}",
            _yes(one.fast_enough),
            f"{one.memory:.2f}",
            _DASH if one.target.memory is None else f"≤ {one.target.memory:g}",
            _DASH if one.target.memory is None else _yes(one.small_enough),
        )
        for one in verdicts
    ]
    columns = ("EdgeCV", "frame rate, ratio (rounds)", "target", "met", "memory, ratio", "target", "met")
    return table(columns, rows) + "\nA ratio of frame rates above 1 and of memory below 1 is in EdgeCV's favour.\n"


def _yes(met: bool) -> str:
    return "yes" if met else "no"


def _group(name: str, summaries: Sequence[Summary]) -> str:
    if not summaries:
        return ""
    columns = (
        "who",
        "frames per second",
        "lowest to highest",
        "peak memory, MB",
        "processor seconds per 100 frames",
        "boxes per frame",
        "frames with as many boxes",
    )
    failed = [f"- {one.side.name} has no figures: {one.reason}.\n" for one in summaries if one.reason]
    said = "".join(f"- {line}\n" for line in wins_and_losses(summaries))
    text = f"### {name}\n\n{table(columns, [_row(one) for one in summaries])}"
    return text + ("\n" + said + "".join(failed) if said or failed else "")


def _row(one: Summary) -> tuple[str, ...]:
    if one.reason:
        return (one.side.name, "not measured", *[_DASH] * 5)
    per_100 = one.cpu_s / one.frames * 100 if one.frames else 0.0
    return (
        one.side.name,
        f"{one.fps:.1f}",
        f"{one.fps_range[0]:.1f} to {one.fps_range[1]:.1f}",
        f"{one.peak_pss_mb:.0f}",
        f"{per_100:.1f}" if per_100 else _DASH,
        _DASH if one.boxes is None else f"{one.boxes:.2f}",
        _DASH if one.agreement is None else f"{one.agreement:.0%}",
    )


def wins_and_losses(summaries: Sequence[Summary]) -> Iterator[str]:
    """What EdgeCV's first side of a group wins and loses in it, in words; sides without boxes are no opponents."""
    measured = [one for one in summaries if not one.reason]
    edgecv = next((one for one in measured if ours(one.side)), None)
    if edgecv is None:
        return
    rivals = [one for one in measured if not ours(one.side) and one.boxes is not None]
    faster = [f"{one.side.name} ({edgecv.fps / one.fps:.2f})" for one in rivals if edgecv.fps > one.fps * (1 + _TIE)]
    slower = [f"{one.side.name} ({edgecv.fps / one.fps:.2f})" for one in rivals if one.fps > edgecv.fps * (1 + _TIE)]
    larger = [
        f"{one.side.name} ({edgecv.peak_pss_mb / one.peak_pss_mb:.2f})"
        for one in rivals
        if one.peak_pss_mb and edgecv.peak_pss_mb > one.peak_pss_mb * (1 + _TIE)
    ]
    yield f"EdgeCV is faster than: {', '.join(faster) or 'none'}."
    yield f"EdgeCV is slower than: {', '.join(slower) or 'none'}."
    yield f"EdgeCV needs more memory than: {', '.join(larger) or 'none'}."


def _limits(limits: Limits | None, reason: str) -> str:
    title = "### How far each stage is from its limit\n\n"
    if limits is None:
        return f"{title}It was not measured: {reason}.\n"
    rows = [
        (one.name, one.how, f"{one.measured_ms:.2f}", f"{one.limit_ms:.2f}", f"{one.distance:.1f}")
        for one in limits.stages
    ]
    peak = limits.peak
    return (
        f"{title}EdgeCV's INT8 OpenVINO variant, one frame after the other.\n\n"
        + table(("stage", "limit", "measured, ms", "limit, ms", "times the limit"), rows, left=2)
        + f"\n- The network takes {limits.multiply_adds / 1e9:.2f} · 10⁹ multiply-adds, counted from the shapes of its graph.\n"
        f"- The int8 peak is {peak.per_s / 1e9:.0f} · 10⁹ multiply-adds per second with {peak.threads} threads. It is the best "
        f"that OpenVINO reached here in chains of eight equal convolutions on bytes; this one did: {peak.shape}.\n"
        f"- One thread copies memory at {limits.copied_bytes_per_s / 1e9:.1f} · 10⁹ bytes per second, read and written. What fits "
        "a cache is moved faster, so a stage may fall below such a limit.\n"
    )


def _threads(summaries: Sequence[Summary]) -> str:
    said: dict[str, tuple[str, str]] = {}
    for one in summaries:
        name = one.side.name.partition(",")[0]
        said.setdefault(name, (one.side.threads, one.side.note))
    rows = [(name, how, note or _DASH) for name, (how, note) in said.items()]
    return "### How each gets its threads\n\n" + table(("who", "threads", "to know"), rows, left=3)


def _versions(figures: Figures) -> str:
    rows = [(HERE, ", ".join(f"{name} {number}" for name, number in figures.versions.items()))]
    rows += [(name, ", ".join(pin.replace("==", " ") for pin in pins)) for name, pins in figures.pins.items()]
    return "### Environments\n\n" + table(("environment", "versions"), rows, left=2)

"""``BenchOptions``: how to measure, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgecv.benchmarks.statistics import FEWEST_FOR_P90
from edgecv.errors import ConfigError

SHORTEST_S = 10.0
LONGEST_S = 300.0  # for a model whose 64 queries would take longer
MLPERF_S = 600.0
IDLE_WAIT_S = 30.0
QUICK_WARMUP = 10
SUSTAINED_S = 600.0  # ten minutes: heat is slow


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """How to measure.

    Attributes:
        runtime: ``auto`` or a registered runtime.
        precision: ``auto``, ``fp32``, ``fp16`` or ``int8``.
        variant: Name of a bundle's variant; empty for the best one that fits.
        threads: Threads of the session; 0 means as many as ``edgecv tune`` found best here, else as many as the process may use
            CPUs.
        runs: Runs or frames that count, from 1 on; ``None`` for as many as the scenario asks for. A given number is a quick look:
            it waits for no idle machine.
        warmup: Runs or frames before the first that counts; ``None`` for as many as it takes until the times are stable, or for
            10 in a quick look.
        seconds: How long to measure at least; ``None`` for 10 s, in ``sustained`` for 10 minutes.
        streams: Images of one query of ``multi_stream``.
        idle_wait_s: How long to wait for an idle machine; ``None`` for 30 s, and for not at all in a quick look.
        mlperf: Measure as long as MLPerf's rules ask for: 600 s, and 24,576 images in ``offline``.
        device: What the runtime computes on: ``cpu``, ``cuda``, ``tensorrt`` ...; never another one.
        extra: Options of the runtime, as ``edgecv.load`` takes them.
        source: URI of the images, as in ``edgecv run --source``; ``None`` for the scenario's own.
    """

    runtime: str = "auto"
    precision: str = "auto"
    variant: str = ""
    threads: int = 0
    runs: int | None = None
    warmup: int | None = None
    seconds: float | None = None
    streams: int = 4
    idle_wait_s: float | None = None
    mlperf: bool = False
    source: str | None = None
    device: str = "cpu"
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.runs is not None and self.runs < 1) or (self.warmup is not None and self.warmup < 0):
            raise ConfigError(
                f"runs start at 1 and warmup at 0, not {self.runs} and {self.warmup}.",
                "Leave them out for the defaults.",
            )
        if self.seconds is not None and not 0 < self.seconds <= 86_400:
            raise ConfigError(
                f"seconds lie between 0 and a day, not at {self.seconds:g}.", "Leave it out for the scenario's own."
            )
        if not 1 <= self.streams <= 64:
            raise ConfigError(
                f"streams lie between 1 and 64, not at {self.streams}.", "MLPerf takes 8; the default is 4."
            )
        if self.mlperf and (self.runs is not None or self.seconds is not None):
            raise ConfigError("--mlperf says how long to measure.", "Leave --runs and --seconds out.")

    @property
    def fixed_warmup(self) -> int | None:
        """How many runs the warm-up has; ``None`` where it ends when the times are stable."""
        return QUICK_WARMUP if self.warmup is None and self.runs is not None else self.warmup

    @property
    def longest_idle_wait_s(self) -> float:
        """How long to wait for an idle machine."""
        if self.idle_wait_s is not None:
            return self.idle_wait_s
        return IDLE_WAIT_S if self.runs is None else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRule:
    """When enough was measured.

    Attributes:
        queries: So many at least,
        seconds: and so long,
        longest_s: but not longer than this.
    """

    queries: int
    seconds: float
    longest_s: float

    @classmethod
    def of(cls, options: BenchOptions, mlperf_queries: int, seconds: float = SHORTEST_S) -> StopRule:
        """The rule of a scenario: what the options say, else MLPerf's or our own."""
        if options.runs is not None:
            return cls(queries=options.runs, seconds=0.0, longest_s=float("inf"))
        if options.mlperf:
            return cls(queries=mlperf_queries, seconds=MLPERF_S, longest_s=float("inf"))
        wanted = options.seconds or seconds
        return cls(queries=FEWEST_FOR_P90, seconds=wanted, longest_s=max(LONGEST_S, wanted))

    def enough(self, queries: int, elapsed_s: float) -> bool:
        """Whether so many queries in so many seconds are enough."""
        return elapsed_s >= self.longest_s or (queries >= self.queries and elapsed_s >= self.seconds)

"""``Report``: what one scenario measured, in a form that stays readable for later versions."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from edgecv.benchmarks.statistics import StageStatistics

SCHEMA = 2
TOO_SHORT = "too short to tell"


class Quality(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether the figures are to be believed.

    Attributes:
        verdict: ``clean`` or ``noisy``.
        reasons: Why it is noisy.
        unknown: What could not be read: no proof of anything.
        foreign_share: Part of the usable processors' time that other programs used.
        stolen_share: Part that the host of a virtual machine kept.
        speed_change: By which part a plain loop ran faster afterwards than before.
        throttle_events: How often the device slowed itself meanwhile.
        switches_per_s: How often per second the kernel took the processor away.
    """

    verdict: Literal["clean", "noisy"]
    reasons: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    foreign_share: float | None = None
    stolen_share: float | None = None
    speed_change: float = 0.0
    throttle_events: int | None = None
    switches_per_s: float = 0.0

    @property
    def disturbed(self) -> bool:
        """Whether something was seen that disturbs: a run that is over too soon shows nothing of that kind."""
        return any(not reason.endswith(TOO_SHORT) for reason in self.reasons)


class Comparability(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What two reports must have in common before their times may be compared.

    Attributes:
        device: Hash of board, processors, memory and accelerators.
        power_mode: Of boards that have one.
        governor: Who sets the processor's clock.
        runtimes: The packages that ran the model, with their versions.
        threads: As asked for; 0 lets the runtime choose.
        model: Hash of the bundle or the model file.
    """

    device: str
    power_mode: str = ""
    governor: str = ""
    runtimes: str = ""
    threads: int = 0
    model: str = ""


class Reading(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sensors at one moment; ``None`` is unknown, which is not the same as fine.

    Attributes:
        at_s: Seconds since the measurement began.
        temperature_c: Of the processor, degrees Celsius.
        clock_mhz: The fastest processor clock.
        watts: Power, as a sensor on the board says.
        throttle_events: How often the device slowed itself since it was started.
    """

    at_s: float
    temperature_c: float | None = None
    clock_mhz: float | None = None
    watts: float | None = None
    throttle_events: int | None = None


class Minute(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One part of a sustained run: what was done in it, and how the device felt at its end.

    Attributes:
        start_s: When it began.
        fps: Images per second in it.
        p50_ms: Median time of an image.
        rss_bytes: Memory at its end.
        reading: The sensors at its end.
    """

    start_s: float
    fps: float
    p50_ms: float
    rss_bytes: int
    reading: Reading


class Sustained(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a long run shows.

    Attributes:
        minutes: Its parts, a minute each where it was long enough.
        ratio: Images per second of the last part over those of the first.
        first_throttle_s: When the device first slowed itself; ``None`` if it did not, or does not say.
        rss_bytes_per_minute: By how much the memory grew.
        verdict: In words.
    """

    minutes: tuple[Minute, ...]
    ratio: float
    first_throttle_s: float | None = None
    rss_bytes_per_minute: float = 0.0
    verdict: str


class Accuracy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Scores on labelled images, 0 to 1: the figures by name, and how many images."""

    figures: dict[str, float]
    images: int


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One scenario on one device.

    Attributes:
        schema: Version of this form.
        scenario: Registered name of the scenario.
        bundle: Name of the model.
        variant: The variant that ran, such as ``onnx-int8``; empty for a bare model file.
        runtime: What ran it.
        float_precision: The type in which it computed what is not in integers; empty where the runtime does not say.
        options: What was asked for.
        source: Where the images came from.
        warmup: Runs or frames before the first that counts.
        runs: Runs or frames that count; queries in ``multi_stream``.
        images_per_run: How many images one of them takes.
        stages: Statistics per stage; ``total`` is a whole image, ``query`` all images of one, ``age`` from capture to result.
        headline: The stage by which reports are compared; empty where ``fps`` is the figure.
        fps: Images per second over all that count.
        init_ms: From nothing to a loaded model.
        first_ms: The first run, which does not count.
        times_of: The stage that ``times_ms`` are of.
        times_ms: Its times in their order, evenly thinned to 2,000 at most.
        readings: The sensors, about once a second.
        rss_bytes: Memory at the end.
        pss_bytes: The same, shared pages divided among those who share them.
        peak_rss_bytes: The most memory, loading the model included.
        quality: Whether the figures are to be believed.
        comparability: What another report must have in common with this one.
        device: What ``edgecv devices --json`` says.
        versions: EdgeCV, Python and numpy.
        started: UTC, ISO 8601.
        sustained: What a long run shows; only of that scenario.
        accuracy: Scores on labelled images, where they were asked for.
        note: What a reader of the figures should know.
    """

    schema: int = SCHEMA
    scenario: str
    bundle: str
    variant: str
    runtime: str
    options: dict[str, Any]
    source: str
    warmup: int
    runs: int
    images_per_run: int = 1
    stages: dict[str, StageStatistics]
    headline: str = ""
    fps: float
    init_ms: float = 0.0
    first_ms: float = 0.0
    times_of: str = ""
    times_ms: tuple[float, ...] = ()
    readings: tuple[Reading, ...] = ()
    rss_bytes: int
    pss_bytes: int
    peak_rss_bytes: int
    quality: Quality = Quality(verdict="noisy", reasons=("nobody watched the machine",))
    comparability: Comparability
    device: dict[str, Any]
    versions: dict[str, str]
    started: str
    float_precision: str = ""
    sustained: Sustained | None = None
    accuracy: Accuracy | None = None
    note: str = ""

    def of_device(self, *path: str) -> str:
        """A text of ``device``, such as ``("cpu", "model")``; ``unknown`` where it does not say."""
        found: Any = self.device
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return str(found) if found else "unknown"

    @property
    def headline_ms(self) -> float:
        """The one figure by which reports are compared: a median, or the time per image where only ``fps`` counts."""
        return self.stages[self.headline].p50_ms if self.headline in self.stages else 1000.0 / self.fps


def as_document(report: Report) -> dict[str, Any]:
    """Return the report as a dict that JSON can hold."""
    document: dict[str, Any] = msgspec.to_builtins(report)
    return document

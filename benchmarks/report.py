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
        threads: Of the session: as asked for, else as ``edgecv tune`` found best here, else as many as the process may use CPUs.
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
    """One scenario on one device."""

    schema: int = SCHEMA  # version of this form
    scenario: str  # registered name of the scenario
    bundle: str  # name of the model
    variant: str  # the variant that ran, such as `onnx-int8`; empty for a bare model file
    runtime: str  # what ran it
    options: dict[str, Any]  # what was asked for
    source: str  # where the images came from
    warmup: int  # runs or frames before the first that counts
    runs: int  # runs or frames that count; queries in `multi_stream`
    images_per_run: int = 1  # how many images one of them takes
    # Statistics per stage; `total` is a whole image, `query` all images of one, `age` the time from capture to result
    stages: dict[str, StageStatistics]
    headline: str = ""  # the stage by which reports are compared; empty where `fps` is the figure
    fps: float  # images per second over all that count
    init_ms: float = 0.0  # from nothing to a loaded model
    first_ms: float = 0.0  # the first run, which does not count
    times_of: str = ""  # the stage that `times_ms` are of
    times_ms: tuple[float, ...] = ()  # its times in their order, evenly thinned to 2,000 at most
    readings: tuple[Reading, ...] = ()  # the sensors, about once a second
    rss_bytes: int  # memory at the end
    pss_bytes: int  # the same, shared pages divided among those who share them
    peak_rss_bytes: int  # the most memory, loading the model included
    quality: Quality = Quality(verdict="noisy", reasons=("nobody watched the machine",))
    comparability: Comparability  # what another report must have in common with this one
    device: dict[str, Any]  # what `edgecv devices --json` says
    versions: dict[str, str]  # EdgeCV, Python and numpy
    started: str  # UTC, ISO 8601
    float_precision: str = ""  # the type of what is not computed in integers; empty where the runtime does not say
    computed_on: str = ""  # providers and their shares, where it was not the CPU
    sustained: Sustained | None = None  # what a long run shows; only of that scenario
    accuracy: Accuracy | None = None  # scores on labelled images, where they were asked for
    note: str = ""  # what a reader of the figures should know

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

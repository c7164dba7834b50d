"""How a pipeline does: what sources, the loop and sinks tell about themselves, for preview pages, metrics and health checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

SourceState = Literal["connecting", "live", "stale", "reconnecting", "failed", "ended"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceHealth:
    """What a source says about itself at one moment.

    Attributes:
        state: ``connecting`` for the first time, ``live``, ``stale`` (no frame within its deadline), ``reconnecting``,
            ``failed`` (trying again does not help, or was given up), ``ended`` (a file that was read, or closed).
        since_ns: Monotonic nanoseconds when this state began.
        code: Class of the last error, as in ``SourceError``; empty when there was none since it was last live.
        error: Message of that error, free of credentials.
        hint: What to do about it.
        reconnects: How often it came back to ``live``.
    """

    state: SourceState
    since_ns: int
    code: str = ""
    error: str = ""
    hint: str = ""
    reconnects: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """One source of a pipeline.

    Attributes:
        source_id: Its name, free of credentials.
        health: What the source says about itself.
        frames: Frames that went through the model.
        fps: Results per second over the last seconds.
        age_ms: Age of the newest result when it was ready; 0.0 before the first.
        size_wh: Width and height of the newest frame in pixels; ``(0, 0)`` before the first.
        dropped: Frames that gave no result, by reason: ``latest``, ``too_old``, ``every_nth``, ``still``, ``step``,
            ``unreadable``.
        counts: What its steps counted, such as ``{"door.in": 3, "door.out": 2}``.
    """

    source_id: str
    health: SourceHealth
    frames: int = 0
    fps: float = 0.0
    age_ms: float = 0.0
    size_wh: tuple[int, int] = (0, 0)
    dropped: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkCount:
    """What became of the results for one sink.

    Attributes:
        name: The sink, free of credentials.
        emitted: Results it took.
        failed: Results it refused.
        dropped: Results it never saw, because it was too slow or did not finish, or took and then had to give up (``lost``).
        error: The first failure, or nothing.
        events_lost: Events it never saw: of steps, which a result that is dropped hands on to the next one, where there were too
            many to hand on or the sink did not finish; and such that belong to no frame.
    """

    name: str
    emitted: int
    failed: int
    dropped: int
    error: str
    events_lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineStatus:
    """A pipeline at one moment; may be asked for from any thread.

    Attributes:
        running: Whether the loop is at work.
        model: Name of the model.
        elapsed_s: Since the first wait for a frame; stops with the pipeline.
        frames: Frames that went through the model.
        fps: Results per second of all sources over the last seconds; of the whole run once it has ended.
        age_p50_ms: Median age of a result when it was ready.
        age_p99_ms: The age that 99 % stay below.
        stage_p50_ms: Median per stage.
        sources: One status per source.
        sinks: One count per sink.
    """

    running: bool
    model: str
    elapsed_s: float
    frames: int
    fps: float
    age_p50_ms: float
    age_p99_ms: float
    stage_p50_ms: Mapping[str, float]
    sources: tuple[SourceStatus, ...]
    sinks: tuple[SinkCount, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the status as a dict that JSON can hold."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """A number that a preview page or metrics show without knowing where it comes from.

    Attributes:
        name: In snake case with its unit, such as ``device_temperature_c`` or ``sync_pending_events``.
        help: One sentence for people.
        read: Gives the value of this moment, ``None`` when there is none; must be quick and callable from any thread.
    """

    name: str
    help: str
    read: Callable[[], float | None]

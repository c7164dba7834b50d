"""How a pipeline does: what sources, the loop and sinks tell about themselves, for preview pages, metrics and health checks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

SourceState = Literal["connecting", "live", "stale", "reconnecting", "failed", "ended"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceHealth:
    """What a source says about itself at one moment."""

    # `connecting` for the first time, `live`, `stale` (no frame within its deadline), `reconnecting`, `failed` (trying
    # again does not help, or was given up), `ended` (a file that was read, or closed)
    state: SourceState
    since_ns: int  # monotonic nanoseconds when this state began
    code: str = ""  # class of the last error, as in `SourceError`; empty when there was none since it was last live
    error: str = ""  # message of that error, free of credentials
    hint: str = ""  # what to do about it
    reconnects: int = 0  # how often it came back to `live`


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """One source of a pipeline."""

    source_id: str  # its name, free of credentials
    health: SourceHealth  # what the source says about itself
    frames: int = 0  # frames that went through the model
    fps: float = 0.0  # results per second over the last seconds
    age_ms: float = 0.0  # age of the newest result when it was ready; 0.0 before the first
    size_wh: tuple[int, int] = (0, 0)  # width and height of the newest frame in pixels; `(0, 0)` before the first
    # Frames that gave no result, by reason: `latest`, `too_old`, `every_nth`, `still`, `step`, `unreadable`, `mask_failed`
    dropped: Mapping[str, int] = field(default_factory=dict)
    # What its steps counted, such as `{"door.in": 3, "door.out": 2}`
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkCount:
    """What became of the results for one sink."""

    name: str  # the sink, free of credentials
    emitted: int  # results it took
    failed: int  # results it refused
    # Results it never saw, because it was too slow or did not finish, or took and then had to give up (`lost`)
    dropped: int
    error: str  # the first failure, or nothing
    # Events it never saw: of steps, which a result that is dropped hands on to the next one, where there were too many
    # to hand on or the sink did not finish; and such that belong to no frame
    events_lost: int = 0
    held_back: int = 0  # events that its limits (`cooldown_s`, `at_most`) did not let through; they are told in number


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineStatus:
    """A pipeline at one moment; may be asked for from any thread."""

    running: bool  # whether the loop is at work
    model: str  # name of the model
    elapsed_s: float  # since the first wait for a frame; stops with the pipeline
    frames: int  # frames that went through the model
    fps: float  # results per second of all sources over the last seconds; of the whole run once it has ended
    age_p50_ms: float  # median age of a result when it was ready
    age_p99_ms: float  # the age that 99 % stay below
    stage_p50_ms: Mapping[str, float]  # median per stage
    sources: tuple[SourceStatus, ...]  # one status per source
    sinks: tuple[SinkCount, ...]  # one count per sink

    def as_dict(self) -> dict[str, Any]:
        """Return the status as a dict that JSON can hold."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """A number that a preview page or metrics show without knowing where it comes from."""

    name: str  # in snake case with its unit, such as `device_temperature_c` or `sync_pending_events`
    help: str  # one sentence for people
    # Gives the value of this moment, `None` when there is none; must be quick and callable from any thread
    read: Callable[[], float | None]


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the kernel does not say. ``/proc/self/statm`` counts it in pages (proc(5))."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")

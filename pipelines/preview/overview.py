"""What the page shows beside the images: one document, made anew for each question."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from edgecv.events import Event
from edgecv.pipelines.preview.details import details_text
from edgecv.pipelines.preview.painted import Channel, PaintedImages, channel_key
from edgecv.results import Result
from edgecv.status import Gauge, PipelineStatus, SourceHealth, SourceStatus

_EVENTS = 50
_TEXT = 200  # characters of an event's details that are kept
_LIVE_S = 5.0  # without a pipeline to ask, a source counts as live for so long after a result


class EventLog:
    """The latest events as text, newest first."""

    def __init__(self) -> None:
        self._rows: deque[dict[str, Any]] = deque(maxlen=_EVENTS)
        self._lock = threading.Lock()

    def add(self, event: Event) -> None:
        """Keep an event; of many the oldest goes."""
        row = {
            "kind": event.kind,
            "time_ms": event.time_ns // 1_000_000,
            "source": event.source_id,
            "priority": event.priority,
            "details": details_text(event.data, _TEXT),
        }
        with self._lock:
            self._rows.appendleft(row)

    def rows(self) -> list[dict[str, Any]]:
        """The events as dicts that JSON can hold, newest first."""
        with self._lock:
            return list(self._rows)


class Overview:
    """Asks the pipeline and the gauges, and puts the answers together."""

    def __init__(self, images: PaintedImages, events: EventLog, gauges: Sequence[Gauge]) -> None:
        self.status: Callable[[], PipelineStatus] | None = None
        self._images = images
        self._events = events
        self._gauges = tuple(gauges)

    def document(self) -> dict[str, Any]:
        """What JSON can hold; takes as long as the pipeline and the gauges take to answer."""
        channels = {channel.source_id: channel for channel in self._images.channels()}
        status = self.status() if self.status is not None else _guess(channels.values())
        document = status.as_dict()
        document["sources"] = [_source(source, channels.get(source.source_id)) for source in status.sources]
        document["gauges"] = [
            {"name": gauge.name, "help": gauge.help, "value": _value(gauge)} for gauge in self._gauges
        ]
        document["events"] = self._events.rows()
        return document


def _source(source: SourceStatus, channel: Channel | None) -> dict[str, Any]:
    newest = None if channel is None else channel.newest
    health = source.health
    return {
        "key": channel_key(source.source_id),
        "name": source.source_id,
        "state": health.state,
        "since_s": _seconds_since(health.since_ns),
        "code": health.code,
        "error": health.error,
        "hint": health.hint,
        "reconnects": health.reconnects,
        "frames": source.frames,
        "fps": source.fps,
        "age_ms": source.age_ms,
        "size_wh": source.size_wh,
        "dropped": dict(source.dropped),
        "counts": dict(source.counts),
        # Seconds since the image that is shown was taken; None: there is none.
        "image_age_s": None if newest is None else _seconds_since(newest[1].frame.monotonic_ns),
    }


def _guess(channels: Iterable[Channel]) -> PipelineStatus:
    """What can be said without a pipeline: somebody calls ``emit`` himself."""
    newest: list[tuple[int, Result]] = [channel.newest for channel in channels if channel.newest is not None]
    return PipelineStatus(
        running=True,
        model=newest[0][1].model if newest else "",
        elapsed_s=0.0,
        frames=sum(number for number, _ in newest),
        fps=0.0,
        age_p50_ms=0.0,
        age_p99_ms=0.0,
        stage_p50_ms={},
        sources=tuple(_guess_source(number, result) for number, result in newest),
        sinks=(),
    )


def _guess_source(frames: int, result: Result) -> SourceStatus:
    frame = result.frame
    lives = _seconds_since(frame.monotonic_ns) < _LIVE_S
    height, width = frame.image.shape[:2]
    return SourceStatus(
        source_id=frame.source_id,
        health=SourceHealth(state="live" if lives else "stale", since_ns=frame.monotonic_ns),
        frames=frames,
        age_ms=result.age_ms,
        size_wh=(width, height),
    )


def _value(gauge: Gauge) -> float | None:
    try:
        return gauge.read()
    except Exception:  # noqa: BLE001 - a sensor that cannot be read is one without a value, not the end of the page
        return None


def _seconds_since(monotonic_ns: int) -> float:
    return round(max(0.0, (time.monotonic_ns() - monotonic_ns) / 1e9), 1)

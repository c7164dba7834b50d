"""An events file with a past, for the tests of the page's events view."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgecv.events import Event, EventMedia
from edgecv.pipelines.sinks.events.rows import row_of
from edgecv.pipelines.sinks.events.sink import EventsOptions, EventsSink
from edgecv.pipelines.sinks.events.store import EventStore, Limits

CAMERAS = ("door", "yard", "gate", "dock")
RULES = ("entrance", "exit", "crowd")
LABELS = ("person", "car", "dog")


def crossing(number: int, time_ns: int, **more: Any) -> Event:
    """The n-th event of a scene with four cameras, three rules and three classes."""
    data = {
        "counter": RULES[number % 3],
        "direction": ("in", "out")[number % 2],
        "label": LABELS[number % 3],
        "tracker_id": number,
        "total": number,
        **more,
    }
    return Event(kind="line.crossed", time_ns=time_ns, source_id=CAMERAS[number % 4], data=data)


def spread(count: int, end_ns: int | None = None, hours: float = 48.0) -> Iterator[Event]:
    """Events at even distances, the last one now."""
    end_ns = time.time_ns() if end_ns is None else end_ns
    step_ns = round(hours * 3600e9 / count)
    for number in range(count):
        yield crossing(number, end_ns - (count - 1 - number) * step_ns)


def write_history(path: Path, events: Iterable[Event], media: Iterable[EventMedia] = ()) -> None:
    """Make the file at once, without the pauses of the sink."""
    store = EventStore(path, Limits(events=1_000_000, seconds=0))
    store.write([row_of(event) for event in events], list(media))
    store.close()


@contextmanager
def writing(path: Path, **options: Any) -> Iterator[EventsSink]:
    """The sink on that file."""
    sink = EventsSink(path, options=EventsOptions(**options))
    try:
        yield sink
    finally:
        sink.close()


def local_ns(*fields: int) -> int:
    """A moment of this machine's local time, as browsers have it."""
    return round(datetime(*fields).timestamp() * 1e9)  # type: ignore[arg-type]


def write_jpeg(path: Path, size_wh: tuple[int, int] = (640, 360), grey: int = 200) -> Path:
    """A picture of one grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((size_wh[1], size_wh[0], 3), grey, np.uint8))
    return path


def write_mp4(path: Path, seconds: int = 10) -> Path:
    """A film of one picture each second, of another grey each, with an index that players can seek in."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=10, options={"g": "10", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for number in range(seconds * 10):
            noise = np.random.default_rng(number).integers(0, 255, (120, 160, 3), np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(noise, format="bgr24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path

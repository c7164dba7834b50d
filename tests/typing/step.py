"""A step, a source and a sink of one's own, under a strict type checker. Lines with `# E` must not pass."""

from __future__ import annotations

from dataclasses import replace

import edgecv
from edgecv.protocols import Sink, Source, Step


def crowd(result: edgecv.Result) -> edgecv.Result | None:
    """Tell when more than five are there."""
    if result.detections is None or len(result.detections) <= 5:
        return None
    event = edgecv.Event(kind="crowd", time_ns=result.frame.captured_ns, priority="alarm")
    return replace(result, events=(*result.events, event))


class Ten:
    """Ten times the same image."""

    source_id, live, fps = "ten", False, 0.0

    def __init__(self, path: str) -> None:
        self._image, self._left = edgecv.read_image(path), 10

    def read(self) -> edgecv.Frame | None:
        self._left -= 1
        return edgecv.Frame(image=self._image, index=9 - self._left, source_id="ten") if self._left >= 0 else None

    def close(self) -> None:
        pass


class Printed:
    """Prints the names of what is found."""

    def emit(self, result: edgecv.Result) -> None:
        print(result.names)

    def close(self) -> None:
        pass


def app(model: edgecv.Model) -> edgecv.Pipeline:
    step: Step = crowd
    source: Source = Ten("bus.jpg")
    sink: Sink = Printed()
    return edgecv.Pipeline(source, model, steps=[step], sinks=[sink])


def silent(result: edgecv.Result) -> bool:
    return bool(result.events)


def wrong(model: edgecv.Model) -> None:
    edgecv.Pipeline("clip.mp4", model, steps=[silent])  # E: a step gives a result or None
    edgecv.Pipeline("clip.mp4", "yolov8n.ecv")  # E
    edgecv.Event(kind="crowd", time_ns=0, priority="urgent")  # E

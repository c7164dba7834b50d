"""What the tests of the preview page look at: sources that move, and a pipeline's status that a test may change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np

from edgecv.errors import SinkError
from edgecv.pipelines.preview.sink import PreviewSink
from edgecv.pipelines.sources.synthetic import square_at
from edgecv.results import Detections, Frame, Result
from edgecv.status import PipelineStatus, SinkCount, SourceHealth, SourceState, SourceStatus

DEADLINE_S = 20.0


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.01)


def make_result(
    index: int, source_id: str = "door", size_wh: tuple[int, int] = (320, 240), labels: tuple[str, ...] = ("person",)
) -> Result:
    """A frame with a white square that wanders, found where it is."""
    width, height = size_wh
    image = np.full((height, width, 3), (96, 64, 32), np.uint8)
    left, top, side = square_at(index, width, height)
    image[top : top + side, left : left + side] = 255
    found = Detections(
        xyxy=np.array([[left, top, left + side, top + side]], np.float32),
        confidence=np.array([0.9], np.float32),
        class_id=np.array([0]),
    )
    now_ns = time.monotonic_ns()
    frame = Frame(image=image, index=index, source_id=source_id, captured_ns=time.time_ns(), monotonic_ns=now_ns)
    return Result(frame=frame, labels=labels, detections=found, age_ms=12.5, model="yolov8n/onnx-int8")


class Scene:
    """Sources that move, and what a pipeline would say about them."""

    def __init__(self, *names: str, size_wh: tuple[int, int] = (320, 240)) -> None:
        self.index = 0
        self.names = names or ("door",)
        self.size_wh = size_wh
        self.silent: set[str] = set()
        self._health = {name: SourceHealth(state="live", since_ns=time.monotonic_ns()) for name in self.names}
        self._counts: dict[str, int] = {}
        self._start_s = time.monotonic()

    def change(self, name: str, state: SourceState, code: str = "", error: str = "", hint: str = "") -> None:
        """Put a source into another state; only a live one gives frames."""
        self._health[name] = SourceHealth(
            state=state, since_ns=time.monotonic_ns(), code=code, error=error, hint=hint, reconnects=0
        )
        self.silent = {name for name, health in self._health.items() if health.state != "live"}

    def status(self) -> PipelineStatus:
        """As ``Pipeline.status``."""
        elapsed_s = time.monotonic() - self._start_s
        return PipelineStatus(
            running=True,
            model="yolov8n/onnx-int8",
            elapsed_s=elapsed_s,
            frames=self.index * len(self.names),
            fps=self.index / elapsed_s,
            age_p50_ms=31.0,
            age_p99_ms=48.2,
            stage_p50_ms={"wait": 12.1, "preprocess": 1.4, "inference": 15.8, "postprocess": 0.6},
            sources=tuple(self._source(name) for name in self.names),
            sinks=(
                SinkCount(name="jsonl:out.jsonl", emitted=self.index, failed=0, dropped=0, error=""),
                SinkCount(name="video:out.mp4", emitted=3, failed=2, dropped=1, error="No space left on device."),
            ),
        )

    def _source(self, name: str) -> SourceStatus:
        line = name.rpartition("/")[2]
        return SourceStatus(
            source_id=name,
            health=self._health[name],
            frames=self.index,
            fps=0.0 if name in self.silent else 19.6,
            age_ms=31.2,
            size_wh=self.size_wh,
            dropped={"latest": 7, "too_old": 2},
            counts={f"{line}.in": self.index // 10, f"{line}.out": 2},
        )

    @contextmanager
    def feeding(self, sink: PreviewSink, fps: float = 20.0) -> Iterator[None]:
        """Emit frames from another thread, as a pipeline does."""
        ending = threading.Event()
        thread = threading.Thread(target=self._feed, args=(sink, ending, fps))
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join(DEADLINE_S)
            assert not thread.is_alive()

    def _feed(self, sink: PreviewSink, ending: threading.Event, fps: float) -> None:
        while not ending.wait(1 / fps):
            self.index += 1
            with suppress(SinkError):  # a pipeline, too, goes on when a sink is closed
                for number, name in enumerate(self.names):
                    if name not in self.silent:
                        sink.emit(make_result(self.index + 40 * number, name, self.size_wh))

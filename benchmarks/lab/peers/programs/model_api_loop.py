"""OpenVINO Model API on a video: one frame after the other, or its asynchronous pipeline.

``python model_api_loop.py sync|async MODEL.xml VIDEO --frames 200 --threads 2 --streams 1``. The wrapper is ``YOLOv8``; Model API
puts resizing into the graph, as it does by default, and has one request more than there are streams.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

_SETTINGS = {"confidence_threshold": 0.25, "iou_threshold": 0.7}


def _frames(path: str, most: int) -> Iterator[Any]:
    video = importlib.import_module("cv2").VideoCapture(path)
    for _ in range(most):
        there, frame = video.read()
        if not there:
            return
        yield frame


def _model(given: argparse.Namespace) -> Any:
    kind = importlib.import_module("model_api.models").Model
    settings: dict[str, Any] = dict(_SETTINGS)
    if given.bytes:  # the file takes the bytes of the image as they are, and scales them and swaps the colours itself
        settings |= {"scale_values": [1.0], "reverse_input_channels": False}
    return kind.create_model(
        given.model,
        model_type="YOLOv8",
        configuration=settings,
        device="CPU",
        nthreads=given.threads,
        nstreams=str(given.streams),
    )


def _sync(model: Any, frames: Iterator[Any]) -> Iterator[int]:
    for frame in frames:
        yield len(model(frame).bboxes)


def _async(model: Any, frames: Iterator[Any]) -> Iterator[int]:
    """As in the examples of Model API: take a result that is ready, else hand in a frame, else wait."""
    pipeline = importlib.import_module("model_api.pipelines").AsyncPipeline(model)
    handed_in = taken = 0
    more = True
    while more or taken < handed_in:
        if result := pipeline.get_result(taken):
            taken += 1
            yield len(result[0].bboxes)
        elif more and pipeline.is_ready():
            frame = next(frames, None)
            more = frame is not None
            if more:
                pipeline.submit_data(frame, handed_in)
                handed_in += 1
        elif more:
            pipeline.await_any()
        else:
            pipeline.await_all()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["sync", "async"])
    parser.add_argument("model")
    parser.add_argument("video")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--bytes", action="store_true")
    given = parser.parse_args()
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # OpenVINO reports its use to nobody
    results = (_sync if given.mode == "sync" else _async)(_model(given), _frames(given.video, given.frames))
    counts: list[int] = []
    marks: list[float] = []
    for count in results:
        counts.append(count)
        marks.append(time.perf_counter())
    frames = len(marks) - 1
    print(json.dumps({"fps": frames / (marks[-1] - marks[0]), "frames": frames, "counts": counts}))


if __name__ == "__main__":
    main()

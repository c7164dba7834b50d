"""The loop that one writes by hand: read a frame, resize it, run the session, keep the best boxes; nothing overlaps.

``python hand_loop.py openvino|onnxruntime|litert MODEL VIDEO --frames 200 --threads 2``, on an export of Ultralytics.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Call = Callable[[Any], Any]
_CONFIDENCE, _IOU, _PAD = 0.25, 0.7, 114


def _silent(package: str) -> Any:
    """Import a package of this environment, and let it report its use to nobody."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return importlib.import_module(package)


def _openvino(path: str, threads: int) -> tuple[Call, tuple[int, ...]]:
    core = _silent("openvino").Core()
    compiled = core.compile_model(path, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads})
    request = compiled.create_infer_request()
    return lambda tensor: request.infer([tensor], share_inputs=True)[0], tuple(compiled.input(0).shape)


def _onnxruntime(path: str, threads: int) -> tuple[Call, tuple[int, ...]]:
    ort = _silent("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    return lambda tensor: session.run(None, {given.name: tensor})[0], tuple(given.shape)


def _litert(path: str, threads: int) -> tuple[Call, tuple[int, ...]]:
    interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter(path, num_threads=threads)
    interpreter.allocate_tensors()
    given, found = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def call(tensor: Any) -> Any:
        if given["dtype"] == np.int8:
            scale, zero = given["quantization"]
            tensor = np.clip(np.round(tensor / scale + zero), -128, 127).astype(np.int8)
        interpreter.set_tensor(given["index"], tensor)
        interpreter.invoke()
        out = interpreter.get_tensor(found["index"])
        scale, zero = found["quantization"]
        return (out.astype(np.float32) - zero) * scale if out.dtype == np.int8 else out

    return call, tuple(given["shape"])


_OPEN = {"openvino": _openvino, "onnxruntime": _onnxruntime, "litert": _litert}


def _tensor(cv2: Any, frame: Any, shape: tuple[int, ...]) -> Any:
    """Resize without distortion, pad, turn to RGB between 0 and 1, and lay out as the model wants it."""
    planar = shape[1] == 3
    height, width = shape[2:] if planar else shape[1:3]
    factor = min(width / frame.shape[1], height / frame.shape[0])
    size = round(frame.shape[1] * factor), round(frame.shape[0] * factor)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    small = frame if size == frame.shape[1::-1] else cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)
    sides = top, height - size[1] - top, left, width - size[0] - left
    padded = cv2.copyMakeBorder(small, *sides, cv2.BORDER_CONSTANT, value=(_PAD,) * 3)
    blob = cv2.dnn.blobFromImage(padded, 1 / 255, swapRB=True)
    return blob if planar else np.ascontiguousarray(blob.transpose(0, 2, 3, 1))


def _boxes(cv2: Any, out: Any) -> int:
    """How many boxes are left of ``(1, 4 + classes, anchors)``: the best class of each, suppressed within a class."""
    scores = out[0, 4:]
    kept = scores.max(axis=0) > _CONFIDENCE
    scores, boxes = scores[:, kept], out[0, :4, kept].astype(np.float64)
    if not boxes.size:
        return 0
    boxes[:, :2] -= boxes[:, 2:] / 2
    boxes *= 1.0 if boxes.max() > 2 else 640.0  # LiteRT's exports say parts of the image
    best = scores.max(axis=0), scores.argmax(axis=0)
    return len(cv2.dnn.NMSBoxesBatched(boxes.tolist(), best[0].tolist(), best[1].tolist(), _CONFIDENCE, _IOU))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runtime", choices=list(_OPEN))
    parser.add_argument("model")
    parser.add_argument("video")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    cv2 = importlib.import_module("cv2")
    cv2.setNumThreads(given.threads)
    call, shape = _OPEN[given.runtime](given.model, given.threads)
    video = cv2.VideoCapture(given.video)
    counts: list[int] = []
    marks: list[float] = []
    while len(counts) < given.frames:
        there, frame = video.read()
        if not there:
            break
        counts.append(_boxes(cv2, call(_tensor(cv2, frame, shape))))
        marks.append(time.perf_counter())
    frames = len(marks) - 1
    print(json.dumps({"fps": frames / (marks[-1] - marks[0]), "frames": frames, "counts": counts}))


if __name__ == "__main__":
    main()

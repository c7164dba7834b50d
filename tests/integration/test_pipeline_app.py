"""The five-line app as users write it: a script of its own, without a ``__main__`` guard, with a real ONNX model."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60
LABELS = ("bright",)

_APP = """
import sys, edgecv
model = edgecv.load(sys.argv[1], threads=1)
with edgecv.Pipeline(sys.argv[2], model, sinks=sys.argv[3:]) as pipeline:
    for result in pipeline:
        print(result.frame.index, len(result.detections), flush=True)
print("after the loop", flush=True)
"""

_RUN = """
import signal, sys, edgecv
pipeline = edgecv.Pipeline(sys.argv[2], edgecv.load(sys.argv[1], threads=1), sinks=sys.argv[3:])
signal.signal(signal.SIGTERM, lambda *_: pipeline.stop())
print("ready", flush=True)
print(pipeline.run().frames, flush=True)
"""


def brightness_model(path: Path) -> Path:
    """A detector of 16 cells of 8 x 8 pixels: each reports its own square, scored by its brightness."""
    centers = np.array([(x * 8 + 4, y * 8 + 4, 8, 8) for y in range(4) for x in range(4)], np.float32).T[None]
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["grey"], axes=[1], keepdims=1),
        helper.make_node("AveragePool", ["grey"], ["cells"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Reshape", ["cells", "row"], ["scores"]),
        helper.make_node("Concat", ["boxes", "scores"], ["output0"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, 3, 32, 32))],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, (1, 5, 16))],
        [
            numpy_helper.from_array(centers, "boxes"),
            numpy_helper.from_array(np.array([1, 1, 16], np.int64), "row"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    metadata = {"names": str(dict(enumerate(LABELS))), "imgsz": "[32, 32]", "task": "detect"}
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return brightness_model(tmp_path_factory.mktemp("model") / "brightness.onnx")


# Shells start background jobs, such as a whole test run may be, with Ctrl-C ignored.
_HEED_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


def _start(folder: Path, script: str, *arguments: str) -> subprocess.Popen[str]:
    app = folder / "app.py"
    app.write_text(_HEED_CTRL_C + script)
    command = [sys.executable, str(app), *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def _wait_for_line(app: subprocess.Popen[str], start: str) -> None:
    assert app.stdout is not None
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        line = app.stdout.readline()
        if line.startswith(start):
            return
        if not line:
            break
    app.kill()
    raise AssertionError(f"no line '{start}': {app.communicate()[1]}")


def _indices(path: Path) -> list[int]:
    return [json.loads(line)["index"] for line in path.read_text().splitlines()]


def test_the_app_sees_every_frame_and_ends_by_itself(tmp_path: Path, model_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    app = _start(tmp_path, _APP, str(model_path), "synthetic://?frames=30&width=64&height=64", f"jsonl:{out}")
    stdout, stderr = app.communicate(timeout=DEADLINE_S)
    assert (app.returncode, stderr) == (0, "")
    lines = stdout.splitlines()
    assert lines[-1] == "after the loop"
    assert [int(line.split()[0]) for line in lines[:-1]] == _indices(out) == list(range(30))
    assert max(int(line.split()[1]) for line in lines[:-1]) >= 1, "the bright square is found"


@pytest.mark.parametrize(
    ("number", "code", "in_stderr"),
    [(signal.SIGINT, -signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, 0, "")],
    ids=["ctrl-c", "sigterm"],
)
@pytest.mark.parametrize("live", [0, 1], ids=["lossless", "live"])
def test_a_signal_ends_the_app_with_everything_written(
    tmp_path: Path, model_path: Path, number: signal.Signals, code: int, in_stderr: str, live: int
) -> None:
    jsonl, video = tmp_path / "out.jsonl", tmp_path / "out.mp4"
    source = f"synthetic://?frames=0&width=64&height=64&fps=100&live={live}"
    app = _start(tmp_path, _APP, str(model_path), source, f"jsonl:{jsonl}", f"video:{video}")
    _wait_for_line(app, "20 " if not live else "")
    app.send_signal(number)
    stdout, stderr = app.communicate(timeout=DEADLINE_S)
    assert app.returncode == code, stderr
    assert in_stderr in stderr
    assert "after the loop" not in stdout
    indices = _indices(jsonl)
    assert indices == sorted(indices)
    if not live:
        assert indices == list(range(len(indices)))
        assert len(indices) > 20
    assert video.stat().st_size > 0


def test_a_program_with_its_own_sigterm_handler_keeps_it(tmp_path: Path, model_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    app = _start(tmp_path, _RUN, str(model_path), "synthetic://?frames=0&width=64&height=64", f"jsonl:{out}")
    _wait_for_line(app, "ready")
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline and out.stat().st_size < 2000:
        time.sleep(0.01)
    app.send_signal(signal.SIGTERM)
    stdout, stderr = app.communicate(timeout=DEADLINE_S)
    assert (app.returncode, stderr) == (0, "")
    assert int(stdout) == len(_indices(out)) > 0


def test_kill_9_leaves_whole_lines_and_a_readable_video(tmp_path: Path, model_path: Path) -> None:
    jsonl, video = tmp_path / "out.jsonl", tmp_path / "out.mp4"
    source = "synthetic://?frames=0&width=64&height=64&fps=10"
    app = _start(tmp_path, _APP, str(model_path), source, f"jsonl:{jsonl}", f"video:{video}")
    _wait_for_line(app, "60 ")
    app.kill()
    app.communicate(timeout=DEADLINE_S)
    assert len(_indices(jsonl)) > 40
    import cv2

    capture, shown = cv2.VideoCapture(str(video)), 0
    while capture.read()[0]:
        shown += 1
    assert shown >= 20


def test_an_abandoned_iterator_lets_the_program_end(tmp_path: Path, model_path: Path) -> None:
    script = """
import sys, edgecv
iterator = iter(edgecv.Pipeline(sys.argv[2], edgecv.load(sys.argv[1]), sinks=sys.argv[3:]))
print(next(iterator).frame.index, flush=True)
"""
    out = tmp_path / "out.jsonl"
    app = _start(tmp_path, script, str(model_path), "synthetic://?frames=0&width=64&height=64", f"jsonl:{out}")
    stdout, stderr = app.communicate(timeout=DEADLINE_S)
    assert (app.returncode, stdout, stderr) == (0, "0\n", "")
    assert _indices(out) == [0]


def test_importing_the_pipeline_loads_neither_opencv_nor_av_nor_a_runtime(tmp_path: Path) -> None:
    script = """
import sys, edgecv
edgecv.Pipeline
import edgecv.media.images, edgecv.media.video_reader, edgecv.media.drawing
import edgecv.pipelines.sinks.video.video, edgecv.pipelines.sources.camera
print([name for name in ("cv2", "av", "onnxruntime", "torch", "onnx", "multiprocessing") if name in sys.modules])
"""
    app = _start(tmp_path, script)
    stdout, stderr = app.communicate(timeout=DEADLINE_S)
    assert (stdout, stderr) == ("[]\n", "")


_SLOW_SINK = """
import sys, time
import edgecv

class Slow:
    written = 0
    def emit(self, result):
        if not self.written:
            print("writing", flush=True)
        time.sleep(0.2)
        self.written += 1
    def close(self):
        print("written", self.written, flush=True)

edgecv.Pipeline("synthetic://?frames=8&width=64&height=64", edgecv.load(sys.argv[1]), sinks=[Slow()]).run()
print("after the run", flush=True)
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 0)], ids=["ctrl-c", "sigterm"]
)
def test_a_signal_while_the_sinks_write_their_rest_loses_nothing(
    tmp_path: Path, model_path: Path, number: signal.Signals, code: int
) -> None:
    app = _start(tmp_path, _SLOW_SINK, str(model_path))
    _wait_for_line(app, "writing")
    time.sleep(0.5)  # the frames are through, the sink is not
    app.send_signal(number)
    stdout, stderr = app.communicate(timeout=DEADLINE_S)
    assert (app.returncode, stdout) == (code, "written 8\n"), stderr

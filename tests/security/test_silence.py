"""Nothing leaves the machine unasked: no socket, no look-up, no file outside the given folders, in a home that is empty.

The packages underneath would: ONNX Runtime, OpenVINO, NNCF and Ultralytics report their use, and keep settings and identifiers. See
docs/security.md.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import CHECKOUT
from tests.security.tracing import Observed, needs_strace, observe

LONG_S = 60
# Runs commands, parted by `then`, in one process: over and over, until the first argument's seconds have passed.
COMMANDS = """
import itertools, sys, time
from edgecv.cli.entry import main
arguments = iter(sys.argv[2:])
commands = [list(group) for then, group in itertools.groupby(arguments, lambda word: word == "then") if not then]
end = time.monotonic() + float(sys.argv[1])
first = True
while first or time.monotonic() < end:
    first = False
    for command in commands:
        sys.argv = ["edgecv", *command]
        try:
            main()
        except SystemExit as ended:
            if ended.code:
                raise
"""
SHAPES = CHECKOUT / "benchmarks/demo/shapes.onnx"


@pytest.fixture(autouse=True)
def _strace() -> None:
    needs_strace()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    import cv2
    import numpy as np

    path = tmp_path / "given/image.png"
    path.parent.mkdir()
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8))
    return path


def traced(folder: Path, *commands: str, at_least_s: float = 0, timeout_s: float = 60) -> Observed:
    return observe(["-c", COMMANDS, str(at_least_s), *commands], folder, timeout_s)


def assert_silent(observed: Observed) -> None:
    assert observed.code == 0, observed.output
    assert not observed.sockets, "\n".join(observed.sockets)
    assert not observed.files, "\n".join(observed.files)
    assert not observed.left, "\n".join(observed.left)


def test_converting_predicting_verifying_and_running_are_silent(tmp_path: Path, image: Path) -> None:
    observed = traced(
        tmp_path,
        *("convert", str(SHAPES), "--out", "shapes.ecv", "--force", "then"),
        *("verify", "shapes.ecv", "then"),
        *("predict", "shapes.ecv", str(image), "then"),
        *(
            "run",
            "shapes.ecv",
            "--source",
            "synthetic://?frames=20&width=320&height=240",
            "--out",
            "jsonl:results.jsonl",
        ),
    )
    assert_silent(observed)


def test_a_program_that_imports_edgecv_before_onnxruntime_is_silent(tmp_path: Path) -> None:
    program = "import edgecv, onnxruntime, time; time.sleep(2)"  # it reports from a thread of its own
    assert_silent(observe(["-c", program], tmp_path, timeout_s=60))


def test_the_trace_sees_a_look_up_a_socket_and_a_file_at_home(tmp_path: Path) -> None:
    program = """
import contextlib, pathlib, socket
with contextlib.suppress(OSError):
    socket.create_connection(("localhost", 9), timeout=1)
pathlib.Path.home().joinpath("settings.json").write_text("{}")
"""
    observed = observe(["-c", program], tmp_path, timeout_s=60)
    assert observed.sockets
    assert observed.files == observed.left == (str(tmp_path / "home/settings.json"),)


@pytest.fixture(scope="module")
def bundle(yolov8n: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real model in every format, converted once for the slow tests."""
    from edgecv import convert

    out = tmp_path_factory.mktemp("silence") / "yolo.ecv"
    return convert(yolov8n, out=out, formats=("onnx", "openvino", "tflite"), precision="fp32", imgsz=320).path


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_minute_of_convert_is_silent(tmp_path: Path, yolov8n: Path, coco_images: list[Path]) -> None:
    command = ["convert", str(yolov8n), "--to", "all", "--int8", "--imgsz", "320", "--out", "yolo.ecv", "--force"]
    observed = traced(tmp_path, *command, "--calib", str(coco_images[0].parent), at_least_s=LONG_S, timeout_s=1000)
    assert observed.seconds >= LONG_S
    assert_silent(observed)


RUNTIMES = ("onnxruntime", "openvino", "litert")
REST = {
    "run": (
        "--source",
        "synthetic://?frames=1000&width=640&height=480",
        "--track",
        "--out",
        "jsonl:results.jsonl",
        "--force",
    ),
    "predict": (),
    "bench": ("--json", "--threads", "1"),
}


@pytest.mark.slow
@pytest.mark.timeout(700)
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("command", REST)
def test_a_minute_of_a_command_is_silent(tmp_path: Path, image: Path, bundle: Path, command: str, runtime: str) -> None:
    images = [str(image)] * 20 if command == "predict" else []
    arguments = (command, str(bundle), *images, *REST[command], "--runtime", runtime)
    observed = traced(tmp_path, *arguments, at_least_s=LONG_S, timeout_s=600)
    assert observed.seconds >= LONG_S
    assert_silent(observed)


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_a_minute_of_verify_is_silent(tmp_path: Path, bundle: Path) -> None:
    """It takes every runtime in turn."""
    observed = traced(tmp_path, "verify", str(bundle), at_least_s=LONG_S, timeout_s=600)
    assert observed.seconds >= LONG_S
    assert_silent(observed)

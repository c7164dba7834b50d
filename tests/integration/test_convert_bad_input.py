"""``edgecv convert`` given what it cannot convert: an error in words with a next step, its exit code, and nothing half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from edgecv.bundles.bundle import Bundle
from edgecv.converters.families.ultralytics_import import tasks
from tests.command_line import run_here
from tests.conftest import CHECKOUT, SHARED, names_in

DEADLINE_S = 100
_SMALL = ("--random-weights", "--imgsz", "64")


class Other(torch.nn.Module):
    """A network of nobody's family; its class lives in this test."""


class Attack:
    """Pickles as a shell command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def convert(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command, writing to ``folder/out.ecv``."""
    return run_here("convert", *arguments, "--out", folder / "out.ecv")


def check_refused(done: subprocess.CompletedProcess[str], folder: Path, words: str, code: int = 1) -> None:
    """One error with a next step, of EdgeCV's own, and an empty folder."""
    assert done.returncode == code, done.stderr
    error, following = done.stderr.strip().splitlines()[-2:]
    assert error.startswith("error: "), done.stderr
    assert words in error
    assert following.startswith("  next: ")
    assert "bug in EdgeCV" not in following
    assert "Traceback" not in done.stderr
    assert names_in(folder) == []


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """The folder that the bundle would go to."""
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def test_a_checkpoint_of_another_family_is_named_by_its_head(tmp_path: Path, target: Path) -> None:
    network = tasks().RTDETRDetectionModel("yolov8n-rtdetr.yaml", nc=2, verbose=False)
    torch.save({"model": network}, tmp_path / "rtdetr.pt")
    check_refused(convert(target, tmp_path / "rtdetr.pt"), target, "RTDETRDecoder")


def test_a_checkpoint_with_a_class_of_its_own_is_refused(tmp_path: Path, target: Path) -> None:
    torch.save({"model": Other()}, tmp_path / "other.pt")
    check_refused(convert(target, tmp_path / "other.pt"), target, "test_convert_bad_input.Other")


def test_a_pickle_that_would_run_code_does_not(tmp_path: Path, target: Path) -> None:
    torch.save({"model": Attack(tmp_path / "ran")}, tmp_path / "evil.pt")
    check_refused(convert(target, tmp_path / "evil.pt"), target, "posix.system")
    assert not (tmp_path / "ran").exists()


def test_weights_that_would_run_code_do_not(tmp_path: Path, target: Path) -> None:
    torch.save({"state_dict": Attack(tmp_path / "ran")}, tmp_path / "evil.pth")
    check_refused(convert(target, "resnet18", "--weights", tmp_path / "evil.pth"), target, "evil.pth")
    assert not (tmp_path / "ran").exists()


def directory(path: Path) -> None:
    path.mkdir()


def empty(path: Path) -> None:
    path.touch()


def cut_short(path: Path) -> None:
    torch.save(torch.nn.Linear(50, 50).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-300])


def of_another_network(path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)


def a_tensor(path: Path) -> None:
    torch.save(torch.zeros(3), path)


@pytest.mark.parametrize("make", [directory, empty, cut_short, of_another_network, a_tensor], ids=lambda f: f.__name__)
def test_weights_that_cannot_be_used_are_named(make, tmp_path: Path, target: Path) -> None:
    make(tmp_path / "bad.pth")
    check_refused(convert(target, "resnet18", "--weights", tmp_path / "bad.pth"), target, "bad.pth")


def test_an_unreadable_checkpoint_says_so(tmp_path: Path, target: Path) -> None:
    (tmp_path / "locked.pt").symlink_to("/proc/self/mem")  # opens, and every read of it fails, even as root
    check_refused(convert(target, tmp_path / "locked.pt"), target, "locked.pt")


def _onnx(path: Path, operator: str, domain: str) -> Path:
    node = helper.make_node(operator, ["images"], ["scores"], domain=domain)
    graph = helper.make_graph(
        [node],
        "test",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, 3, 32, 32))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, (1, 10))],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("acme.ops", 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return path


@pytest.mark.parametrize(("operator", "domain"), [("Magic", "acme.ops"), ("NoSuchOperator", "")])
def test_an_unknown_operator_is_named(operator: str, domain: str, tmp_path: Path, target: Path) -> None:
    check_refused(convert(target, _onnx(tmp_path / "a.onnx", operator, domain)), target, operator)


def test_an_operator_that_one_format_lacks_does_not_spoil_the_others(resnet20: Path, tmp_path: Path) -> None:
    model = onnx.load(str(resnet20))
    value = model.graph.output[0]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32), "eye"))
    model.graph.node.append(helper.make_node("Det", ["eye"], ["one"]))  # onnxruntime computes it, OpenVINO does not
    model.graph.node.append(helper.make_node("Mul", [value.name, "one"], ["scores"]))
    value.name = "scores"
    onnx.save(model, str(tmp_path / "det.onnx"))
    done = convert(tmp_path, tmp_path / "det.onnx", "--to", "onnx", "--to", "openvino", "--keep-going")
    assert done.returncode == 0, done.stderr
    assert "openvino failed: OpenVINO cannot convert main: No conversion rule found for operations: Det" in done.stderr
    assert [variant.name for variant in Bundle.open(tmp_path / "out.ecv").variants] == ["onnx-fp32"]


@pytest.mark.parametrize("size", ["0", "33", "-32", "100000", "640x", "x640", "640x640x3", "64x99968", "²"])
def test_an_impossible_size_is_refused_before_any_work(size: str, target: Path) -> None:
    start_s = time.monotonic()
    check_refused(convert(target, "yolov8n.yaml", "--random-weights", f"--imgsz={size}"), target, size.strip("x"), 2)
    assert time.monotonic() - start_s < 60  # nothing is built; the rest is a busy machine


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--mean=-1", "between 0 and 255"),
        ("--std=0,0,0", "above 0"),
        ("--mean=123.675,116.28,103.53 --std=0.229,0.224,0.225", "of pixels of 0 to 255"),
        ("--activation=tanh", "no activation 'tanh'"),
        ("--batch=-1", "batch size must be 1 to 64, not -1"),
        ("--max-drop=nan", "loss of nan"),
        ("--imgsz=-32", "'-32' is not an input size"),
    ],
)
def test_an_odd_number_is_refused_before_an_image_is_read(
    option: str, words: str, tmp_path: Path, target: Path
) -> None:
    (tmp_path / "m.onnx").touch()
    (tmp_path / "images").mkdir()  # empty: whoever reads it says so
    done = convert(target, tmp_path / "m.onnx", "--int8", "--calib", tmp_path / "images", *option.split())
    check_refused(done, target, words, 2)


@pytest.mark.parametrize(
    ("module", "options"),
    [
        ("litert_torch", ("--to", "tflite")),
        pytest.param("ai_edge_quantizer", ("--to", "tflite", "--fp16"), marks=pytest.mark.slow),  # after an export
        ("openvino", ("--to", "openvino")),
        ("onnxscript", ("--to", "onnx")),
        ("torch", ()),
    ],
)
def test_a_missing_extra_is_named_with_its_pip_line(
    module: str, options: tuple[str, ...], target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = [
        name for name in sys.modules if module != "torch" and name.startswith(f"{module}.")
    ]  # torch breaks in parts
    for name in (module, *loaded):
        monkeypatch.setitem(sys.modules, name, None)
    done = convert(target, "yolov8n.yaml", *_SMALL, *options)
    check_refused(done, target, f"'{module}")
    assert "pip install 'edgecv[" in done.stderr


def test_ultralytics_that_is_missing_is_named_with_its_pip_line(target: Path) -> None:
    """In a process of its own: this one has imported it already."""
    program = "import sys; sys.modules['ultralytics'] = None; from edgecv.cli.entry import main; main()"
    command = [sys.executable, "-c", program, "convert", "yolov8n.yaml", *_SMALL, "--out", str(target / "out.ecv")]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    check_refused(done, target, "'ultralytics")
    assert "pip install 'edgecv[" in done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 600 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("model_format", ["onnx", "openvino"])
def test_a_full_disk_leaves_nothing(model_format: str, resnet20: Path, small_disk: Path) -> None:
    check_refused(convert(small_disk, resnet20, "--to", model_format), small_disk, "No space left on device")


@pytest.mark.slow
def test_a_disk_that_fills_up_with_tflite_leaves_nothing(small_disk: Path) -> None:
    done = convert(small_disk, "yolov8n.yaml", *_SMALL, "--to", "tflite")
    check_refused(done, small_disk, "No space left on device")


@pytest.mark.parametrize("model_format", ["onnx", "openvino"])
def test_a_disk_that_fills_up_during_int8_leaves_nothing(model_format: str, resnet20: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=1400k", str(small_disk)], check=True)
    calibration = SHARED / "data/cifar10-jpeg/calibration"
    done = convert(small_disk, resnet20, "--int8", "--to", model_format, "--calib", calibration)
    check_refused(done, small_disk, "No space left on device")


def test_ctrl_c_in_the_middle_leaves_nothing(resnet20: Path, target: Path) -> None:
    arguments = ["convert", str(resnet20), "--int8", "--to", "openvino", "--out", str(target / "out.ecv")]
    calibration = ["--calib", str(SHARED / "data/cifar10-jpeg/calibration")]
    program = subprocess.Popen(
        [sys.executable, "-m", "edgecv", *arguments, *calibration], cwd=CHECKOUT, stderr=subprocess.PIPE, text=True
    )
    deadline_s = time.monotonic() + DEADLINE_S
    while not list(target.rglob("openvino-fp32/model.bin")) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert names_in(target)
    program.send_signal(signal.SIGINT)
    _, stderr = program.communicate(timeout=DEADLINE_S)
    assert program.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert names_in(target) == []

"""What all tests share: the material beside the checkout, settings of hypothesis, deadlines."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
SHARED = CHECKOUT / "../shared"  # real models and images; absent on other machines

# The same examples in every run, and no time limit per example: the machine is shared. pytest-timeout guards each test.
hypothesis.settings.register_profile("house", deadline=None, derandomize=True, database=None, max_examples=60)
hypothesis.settings.load_profile("house")

# torch's threads wait without spinning: with other work on the same cores, spinning made one photograph take seconds.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:  # a core for each worker: two threads each took a quarter more processor time
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# ultralytics neither installs nor downloads anything.
os.environ.update(YOLO_AUTOINSTALL="false", YOLO_OFFLINE="true", YOLO_VERBOSE="false")
# Some tests import onnxruntime before edgecv, which sets this: see edgecv/__init__.py.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# What somebody tuned on this machine must not change which variant a test loads: nothing is ever there.
os.environ["EDGECV_CACHE"] = "/nonexistent/edgecv"


# What takes longest, longest first: the workers of `make test` take the files in this order (Makefile), so that they end
# together. Files that read the same conversion stand apart: the second worker does something else meanwhile.
LONGEST_FIRST = (
    "integration/test_every_variant_agrees.py",
    "integration/test_convert_sam.py",
    "integration/test_convert_tasks.py",
    "integration/test_convert_bad_input.py",
    "integration/test_preview_page.py",
    "integration/test_convert_yolov8.py",
    "integration/test_gate_verdicts.py",
    "integration/test_convert_batch.py",
    "integration/test_convert_precisions.py",
    "integration/test_convert_formats.py",
    "faults/test_kills.py",
    "faults/test_partitions.py",
    "faults/test_disk.py",
    "integration/test_sync_reasons.py",
    "unit/core/test_bare_files.py",
    "unit/converters/test_onnx_source.py",
    "unit/pipelines/test_pipeline.py",
    "security/test_checkpoints.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first."""
    places = {CHECKOUT / "tests" / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def _shared(relative: str) -> Path:
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"../shared/{relative} is not on this machine")
    return path.resolve()


def shared_case(name: str) -> Path:
    """A small input that once failed to convert; skips the test where it is not on this machine."""
    return _shared(f"cases/convert/{name}")


@pytest.fixture(scope="session")
def yolov8n() -> Path:
    """A real YOLOv8n checkpoint, trained on COCO."""
    return _shared("models/yolov8n-coco.pt")


@pytest.fixture(scope="session")
def resnet20() -> Path:
    """A real classifier as ONNX: no detection head."""
    return _shared("models/resnet20-cifar10.onnx")


@pytest.fixture(scope="session")
def large(resnet20: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier whose fp16 is wrong: some of its weights are infinite there."""
    import onnx

    model = onnx.load(resnet20)
    weights = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name in weights)
    scaled = onnx.numpy_helper.to_array(tensor) * np.float32(1e6)
    tensor.CopyFrom(onnx.numpy_helper.from_array(scaled, tensor.name))
    path = tmp_path_factory.mktemp("large") / "large.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def coco_images() -> list[Path]:
    """128 real photographs, sorted."""
    return sorted((_shared("data/coco128-train") / "images").glob("*.jpg"))


def names_in(folder: Path) -> list[str]:
    """What lies in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())

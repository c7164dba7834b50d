"""What every runtime keeps: the checks of ``edgecv.testing``, and what needs more knowledge of a runtime than those have.

A new one: its adapter, its line in the registry, one row in ``RUNTIMES``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv import registry
from edgecv.errors import DeviceError, SessionError
from edgecv.protocols import Session
from edgecv.runtimes import adapter
from edgecv.specs import RuntimeOptions
from edgecv.testing import RUNTIME_CHECKS, ContractBroken, RuntimeSubject
from tests.conftest import CHECKOUT
from tests.golden_bundles import golden_bundle
from tests.models import arithmetic


@dataclass(frozen=True)
class Row:
    """A runtime and how to make ``tests.models.arithmetic`` for it."""

    name: str
    build: Callable[[Path], Path]
    absent_device: str  # known to the runtime, not on a plain machine


def openvino_arithmetic(folder: Path) -> Path:
    openvino = pytest.importorskip("openvino")
    path = folder / "model.xml"
    openvino.save_model(openvino.convert_model(str(arithmetic(folder / "model.onnx"))), str(path))
    return path


def litert_arithmetic(folder: Path) -> Path:
    torch, litert = pytest.importorskip("torch"), pytest.importorskip("litert_torch")

    class Arithmetic(torch.nn.Module):
        def forward(self, pixels, gain):
            return {"total": pixels.float().sum() * gain, "same": torch.bitwise_or(pixels, torch.zeros_like(pixels))}

    feeds = {"pixels": torch.zeros((1, 4, 4, 3), dtype=torch.uint8), "gain": torch.zeros(2)}
    path = folder / "model.tflite"
    litert.convert(Arithmetic().eval(), sample_kwargs=feeds).export(str(path))
    return path


RUNTIMES = [
    Row("litert", litert_arithmetic, "gpu"),
    Row("onnxruntime", lambda folder: arithmetic(folder / "model.onnx"), "cuda"),
    Row("openvino", openvino_arithmetic, "gpu"),
]


@pytest.fixture(params=RUNTIMES, ids=lambda row: row.name, scope="module")
def row(request: pytest.FixtureRequest) -> Row:
    made: Row = request.param
    pytest.importorskip(registry.resolve("runtimes", made.name).package)
    return made


@pytest.fixture(scope="module")
def path(row: Row, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return row.build(tmp_path_factory.mktemp(row.name))


def open_session(row: Row, path: Path, **options: Any) -> Session:
    session: Session = registry.resolve("runtimes", row.name)(path, RuntimeOptions(threads=1, **options))
    return session


@pytest.fixture
def session(row: Row, path: Path):
    made = open_session(row, path)
    yield made
    made.close()


PIXELS = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
GAIN = np.array([1.0, 0.5], np.float32)
FEEDS = {"pixels": PIXELS, "gain": GAIN}
WANTED = {"total": np.array([1128.0, 564.0], np.float32), "same": PIXELS}


@pytest.mark.parametrize("check", [name for name in RUNTIME_CHECKS if name != "golden_vectors"])
def test_it_keeps_what_every_runtime_keeps(row: Row, path: Path, check: str) -> None:
    RUNTIME_CHECKS[check](RuntimeSubject(runtime=row.name, model=path, feeds=FEEDS, wanted=WANTED))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_it_computes_golden_vectors_or_says_that_it_does_not(name: str, tmp_path: Path) -> None:
    right, wrong = golden_bundle(tmp_path / "right.ecv"), golden_bundle(tmp_path / "wrong.ecv", right=False)
    subject = RuntimeSubject(runtime=name, model=right.path, feeds={}, bundle=right.path)
    RUNTIME_CHECKS["golden_vectors"](subject)
    with pytest.raises(ContractBroken, match="differs: cosine"):
        RUNTIME_CHECKS["golden_vectors"](replace(subject, bundle=wrong.path))


def test_a_device_that_is_not_there_is_refused_never_replaced(row: Row, path: Path) -> None:
    try:
        session = open_session(row, path, device=row.absent_device)
    except DeviceError as error:
        assert "cpu" in error.hint
    else:
        assert "CPU" not in session.providers[0].upper(), "asked for an accelerator, given the CPU"


def test_it_says_what_it_runs_on(session: Session) -> None:
    assert "CPU" in session.providers[0].upper()


CPUS = sorted(os.sched_getaffinity(0))


# OpenVINO keeps the number of CPUs that it met first: the smaller number comes second.
@pytest.fixture(params=[2, 1], ids=["two CPUs", "one CPU"])
def bound(request: pytest.FixtureRequest) -> Iterator[int]:
    if len(CPUS) < request.param:
        pytest.skip("the machine has one CPU")
    os.sched_setaffinity(0, CPUS[: request.param])
    yield request.param
    os.sched_setaffinity(0, CPUS)


def _tasks() -> set[str]:
    return {task.name for task in Path("/proc/self/task").iterdir()}


def _litert(session: Any, before: set[str]) -> int:
    """XNNPACK starts one thread fewer than it has: the caller is one of them."""
    session.run(FEEDS)
    return 1 + len(_tasks() - before)


THREADS_OF: dict[str, Callable[[Any, set[str]], int]] = {
    "litert": _litert,
    "onnxruntime": lambda session, _: session._session.get_session_options().intra_op_num_threads,
    "openvino": lambda session, _: session._compiled.get_property("INFERENCE_NUM_THREADS"),
}


def test_threads_that_are_not_given_are_the_cpus_of_the_process(row: Row, path: Path, bound: int) -> None:
    before = _tasks()
    session = adapter.open_session(row.name, path, RuntimeOptions())
    assert THREADS_OF[row.name](session, before) == bound
    session.close()


def test_a_given_number_of_threads_wins(row: Row, path: Path) -> None:
    before = _tasks()
    session = adapter.open_session(row.name, path, RuntimeOptions(threads=1))
    assert THREADS_OF[row.name](session, before) == 1
    session.close()


ON_ONE_CORE = """
import json, os, sys
from pathlib import Path
import numpy as np
from edgecv import registry
from edgecv.runtimes.adapter import open_session
from edgecv.specs import RuntimeOptions

def cores_by_task():
    texts = {int(task.name): (task / "status").read_text() for task in Path("/proc/self/task").iterdir()}
    return {task: text.split("Cpus_allowed_list:")[1].split()[0] for task, text in texts.items()}

name, path, core = sys.argv[1:]
before = cores_by_task()
session = open_session(name, Path(path), RuntimeOptions(threads=3, cores=(int(core),)))
session.run({"pixels": np.zeros((1, 4, 4, 3), np.uint8), "gain": np.ones(2, np.float32)})
after = cores_by_task()
adapter = registry.resolve("runtimes", name)
print(json.dumps({
    "started": [cores for task, cores in after.items() if task not in before],
    "others_kept": all(after[task] == cores for task, cores in before.items()),
    "is_of_its_runtime": isinstance(session, adapter) and type(session).__qualname__ == adapter.__qualname__,
}))
"""


def test_the_threads_of_a_session_stay_on_its_cores_and_no_other_thread_does(row: Row, path: Path) -> None:
    """In a process of its own: the sessions of OpenVINO share their threads, so those of an earlier one would take part."""
    usable = os.sched_getaffinity(0)
    if len(usable) < 2:
        pytest.skip("one core alone")
    core = str(max(usable))
    command = [sys.executable, "-c", ON_ONE_CORE, row.name, str(path), core]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(done.stdout)
    assert set(found["started"]) <= {core}
    assert found["others_kept"]
    assert found["is_of_its_runtime"]
    # LiteRT starts threads where there are layers for XNNPACK: none in this model.
    assert len(found["started"]) >= (0 if row.name == "litert" else 2)


def test_cores_that_are_not_there_are_an_error_and_the_next_step_is_said(row: Row, path: Path) -> None:
    usable = os.sched_getaffinity(0)
    with pytest.raises(SessionError, match="may not run on the cores 1000") as caught:
        adapter.open_session(row.name, path, RuntimeOptions(threads=1, cores=(1000,)))
    assert "edgecv tune" in caught.value.hint
    assert os.sched_getaffinity(0) == usable

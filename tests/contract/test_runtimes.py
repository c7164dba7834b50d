"""What every runtime keeps. A new one: its adapter, its line in the registry, one row in ``RUNTIMES``."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv import registry
from edgecv.errors import DeviceError, SessionError, SpecMismatch
from edgecv.protocols import Session
from edgecv.runtimes import adapter
from edgecv.specs import RuntimeOptions, TensorSpec
from tests.conftest import CHECKOUT
from tests.models import arithmetic

DEADLINE_S = 30


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


def test_it_says_what_the_file_takes_and_gives(session: Session) -> None:
    assert {(s.name, s.shape, s.dtype) for s in session.inputs} == {
        ("pixels", (1, 4, 4, 3), "uint8"),
        ("gain", (2,), "float32"),
    }
    assert {(s.name, s.shape, s.dtype) for s in session.outputs} == {
        ("total", (2,), "float32"),
        ("same", (1, 4, 4, 3), "uint8"),
    }


def test_outputs_come_by_name_in_their_dtype(session: Session) -> None:
    found = session.run(FEEDS)
    assert found.keys() == {"total", "same"}
    assert found["total"].tolist() == [1128.0, 564.0]
    assert found["total"].dtype == np.float32
    assert np.array_equal(found["same"], PIXELS)
    assert found["same"].dtype == np.uint8


def test_results_stay_when_the_session_runs_again(session: Session) -> None:
    first = session.run(FEEDS)["total"]
    session.run(FEEDS | {"gain": GAIN * 7})
    assert first.tolist() == [1128.0, 564.0]


def test_specs_that_are_given_are_kept(row: Row, path: Path) -> None:
    session_type = registry.resolve("runtimes", row.name)
    plain = session_type(path, RuntimeOptions())
    inputs = tuple(TensorSpec(name=s.name, role="mine", shape=s.shape, dtype=s.dtype) for s in plain.inputs)
    outputs = tuple(
        TensorSpec(name=s.name, role="mine", shape=s.shape, dtype=s.dtype) for s in plain.outputs if s.name == "total"
    )
    session = session_type(path, RuntimeOptions(), inputs, outputs)
    assert session.inputs == inputs
    assert session.run(FEEDS).keys() == {"total"}


def test_a_spec_of_a_tensor_that_the_file_lacks_is_a_session_error(row: Row, path: Path) -> None:
    outputs = (TensorSpec(name="nothing", role="", shape=(2,), dtype="float32"),)
    with pytest.raises(SessionError, match="nothing"):
        registry.resolve("runtimes", row.name)(path, RuntimeOptions(), (), outputs).run(FEEDS)


@pytest.mark.parametrize(
    ("feeds", "named"),
    [
        ({}, "takes"),
        ({"pixels": PIXELS}, "takes"),
        (FEEDS | {"more": GAIN}, "takes"),
        ({"Pixels": PIXELS, "gain": GAIN}, "takes"),
        (FEEDS | {"pixels": PIXELS[0]}, "'pixels'"),
        (FEEDS | {"pixels": PIXELS.transpose(0, 3, 1, 2)}, "'pixels'"),
        (FEEDS | {"pixels": PIXELS.repeat(2, axis=0)}, "'pixels'"),
        (FEEDS | {"pixels": PIXELS.astype(np.float32)}, "'pixels'"),
        (FEEDS | {"pixels": PIXELS.astype(np.int8)}, "'pixels'"),
        (FEEDS | {"gain": GAIN.astype(np.float64)}, "'gain'"),
        (FEEDS | {"gain": np.float32(1)}, "'gain'"),
    ],
)
def test_wrong_feeds_are_named(session: Session, feeds: dict[str, Any], named: str) -> None:
    with pytest.raises(SpecMismatch, match=named):
        session.run(feeds)
    assert session.run(FEEDS)["total"].tolist() == [1128.0, 564.0]


def test_feeds_need_not_lie_in_one_piece(session: Session) -> None:
    scattered = np.zeros((1, 4, 4, 6), np.uint8)
    scattered[..., ::2] = PIXELS
    assert session.run(FEEDS | {"pixels": scattered[..., ::2]})["total"].tolist() == [1128.0, 564.0]


def test_a_closed_session_says_so_and_closes_again(session: Session) -> None:
    session.close()
    session.close()
    with pytest.raises(SessionError, match="closed"):
        session.run(FEEDS)


def truncated(whole: Path, bad: Path) -> None:
    bad.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])


def empty(_whole: Path, bad: Path) -> None:
    bad.write_bytes(b"")


def image(_whole: Path, bad: Path) -> None:
    bad.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8)


def zeros(_whole: Path, bad: Path) -> None:
    bad.write_bytes(bytes(4096))


@pytest.mark.parametrize("damage", [truncated, empty, image, zeros], ids=lambda f: f.__name__)
def test_a_file_that_is_no_such_model_is_a_session_error(row: Row, path: Path, tmp_path: Path, damage) -> None:
    bad = tmp_path / f"bad{path.suffix}"
    damage(path, bad)
    with pytest.raises(SessionError) as caught:
        open_session(row, bad)
    assert bad.name in caught.value.message
    assert caught.value.hint


def test_a_missing_file_is_a_session_error(row: Row, path: Path, tmp_path: Path) -> None:
    with pytest.raises(SessionError):
        open_session(row, tmp_path / f"none{path.suffix}")


def test_a_device_nobody_knows_is_refused(row: Row, path: Path) -> None:
    with pytest.raises(DeviceError, match="toaster") as caught:
        open_session(row, path, device="toaster")
    assert caught.value.hint


def test_a_device_that_is_not_there_is_refused_never_replaced(row: Row, path: Path) -> None:
    try:
        session = open_session(row, path, device=row.absent_device)
    except DeviceError as error:
        assert "cpu" in error.hint
    else:
        assert "CPU" not in session.providers[0].upper(), "asked for an accelerator, given the CPU"


def test_it_says_what_it_runs_on(session: Session) -> None:
    assert "CPU" in session.providers[0].upper()


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_two_threads_may_share_it(row: Row, path: Path, lanes: int) -> None:
    session = open_session(row, path, lanes=lanes)
    wrong: list[object] = []

    def work(gain: float) -> None:
        feeds = FEEDS | {"gain": np.full(2, gain, np.float32)}
        for _ in range(200):
            total = session.run(feeds)["total"]
            if total.tolist() != [1128 * gain] * 2:
                wrong.append(total)

    threads = [threading.Thread(target=work, args=(gain,)) for gain in (1.0, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    session.close()
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_any_number_of_threads_gives_the_same(row: Row, path: Path, threads: int) -> None:
    session = registry.resolve("runtimes", row.name)(path, RuntimeOptions(threads=threads))
    assert session.run(FEEDS)["total"].tolist() == [1128.0, 564.0]


@pytest.mark.parametrize("lanes", [1, 2])
def test_it_is_closed_by_two_while_others_run_it(row: Row, path: Path, lanes: int) -> None:
    session = open_session(row, path, lanes=lanes)

    def work() -> None:
        with contextlib.suppress(SessionError):
            while True:
                session.run(FEEDS)

    runners = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    closers = [threading.Thread(target=session.close, daemon=True) for _ in range(2)]
    for thread in (*runners, *closers):
        thread.start()
    for thread in (*closers, *runners):
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


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
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=DEADLINE_S * 2, check=True)
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

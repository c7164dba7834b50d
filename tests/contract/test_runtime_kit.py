"""The checks of ``edgecv.testing`` find each fault that they are there for: an adapter in NumPy that has it on request."""

from __future__ import annotations

import importlib.metadata
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv import registry
from edgecv.errors import DeviceError, SessionError, UnknownPlugin
from edgecv.protocols import RuntimeAdapter
from edgecv.runtimes.feeds import check_feeds
from edgecv.specs import RuntimeOptions, TensorSpec
from edgecv.testing import RUNTIME_CHECKS, ContractBroken, RuntimeSubject, check_runtime

CONTENT = b"doubles its input " * 4
FEEDS = {"x": np.arange(6, dtype=np.float32).reshape(1, 6)}
WANTED = {"y": FEEDS["x"] * 2}
FAULT = ""


# What is given in place of the right value, of that and the input.
ANSWERS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "": lambda value, _: value,
    "wrong value": lambda value, _: value + 1,
    "wrong dtype": lambda value, _: value.astype(np.float64),
    "wrong shape": lambda value, _: value[0],
    "gives its input": lambda _, x: x[:],
}


class Doubling(RuntimeAdapter):
    """Runs ``.double`` files: ``y`` is ``2 x``. ``FAULT`` says what is wrong with it."""

    package, extra = "numpy", "double"
    formats, suffixes, distributions = ("double",), (".double",), ("numpy",)

    def __init__(self, model: Path, options: RuntimeOptions, inputs: Any = (), outputs: Any = ()) -> None:
        if options.device != "cpu" and FAULT != "takes any device":
            raise DeviceError(f"There is no {options.device}.", "" if FAULT == "no hint" else "Use cpu.")
        try:
            content = model.read_bytes()
        except OSError as error:
            if FAULT == "foreign error":
                raise
            raise SessionError(f"{model.name} cannot be read.", "Look at the path.") from error
        if content != CONTENT and FAULT != "takes any file":
            raise SessionError(f"{model.name} is damaged.", "Export it again.")
        ours = (TensorSpec(name="x", role="", shape=(1, 6), dtype="float64" if FAULT == "wrong spec" else "float32"),)
        self.inputs = ours if FAULT == "drops specs" else inputs or ours
        self.outputs = outputs or (TensorSpec(name="y", role="", shape=(1, 6), dtype="float32"),)
        if any(spec.name != "y" for spec in self.outputs):
            raise SessionError(f"There is no {self.outputs[0].name}.", "Export it again.")
        self.providers = () if FAULT == "says no provider" else ("numpy",)
        self._factor = options.threads if FAULT == "depends on threads" else 2
        self._kept, self._between = np.zeros((1, 6), np.float32), np.zeros((1, 6), np.float32)
        self._runs, self._open = 0, True
        self._seen: list[tuple[np.ndarray, np.ndarray]] = []

    def run(self, feeds: Any) -> dict[str, np.ndarray]:
        if not self._open and FAULT != "runs when closed":
            raise SessionError("The session is closed.", "Open it again.")
        if FAULT != "takes any feed":
            check_feeds(feeds, self.inputs)
        x = feeds["x"]
        if FAULT == "hangs":
            threading.Event().wait()
        if FAULT == "remembers arrays":
            x = self._remembered(x)
        if FAULT == "reads raw memory":
            x = np.frombuffer(x.base if x.base is not None else x, np.float32)[:6].reshape(1, 6)
        self._runs += 1
        if FAULT == "shares its memory":
            self._between[:] = x
            time.sleep(1e-4)
            x = self._between
        value = (x * self._factor).astype(np.float32)
        if FAULT == "gives a buffer":
            self._kept[:] = value
            value = self._kept
        if FAULT == "drifts":
            value = value + self._runs
        if FAULT == "changes inputs":
            x += 1
        value = ANSWERS.get(FAULT, ANSWERS[""])(value, feeds["x"])
        return {"y": value, **({"more": value} if FAULT == "gives more" else {})}

    def _remembered(self, x: np.ndarray) -> np.ndarray:
        known = next((value for array, value in self._seen if array is x), None)
        if known is None:
            self._seen.append((x, x.copy()))
        return x if known is None else known

    def close(self) -> None:
        if FAULT == "fails when closed twice" and not self._open:
            raise RuntimeError("it is closed")
        self._open = False


@pytest.fixture(autouse=True)
def plug_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The adapter under an entry point, as an installed package has it."""
    point = importlib.metadata.EntryPoint("double", f"{__name__}:Doubling", "edgecv.runtimes")
    usual: Callable[[str], Any] = registry.entry_points
    monkeypatch.setattr(registry, "entry_points", lambda kind: [point] if kind == "runtimes" else usual(kind))
    yield


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.double"
    path.write_bytes(CONTENT)
    return path


def test_a_sound_adapter_passes_and_is_told_what_was_checked(model: Path) -> None:
    assert set(check_runtime("double", model, FEEDS, wanted=WANTED)) == set(RUNTIME_CHECKS) - {"golden_vectors"}


FAULTS = {
    "takes any device": "refuses_an_unknown_device",
    "no hint": "refuses_an_unknown_device",
    "foreign error": "refuses_damaged_files",
    "takes any file": "refuses_damaged_files",
    "wrong spec": "says_what_it_takes_and_gives",
    "drops specs": "keeps_given_specs",
    "says no provider": "says_what_it_takes_and_gives",
    "depends on threads": "gives_the_same_with_any_threads",
    "runs when closed": "closes_twice",
    "takes any feed": "refuses_wrong_feeds",
    "reads raw memory": "takes_scattered_feeds",
    "shares its memory": "runs_in_several_threads",
    "gives a buffer": "keeps_results",
    "gives its input": "keeps_no_inputs",
    "remembers arrays": "keeps_no_inputs",
    "wrong dtype": "gives_outputs_by_name",
    "wrong shape": "gives_outputs_by_name",
    "drifts": "gives_the_same_twice",
    "changes inputs": "gives_the_same_twice",
    "wrong value": "gives_outputs_by_name",
    "gives more": "gives_outputs_by_name",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_by_its_check(fault: str, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.FAULT", fault)
    copied = {name: value.copy() for name, value in FEEDS.items()}
    with pytest.raises(ContractBroken):
        RUNTIME_CHECKS[FAULTS[fault]](RuntimeSubject(runtime="double", model=model, feeds=copied, wanted=WANTED))


def test_all_that_is_wrong_is_said_at_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.FAULT", "fails when closed twice")
    with pytest.raises(ContractBroken) as caught:
        check_runtime("double", model, FEEDS, wanted=WANTED)
    first, *lines = str(caught.value).splitlines()
    assert "of 17 checks of the runtime 'double' fail" in first
    assert {
        "  closes_twice: RuntimeError: it is closed",
        "  runs_beside_another_session: RuntimeError: it is closed",
    } <= set(lines)


def test_a_runtime_that_hangs_is_told_and_nothing_else_is_tried(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.FAULT", "hangs")
    with pytest.raises(ContractBroken) as caught:
        check_runtime("double", model, FEEDS, wanted=WANTED, deadline_s=0.1)
    assert str(caught.value).splitlines()[1:] == [
        "  gives_outputs_by_name: It does not end within 0.3 s. What comes after it was not tried."
    ]


def test_a_runtime_of_no_name_is_an_unknown_plug_in(model: Path) -> None:
    with pytest.raises(UnknownPlugin, match="dubble"):
        check_runtime("dubble", model, FEEDS)

"""What the checks of a runtime look at, and how they say what is wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgecv import registry
from edgecv.errors import EdgeCVError
from edgecv.protocols import Array, RuntimeAdapter, Session
from edgecv.specs import RuntimeOptions, TensorSpec

_ONE_THREAD = RuntimeOptions(threads=1)


class ContractBroken(AssertionError):
    """A runtime does not keep what every runtime of EdgeCV keeps; the message says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSubject:
    """A runtime adapter with a model to try it on.

    Attributes:
        runtime: Its registered name.
        model: A small model file that it runs.
        feeds: Inputs of that model by name; outputs must not be all the same for them and for other inputs.
        wanted: What the model gives for them, by name; empty where nobody knows.
        options: How to open it; a runtime that does not compute on the CPU has its ``device`` here.
        tolerance: By how much an output may differ from ``wanted``, and from the one before, as a part of its largest value.
        bundle: A bundle with golden vectors whose variants it runs; ``None`` leaves that check out.
        deadline_s: How long what runs in threads may take; a check of ``check_runtime`` may take three times as long.
    """

    runtime: str
    model: Path
    feeds: Mapping[str, Array]
    wanted: Mapping[str, Array] = field(default_factory=dict)
    options: RuntimeOptions = _ONE_THREAD
    tolerance: float = 0.0
    bundle: Path | None = None
    deadline_s: float = 60.0

    @property
    def adapter(self) -> type[RuntimeAdapter]:
        """The class that the name stands for."""
        return registry.resolve("runtimes", self.runtime)

    def with_options(self, **changes: Any) -> RuntimeSubject:
        """The same, opened in another way."""
        return replace(self, options=msgspec.structs.replace(self.options, **changes))

    @contextmanager
    def opened(
        self,
        model: Path | None = None,
        inputs: tuple[TensorSpec, ...] = (),
        outputs: tuple[TensorSpec, ...] = (),
    ) -> Iterator[Session]:
        """A session on the model, or another one, which is closed in the end."""
        session = self.adapter(model or self.model, self.options, inputs, outputs)
        try:
            yield session
        finally:
            session.close()

    def same(self, found: Mapping[str, Array], wanted: Mapping[str, Array], when: str) -> None:
        """Check that outputs are what they were, or what they should be.

        Raises:
            ContractBroken: one is not.
        """
        for name, expected in wanted.items():
            value = found.get(name)
            expect(value is not None, f"{when} there is no output '{name}'.")
            largest = float(np.abs(expected.astype(np.float64)).max(initial=0.0))
            allowed = self.tolerance * largest
            close = (
                value is not None
                and value.shape == expected.shape
                and np.allclose(value, expected, rtol=0, atol=allowed, equal_nan=True)
            )
            expect(close, f"{when} '{name}' differs by more than {allowed:g}.")


def expect(holds: object, otherwise: str) -> None:
    """Raise ``ContractBroken`` with a sentence unless something holds."""
    if not holds:
        raise ContractBroken(otherwise)


def refused(do: Callable[[], object], kind: type[EdgeCVError], what: str, said: str = "") -> EdgeCVError:
    """The error with which something was refused.

    Raises:
        ContractBroken: it was not, or with an error of another kind, or one that does not say ``said`` or no next step.
    """
    try:
        do()
    except kind as error:
        expect(error.message, f"{what}: the error says nothing.")
        expect(said in error.message, f"{what}: the error does not name '{said}': {error.message}")
        return error
    except Exception as error:
        raise ContractBroken(
            f"{what}: it must be refused with {kind.__name__}, not with {type(error).__name__}: {error}"
        ) from error
    raise ContractBroken(f"{what}: it must be refused with {kind.__name__}, and is taken.")


def in_threads(works: Mapping[str, Callable[[], None]], deadline_s: float) -> None:
    """Do things at the same time, each in a thread of its own.

    Raises:
        ContractBroken: one of them failed, or does not end in time.
    """
    failed: dict[str, BaseException] = {}

    def guarded(name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits
            failed[name] = error

    threads = {name: threading.Thread(target=guarded, args=(name, work), daemon=True) for name, work in works.items()}
    for thread in threads.values():
        thread.start()
    for name, thread in threads.items():
        thread.join(deadline_s)
        expect(not thread.is_alive(), f"{name} does not end within {deadline_s:g} s.")
    for name, error in failed.items():
        raise ContractBroken(f"{name} fails: {error}") from error


def within(work: Callable[[], str], deadline_s: float) -> str:
    """What a function gives, which runs in a thread of its own.

    Raises:
        TimeoutError: it does not end in time; its thread is left alone.
    """
    found: list[str] = []

    def run() -> None:
        found.append(work())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(deadline_s)
    if thread.is_alive():
        raise TimeoutError(f"It does not end within {deadline_s:g} s.")
    return found[0] if found else "it ended its thread."

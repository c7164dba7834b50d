"""Measures cells for real: a process for each variant on each runtime and set of cores, which stays while it is needed."""

from __future__ import annotations

import contextlib
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

import msgspec

from edgecv.bundles.bundle import Bundle
from edgecv.devices.facts.system import bytes_of
from edgecv.devices.roots import read_text
from edgecv.devices.tuning.cells import Cell
from edgecv.devices.tuning.messages import Answer, Order, Task
from edgecv.devices.tuning.record import bundle_hash
from edgecv.devices.tuning.rules import Block
from edgecv.errors import SessionError
from edgecv.runtimes.own_python import module_command

_BUILD_S = 3600.0  # of an engine of TensorRT: over ten minutes were seen (devices.md, section 2.3)
_TICK_S = 1.0
_LOAD_S = 20.0  # what starting, loading and warming up may take together
_SLOW = 5.0  # a block that takes this many times as long as it should hangs
_ROOM = 1.5  # free memory that the next process needs, in sizes of the largest one so far
_EVERYTHING = 1 << 62  # bytes: where the kernel says nothing of memory

# Variant, runtime, device and cores. OpenVINO's sessions share their threads: those that stay on some cores need a process.
Place = tuple[str, str, str, tuple[int, ...]]


class BundleChanged(Exception):
    """The bundle is not what it was when tuning began, or is damaged: nothing that was measured counts."""


class Workshop:
    """The processes of one tuning; give them up with ``close``."""

    def __init__(self, bundle: Bundle, meminfo: Path = Path("/proc/meminfo")) -> None:
        self._bundle, self._hash = bundle, bundle_hash(bundle)
        self._meminfo = meminfo
        self._children: dict[Place, _Child] = {}  # the one that was used last stands last
        self._largest = 0

    def gate(self, cell: Cell) -> str:
        """Why a variant may not be chosen here: its golden vectors differ, or it does not run; empty where it may.

        Raises:
            BundleChanged: the bundle is another one by now.
        """
        try:
            return self._ask(cell, Order(do="verify"), _LOAD_S).refused
        except SessionError as error:
            return error.message

    def build(self, cell: Cell, told: Callable[[float], None]) -> None:
        """Build what an accelerator needs compiled, where that is not done yet; ``told`` hears how many seconds it has taken.

        Raises:
            SessionError: it cannot be built.
            BundleChanged: the bundle is another one by now.
        """
        self._ask(cell, Order(do="build"), _BUILD_S, told)

    def measure(self, cell: Cell, seconds: float) -> Block:
        """Times of a cell; see ``Measure``.

        Raises:
            SessionError: it cannot run, hangs, or its process died.
            BundleChanged: the bundle is another one by now.
        """
        answer = self._ask(cell, _order(cell, "measure", seconds), _LOAD_S + _SLOW * seconds)
        self._largest = max(self._largest, answer.rss_bytes)
        return Block(times_ms=answer.times_ms, rss_bytes=answer.rss_bytes)

    def release(self, cell: Cell) -> None:
        """Free what a cell holds, where its process is still there."""
        if _place(cell) in self._children:
            self._ask(cell, _order(cell, "release"), _LOAD_S)

    def close(self) -> None:
        """End all processes; another question would start them again."""
        for child in self._children.values():
            child.kill()
        self._children.clear()

    def _ask(self, cell: Cell, order: Order, limit_s: float, told: Callable[[float], None] | None = None) -> Answer:
        place = _place(cell)
        try:
            answer = self._child(place).ask(order, limit_s, told)
        except SessionError:
            self._children.pop(place).kill()
            raise
        if answer.changed:
            raise BundleChanged(answer.error)
        if answer.error:
            raise SessionError(answer.error)
        return answer

    def _child(self, place: Place) -> _Child:
        child = self._children.pop(place, None)
        if child is None:
            self._make_room()
            variant, runtime, device, _ = place
            path = str(self._bundle.path)
            child = _Child(Task(bundle=path, bundle_hash=self._hash, variant=variant, runtime=runtime, device=device))
        self._children[place] = child
        return child

    def _make_room(self) -> None:
        """End the process that was not used for the longest time, while memory is short: it starts again when it is its turn."""
        while self._children and _available_bytes(self._meminfo) < _ROOM * self._largest:
            self._children.pop(next(iter(self._children))).kill()


@contextmanager
def workshop(bundle: Bundle) -> Iterator[Workshop]:
    """A workshop whose processes are ended in any case."""
    made = Workshop(bundle)
    try:
        yield made
    finally:
        made.close()


class _Child:
    """One process that measures a variant on a runtime."""

    def __init__(self, task: Task) -> None:
        self._task = task
        command = module_command("edgecv.devices.tuning.child", msgspec.json.encode(task).decode())
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout

    def ask(self, order: Order, limit_s: float, told: Callable[[float], None] | None = None) -> Answer:
        """Give an order and wait for its answer; ``told`` hears every second how long that has taken.

        Raises:
            SessionError: it died, or did not answer in time.
        """
        with contextlib.suppress(OSError):  # it died; what it said before it did is read below
            self._orders.write(msgspec.json.encode(order) + b"\n")
            self._orders.flush()
        if not self._has_answer(limit_s, told):
            raise SessionError(f"{self._task.variant} on {self._task.runtime} took over {limit_s:.0f} s.")
        line = self._answers.readline()
        if not line:
            raise SessionError(self._death())
        return msgspec.json.decode(line, type=Answer)

    def _has_answer(self, limit_s: float, told: Callable[[float], None] | None) -> bool:
        if told is None:
            return bool(select.select([self._answers], [], [], limit_s)[0])
        began = time.monotonic()
        while (elapsed_s := time.monotonic() - began) < limit_s:
            if select.select([self._answers], [], [], _TICK_S)[0]:
                return True
            told(elapsed_s)
        return False

    def kill(self) -> None:
        """End the process at once, and wait until it is gone."""
        self._process.kill()
        for pipe in (self._orders, self._answers):
            with contextlib.suppress(OSError):  # an order that it never read
                pipe.close()
        self._process.wait()

    def _death(self) -> str:
        code = self._process.wait()
        how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return f"The process of {self._task.variant} on {self._task.runtime} {how}."


def _order(cell: Cell, do: Literal["measure", "release"], seconds: float = 0.0) -> Order:
    return Order(do=do, threads=cell.threads, cores=cell.cores, seconds=seconds)


def _place(cell: Cell) -> Place:
    return cell.variant, cell.runtime, cell.device, cell.cores


def _available_bytes(meminfo: Path) -> int:
    found = bytes_of(read_text(meminfo), "MemAvailable")
    return _EVERYTHING if found is None else found

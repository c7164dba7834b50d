"""A device, a broker and an ingest as processes, a proxy between them, and faults that are counted when they really happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.judge import Verdict, judge, names_in, stored_texts
from tests.faults.proxy import FaultProxy
from tests.faults.script import Step
from tests.unit.cloud_sync.support import ROOT, Mosquitto, until

_DRAIN_S = 90.0


@dataclass(slots=True)
class Process:
    """A program of ``programs.py`` that is started again after each kill."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    running: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.faults.programs", *self.arguments]
        self.running = subprocess.Popen(command, cwd=ROOT, env=self.environment)

    def kill(self) -> bool:
        """``kill -9``; whether it was alive until then."""
        return kill(self.running)


def kill(process: subprocess.Popen[bytes]) -> bool:
    """``kill -9``; whether the process was alive until then."""
    process.kill()
    return process.wait(10.0) == -signal.SIGKILL


def stall(process: subprocess.Popen[bytes], hold_s: float) -> bool:
    """Stop a process for a while; whether it really stood still."""
    process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(hold_s)
        state = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    finally:
        process.send_signal(signal.SIGCONT)
    return state == "T"


class World:
    """Everything that takes part. ``device`` names a program of ``programs.py``, ``environment`` is the device's."""

    def __init__(
        self, folder: Path, *, device: str = "edgecv", rate: float = 400.0, environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.faults: dict[str, int] = {}
        self._alike = "ingest" if device == "edgecv" else "subscriber"
        config = ("allow_anonymous true", "max_queued_messages 0")  # the broker shall drop nothing by itself
        self.broker = Mosquitto(folder, config)
        self.proxy = FaultProxy(self.broker.port)
        (folder / "db").mkdir()
        self.ingest = Process((self._alike, self.broker.url, str(folder / "db")))
        self.ingest_is_up()
        self.device = Process((device, self.proxy.url, str(folder), str(rate)), environment or dict(os.environ))

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self.device.running, self.ingest.running, self.broker._process):
            if process.poll() is None:
                process.kill()
                process.wait(10.0)
        self.proxy.close()

    def ingest_is_up(self) -> None:
        """Wait until the ingest that runs now was connected once."""
        pid, up = str(self.ingest.running.pid), self.folder / "db" / "up"
        until(lambda: up.exists() and pid in up.read_text().split(), "ingest is connected", timeout_s=30.0)

    def play(self, steps: Iterable[Step]) -> None:
        """Do what a script says; ``faults`` counts what really happened."""
        for step in steps:
            if self._alike == "ingest":
                self.accepts()  # a fault hits a device that works
            time.sleep(step.pause_s)
            kind, _, target = step.kind.partition(" ")
            happened = self._do(kind, target, step.hold_s)
            self.faults[step.kind] = self.faults.get(step.kind, 0) + happened

    def finish(self) -> Verdict:
        """Let the device deliver the rest undisturbed, and judge."""
        self.proxy.set("passing")
        (self.folder / "stop").touch()
        code = self.device.running.wait(_DRAIN_S)
        if self._alike == "subscriber":
            self._settles()
        verdict = judge(self.folder, self.faults)
        assert code == 0 or self._alike == "subscriber", f"the device did not deliver everything: {verdict}"
        return verdict

    def stats(self) -> dict[str, Any]:
        """The figures of the device's last start."""
        found: dict[str, Any] = json.loads((self.folder / "stats.json").read_text())
        return found

    def accepts(self) -> None:
        """Wait until the device accepts events that it makes from now on."""
        before = self.accepted()
        until(lambda: self.accepted() > before, "the device accepts", timeout_s=30.0, pause_s=0.02)

    def accepted(self) -> int:
        """How many events were accepted up to now."""
        return len(names_in(self.folder / "obligations"))

    def _do(self, kind: str, target: str, hold_s: float) -> bool:
        if kind == "kill":
            return self._kill(target, hold_s)
        if kind == "stall":
            process = {"device": self.device.running, "ingest": self.ingest.running}.get(target, self.broker._process)
            return stall(process, hold_s)
        self._traffic()
        before = self.proxy.held + self.proxy.broken
        if kind == "reset":
            self.proxy.reset()
        else:
            self.proxy.set(kind)  # type: ignore[arg-type]
            time.sleep(hold_s)
            self.proxy.set("passing")
        return self.proxy.held + self.proxy.broken > before

    def _settles(self) -> None:
        """Wait until nothing arrives any more, for three seconds."""
        count, since_s, deadline_s = -1, time.monotonic(), time.monotonic() + _DRAIN_S
        while time.monotonic() - since_s < 3.0 and time.monotonic() < deadline_s:
            now = len(stored_texts(self.folder / "db"))
            if now != count:
                count, since_s = now, time.monotonic()
            time.sleep(0.1)

    def _traffic(self) -> None:
        """Wait a moment for something to break: a device that is just connecting sends nothing."""
        before, deadline_s = self.proxy.up_bytes, time.monotonic() + 5.0
        while self.proxy.up_bytes == before and time.monotonic() < deadline_s:
            time.sleep(0.01)

    def _kill(self, target: str, hold_s: float) -> bool:
        if target == "broker":
            happened = kill(self.broker._process)
            time.sleep(hold_s)
            self.broker.start()
            return happened
        if target == "ingest":
            self.ingest_is_up()
        process = self.ingest if target == "ingest" else self.device
        happened = process.kill()
        time.sleep(hold_s)
        process.start()
        return happened


def run(
    folder: Path, steps: Iterable[Step], *, device: str = "edgecv", rate: float = 400.0
) -> tuple[Verdict, dict[str, Any]]:
    """One run from start to verdict; the second is what the device said of itself."""
    with World(folder, device=device, rate=rate) as world:
        world.play(steps)
        verdict = world.finish()
        return verdict, world.stats() if device == "edgecv" else {}

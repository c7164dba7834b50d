"""``Figures``: everything that one run measured, with the machine and the versions it ran on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import msgspec

from edgecv.benchmarks.lab.peers.judged import Verdict
from edgecv.benchmarks.lab.peers.limits import Limits
from edgecv.benchmarks.lab.peers.rounds import Summary
from edgecv.devices.detect import detect
from edgecv.version import __version__

NOISY_SHARE = 0.10  # of the usable processors, used by other programs
_OURS = ("ultralytics-opencv-headless", "torch", "openvino", "onnxruntime", "ai-edge-litert", "numpy", "av")


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One run of ``make bench-peers``.

    Attributes:
        started: Date and time, UTC.
        machine: Processor, and how many of its cores were used.
        versions: Of what EdgeCV and Ultralytics ran with.
        pins: What stands in each of the other environments.
        command: As it was given.
        frames: Per run, of the sides that are not slow.
        threads: Of each side.
        rounds: How many there were.
        minutes: How long all of it took.
        foreign_share: Part of the usable processors' time that other programs used meanwhile; ``None`` is unknown.
        summaries: The sides.
        verdicts: The targets.
        limits: The stages; ``None`` where that failed.
        limits_reason: Why it failed.
    """

    started: str
    machine: str
    versions: dict[str, str]
    pins: dict[str, tuple[str, ...]]
    command: str
    frames: int
    threads: int
    rounds: int
    minutes: float
    foreign_share: float | None
    summaries: list[Summary]
    verdicts: list[Verdict]
    limits: Limits | None
    limits_reason: str = ""

    @property
    def noisy(self) -> bool:
        """Whether other programs used so much that the times mean little."""
        return self.foreign_share is None or self.foreign_share > NOISY_SHARE


def machine_in_words(cpus: int) -> str:
    """The processor, its relevant instructions and the number of cores that every side may use."""
    cpu = detect().cpu
    return f"{cpu.model or platform.machine()}, {cpus} {'core' if cpus == 1 else 'cores'}, {platform.system()}"


def versions_here() -> dict[str, str]:
    """Of EdgeCV, Python and the packages that run in the development environment."""
    found = {"edgecv": __version__, "python": platform.python_version()}
    for name in _OURS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

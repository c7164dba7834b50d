"""Run a command and weigh it: wall time, and the most memory that it and all its children held at one time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_EVERY_S = 0.1  # between two looks; a shorter peak may be missed
_PSS_EVERY = 3  # looks at the resident memory for one at the proportional


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """How a command went.

    Attributes:
        code: Exit code; negative for a signal, ``None`` when it was stopped for taking too long.
        stdout: All of it.
        stderr: All of it.
        wall_s: From start to end.
        peak_rss_bytes: Resident memory of the whole process tree; pages that processes share count in each of them.
        peak_pss_bytes: The same with shared pages divided by the number of processes that share them; 0 when not asked for.
    """

    code: int | None
    stdout: str
    stderr: str
    wall_s: float
    peak_rss_bytes: int
    peak_pss_bytes: int = 0


def run_measured(
    command: Sequence[str],
    *,
    timeout_s: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    pss: bool = False,
) -> Measured:
    """Run a command to its end; one that takes longer than ``timeout_s`` is killed with its children.

    ``pss`` asks for the proportional memory, too: the kernel walks the pages for it, so it is looked at less often.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start_s = time.monotonic()
        # A session of its own: the children can be ended together, and Ctrl-C here reaches them through us alone.
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=cwd, env=env, start_new_session=True)
        try:
            peaks = _watch(process, start_s + timeout_s, pss)
        finally:
            late = process.poll() is None
            _end(process)
        wall_s = time.monotonic() - start_s
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
    return Measured(
        code=None if late else process.returncode,
        stdout=texts[0],
        stderr=texts[1],
        wall_s=wall_s,
        peak_rss_bytes=peaks[0],
        peak_pss_bytes=peaks[1],
    )


def tree_rss_bytes(pid: int) -> int:
    """Resident memory of a process and everything below it; 0 when it is gone."""
    return _sum(pid, lambda process: process.memory_info().rss)


def tree_pss_bytes(pid: int) -> int:
    """Proportional memory of a process and everything below it; 0 when it is gone."""
    return _sum(pid, lambda process: process.memory_full_info().pss)


def _watch(process: subprocess.Popen[bytes], deadline_s: float, pss: bool) -> tuple[int, int]:
    """The most resident and proportional memory that was seen, until the end or the deadline."""
    rss_bytes = pss_bytes = looks = 0
    while process.poll() is None and time.monotonic() < deadline_s:
        rss_bytes = max(rss_bytes, tree_rss_bytes(process.pid))
        if pss and looks % _PSS_EVERY == 0:
            pss_bytes = max(pss_bytes, tree_pss_bytes(process.pid))
        looks += 1
        time.sleep(_EVERY_S)
    return rss_bytes, pss_bytes


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the session; children may outlive the process that was started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _sum(pid: int, read: Callable[[psutil.Process], int]) -> int:
    """A figure of a process and everything below it, together; who ends meanwhile counts nothing."""
    try:
        top = psutil.Process(pid)
        members = [top, *top.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for member in members:
        with contextlib.suppress(psutil.Error):
            total += read(member)
    return total

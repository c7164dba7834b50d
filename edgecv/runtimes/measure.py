"""Latency of one model file, in a process of its own: what else runs in the caller must not count.

``python -m edgecv.runtimes.measure REQUEST`` prints the median in milliseconds.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from edgecv.errors import SessionError
from edgecv.protocols import Array, Session, Tensors
from edgecv.runtimes.adapter import open_session
from edgecv.runtimes.own_python import module_command
from edgecv.specs import RuntimeOptions, TensorSpec

_TIMEOUT_S = 1800  # SAM ViT-H takes over a minute for one run
_FEWEST = 3


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to time: up to ``runs`` runs of ``path`` after ``warmup`` runs that do not count.

    A network that takes seconds stops after ``enough_s`` seconds, with at least ``_FEWEST`` runs counted, or as many as fit in
    ``_FEWEST`` times as long: a run of a quarter of a minute is an average by itself.
    """

    path: str
    runtime: str
    options: RuntimeOptions
    runs: int = 30
    warmup: int = 5
    enough_s: float = 2.0


def median_latency_ms(request: Request) -> float:
    """Median milliseconds of one run with random input.

    Raises:
        SessionError: the model cannot be run.
    """
    command = module_command("edgecv.runtimes.measure", msgspec.json.encode(request).decode())
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise SessionError(f"{Path(request.path).name} cannot be timed: {reason[0]}", "Convert it again.") from error
    except subprocess.TimeoutExpired as error:
        raise SessionError(f"{Path(request.path).name} took over {_TIMEOUT_S} s to time.") from error
    return float(done.stdout)


def _measure(request: Request) -> float:
    session = open_session(request.runtime, Path(request.path), request.options)
    rng = np.random.default_rng(0)
    feeds = {spec.name: _random(spec, rng) for spec in session.inputs}
    _timed(session, feeds, request.warmup, request.enough_s, fewest=1)
    return median(_timed(session, feeds, request.runs, request.enough_s, _FEWEST))


def _timed(session: Session, feeds: Tensors, runs: int, enough_s: float, fewest: int) -> list[float]:
    """Time runs one by one and return the milliseconds of each."""
    times: list[float] = []
    while len(times) < runs and sum(times) < (fewest if len(times) < fewest else 1) * enough_s * 1e3:
        start = time.perf_counter_ns()
        session.run(feeds)
        times.append((time.perf_counter_ns() - start) / 1e6)
    return times


def _random(spec: TensorSpec, rng: np.random.Generator) -> Array:
    shape = tuple(max(size, 1) for size in spec.shape)
    dtype = np.dtype(spec.dtype)
    if dtype.kind in "iu":
        return rng.integers(0, 100, shape).astype(dtype)
    return rng.random(shape).astype(dtype)


if __name__ == "__main__":
    print(_measure(msgspec.json.decode(sys.argv[1], type=Request)))

"""The process that measures one variant on one runtime: ``python -m edgecv.devices.tuning.child TASK`` (JSON).

It keeps a session for each number of threads, and answers each order on stdin with a line on stdout. What a runtime prints to
stdout goes to stderr.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from statistics import median

import msgspec
import numpy as np

from edgecv.bundles.bundle import Bundle
from edgecv.bundles.golden import GOLDEN, golden_inputs, verify_variant
from edgecv.bundles.manifest import Variant
from edgecv.choosing import open_parts
from edgecv.devices.tuning.messages import Answer, Order, Task
from edgecv.devices.tuning.record import bundle_hash
from edgecv.errors import BundleError, EdgeCVError
from edgecv.protocols import Array, Session
from edgecv.runtimes.accelerators.engines import BUILD
from edgecv.specs import RuntimeOptions, TensorSpec
from edgecv.status import resident_bytes

_WARM_UP_S = 2.0
_STEADY = 0.05  # three medians in a row that agree so far end the warm-up
_AT_ONCE = 3  # runs of each of those medians
_FEWEST = 3  # runs of a block

Threads = tuple[int, tuple[int, ...]]  # how many, and the cores they stay on
Feeds = Mapping[str, Mapping[str, Array]]  # by part and name


class Bench:
    """The sessions of one variant on one runtime, by their threads and the cores these stay on."""

    def __init__(self, task: Task) -> None:
        """Open the bundle; no session yet.

        Raises:
            BundleError: the bundle is not the one of the task.
        """
        self._bundle = Bundle.open(task.bundle)
        if bundle_hash(self._bundle) != task.bundle_hash:
            raise BundleError(f"{task.bundle} changed while it was tuned.", "Run edgecv tune again.")
        self._task = task
        self._variant = next(variant for variant in self._bundle.variants if variant.name == task.variant)
        self._sessions: dict[Threads, dict[str, Session]] = {}
        self._feeds: Feeds = {}

    def build(self) -> Answer:
        """Let TensorRT build its engine, where there is none yet; nothing else needs one."""
        if self._task.device == "tensorrt":
            options = RuntimeOptions(runtime=self._task.runtime, device="tensorrt", extra={BUILD: True})
            for session in open_parts(self._bundle, self._variant, options, self._task.runtime).values():
                session.close()
        return Answer()

    def verify(self) -> Answer:
        """Replay the golden vectors on this runtime and device; a bundle without any has nothing to say."""
        if not _has_golden(self._bundle):
            return Answer()
        options = RuntimeOptions(device=self._task.device)
        verdict = verify_variant(self._bundle, self._variant, self._task.runtime, options)
        return Answer(refused="" if verdict.status == "ok" else verdict.reason)

    def measure(self, threads: Threads, seconds: float) -> Answer:
        """Time runs one by one for so long; the first call for a number of threads loads the model and warms up."""
        self._feeds = self._feeds or _feeds_of(self._bundle, self._variant)
        if threads not in self._sessions:
            options = self._options(*threads)
            self._sessions[threads] = open_parts(self._bundle, self._variant, options, self._task.runtime)
            _warm_up(_times(self._sessions[threads], self._feeds))
        times = _times(self._sessions[threads], self._feeds)
        found = list(islice(times, _FEWEST))
        while sum(found) < seconds * 1e3:
            found.append(next(times))
        return Answer(times_ms=tuple(found), rss_bytes=resident_bytes())

    def release(self, threads: Threads) -> Answer:
        """Free the session with these threads, if there is one."""
        for session in self._sessions.pop(threads, {}).values():
            session.close()
        return Answer()

    def answer(self, order: Order) -> Answer:
        """Do what is ordered; an error is an answer, too."""
        try:
            if order.do == "build":
                return self.build()
            if order.do == "verify":
                return self.verify()
            if order.do == "release":
                return self.release((order.threads, order.cores))
            return self.measure((order.threads, order.cores), order.seconds)
        except BundleError as error:
            return Answer(error=error.message, changed=True)
        except EdgeCVError as error:
            return Answer(error=error.message)

    def _options(self, threads: int, cores: tuple[int, ...]) -> RuntimeOptions:
        return RuntimeOptions(runtime=self._task.runtime, device=self._task.device, threads=threads, cores=cores)


def _times(sessions: Mapping[str, Session], feeds: Feeds) -> Iterator[float]:
    """Milliseconds of one run after the other, all parts together; without an end."""
    while True:
        start = time.perf_counter_ns()
        for part, session in sessions.items():
            session.run(dict(feeds[part]))
        yield (time.perf_counter_ns() - start) / 1e6


def _warm_up(times: Iterator[float]) -> None:
    """Run until three medians in a row agree, or for two seconds."""
    began, medians = time.monotonic(), [0.0]
    while time.monotonic() - began < _WARM_UP_S:
        medians = [*medians[-2:], median(islice(times, _AT_ONCE))]
        if len(medians) == 3 and max(medians) <= (1 + _STEADY) * min(medians):
            return


def _has_golden(bundle: Bundle) -> bool:
    return any(entry.path == GOLDEN for entry in bundle.manifest.extras)


def _feeds_of(bundle: Bundle, variant: Variant) -> Feeds:
    """The bundle's golden inputs; noise where it has none."""
    if _has_golden(bundle):
        return golden_inputs(bundle, variant)
    rng = np.random.default_rng(0)
    return {part: {spec.name: _noise(spec, rng) for spec in files.inputs} for part, files in variant.models.items()}


def _noise(spec: TensorSpec, rng: np.random.Generator) -> Array:
    values = rng.random(tuple(max(size, 1) for size in spec.shape))
    dtype = np.dtype(spec.dtype)
    return (values * 100 if dtype.kind in "iu" else values).astype(dtype)


def main(task: Task) -> None:
    """Answer orders until stdin ends."""
    with os.fdopen(os.dup(1), "wb", buffering=0) as answers:
        os.dup2(2, 1)
        try:
            bench = Bench(task)
        except EdgeCVError as error:
            answers.write(_line(Answer(error=error.message, changed=True)))
            return
        for line in sys.stdin.buffer:
            answers.write(_line(bench.answer(msgspec.json.decode(line, type=Order))))


def _line(answer: Answer) -> bytes:
    return msgspec.json.encode(answer) + b"\n"


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Task))

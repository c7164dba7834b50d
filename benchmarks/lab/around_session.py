"""What ``model(image)`` costs around its session, with one thread.

``python -m edgecv.benchmarks.lab around_session BUNDLE SOURCE [--skip 0] [--runs 100] [--json]``
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from pathlib import Path
from statistics import median

from edgecv.benchmarks.lab.figures import print_figures
from edgecv.errors import SourceError
from edgecv.model import Model, load
from edgecv.pipelines.sources import open_source
from edgecv.results import Image

_WARMUP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class AroundSession:
    """Medians in milliseconds, of one image.

    Attributes:
        frame: Its size.
        found: How many results the model gives for it; suppression costs more with more of them.
        call_ms: ``model(image)``.
        session_ms: ``model.infer`` alone, in turns with the calls.
        around_ms: ``call_ms - session_ms``.
        preprocess_ms: ``model.prepare``.
        postprocess_ms: ``model.decode``.
    """

    frame: str
    found: int
    call_ms: float
    session_ms: float
    around_ms: float
    preprocess_ms: float
    postprocess_ms: float


def around_session(model: Model, image: Image, runs: int = 100) -> AroundSession:
    """Time whole calls and their parts in turns, so that a change of the clock rate meets both."""
    found = model(image)
    times = [_round_ms(model, image) for _ in range(_WARMUP + runs)][_WARMUP:]
    call, prepare, infer, decode = (median(column) for column in zip(*times, strict=True))
    return AroundSession(
        frame=f"{image.shape[1]}x{image.shape[0]}",
        found=len(found),
        call_ms=round(call, 3),
        session_ms=round(infer, 3),
        around_ms=round(median(row[0] - row[2] for row in times), 3),
        preprocess_ms=round(prepare, 3),
        postprocess_ms=round(decode, 3),
    )


def _round_ms(model: Model, image: Image) -> tuple[float, float, float, float]:
    """A whole call, and then its three parts one by one."""
    marks = [time.perf_counter_ns()]
    model(image)
    marks.append(time.perf_counter_ns())
    feeds, transform = model.prepare(image)
    marks.append(time.perf_counter_ns())
    outputs = model.infer(feeds)
    marks.append(time.perf_counter_ns())
    model.decode(outputs, transform)
    marks.append(time.perf_counter_ns())
    call, prepare, infer, decode = ((end - start) / 1e6 for start, end in pairwise(marks))
    return call, prepare, infer, decode


def _frame(uri: str, skip: int) -> Image:
    source = open_source(uri)
    try:
        frames = iter(source.read, None)
        frame = next(islice(frames, skip, None), None)
    finally:
        source.close()
    if frame is None:
        raise SourceError(f"{source.source_id} has no frame {skip}.", "Skip fewer.", code="eof")
    return frame.image


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m edgecv.benchmarks.lab around_session", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("source", help="where the image comes from, as in `edgecv run --source`")
    parser.add_argument("--skip", type=int, default=0, help="frames before the one to use")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    given = parser.parse_args()
    with load(given.bundle, precision="int8", threads=1) as model:
        found = around_session(model, _frame(given.source, given.skip), given.runs)
    print_figures(asdict(found), given.json)

"""How fast a session of a bundle is, in its own runtime, against another bundle's, or a reference ONNX (a plain FP32 export).

``python -m edgecv.benchmarks.lab session_ratio NEW.ecv:onnx-int8 OLD.ecv:onnx-int8 [--threads 1] [--runs 60] [--rounds 9]``

``python -m edgecv.benchmarks.lab session_ratio BUNDLE REFERENCE.onnx [--variant tflite-int8] [--json]``
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import median

from edgecv.benchmarks.lab.figures import print_figures
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.manifest import Variant
from edgecv.choosing import runtimes_for
from edgecv.errors import ConfigError
from edgecv.runtimes.measure import Request, median_latency_ms
from edgecv.runtimes.paired import median_interval
from edgecv.specs import RuntimeOptions

_REFERENCE_RUNTIME = "onnxruntime"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRatio:
    """Medians over the rounds; a round times both files, each in a new process, and the next round begins with the other one.

    Where ``ratio`` and ``round_ratio`` differ, something else used the machine: measure again. ``size_ratio`` is the variant's size
    over that of the fp32 variant of its format, ``load`` the machine's one-minute load at the end.
    """

    bundle_ms: float
    reference_ms: float
    rounds_ms: tuple[tuple[float, float], ...]
    size_ratio: float
    load: float

    @property
    def ratio(self) -> float:
        """Below 1 the bundle is faster."""
        return self.bundle_ms / self.reference_ms

    @property
    def round_ratio(self) -> float:
        """Median of the rounds' own ratios: a load that comes and goes disturbs it less."""
        return median(self._ratios)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of ``round_ratio``, whatever the distribution of the rounds; open with fewer than six of them."""
        return median_interval(self._ratios)

    @property
    def _ratios(self) -> list[float]:
        return [bundle_ms / reference_ms for bundle_ms, reference_ms in self.rounds_ms]

    def as_dict(self) -> dict[str, object]:
        """The figures, rounded."""
        return {
            "bundle_ms": round(self.bundle_ms, 2),
            "reference_ms": round(self.reference_ms, 2),
            "rounds_ms": [[round(ms, 2) for ms in pair] for pair in self.rounds_ms],
            "ratio": round(self.ratio, 4),
            "round_ratio": round(self.round_ratio, 4),
            "round_ratio_interval": [round(end, 4) if isfinite(end) else None for end in self.interval],
            "size_ratio": round(self.size_ratio, 4),
            "load": round(self.load, 2),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timed:
    """A model file and what runs it; ``size_ratio`` is its size over that of the fp32 variant of its format."""

    path: Path
    runtime: str
    size_ratio: float = 1.0


def session_ratio(
    bundle: str | Path,
    reference: str | Path,
    *,
    variant: str = "onnx-int8",
    threads: int = 1,
    runs: int = 60,
    rounds: int = 9,
) -> SessionRatio:
    """Time a variant of a bundle against a variant of another one, or against an ONNX, in turns.

    Args:
        bundle: A bundle, and behind a colon perhaps its variant: ``yolov8n.ecv:tflite-int8``.
        reference: The same, or an ``.onnx`` file.
        variant: Of a bundle that is given without one.
        threads: Of each session.
        runs: In each process.
        rounds: How many processes each side gets.

    Raises:
        ConfigError: a bundle has no such variant, or the reference is missing.
        SessionError: one of them cannot be run.
    """
    own, other = _timed(str(bundle), variant), _reference(str(reference), variant)
    pairs = tuple(_round((own, other), threads, runs, number) for number in range(rounds))
    return SessionRatio(
        bundle_ms=median(pair[0] for pair in pairs),
        reference_ms=median(pair[1] for pair in pairs),
        rounds_ms=pairs,
        size_ratio=own.size_ratio,
        load=os.getloadavg()[0],
    )


def _timed(said: str, variant: str) -> _Timed:
    """A variant's file, checked; ``said`` is ``BUNDLE`` or ``BUNDLE:VARIANT``."""
    path, _, named = (said, "", "") if Path(said).exists() else said.rpartition(":")
    opened = Bundle.open(path or said)
    chosen = _variant(opened, named or variant)
    opened.verify_files()
    return _Timed(
        path=opened.path / next(iter(chosen.models.values())).files[0].path,
        runtime=runtimes_for(chosen.format)[0],
        size_ratio=chosen.bytes / _variant(opened, f"{chosen.format}-fp32").bytes,
    )


def _reference(said: str, variant: str) -> _Timed:
    if Path(said).suffix != ".onnx":
        return _timed(said, variant)
    if not Path(said).is_file():
        raise ConfigError(f"{said} does not exist.", "Export one: yolo export model=FILE.pt format=onnx")
    return _Timed(path=Path(said), runtime=_REFERENCE_RUNTIME)


def _round(sides: tuple[_Timed, _Timed], threads: int, runs: int, number: int) -> tuple[float, float]:
    """Both sides once; odd rounds begin with the second, so that what warms up or slows down serves neither."""
    order = (1, 0) if number % 2 else (0, 1)
    found = {at: _latency_ms(sides[at].path, sides[at].runtime, threads, runs) for at in order}
    return found[0], found[1]


def _latency_ms(path: Path, runtime: str, threads: int, runs: int) -> float:
    options = RuntimeOptions(runtime=runtime, threads=threads)
    return median_latency_ms(Request(path=str(path), runtime=runtime, options=options, runs=runs))


def _variant(bundle: Bundle, name: str) -> Variant:
    for variant in bundle.variants:
        if variant.name == name:
            return variant
    raise ConfigError(
        f"{bundle.path} has no variant '{name}'.",
        f"It has {', '.join(v.name for v in bundle.variants)}. Convert with: edgecv convert MODEL --int8 --calib IMAGES",
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m edgecv.benchmarks.lab session_ratio", description=__doc__)
    parser.add_argument("bundle", help="bundle, or BUNDLE:VARIANT")
    parser.add_argument("reference", help="another one, or an ONNX of the same network in FP32")
    parser.add_argument("--variant", default="onnx-int8", help="of a bundle that is given without (onnx-int8)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=60, help="runs per process")
    parser.add_argument("--rounds", type=int, default=9, help="processes of each side (default 9)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    given = parser.parse_args()
    found = session_ratio(
        given.bundle,
        given.reference,
        variant=given.variant,
        threads=given.threads,
        runs=given.runs,
        rounds=given.rounds,
    )
    print_figures(found.as_dict(), given.json)

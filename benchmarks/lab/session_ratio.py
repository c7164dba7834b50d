"""How fast a session of a bundle is, in its own runtime, against a reference ONNX (a plain FP32 export) in ONNX Runtime.

``python -m edgecv.benchmarks.lab session_ratio BUNDLE REFERENCE.onnx [--variant tflite-int8] [--threads 1] [--runs 60] [--rounds 3]
[--json]``
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from edgecv.benchmarks.lab.figures import print_figures
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.manifest import Variant
from edgecv.choosing import runtimes_for
from edgecv.errors import ConfigError
from edgecv.runtimes.measure import Request, median_latency_ms
from edgecv.specs import RuntimeOptions

_REFERENCE_RUNTIME = "onnxruntime"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRatio:
    """Medians over the rounds; a round times one file and then the other, each in a new process.

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
        return median(bundle_ms / reference_ms for bundle_ms, reference_ms in self.rounds_ms)

    def as_dict(self) -> dict[str, object]:
        """The figures, rounded."""
        return {
            "bundle_ms": round(self.bundle_ms, 2),
            "reference_ms": round(self.reference_ms, 2),
            "rounds_ms": [[round(ms, 2) for ms in pair] for pair in self.rounds_ms],
            "ratio": round(self.ratio, 4),
            "round_ratio": round(self.round_ratio, 4),
            "size_ratio": round(self.size_ratio, 4),
            "load": round(self.load, 2),
        }


def session_ratio(
    bundle: str | Path,
    reference: str | Path,
    *,
    variant: str = "onnx-int8",
    threads: int = 1,
    runs: int = 60,
    rounds: int = 3,
) -> SessionRatio:
    """Time a variant of a bundle against a reference ONNX, in turns.

    Raises:
        ConfigError: the bundle has no such variant, or the reference is missing.
        SessionError: one of them cannot be run.
    """
    if not Path(reference).is_file():
        raise ConfigError(f"{reference} does not exist.", "Export one: yolo export model=FILE.pt format=onnx")
    opened = Bundle.open(bundle)
    chosen = _variant(opened, variant)
    runtime = runtimes_for(chosen.format)[0]
    opened.verify_files()
    own = opened.path / next(iter(chosen.models.values())).files[0].path
    timed = ((own, runtime), (Path(reference), _REFERENCE_RUNTIME))
    pairs = tuple(_round(timed, threads, runs) for _ in range(rounds))
    return SessionRatio(
        bundle_ms=median(pair[0] for pair in pairs),
        reference_ms=median(pair[1] for pair in pairs),
        rounds_ms=pairs,
        size_ratio=chosen.bytes / _variant(opened, f"{chosen.format}-fp32").bytes,
        load=os.getloadavg()[0],
    )


def _round(timed: tuple[tuple[Path, str], tuple[Path, str]], threads: int, runs: int) -> tuple[float, float]:
    first, second = (_latency_ms(path, runtime, threads, runs) for path, runtime in timed)
    return first, second


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
    parser.add_argument("bundle", type=Path)
    parser.add_argument("reference", type=Path, help="ONNX of the same network in FP32")
    parser.add_argument("--variant", default="onnx-int8", help="variant of the bundle, such as tflite-int8")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=60, help="runs per process")
    parser.add_argument("--rounds", type=int, default=3)
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

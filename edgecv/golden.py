"""Golden vectors: a picture and what every variant made of it, to replay on the machine at hand.

``golden.npz`` holds ``VARIANT/PART/in/NAME`` (inputs), ``VARIANT/PART/out/NAME`` (a sample of at most 4,096 elements of each
output) and ``sampling``, the rule of the sample; files without one took every n-th element from the first on. It is read with
``allow_pickle=False``.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from edgecv import registry
from edgecv.bundle import Bundle, Variant
from edgecv.errors import BundleError, EdgeCVError
from edgecv.model import runtimes_for
from edgecv.protocols import Array, Tensors
from edgecv.specs import RuntimeOptions, TensorSpec

GOLDEN = "golden.npz"
SAMPLE = 4096
SAMPLING, EVENLY = "sampling", "evenly"
# Float variants compute in fp32 here; CPUs round INT8 differently (with and without VNNI, bf16 or fp16 in between).
TOLERANCE: Mapping[str, float] = MappingProxyType({"fp32": 0.9999, "fp16": 0.999, "int8": 0.98})
_EXACT: Mapping[str, RuntimeOptions] = MappingProxyType(
    {"openvino": RuntimeOptions(extra={"config": {"INFERENCE_PRECISION_HINT": "f32"}})}
)

Status = Literal["ok", "differs", "cannot run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one variant did: lowest cosine over its outputs (0 when it cannot run), and why."""

    variant: str
    status: Status
    cosine: float
    reason: str


def exact_options(runtime: str) -> RuntimeOptions:
    """Options with which a runtime computes in fp32 where it would not by itself."""
    return _EXACT.get(runtime, RuntimeOptions())


def sample(tensor: Array) -> Array:
    """At most ``SAMPLE`` elements, evenly spread; a copy: what onnxruntime hands out keeps its session's memory."""
    flat = tensor.reshape(-1)
    return flat[np.linspace(0, flat.size - 1, min(flat.size, SAMPLE)).round().astype(np.int64)]


def _every_nth(tensor: Array) -> Array:
    """The rule of files that name none: of 4,097 to 8,191 elements it takes the first 4,096."""
    flat = tensor.reshape(-1)
    return flat[:: max(1, flat.size // SAMPLE)][:SAMPLE].copy()


def real(tensor: Array, spec: TensorSpec) -> Array:
    """Stored numbers as real ones."""
    values = tensor.astype(np.float64)
    return values if spec.scale is None else (values - (spec.zero_point or 0)) * spec.scale


def cosine(first: Array, second: Array) -> float:
    """Cosine of the angle between two tensors, each as one vector; 1 for two zero vectors, 0 where one holds a NaN."""
    a, b = first.reshape(-1).astype(np.float64), second.reshape(-1).astype(np.float64)
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    value = float(a @ b) / lengths if lengths else float(np.array_equal(a, b))
    return value if math.isfinite(value) else 0.0  # a NaN would win every comparison by losing none


def verify(bundle: Bundle) -> tuple[Verdict, ...]:
    """Replay the golden vectors of every variant on this machine.

    Raises:
        BundleError: the bundle has none, or they are damaged.
    """
    vectors = _read(bundle)
    return tuple(_verify_variant(bundle, variant, vectors) for variant in bundle.variants)


def _read(bundle: Bundle) -> dict[str, Array]:
    path = bundle.verified_extra(GOLDEN)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BundleError(f"{GOLDEN} is damaged: {error}.", "Copy the bundle again.") from error


def _verify_variant(bundle: Bundle, variant: Variant, vectors: Mapping[str, Array]) -> Verdict:
    lowest = 1.0
    sampled = sample if SAMPLING in vectors else _every_nth
    try:
        for part in variant.models:
            feeds, wanted = _vectors_of(vectors, f"{variant.name}/{part}")
            given = _run(bundle, variant, part, feeds)
            specs = {spec.name: spec for spec in variant.models[part].outputs}
            for name, expected in wanted.items():
                found = real(sampled(given[name]), specs[name])
                lowest = min(lowest, cosine(real(expected, specs[name]), found))
    except EdgeCVError as error:
        return Verdict(variant=variant.name, status="cannot run", cosine=0.0, reason=error.message)
    limit = TOLERANCE[variant.precision]
    same = lowest >= limit
    reason = "" if same else f"cosine {lowest:.5f} is below {limit}"
    return Verdict(variant=variant.name, status="ok" if same else "differs", cosine=lowest, reason=reason)


def _vectors_of(vectors: Mapping[str, Array], prefix: str) -> tuple[dict[str, Array], dict[str, Array]]:
    found = {
        kind: {
            name.removeprefix(f"{prefix}/{kind}/"): v
            for name, v in vectors.items()
            if name.startswith(f"{prefix}/{kind}/")
        }
        for kind in ("in", "out")
    }
    if not found["in"] or not found["out"]:
        raise BundleError(f"{GOLDEN} holds nothing for {prefix}.", "Convert the model again.")
    return found["in"], found["out"]


def _run(bundle: Bundle, variant: Variant, part: str, feeds: Tensors) -> dict[str, Array]:
    runtime = next(iter(runtimes_for(variant.format)), None)
    if runtime is None:
        raise BundleError(f"No runtime runs '{variant.format}' files.", "Update EdgeCV, or convert again.")
    files = variant.models[part]
    session = registry.resolve("runtimes", runtime)(
        bundle.verified_path(variant, part), exact_options(runtime), files.inputs, files.outputs
    )
    try:
        return dict(session.run(feeds))
    finally:
        session.close()

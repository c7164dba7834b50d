"""Golden vectors: an image and what every variant made of it, to replay on the machine at hand.

``golden.npz`` holds ``VARIANT/PART/in/NAME`` (inputs), ``VARIANT/PART/out/NAME`` (a sample of at most 4,096 elements of each
output) and ``sampling``, the rule of the sample. It is read with ``allow_pickle=False``.
"""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import msgspec
import numpy as np

from edgecv._internal.foreign import ZIP_DAMAGE
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.manifest import Variant
from edgecv.bundles.opened_files import OpenedFile
from edgecv.choosing import float_precision, is_installed, runtime_of, runtimes_for
from edgecv.errors import BundleError, EdgeCVError
from edgecv.protocols import Array, Session, Tensors
from edgecv.runtimes.adapter import open_session
from edgecv.specs import RuntimeOptions, TensorSpec

GOLDEN = "golden.npz"
SAMPLE = 4096
_MOST_ELEMENTS = 1 << 27  # of one input
_MOST_BYTES = 512 << 20  # of all inputs, or all outputs, of one model; the largest input of a detector has 50 MB
_OPEN_SIZE = 1024  # most where a spec leaves a dimension open
_MOST_VECTORS = 100_000
_NPY_HEADER = 10_240  # bytes before the numbers of a .npy file; usually 128
_NPY_READERS: Mapping[tuple[int, int], Any] = MappingProxyType(
    {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
)
SAMPLING, EVENLY = "sampling", "evenly"
# Float variants compute in fp32 here; CPUs round INT8 differently (with and without VNNI).
TOLERANCE: Mapping[str, float] = MappingProxyType({"fp32": 0.9999, "fp16": 0.999, "int8": 0.98})

# What numpy raises for damaged bytes, too.
_BROKEN = (*ZIP_DAMAGE, KeyError, SyntaxError, TypeError, tokenize.TokenError)

Status = Literal["ok", "differs", "cannot run", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one variant did: lowest cosine over its outputs (``None`` where nothing was compared), and why.

    A variant whose runtime is not installed is ``skipped``.

    ``float_precision`` is the type in which it computed what is not in integers; empty where its runtime does not say.
    """

    variant: str
    status: Status
    cosine: float | None
    reason: str
    float_precision: str = ""


def sample(tensor: Array) -> Array:
    """At most ``SAMPLE`` elements, evenly spread; a copy: what onnxruntime hands out keeps its session's memory."""
    flat = tensor.reshape(-1)
    return flat[np.linspace(0, flat.size - 1, min(flat.size, SAMPLE)).round().astype(np.int64)]


def real(tensor: Array, spec: TensorSpec) -> Array:
    """Stored numbers as real ones."""
    values = tensor.astype(np.float64)
    return values if spec.scale is None else (values - (spec.zero_point or 0)) * spec.scale


def cosine(first: Array, second: Array) -> float:
    """Cosine of the angle between two tensors, each as one vector; 1 for two zero vectors, 0 where one holds a NaN."""
    a, b = first.reshape(-1).astype(np.float64), second.reshape(-1).astype(np.float64)
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    value = float(a @ b) / lengths if lengths else float(np.array_equal(a, b))
    return value if math.isfinite(value) else 0.0  # NaN compares false with every limit, so it would pass the check


def verify(bundle: Bundle) -> tuple[Verdict, ...]:
    """Replay the golden vectors of every variant on this machine.

    Raises:
        BundleError: the bundle has none, or they are damaged.
    """
    with bundle.opened_extra(GOLDEN) as file, _archive(file) as vectors:
        return tuple(_verify_variant(bundle, variant, vectors) for variant in bundle.variants)


def verify_variant(
    bundle: Bundle, variant: Variant, runtime: str = "", options: RuntimeOptions | None = None
) -> Verdict:
    """Replay the golden vectors of one variant, on a runtime or on the first that runs its format, opened with ``options``.

    Raises:
        BundleError: the bundle has none, or they are damaged.
    """
    with bundle.opened_extra(GOLDEN) as file, _archive(file) as vectors:
        return _verify_variant(bundle, variant, vectors, runtime, options)


def check_sessions(bundle: Bundle, variant: Variant, sessions: Mapping[str, Session]) -> str:
    """Why sessions of a variant, by part, do not compute what it did where the bundle was made; empty where they do.

    A bundle without golden vectors has nothing to hold against them.

    Raises:
        BundleError: its golden vectors are damaged.
        SessionError: a session failed.
    """
    if not any(entry.path == GOLDEN for entry in bundle.manifest.extras):
        return ""
    lowest = 1.0
    with bundle.opened_extra(GOLDEN) as file, _archive(file) as vectors:
        for part, files in variant.models.items():
            feeds = vectors.read(f"{variant.name}/{part}/in", files.inputs, _MOST_ELEMENTS)
            wanted = vectors.read(f"{variant.name}/{part}/out", files.outputs, SAMPLE)
            lowest = min(lowest, _lowest_cosine(sessions[part].run(feeds), wanted, files.outputs))
    return _too_low(lowest, variant)


def golden_inputs(bundle: Bundle, variant: Variant) -> dict[str, dict[str, Array]]:
    """The golden inputs of a variant, by part and name.

    Raises:
        BundleError: the bundle has none, or they are damaged.
    """
    with bundle.opened_extra(GOLDEN) as file, _archive(file) as vectors:
        return {
            part: vectors.read(f"{variant.name}/{part}/in", files.inputs, _MOST_ELEMENTS)
            for part, files in variant.models.items()
        }


@contextmanager
def _archive(file: OpenedFile) -> Iterator[_Vectors]:
    try:
        with file.file() as opened, zipfile.ZipFile(opened) as archive:
            yield _Vectors(archive)
    except _BROKEN as error:
        raise BundleError(f"{GOLDEN} is damaged: {error}.", "Copy the bundle again.") from error


class _Vectors:
    """The arrays of ``golden.npz``, each read when it is needed and only as large as its spec says."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        infos = archive.infolist()
        if len(infos) > _MOST_VECTORS:
            raise ValueError(f"{len(infos)} entries")
        self._members = {info.filename.removesuffix(".npy"): info for info in infos}

    def read(self, prefix: str, specs: Sequence[TensorSpec], most_elements: int) -> dict[str, Array]:
        """The arrays whose names begin with ``prefix`` and end with the name of a spec.

        Raises:
            BundleError: one is larger than its spec, or ``most_elements``, all together are too large, or there is none.
        """
        known = {f"{prefix}/{spec.name}": spec for spec in specs if f"{prefix}/{spec.name}" in self._members}
        total = sum(self._members[name].file_size for name in known)
        if total > _MOST_BYTES:
            raise BundleError(
                f"{GOLDEN}: {prefix} takes {total / 1e6:.0f} MB, more than any model.", "Do not use this bundle."
            )
        if not known:
            raise BundleError(f"{GOLDEN} holds nothing for {prefix}.", "Convert the model again.")
        return {spec.name: self._read(name, spec, most_elements) for name, spec in known.items()}

    def _read(self, name: str, spec: TensorSpec, most_elements: int) -> Array:
        info = self._members[name]
        open_sizes = _OPEN_SIZE ** sum(size < 0 for size in spec.shape)
        elements = min(most_elements, math.prod(abs(size) for size in spec.shape) * open_sizes)
        most = elements * np.dtype(spec.dtype).itemsize
        if info.file_size > most + _NPY_HEADER or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BundleError(
                f"{GOLDEN}: {name} takes {info.file_size} bytes, and {most} are enough.", "Do not use this bundle."
            )
        return _array(self._archive.read(info), np.dtype(spec.dtype))


def _array(data: bytes, dtype: np.dtype[Any]) -> Array:
    """The array in a ``.npy`` file; its header must fit what follows, since numpy takes memory by the header."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in _NPY_READERS:
        raise ValueError(f"version {version} of .npy")
    shape, fortran, found = _NPY_READERS[version](file)
    rest = memoryview(data)[file.tell() :]
    if found != dtype or math.prod(shape) * dtype.itemsize != len(rest):
        raise ValueError("an array is not as its header says")
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran else "C")


def _verify_variant(
    bundle: Bundle, variant: Variant, vectors: _Vectors, runtime: str = "", options: RuntimeOptions | None = None
) -> Verdict:
    lowest, computed_in = 1.0, ""
    runtimes = runtimes_for(variant.format)
    if runtimes and not any(map(is_installed, runtimes)):
        reason = f"its runtime is not installed: pip install 'edgecv[{runtime_of(runtimes[0]).extra}]'"
        return Verdict(variant=variant.name, status="skipped", cosine=None, reason=reason)
    try:
        for part, files in variant.models.items():
            prefix = f"{variant.name}/{part}"
            feeds = vectors.read(f"{prefix}/in", files.inputs, _MOST_ELEMENTS)
            wanted = vectors.read(f"{prefix}/out", files.outputs, SAMPLE)
            given, computed_in = _run(bundle, variant, part, feeds, runtime, _as_loaded(options, variant))
            lowest = min(lowest, _lowest_cosine(given, wanted, files.outputs))
    except (EdgeCVError, MemoryError) as error:
        reason = error.message if isinstance(error, EdgeCVError) else "it needs more memory than there is"
        return Verdict(variant=variant.name, status="cannot run", cosine=None, reason=reason)
    reason = _too_low(lowest, variant)
    status: Status = "differs" if reason else "ok"
    return Verdict(variant=variant.name, status=status, cosine=lowest, reason=reason, float_precision=computed_in)


def _as_loaded(options: RuntimeOptions | None, variant: Variant) -> RuntimeOptions:
    """How the variant is opened; on an accelerator with its own precision, as ``open_parts`` does: an engine is built for one."""
    options = options or RuntimeOptions()
    if options.device == "cpu" or options.precision != "auto":
        return options
    return msgspec.structs.replace(options, precision=variant.precision)


def _lowest_cosine(given: Tensors, wanted: Tensors, outputs: Sequence[TensorSpec]) -> float:
    specs = {spec.name: spec for spec in outputs}
    cosines = (
        cosine(real(expected, specs[name]), real(sample(given[name]), specs[name])) for name, expected in wanted.items()
    )
    return min(1.0, *cosines)


def _too_low(lowest: float, variant: Variant) -> str:
    """Why a cosine is too low for a variant; empty where it is not."""
    limit = TOLERANCE[variant.precision]
    return "" if lowest >= limit else f"cosine {lowest:.5f} is below {limit}"


def _run(
    bundle: Bundle, variant: Variant, part: str, feeds: Tensors, runtime: str, options: RuntimeOptions
) -> tuple[dict[str, Array], str]:
    """The outputs, and in which type float layers were computed."""
    runtime = runtime or next(filter(is_installed, runtimes_for(variant.format)), "")
    if not runtime:
        raise BundleError(f"No runtime runs '{variant.format}' files.", "Update EdgeCV, or convert again.")
    files = variant.models[part]
    with bundle.opened_model(variant, part) as model:
        session = open_session(runtime, model, options, files.inputs, files.outputs)
    try:
        return dict(session.run(feeds)), float_precision(session)
    finally:
        session.close()

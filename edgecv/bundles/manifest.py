"""``bundle.json`` as data, read strictly: a manifest comes from somewhere else, so names, ranges and sizes are checked."""

from __future__ import annotations

import math

import msgspec

from edgecv._internal.printable import is_name, printable
from edgecv.errors import BundleError
from edgecv.specs import DecodeSpec, Precision, PreprocessRule, TensorSpec

SCHEMA = 2  # 1 had one input size for the whole bundle
MANIFEST = "bundle.json"
MAX_MANIFEST_BYTES = 16 << 20  # also of a record beside the models; usual ones have some kB
MAX_INPUT_PIXELS = 64_000_000  # what no honest model reaches; beyond it images fill the memory
MAX_SIDE_PX = 16_384  # of a model's input; a larger number is damage, and would ask for terabytes
DO_NOT_USE = "Do not use this bundle; ask whoever made it."
# What no honest model reaches; beyond it, feeds and grids would fill the memory before anything was computed.
_MOST_ELEMENTS = 1 << 27  # of one tensor: SAM ViT-H's features have 2^22
_MOST_TENSORS = 256  # of one model, and
_MOST_VARIANTS = 256
_MOST_FILES = 10_000  # of a bundle
_FEWEST_CROP = 0.1
_DTYPES = frozenset(
    {"bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64"}
)


class BundleFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the bundle: ``path`` relative to the bundle's folder, ``/`` between parts."""

    path: str
    sha256: str
    bytes: int


class ModelFiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model: the file to open comes first, files it needs beside it follow."""

    files: tuple[BundleFile, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Variant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One format × precision of the model, for one size of its input."""

    name: str  # `FORMAT-PRECISION`, unique in the bundle; CPU class and an input size other than the bundle's first follow
    format: str  # `onnx`, `openvino` or `tflite`
    precision: Precision  # of the weights and, for int8, of the activations
    size_wh: tuple[int, int]  # width and height of its input in pixels
    # CPU class it was built for, such as `x86-vnni`; empty when any will do. It is `target` in the file.
    cpu_class: str = msgspec.field(name="target", default="")
    recipe: str = ""  # name of the quantization recipe; empty for float
    metrics: dict[str, float] = {}  # what the accuracy gate measured
    latency_ms: float  # median of one session run with one thread, on the machine that converted
    timed: bool = True  # whether that machine is of the CPU class the variant is for; if not, `latency_ms` says little
    models: dict[str, ModelFiles]  # `main`, or `encoder` and `decoder`

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(entry.bytes for model in self.models.values() for entry in model.files)


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the model came from."""

    file: str
    sha256: str


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The images INT8 was calibrated with: how many, how many were held out for the gate, and the hash of them all."""

    images: int
    held_out: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``bundle.json``.

    ``preprocess`` holds for every variant, whatever its size; the first variant has the model's own size. ``extras`` are files
    beside the models: golden vectors, model card. ``assumptions`` is what the source did not say.
    """

    schema: int
    name: str
    family: str
    preprocess: PreprocessRule
    decode: DecodeSpec
    variants: tuple[Variant, ...]
    source: Source
    licence: str
    calibration: Calibration | None = None
    assumptions: tuple[str, ...] = ()
    extras: tuple[BundleFile, ...] = ()
    tools: dict[str, str] = {}


class _SchemaOnly(msgspec.Struct):
    schema: int


def parse_manifest(text: bytes, origin: str) -> Manifest:
    """``bundle.json`` as data.

    Raises:
        BundleError: it is damaged or newer than this EdgeCV.
    """
    if len(text) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{origin}: {MANIFEST} has more than {MAX_MANIFEST_BYTES >> 20} MiB.", DO_NOT_USE)
    try:
        schema = msgspec.json.decode(text, type=_SchemaOnly).schema
        if not 1 <= schema <= SCHEMA:
            raise BundleError(
                f"{origin} has bundle schema {schema}; this EdgeCV reads up to {SCHEMA}.", "Update EdgeCV."
            )
        manifest = msgspec.json.decode(text, type=Manifest) if schema == SCHEMA else _from_schema_1(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # ValidationError is a DecodeError, too
        raise BundleError(
            f"{origin}: {MANIFEST} is damaged: {error}.", "Copy the bundle again, or convert again."
        ) from error
    _check_variants(manifest, origin)
    _check_values(manifest, origin)
    return manifest


def _from_schema_1(text: bytes) -> Manifest:
    """What an older EdgeCV wrote: there the size of the input stood once, in ``preprocess``."""
    document = msgspec.json.decode(text)
    preprocess, variants = document.get("preprocess"), document.get("variants")
    if not isinstance(preprocess, dict) or "size_wh" not in preprocess:
        raise msgspec.ValidationError("Object missing required field `size_wh` - at `$.preprocess`")
    size_wh = preprocess.pop("size_wh")
    for variant in variants if isinstance(variants, list) else ():
        if isinstance(variant, dict):
            if "size_wh" in variant:
                raise msgspec.ValidationError("Object contains unknown field `size_wh` - at `$.variants[...]`")
            variant["size_wh"] = size_wh
    return msgspec.convert({**document, "schema": SCHEMA}, Manifest)


def dump_manifest(manifest: Manifest) -> bytes:
    """Encode a manifest as the text of ``bundle.json``."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def every_file(manifest: Manifest) -> list[BundleFile]:
    """Every file a bundle lists."""
    return [*(entry for model in _models(manifest) for entry in model.files), *manifest.extras]


def _models(manifest: Manifest) -> list[ModelFiles]:
    return [model for variant in manifest.variants for model in variant.models.values()]


def _check_values(manifest: Manifest, origin: str) -> None:
    """Check names and ranges, which the types of a manifest cannot express."""
    decode, preprocess = manifest.decode, manifest.preprocess
    tensors = [spec for model in _models(manifest) for spec in (*model.inputs, *model.outputs)]
    for name in (manifest.name, *decode.labels, *(variant.name for variant in manifest.variants)):
        if not is_name(name):
            raise BundleError(
                f"{origin}: {MANIFEST} has a name or label with control characters: {printable(name, 60)!r}.",
                DO_NOT_USE,
            )
    wrong = {
        "confidence": not 0 <= decode.confidence <= 1,
        "iou": not 0 <= decode.iou <= 1,
        "max_detections": decode.max_detections < 1,
        "number of bytes": any(entry.bytes < 0 for entry in every_file(manifest))
        or not all(variant.bytes for variant in manifest.variants),
        "size_wh": not all(_is_size(variant.size_wh) for variant in manifest.variants),
        "std": 0 in preprocess.std,
        "crop_fraction": not _FEWEST_CROP <= preprocess.crop_fraction <= 1,
        "latency_ms": not all(variant.latency_ms > 0 for variant in manifest.variants),
        "dtype": not all(spec.dtype in _DTYPES for spec in tensors),
        "shape": not all(_is_shape(spec.shape) for spec in tensors),
        "number of tensors": any(
            max(len(model.inputs), len(model.outputs)) > _MOST_TENSORS for model in _models(manifest)
        ),
        "number of files": len(every_file(manifest)) > _MOST_FILES,
        "number of variants": len(manifest.variants) > _MOST_VARIANTS,
    }
    found = [name for name, is_wrong in wrong.items() if is_wrong]
    if found:
        raise BundleError(f"{origin}: {MANIFEST} has an impossible {found[0]}.", "Convert the model again.")


def _is_size(size_wh: tuple[int, int]) -> bool:
    """Whether a model's input can have that width and height."""
    return all(1 <= size <= MAX_SIDE_PX for size in size_wh) and math.prod(size_wh) <= MAX_INPUT_PIXELS


def _is_shape(shape: tuple[int, ...]) -> bool:
    """Whether a tensor can have that shape; -1 is a dimension that the file leaves open."""
    return all(size >= -1 for size in shape) and math.prod(max(size, 1) for size in shape) <= _MOST_ELEMENTS


def _check_variants(manifest: Manifest, origin: str) -> None:
    names = [variant.name for variant in manifest.variants]
    whole = [
        v.models.keys() in ({"main"}, {"encoder", "decoder"})
        and all(m.files and m.inputs and m.outputs for m in v.models.values())
        for v in manifest.variants
    ]
    if not names or len(set(names)) != len(names) or not all(whole):
        raise BundleError(f"{origin}: variants are missing, named twice or incomplete: {names}.", "Convert again.")

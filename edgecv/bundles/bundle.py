"""The bundle: ``NAME.ecv/`` with ``bundle.json`` and every model file it names (docs/architecture.md).

A bundle comes from somewhere else, so nothing in it is trusted: paths stay inside, links are refused, every file has its
sha256, unknown keys are errors.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from edgecv._internal.atomic import Kind, foreign_file
from edgecv._internal.printable import is_name, printable
from edgecv.bundles.formats import check_files
from edgecv.bundles.opened_files import OpenedFile, OpenedModel, leads_outside, open_inside, open_model
from edgecv.errors import BundleError
from edgecv.specs import DecodeSpec, ModelSpec, Precision, PreprocessSpec, TensorSpec

SCHEMA = 1
MANIFEST = "bundle.json"
SUFFIX = ".ecv"
MAX_MANIFEST_BYTES = 16 << 20  # also of a record beside the models; usual ones have some kB
MAX_INPUT_PIXELS = 64_000_000  # what no honest model reaches; beyond it images fill the memory
MAX_SIDE_PX = 16_384  # of a model's input; a larger number is damage, and would ask for terabytes
_DO_NOT_USE = "Do not use this bundle; ask whoever made it."
# What no honest model reaches; beyond it, feeds and grids would fill the memory before anything was computed.
_MOST_ELEMENTS = 1 << 27  # of one tensor: SAM ViT-H's features have 2^22
_MOST_TENSORS = 256  # of one model, and
_MOST_VARIANTS = 256
_MOST_FILES, _MOST_PARTS = 10_000, 16  # of a bundle, and of one path: each part is looked at
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
    """One format × precision of the model."""

    name: str  # `FORMAT-PRECISION`, unique in the bundle
    format: str  # `onnx`, `openvino` or `tflite`
    precision: Precision  # of the weights and, for int8, of the activations
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

    ``extras`` are files beside the models: golden vectors, model card. ``assumptions`` is what the source did not say.
    """

    schema: int
    name: str
    family: str
    preprocess: PreprocessSpec
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What a conversion was asked for and could not write, while it wrote the rest."""

    format: str  # `onnx`, `openvino` or `tflite`
    # `fp32`, `fp16` or `int8`. Without its fp32 a format has no other precision.
    precision: Precision
    message: str  # what happened
    hint: str  # the next step
    exit_code: int  # what the command line would have ended with: 3 where INT8 failed its accuracy gate, else 1

    def __str__(self) -> str:
        what = self.format if self.precision == "fp32" else f"{self.format} {self.precision}"
        return f"{what} failed: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle on this machine: its folder and what ``bundle.json`` says.

    Attributes:
        path: The folder.
        manifest: What ``bundle.json`` says.
        failures: What the ``convert`` that returned it could not write; empty for a bundle that was opened.
    """

    path: Path
    manifest: Manifest
    failures: tuple[Failure, ...] = ()

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Read ``bundle.json``, strictly.

        Raises:
            BundleError: it is missing, damaged, newer than this EdgeCV, or names files outside its folder.
        """
        folder = Path(path)
        if folder.is_file():
            raise BundleError(f"{folder} is a file, not a bundle folder.", f"If it is packed: edgecv unpack {folder}")
        try:
            with open_inside(folder, MANIFEST) as file:
                text = file.read(MAX_MANIFEST_BYTES + 1)
        except OSError as error:
            raise BundleError(
                f"{folder} is not a bundle: {MANIFEST}: {error.strerror or error}.",
                "A bundle is made by `edgecv convert`.",
            ) from error
        manifest = parse_manifest(text, str(folder))
        for entry in every_file(manifest):
            check_inside(folder, entry.path)
        return cls(path=folder, manifest=manifest)

    @property
    def name(self) -> str:
        """The name of the model, as the manifest gives it."""
        return self.manifest.name

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The variants that the bundle holds, one for each format and precision."""
        return self.manifest.variants

    @property
    def spec(self) -> ModelSpec:
        """How images go in and results come out."""
        return ModelSpec(preprocess=self.manifest.preprocess, decode=self.manifest.decode)

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, in the order of the class ids."""
        return self.manifest.decode.labels

    def verify_files(self) -> None:
        """Check every file of the bundle.

        Raises:
            BundleError: one is missing or changed, or refers to a file outside the bundle.
        """
        for variant in self.variants:
            for role in variant.models:
                with self.opened_model(variant, role):
                    pass
        for entry in self.manifest.extras:
            with self.opened_extra(entry.path):
                pass

    @contextmanager
    def opened_extra(self, name: str) -> Iterator[OpenedFile]:
        """A file beside the models, open and checked.

        Raises:
            BundleError: the bundle has none of that name, or it is missing or changed.
        """
        entry = next((entry for entry in self.manifest.extras if entry.path == name), None)
        if entry is None:
            raise BundleError(f"{self.path} has no {name}.", "Convert the model again with this EdgeCV.")
        with _opened(self.path, (entry,)) as model:
            yield model.main

    def read_extra(self, name: str) -> bytes:
        """The content of a small file beside the models, such as a record in JSON.

        Raises:
            BundleError: as ``opened_extra``, or it is larger than any record.
        """
        with self.opened_extra(name) as file:
            if file.size > MAX_MANIFEST_BYTES:
                raise BundleError(f"{name} has {file.size / 1e6:.0f} MB, more than any record.", _DO_NOT_USE)
            return file.read(file.size)

    @contextmanager
    def opened_model(self, variant: Variant, role: str = "main") -> Iterator[OpenedModel]:
        """The files of one model of a variant, open and checked: the ones the variant's format consists of, and no others.

        Raises:
            BundleError: a file is missing or changed, is not one that the format asks for, or lies outside the bundle; or one
                changed while it was open.
        """
        with _opened(self.path, variant.models[role].files) as model:
            check_files(variant.format, model)
            yield model
            model.check_unchanged()


def parse_manifest(text: bytes, origin: str) -> Manifest:
    """``bundle.json`` as data.

    Raises:
        BundleError: it is damaged or newer than this EdgeCV.
    """
    if len(text) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{origin}: {MANIFEST} has more than {MAX_MANIFEST_BYTES >> 20} MiB.", _DO_NOT_USE)
    try:
        schema = msgspec.json.decode(text, type=_SchemaOnly).schema
        if not 1 <= schema <= SCHEMA:
            raise BundleError(
                f"{origin} has bundle schema {schema}; this EdgeCV reads up to {SCHEMA}.", "Update EdgeCV."
            )
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # ValidationError is a DecodeError, too
        raise BundleError(
            f"{origin}: {MANIFEST} is damaged: {error}.", "Copy the bundle again, or convert again."
        ) from error
    _check_variants(manifest, origin)
    _check_values(manifest, origin)
    return manifest


def dump_manifest(manifest: Manifest) -> bytes:
    """Encode a manifest as the text of ``bundle.json``."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def describe_file(folder: Path, path: Path) -> BundleFile:
    """The entry of a file that lies in the bundle's folder."""
    return BundleFile(path=path.relative_to(folder).as_posix(), sha256=sha256_of(path), bytes=path.stat().st_size)


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def check_inside(folder: Path, relative: str, origin: str = "") -> None:
    """Raise ``BundleError`` unless ``relative`` is a plain path below ``folder`` that passes through no link."""
    origin = origin or str(folder)
    parts = PurePosixPath(relative)
    # Written as the bundle writes it: `.` names no file, and `a//b` and `./a/b` are second names of one.
    if str(parts) != relative or not 0 < len(parts.parts) <= _MOST_PARTS or set(relative) & {"\\", "\0"}:
        raise leads_outside(origin, relative)
    if parts.is_absolute() or ".." in parts.parts:
        raise leads_outside(origin, relative)
    place = folder
    for part in parts.parts:
        place = place / part
        if os.path.islink(place):  # noqa: PTH114 - False for a name that no file can have; `is_symlink` raises
            raise leads_outside(origin, relative)


def every_file(manifest: Manifest) -> list[BundleFile]:
    """Every file a bundle lists."""
    models = [model for variant in manifest.variants for model in variant.models.values()]
    return [*(entry for model in models for entry in model.files), *manifest.extras]


def _no_bundle(path: Path) -> str:
    """What stands at a path, if it is no bundle; a damaged one, or one of another EdgeCV, is a bundle all the same."""
    if not path.is_dir():
        return "a file"
    try:
        with open_inside(path, MANIFEST) as file:
            said = json.loads(file.read(MAX_MANIFEST_BYTES + 1))
        listed = (
            {MANIFEST, *_paths_in(said)} if isinstance(said, dict) and {"schema", "variants"} <= said.keys() else None
        )
    except (OSError, BundleError, ValueError, RecursionError):
        listed = None
    if listed is None:
        return "a folder that is no bundle"
    found = foreign_file(path, listed.__contains__)
    return f"a bundle that also holds {found}, which is not of it" if found else ""


def _paths_in(said: Any) -> Iterator[str]:
    """Every file that a document lists."""
    if isinstance(said, dict):
        if isinstance(said.get("path"), str):
            yield said["path"]
        said = list(said.values())
    if isinstance(said, list):
        for one in said:
            yield from _paths_in(one)


BUNDLE = Kind(name="a bundle", other=_no_bundle)  # what --force replaces


def _check_values(manifest: Manifest, origin: str) -> None:
    """Check names and ranges, which the types of a manifest cannot express."""
    decode, preprocess = manifest.decode, manifest.preprocess
    for name in (manifest.name, *decode.labels, *(variant.name for variant in manifest.variants)):
        if not is_name(name):
            raise BundleError(
                f"{origin}: {MANIFEST} has a name or label with control characters: {printable(name, 60)!r}.",
                _DO_NOT_USE,
            )
    wrong = {
        "confidence": not 0 <= decode.confidence <= 1,
        "iou": not 0 <= decode.iou <= 1,
        "max_detections": decode.max_detections < 1,
        "size_wh": not all(1 <= size <= MAX_SIDE_PX for size in preprocess.size_wh)
        or math.prod(preprocess.size_wh) > MAX_INPUT_PIXELS,
        "std": 0 in preprocess.std,
        "crop_fraction": not _FEWEST_CROP <= preprocess.crop_fraction <= 1,
        "latency_ms": not all(variant.latency_ms > 0 for variant in manifest.variants),
        "dtype": not all(spec.dtype in _DTYPES for spec in _tensors(manifest)),
        "shape": not all(_is_shape(spec.shape) for spec in _tensors(manifest)),
        "number of tensors": any(
            max(len(model.inputs), len(model.outputs)) > _MOST_TENSORS
            for variant in manifest.variants
            for model in variant.models.values()
        ),
        "number of files": len(every_file(manifest)) > _MOST_FILES,
        "number of variants": len(manifest.variants) > _MOST_VARIANTS,
    }
    found = [name for name, is_wrong in wrong.items() if is_wrong]
    if found:
        raise BundleError(f"{origin}: {MANIFEST} has an impossible {found[0]}.", "Convert the model again.")


def _tensors(manifest: Manifest) -> Iterator[TensorSpec]:
    for variant in manifest.variants:
        for model in variant.models.values():
            yield from (*model.inputs, *model.outputs)


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


@contextmanager
def _opened(folder: Path, entries: tuple[BundleFile, ...]) -> Iterator[OpenedModel]:
    """Open files and compare them with their entries."""
    for entry in entries:
        check_inside(folder, entry.path)
    with contextlib.ExitStack() as stack:
        try:
            model = stack.enter_context(open_model(folder, tuple(entry.path for entry in entries)))
        except FileNotFoundError as error:
            lacking = next((entry.path for entry in entries if not (folder / entry.path).is_file()), entries[0].path)
            raise BundleError(f"The bundle lacks {lacking}.", "Copy the bundle again.") from error
        except OSError as error:
            raise BundleError(f"{folder} cannot be read: {error.strerror}.", "May you read it?") from error
        for file, entry in zip((model.main, *model.beside.values()), entries, strict=True):
            if file.size != entry.bytes or file.sha256() != entry.sha256:
                raise BundleError(
                    f"{entry.path} is not the file that was converted (its sha256 differs).", "Copy it again."
                )
        yield model

"""The bundle: ``NAME.ecv/`` with ``bundle.json`` and every model file it names (docs/architecture.md).

A bundle comes from somewhere else, so nothing in it is trusted: paths stay inside, links are refused, every file has its
sha256, unknown keys are errors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from edgecv.errors import BundleError
from edgecv.runtimes.onnx_files import external_files
from edgecv.specs import DecodeSpec, ModelSpec, Precision, PreprocessSpec, TensorSpec

SCHEMA = 1
MANIFEST = "bundle.json"
SUFFIX = ".ecv"
MAX_SIDE_PX = 16_384  # of a model's input; a larger number is damage, and would ask for terabytes


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
    """One format × precision.

    Attributes:
        name: ``FORMAT-PRECISION``, unique in the bundle.
        format: ``onnx``, ``openvino`` or ``tflite``.
        precision: Of the weights and, for int8, of the activations.
        target: CPU class it was built for, such as ``x86-vnni``; empty when any will do.
        recipe: Name of the quantization recipe; empty for float.
        metrics: What the accuracy gate measured.
        latency_ms: Median of one session run with one thread, on the machine that converted.
        timed: Whether that machine is of the CPU class the variant is for; if not, ``latency_ms`` says little.
        models: ``main``, or ``encoder`` and ``decoder``.
    """

    name: str
    format: str
    precision: Precision
    target: str = ""
    recipe: str = ""
    metrics: dict[str, float] = {}
    latency_ms: float
    timed: bool = True
    models: dict[str, ModelFiles]


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
    """What a conversion was asked for and could not write, while it wrote the rest.

    Attributes:
        format: ``onnx``, ``openvino`` or ``tflite``.
        precision: ``fp32``, ``fp16`` or ``int8``. Without its fp32 a format has no other precision.
        message: What happened.
        hint: The next step.
        exit_code: What the command line would have ended with: 3 where INT8 failed its accuracy gate, else 1.
    """

    format: str
    precision: Precision
    message: str
    hint: str
    exit_code: int

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
            text = (folder / MANIFEST).read_bytes()
        except OSError as error:
            raise BundleError(
                f"{folder} is not a bundle: {MANIFEST}: {error.strerror}.", "A bundle is made by `edgecv convert`."
            ) from error
        check_inside(folder, MANIFEST)
        manifest = parse_manifest(text, str(folder))
        for entry in every_file(manifest):
            check_inside(folder, entry.path)
        return cls(path=folder, manifest=manifest)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Every format × precision."""
        return self.manifest.variants

    @property
    def spec(self) -> ModelSpec:
        """How pictures go in and results come out."""
        return ModelSpec(preprocess=self.manifest.preprocess, decode=self.manifest.decode)

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of each class."""
        return self.manifest.decode.labels

    def verify_files(self) -> None:
        """Check every file of the bundle.

        Raises:
            BundleError: one is missing or changed, or refers to a file outside the bundle.
        """
        for variant in self.variants:
            for role in variant.models:
                self.verified_path(variant, role)
        for entry in self.manifest.extras:
            self.verified_extra(entry.path)

    def verified_extra(self, name: str) -> Path:
        """A file beside the models, after it was checked.

        Raises:
            BundleError: the bundle has none of that name, or it is missing or changed.
        """
        for entry in self.manifest.extras:
            if entry.path == name:
                _check_hash(self.path / entry.path, entry)
                return self.path / entry.path
        raise BundleError(f"{self.path} has no {name}.", "Convert the model again with this EdgeCV.")

    def verified_path(self, variant: Variant, role: str = "main") -> Path:
        """The file to open for one model of a variant, after every file it needs was checked.

        Raises:
            BundleError: a file is missing or changed, or refers to a file outside the bundle.
        """
        files = variant.models[role].files
        for entry in files:
            _check_hash(self.path / entry.path, entry)
        main = self.path / files[0].path
        if main.suffix == ".onnx":
            _check_external(main, files)
        return main


def parse_manifest(text: bytes, origin: str) -> Manifest:
    """``bundle.json`` as data.

    Raises:
        BundleError: it is damaged or newer than this EdgeCV.
    """
    try:
        schema = msgspec.json.decode(text, type=_SchemaOnly).schema
        if not 1 <= schema <= SCHEMA:
            raise BundleError(
                f"{origin} has bundle schema {schema}; this EdgeCV reads up to {SCHEMA}.", "Update EdgeCV."
            )
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, RecursionError) as error:  # ValidationError is a DecodeError, too
        raise BundleError(
            f"{origin}: {MANIFEST} is damaged: {error}.", "Copy the bundle again, or convert again."
        ) from error
    _check_variants(manifest, origin)
    _check_values(manifest, origin)
    return manifest


def dump_manifest(manifest: Manifest) -> bytes:
    """``bundle.json``'s text."""
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
    if not relative or "\\" in relative or "\0" in relative or parts.is_absolute() or ".." in parts.parts:
        raise _leads_outside(origin, relative)
    place = folder
    for part in parts.parts:
        place = place / part
        if place.is_symlink():
            raise _leads_outside(origin, relative)


def _leads_outside(origin: str, relative: str) -> BundleError:
    return BundleError(
        f"{origin}: the path {relative!r} leads outside the bundle.", "Do not use this bundle; ask whoever made it."
    )


def every_file(manifest: Manifest) -> list[BundleFile]:
    """Every file a bundle lists."""
    models = [model for variant in manifest.variants for model in variant.models.values()]
    return [*(entry for model in models for entry in model.files), *manifest.extras]


def _check_values(manifest: Manifest, origin: str) -> None:
    """What types cannot say."""
    decode, preprocess = manifest.decode, manifest.preprocess
    names = (manifest.name, *decode.labels, *(variant.name for variant in manifest.variants))
    wrong = {
        "confidence": not 0 <= decode.confidence <= 1,
        "iou": not 0 <= decode.iou <= 1,
        "max_detections": decode.max_detections < 1,
        "size_wh": not all(1 <= size <= MAX_SIDE_PX for size in preprocess.size_wh),
        "std": 0 in preprocess.std,
        "crop_fraction": not 0 < preprocess.crop_fraction <= 1,
        "latency_ms": not all(variant.latency_ms > 0 for variant in manifest.variants),
        "a name or label": not all(name.isprintable() for name in names),
    }
    found = [name for name, is_wrong in wrong.items() if is_wrong]
    if found:
        raise BundleError(f"{origin}: {MANIFEST} has an impossible {found[0]}.", "Convert the model again.")


def _check_variants(manifest: Manifest, origin: str) -> None:
    names = [variant.name for variant in manifest.variants]
    whole = [
        v.models.keys() in ({"main"}, {"encoder", "decoder"})
        and all(m.files and m.inputs and m.outputs for m in v.models.values())
        for v in manifest.variants
    ]
    if not names or len(set(names)) != len(names) or not all(whole):
        raise BundleError(f"{origin}: variants are missing, named twice or incomplete: {names}.", "Convert again.")


def _check_hash(path: Path, entry: BundleFile) -> None:
    if not path.is_file():
        raise BundleError(f"The bundle lacks {entry.path}.", "Copy the bundle again.")
    if path.stat().st_size != entry.bytes or sha256_of(path) != entry.sha256:
        raise BundleError(f"{entry.path} is not the file that was converted (its sha256 differs).", "Copy it again.")


def _check_external(main: Path, files: tuple[BundleFile, ...]) -> None:
    declared: Mapping[str, Any] = {entry.path: entry for entry in files}
    beside = PurePosixPath(files[0].path).parent
    for location in external_files(main):
        check_inside(main.parent, location)
        if str(beside / location) not in declared:
            raise BundleError(f"{main.name} refers to {location!r}, which the bundle does not list.", "Convert again.")

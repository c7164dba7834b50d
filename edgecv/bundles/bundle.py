"""The bundle: ``NAME.ecv/`` with ``bundle.json`` and every model file it names (docs/architecture.md).

A bundle comes from somewhere else, so nothing in it is trusted: paths stay inside, links are refused, every file has its
sha256, unknown keys are errors.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgecv._internal.atomic import Kind, foreign_file
from edgecv.bundles.formats import check_files
from edgecv.bundles.manifest import (
    DO_NOT_USE,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    BundleFile,
    Manifest,
    Variant,
    every_file,
    parse_manifest,
)
from edgecv.bundles.opened_files import OpenedFile, OpenedModel, leads_outside, open_inside, open_model
from edgecv.errors import BundleError
from edgecv.specs import ModelSpec, Precision, PreprocessSpec

SUFFIX = ".ecv"
_MOST_PARTS = 16  # of a path: each is looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What a conversion was asked for and could not write, while it wrote the rest."""

    format: str  # `onnx`, `openvino` or `tflite`
    # `fp32`, `fp16` or `int8`. Without its fp32 a format has no other precision.
    precision: Precision
    message: str  # what happened
    hint: str  # the next step
    exit_code: int  # what the command line would have ended with: 3 where INT8 failed its accuracy gate, else 1
    shape: str = ""  # of the input, such as `640x384`; empty for the model's own

    def __str__(self) -> str:
        parts = (self.format, "" if self.precision == "fp32" else self.precision, self.shape)
        what = " ".join(filter(None, parts))
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
        """How images go in and results come out, with the model's own input size: that of the first variant."""
        return self.spec_of(self.variants[0])

    def spec_of(self, variant: Variant) -> ModelSpec:
        """How images go into one variant, and how results come out."""
        preprocess = PreprocessSpec.of(self.manifest.preprocess, variant.size_wh)
        return ModelSpec(preprocess=preprocess, decode=self.manifest.decode)

    @property
    def sizes_wh(self) -> tuple[tuple[int, int], ...]:
        """Each input size that a variant has, the model's own first; more than one after ``convert --fit``."""
        return tuple(dict.fromkeys(variant.size_wh for variant in self.variants))

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
                raise BundleError(f"{name} has {file.size / 1e6:.0f} MB, more than any record.", DO_NOT_USE)
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
    plain = str(parts) == relative and 0 < len(parts.parts) <= _MOST_PARTS and not set(relative) & {"\\", "\0"}
    inside = plain and not parts.is_absolute() and ".." not in parts.parts
    places = (folder.joinpath(*parts.parts[:count]) for count in range(1, len(parts.parts) + 1))
    # `islink` is False for a name that no file can have; `is_symlink` raises.
    if not inside or any(os.path.islink(place) for place in places):  # noqa: PTH114
        raise leads_outside(origin, relative)


def _no_bundle(path: Path) -> str:
    """What stands at a path, if it is no bundle; a damaged one, or one of another EdgeCV, is a bundle all the same."""
    if not path.is_dir():
        return "a file"
    try:
        with open_inside(path, MANIFEST) as file:
            said = json.loads(file.read(MAX_MANIFEST_BYTES + 1))
        listed = {MANIFEST, *_paths_in(said)}
    except (OSError, BundleError, ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or not {"schema", "variants"} <= said.keys():
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

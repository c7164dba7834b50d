"""Where a model that was compiled for a device is kept: a folder for everything that the result depends on.

A cache that outlived its model, runtime or driver gave wrong results elsewhere (triton-inference-server/onnxruntime_backend
issue 124), so each of them is part of the folder's name, and nothing is ever looked up in another one.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edgecv.bundles.opened_files import OpenedModel
from edgecv.runtimes.cache_folder import cache_folder
from edgecv.runtimes.onnx_files import external_files

_UNSAFE = re.compile(r"[^A-Za-z0-9]+")
_HASH = 16  # characters of a hash in a name
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledKey:
    """What a compiled model depends on; where one of these differs, it is another one.

    Attributes:
        runtime: Name of the runtime that compiles, such as ``onnxruntime``.
        device: What it compiles for, such as ``tensorrt``.
        hardware: Name of the chip and its generation, such as ``Orin sm87``.
        versions: Of the runtime, its libraries and the driver, by name.
        model: ``content_hash`` of the model's files, which stands for the bundle and the variant.
        options: What the compiler was asked for.
    """

    runtime: str
    device: str
    hardware: str
    versions: Mapping[str, str] = field(default_factory=dict)
    model: str
    options: Mapping[str, str] = field(default_factory=dict)

    def machine_folder(self) -> str:
        """Name of the folder for all models on this hardware with these versions."""
        readable = _readable(f"{self.runtime} {self.device} {self.hardware}")
        return f"{readable}-{_short_hash([self.runtime, self.device, self.hardware, sorted(self.versions.items())])}"

    def model_folder(self, name: str) -> str:
        """Name of the folder of this model in it; ``name`` is there for people."""
        return f"{_readable(name)}-{_short_hash([self.model, sorted(self.options.items())])}"


def compiled_root(cache_dir: str) -> Path | None:
    """The folder that holds all of them: ``cache_dir``, or ``compiled`` in the cache; ``None`` for a user without a home."""
    return Path(cache_dir).absolute() if cache_dir else cache_folder("compiled")


def why_not_kept(folder: Path) -> str:
    """Make a folder for what is compiled, open to this user alone; why it cannot be written, empty where it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        return error.strerror or str(error)
    return "" if os.access(folder, os.W_OK | os.X_OK) else "Permission denied"


def content_hash(model: Path | OpenedModel) -> str:
    """sha256 over the files of a model: the opened ones of a bundle, or a bare file and what it reads beside it."""
    if isinstance(model, OpenedModel):
        files = {".": model.main.sha256(), **{name: file.sha256() for name, file in model.beside.items()}}
    else:
        files = {".": _sha256(model), **{path.name: _sha256(path) for path in _beside(model)}}
    return hashlib.sha256(msgspec.json.encode(sorted(files.items()))).hexdigest()


def _beside(path: Path) -> list[Path]:
    weights = path.with_suffix(".bin")
    if path.suffix == ".xml":
        return [weights] if weights.is_file() else []
    return [path.parent / name for name in sorted(external_files(path))] if path.suffix == ".onnx" else []


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _short_hash(parts: object) -> str:
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:_HASH]


def _readable(text: str) -> str:
    return _UNSAFE.sub("-", text).strip("-").lower()[:60] or "model"

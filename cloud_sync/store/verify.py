"""Checks that the files of a store are those that its manifest lists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgecv.cloud_sync.store.manifest import read_manifest
from edgecv.cloud_sync.store.parts import sha256_of, stray_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a comparison of all files found."""

    files: int  # that are listed
    bytes: int
    damaged: tuple[str, ...]  # listed, but missing or changed, with the reason
    strays: int  # not listed: what a killed process left, or somebody put there; no query reads them


def verify(folder: Path) -> Verified:
    """Compare every file with its hash in the manifest.

    Raises:
        SyncError: the manifest cannot be read.
    """
    manifest = read_manifest(folder)
    files = [file for part in manifest.parts for file in part.files]
    damaged = [
        f"{file.path}: {reason}" for file in files if (reason := _problem(folder / file.path, file.bytes, file.sha256))
    ]
    listed = {file.path for file in files} | {one.path for one in manifest.obsolete}
    return Verified(
        files=len(files),
        bytes=sum(file.bytes for file in files),
        damaged=tuple(damaged),
        strays=len(stray_files(folder, listed)),
    )


def _problem(path: Path, size: int, sha256: str) -> str:
    try:
        found = path.stat().st_size
        if found != size:
            return f"{found} bytes instead of {size}"
        return "" if sha256_of(path) == sha256 else "its contents changed"
    except OSError as error:
        return error.strerror or type(error).__name__

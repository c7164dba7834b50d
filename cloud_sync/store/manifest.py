"""``manifest.json``: which Parquet files are the store, with their hashes, and what was taken out of it.

A file that is not listed does not exist for a query. The manifest is replaced by one rename, and that is the moment at which
new files take the place of old ones.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edgecv._internal.atomic import new_file
from edgecv._internal.private_files import FILE_MODE
from edgecv.cloud_sync.store.layout import Partition, manifest_path
from edgecv.errors import SyncError

_MAX_BYTES = 256 * 2**20
_FILE = re.compile(
    r"parquet/(events|detections)/tenant=(%5F|%4E|%6E)?[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}/date=\d{4}-\d\d-\d\d/hour=\d\d/part-[0-9a-f]{8}-\d+\.parquet",
    re.ASCII,
)


class PartFile(msgspec.Struct, frozen=True, kw_only=True):
    """One Parquet file of a part, as it was written."""

    path: str  # below the store
    rows: Annotated[int, msgspec.Meta(ge=0)]
    bytes: Annotated[int, msgspec.Meta(ge=0)]
    sha256: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]

    def __post_init__(self) -> None:
        if not _FILE.fullmatch(self.path):
            raise ValueError("a path that is no part of a store")


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Events of one tenant and hour in a file, and in another one what was detected in them."""

    tenant: str
    hour: str
    events: PartFile
    detections: PartFile | None = None  # `None` where nothing was detected

    @property
    def partition(self) -> Partition:
        """The tenant and the hour of its events."""
        return Partition(self.tenant, self.hour)

    @property
    def files(self) -> tuple[PartFile, ...]:
        """Its files, that of the events first."""
        return (self.events,) if self.detections is None else (self.events, self.detections)

    @property
    def bytes(self) -> int:
        """The size of its files."""
        return sum(file.bytes for file in self.files)


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """A tombstone: of this device nothing of this time is kept, nor taken when it comes late."""

    id: str
    tenant: str
    device: str
    from_us: int
    to_us: int  # the first microsecond that is kept again
    at_us: int  # when it was done

    def covers(self, moment_us: int) -> bool:
        """Whether a moment is in it."""
        return self.from_us <= moment_us < self.to_us


class Obsolete(msgspec.Struct, frozen=True, kw_only=True):
    """A file that others took the place of; it stays a while for queries that are reading it."""

    path: str
    since_us: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a store."""

    v: Literal[1] = 1
    member: str  # random name of this store, which the names of its files carry
    generation: int = 0  # grows with each change
    next_part: int = 1
    parts: tuple[Part, ...] = ()
    settling: tuple[str, ...] = ()  # event files whose rows may also still be in landing.db
    obsolete: tuple[Obsolete, ...] = ()
    forgotten: tuple[Forgotten, ...] = ()

    def of(self, partition: Partition) -> tuple[Part, ...]:
        """The parts of a tenant and hour."""
        return tuple(part for part in self.parts if part.partition == partition)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a store; an empty one where there is none yet.

    Raises:
        SyncError: it cannot be read, is damaged, or is of a newer EdgeCV.
    """
    path = manifest_path(folder)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SyncError(f"{path} is larger than {_MAX_BYTES} bytes.", "Restore it from a backup.")
        return _decoder.decode(path.read_bytes())
    except FileNotFoundError:
        return Manifest(member=secrets.token_hex(4))
    except OSError as error:
        raise SyncError(f"{path} cannot be read: {error.strerror}.", "May you read the store?") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SyncError(
            f"{path} is damaged, or of a newer EdgeCV: {error}.",
            "Update EdgeCV, or restore it from a backup; no file was touched.",
        ) from error


def write_manifest(folder: Path, manifest: Manifest, **changes: object) -> Manifest:
    """Replace the manifest durably by one with these changes.

    Raises:
        SyncError: it could not be written; the old one still holds.
    """
    changed: Manifest = msgspec.structs.replace(manifest, generation=manifest.generation + 1, **changes)
    path = manifest_path(folder)
    try:
        with new_file(path, FILE_MODE) as file:
            file.write(msgspec.json.encode(changed))
    except OSError as error:
        raise SyncError(f"{path} cannot be written: {error.strerror}.", "Free disk space; nothing is lost.") from error
    return changed


_decoder = msgspec.json.Decoder(Manifest)

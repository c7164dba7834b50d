"""The pictures that wait on disk: ``outbox/blobs/<sha256>.jpg``."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgecv._internal.atomic import write_private
from edgecv._internal.private_files import make_private_folder
from edgecv.cloud_sync.outbox.accounts.losses import Reason
from edgecv.cloud_sync.stats import SyncStats
from edgecv.errors import SyncError

_NAME = re.compile(r"([0-9a-f]{64})\.jpg")
_WORK_NAME = re.compile(r"\.[0-9a-f]{64}\.jpg\.tmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """One picture on disk, named by its content."""

    sha256: str
    size_bytes: int


def waiting_blobs(folder: Path) -> list[Blob]:
    """The snapshots in a folder that may be of another process; nothing is changed, and no folder means none."""
    try:
        return [Blob(sha256=sha256, size_bytes=size_bytes) for _, sha256, size_bytes in sorted(_files(folder))]
    except FileNotFoundError:
        return []


def _files(folder: Path) -> Iterator[tuple[int, str, int]]:
    """Of each snapshot in a folder: when it was written, its name and its size."""
    for entry in os.scandir(folder):
        if named := _NAME.fullmatch(entry.name):
            with suppress(FileNotFoundError):  # it was delivered at this moment
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    yield status.st_mtime_ns, named[1], status.st_size


class BlobFolder:
    """Files named by their content, with a quota; the folder above is owned by this process.

    A picture is there as long as nobody at the other end has it. The one that ``hold`` gave is not dropped for a newer one.
    ``lose`` is told of each that is given up.

    Raises:
        SyncError: the folder cannot be used.
    """

    def __init__(
        self, folder: Path, *, quota_bytes: int, floor_bytes: int, lose: Callable[[Reason], object] = bool
    ) -> None:
        self._folder = folder
        self._tell = lose
        self._quota_bytes = quota_bytes
        self._floor_bytes = floor_bytes
        self._lock = threading.Lock()
        self._held = ""
        self._dropped = 0
        self._last_error = ""
        try:
            make_private_folder(folder, parents=True)
            self._waiting = dict(self._found())  # sha256 to bytes, oldest first
        except OSError as error:
            raise SyncError(f"The folder {folder} cannot be used: {error.strerror}.", "Check it.") from error
        self._used_bytes = sum(self._waiting.values())
        self._make_room(0)

    def put(self, sha256: str, data: bytes) -> bool:
        """Write one picture, flushed, unless it is there already; ``False`` when it cannot be kept, which is counted."""
        with self._lock:
            if sha256 in self._waiting:
                return True
            self._make_room(len(data))
            fits = self._used_bytes + len(data) <= self._quota_bytes
        return (
            self._write(sha256, data) if fits else self._lose("refused_full", "the pictures that wait fill their quota")
        )

    def hold(self) -> Blob | None:
        """The picture that waits longest; it is not dropped until ``release`` or ``remove``."""
        with self._lock:
            self._held = next(iter(self._waiting), "")
            return Blob(sha256=self._held, size_bytes=self._waiting[self._held]) if self._held else None

    def release(self) -> None:
        """What was held may be dropped again."""
        with self._lock:
            self._held = ""

    def read(self, blob: Blob) -> bytes | None:
        """The bytes of a picture; ``None``, and it is dropped and counted, when they are not those of its name any more."""
        try:
            data = self._path(blob.sha256).read_bytes()
        except OSError:
            data = b""
        if hashlib.sha256(data).hexdigest() == blob.sha256:
            return data
        self.drop(blob, "corrupt", "a picture on disk is damaged")
        return None

    def remove(self, blob: Blob) -> None:
        """Delete a picture that is safe at the other end."""
        with self._lock:
            self._forget(blob.sha256)

    def drop(self, blob: Blob, reason: Reason, why: str) -> None:
        """Delete a picture that will never be sent; it is counted."""
        with self._lock:
            self._forget(blob.sha256)
        self._lose(reason, why)

    def stats(self) -> SyncStats:
        """What waits, and what was given up."""
        with self._lock:
            return SyncStats(
                snapshots_waiting=len(self._waiting),
                snapshots_dropped=self._dropped,
                last_error=self._last_error,
            )

    def _write(self, sha256: str, data: bytes) -> bool:
        try:
            if shutil.disk_usage(self._folder).free - len(data) < self._floor_bytes:
                return self._lose("refused_disk", "the disk is almost full: no picture is written")
            write_private(self._path(sha256), data, flush=True)
        except OSError as error:
            return self._lose("refused_disk", f"a picture cannot be written: {error.strerror}")
        with self._lock:
            self._waiting[sha256] = len(data)
            self._used_bytes += len(data)
            self._last_error = ""
        return True

    def _make_room(self, size_bytes: int) -> None:
        for sha256 in [name for name in self._waiting if name != self._held]:
            if self._used_bytes + size_bytes <= self._quota_bytes:
                return
            self._forget(sha256)
            self._dropped += 1
            self._tell("evicted")

    def _forget(self, sha256: str) -> None:
        self._used_bytes -= self._waiting.pop(sha256, 0)
        with suppress(OSError):  # what cannot be deleted now is sent again after a restart
            self._path(sha256).unlink()

    def _lose(self, reason: Reason, why: str) -> bool:
        with self._lock:
            self._dropped += 1
            self._last_error = why
        self._tell(reason)
        return False

    def _path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.jpg"

    def _found(self) -> Iterator[tuple[str, int]]:
        """What an earlier process left, oldest first; half-written files of one that was killed are deleted."""
        for entry in os.scandir(self._folder):
            if _WORK_NAME.fullmatch(entry.name):
                Path(entry.path).unlink(missing_ok=True)
        for _, sha256, size_bytes in sorted(_files(self._folder)):
            yield sha256, size_bytes

"""A folder of files named by time and source, the oldest of which go when there are too many."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import BinaryIO

from edgecv._internal.file_locks import lock_file
from edgecv._internal.private_files import make_private_folder
from edgecv.errors import ConfigError, SinkError
from edgecv.pipelines.sinks.video.ring_order import Clocks, RingFile, RingOrder

log = logging.getLogger("edgecv.pipelines")

_STEM = r"(\d{8}T\d{6}\.\d{3})Z_([A-Za-z0-9._-]+?)"
_LONGEST_SOURCE = 48  # characters of a source in a file name
_NAMES_TRIED = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class FileRing:
    """The files of one sink in a folder; whatever else lies there is left alone.

    The oldest are those that were written first, and old is what was written long ago: neither the times of frames nor jumps of the
    clock matter (``ring_order.py``; the list lies in the lock file).

    Args:
        folder: Where they lie; made if only it is missing, for its owner alone.
        suffixes: What its files end with; ``.broken`` may follow.
        keep_bytes: The oldest go when all together are larger.
        keep_s: Files that were begun longer ago go; 0.0 keeps them.
        free_bytes: The oldest go too when the disk has less left than this: others need it, such as the outbox.
        clocks: The time.

    Raises:
        ConfigError: the folder is a file, or another sink writes there.
        SinkError: it cannot be written there.
    """

    def __init__(
        self,
        folder: str | Path,
        suffixes: tuple[str, ...],
        *,
        keep_bytes: int,
        keep_s: float = 0.0,
        free_bytes: int = 0,
        clocks: Clocks | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._name = re.compile(f"({_STEM})(?:{'|'.join(map(re.escape, suffixes))})(?:\\.broken)?")
        self._keep_bytes, self._keep_ns, self._free_bytes = keep_bytes, round(keep_s * 1e9), free_bytes
        self._longest_ns: dict[str, int] = {}  # by the part of a name that stands for the source
        self._told = False
        self._lock = _open_folder(self.folder, f".edgecv{suffixes[0]}.lock")
        self._order = RingOrder(self._lock.fileno(), clocks)
        self._order.take_in({file.stem: file for file in self._look()}.values())

    def new_stem(self, captured_ns: int, source_id: str, suffix: str) -> str:
        """A name without suffix that no file has yet; the file is to be written now.

        Raises ``SinkError`` when the clock stands still: a thousand files have that time.
        """
        for step in range(_NAMES_TRIED):
            stem = f"{_utc(captured_ns + step * 1_000_000)}Z_{source_slug(source_id)}"
            if not (self.folder / (stem + suffix)).exists():
                self._order.add(stem)
                return stem
        raise SinkError(
            f"{self.folder} has too many files of {_utc(captured_ns)}.", "Is the clock of this device right?"
        )

    def retain(self, source_id: str, longest_s: float) -> None:
        """Files of a source go, too, once they were begun longer ago than this; from any thread."""
        self._longest_ns[source_slug(source_id)] = round(longest_s * 1e9)

    def owns(self, name: str) -> bool:
        """Whether a file of that name is one of its own."""
        return self._name.fullmatch(name) is not None

    def files(self) -> list[RingFile]:
        """Its files, in the order of writing."""
        positions = self._order.positions()
        return sorted(self._look(), key=lambda file: (positions.get(file.stem, len(positions)), file.path.name))

    def _look(self) -> list[RingFile]:
        found = []
        with suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                match = self._name.fullmatch(entry.name)
                with suppress(OSError, ValueError):  # deleted while we look; no date, so not ours
                    if match is not None and entry.is_file(follow_symlinks=False):
                        found.append(_ring_file(entry, match))
        return found

    def prune(self, now_ns: int | None = None, in_use: Collection[Path] = ()) -> int:
        """Delete what is too much or too old, but nothing that is ``in_use``; gives the number of deleted files."""
        files = self.files()
        self._order.settle(now_ns)
        missing = self._missing_bytes()
        excess = max(sum(file.size_bytes for file in files) - self._keep_bytes, missing)
        busy = {path.name for path in in_use}
        deleted, stem = 0, ""
        for file in files:
            if file.path.name in busy or not (self._is_too_old(file) or excess > 0 or file.stem == stem):
                continue
            stem = file.stem  # files of one stem are deleted together
            with suppress(OSError):
                file.path.unlink(missing_ok=True)
                excess -= file.size_bytes
                deleted += 1
        if missing > 0 and deleted and not self._told:
            self._told = True
            log.warning("The disk of %s runs full: the oldest files there are deleted for it.", self.folder)
        self._order.forget_all_but({file.stem for file in files})
        return deleted

    def _is_too_old(self, file: RingFile) -> bool:
        limits = (self._keep_ns, self._longest_ns.get(file.source, 0))
        return any(limit and self._order.age_ns(file.stem) > limit for limit in limits)

    def _missing_bytes(self) -> int:
        """How much less is free on the disk than should be."""
        try:
            disk = os.statvfs(self.folder)
        except OSError:
            return 0
        return self._free_bytes - disk.f_bavail * disk.f_frsize

    def close(self) -> None:
        """Let others write there; a second call does nothing."""
        if not self._lock.closed:
            self._order.close()
            self._lock.close()


def source_slug(source_id: str) -> str:
    """A source as part of a file name; one that had to be changed keeps apart from others by six digits of its hash."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", source_id).strip("-.")[:_LONGEST_SOURCE]
    if plain == source_id:
        return plain
    digest = hashlib.sha256(source_id.encode("utf-8", "replace")).hexdigest()[:6]
    return f"{plain}-{digest}" if plain else digest


def _utc(time_ns: int) -> str:
    """Write a moment in UTC for a file name, such as ``20261121T154418.123``."""
    moment = _EPOCH + timedelta(milliseconds=time_ns // 1_000_000)
    return f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03d}"


def _ring_file(entry: os.DirEntry[str], match: re.Match[str]) -> RingFile:
    moment = datetime.strptime(match[2] + "000Z", "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=timezone.utc)
    status = entry.stat(follow_symlinks=False)
    return RingFile(
        path=Path(entry.path),
        stem=match[1],
        source=match[3],
        size_bytes=status.st_size,
        began_ns=(moment - _EPOCH) // timedelta(microseconds=1) * 1000,
        changed_ns=status.st_mtime_ns,
    )


def _open_folder(folder: Path, lock_name: str) -> BinaryIO:
    """Make the folder and lock it; the lock ends with the process, however that ends."""
    try:
        make_private_folder(folder)
        lock = lock_file(folder / lock_name)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(f"{folder} is not a folder.", "Give a folder, new or existing.") from error
    except OSError as error:
        raise SinkError(
            f"{folder} cannot be written: {error.strerror}.", "Does the folder above exist, and may you write there?"
        ) from error
    if lock is None:
        raise ConfigError(f"Another sink writes to {folder}.", "Give each a folder of its own.")
    return lock

"""``ClipFolder``: finished clips with their documents, and those that are being written."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgecv._internal.atomic import write_private
from edgecv.errors import SinkError
from edgecv.pipelines.sinks.clips.mp4 import mended
from edgecv.pipelines.sinks.clips.options import ClipsOptions
from edgecv.pipelines.sinks.documents import encode
from edgecv.pipelines.sinks.video.file_ring import FileRing
from edgecv.pipelines.sinks.video.ring_order import Clocks

_CLIP, _DOCUMENT, _PART = ".mp4", ".json", ".mp4.part"
_MOST_DOCUMENT = 16 << 20


class ClipFolder:
    """A clip is ``STEM.mp4`` with ``STEM.json``; while it grows it is called ``STEM.mp4.part``. From any thread."""

    def __init__(self, folder: str | Path, options: ClipsOptions, clocks: Clocks | None = None) -> None:
        """Take the folder; errors as ``FileRing``."""
        self._lock = threading.Lock()
        self._free_bytes = round(options.free_mb * 1e6)
        self._growing: set[str] = set()
        self._ring = FileRing(
            folder,
            (_CLIP, _DOCUMENT),
            keep_bytes=round(options.keep_gb * 1e9),
            keep_s=options.keep_hours * 3600,
            free_bytes=self._free_bytes,
            clocks=clocks,
        )

    @property
    def path(self) -> Path:
        """The folder in which the clips lie."""
        return self._ring.folder

    def begin(self, captured_ns: int, source_id: str) -> str:
        """The stem of a new clip, whose first image was captured then.

        Raises ``SinkError``: the disk is full, and deleting the oldest clips did not help.
        """
        with self._lock:
            self._prune()
            self._check_space()
            stem = self._ring.new_stem(captured_ns, source_id, _DOCUMENT)
            self._growing.add(stem)
            return stem

    def part(self, stem: str) -> Path:
        """The file of a clip that is being written."""
        return self.path / (stem + _PART)

    def describe(self, stem: str, document: Mapping[str, Any]) -> None:
        """Write the document of a clip. Raises ``SinkError``: it cannot be written."""
        try:
            write_private(self.path / (stem + _DOCUMENT), encode(dict(document)))
        except OSError as error:
            raise SinkError(f"{self.path} cannot be written: {error.strerror}.", "Is the disk full?") from error

    def finish(self, stem: str) -> Path:
        """Give a clip that is whole its name. Raises ``SinkError``: it cannot be renamed."""
        path = self.path / (stem + _CLIP)
        try:
            self.part(stem).rename(path)
        except OSError as error:
            raise SinkError(f"{self.path} cannot be written: {error.strerror}.", "Is the disk gone?") from error
        with self._lock:
            self._growing.discard(stem)
            self._prune()
        return path

    def drop(self, stem: str) -> None:
        """Delete a clip that does not become whole."""
        for path in (self.part(stem), self.path / (stem + _DOCUMENT)):
            with suppress(OSError):
                path.unlink(missing_ok=True)
        with self._lock:
            self._growing.discard(stem)

    def recover(self) -> list[tuple[Path, dict[str, Any]]]:
        """What a process that was killed left behind: clips that show something get their names, the others go.

        Gives each of the former with its document.
        """
        found = []
        for part in sorted(self.path.glob(f"*{_PART}")):
            stem = part.name[: -len(_PART)]
            if part.is_symlink() or not self._ring.owns(stem + _CLIP):
                continue
            document = _document(self.path / (stem + _DOCUMENT))
            if document is not None and mended(part):
                found.append((self.finish(stem), document))
            else:
                self.drop(stem)
        for left in self.path.glob(".*.tmp"):
            if self._ring.owns(left.name[1 : -len(".tmp")]):
                left.unlink(missing_ok=True)
        return found

    def retain(self, source_id: str, longest_s: float) -> None:
        """Clips of a source go once they were begun longer ago than this."""
        self._ring.retain(source_id, longest_s)

    def prune(self) -> None:
        """Delete what is too much or too old."""
        with self._lock:
            self._prune()

    def close(self) -> None:
        """Let others write there; a second call does nothing."""
        with self._lock:
            self._ring.close()

    def _prune(self) -> None:
        busy = [self.path / (stem + _DOCUMENT) for stem in self._growing]
        self._ring.prune(in_use=busy)

    def _check_space(self) -> None:
        disk = os.statvfs(self.path)
        if disk.f_bavail * disk.f_frsize < self._free_bytes:
            raise SinkError(
                f"The disk of {self.path} has less than {self._free_bytes // 10**6} MB left.",
                "Make room, or let it be filled further: free_mb=",
            )


def _document(path: Path) -> dict[str, Any] | None:
    """What ``describe`` wrote; ``None`` where it is not whole."""
    with suppress(OSError, ValueError):
        with path.open("rb") as file:
            read = json.loads(file.read(_MOST_DOCUMENT))
        if isinstance(read, dict):
            return read
    return None

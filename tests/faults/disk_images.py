"""What a disk holds after a power cut, from the record that ``preload.c`` wrote.

``Disk`` replays the record. At any moment it knows two extremes: everything that was written (``written``), as if the cache
had gone to the disk just then, and only what was flushed (``flushed``), as if nothing else had. ``torn`` is in between: of the
writes since the last flush of their file each is there or not, at random, in sectors of 512 bytes. Names of files (created,
renamed, removed) count as durable at once, as on ext4 with its journal; data does not.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_SECTOR = 512


@dataclass(frozen=True, slots=True)
class Change:
    """One record."""

    op: str
    path: str
    offset: int
    data: bytes


def read_changes(log: Path) -> Iterator[Change]:
    """The record, in order."""
    with log.open("rb") as handle:
        while line := handle.readline():
            op, offset, length, path = line.rstrip(b"\n").split(b" ", 3)
            data = handle.read(int(length))
            assert len(data) == int(length), "the record was cut"
            yield Change(op.decode(), path.decode(), int(offset), data)


@dataclass(slots=True)
class Disk:
    """Files by name, as far as they were written, and as far as they were flushed."""

    written: dict[str, bytearray] = field(default_factory=dict)
    flushed: dict[str, bytes] = field(default_factory=dict)
    since: defaultdict[str, list[Change]] = field(default_factory=lambda: defaultdict(list))  # not flushed yet
    flushes: int = 0

    def apply(self, change: Change) -> None:
        """Go on by one change."""
        name = change.path
        if change.op == "R":
            self._rename(name, change.data.decode())
        elif change.op == "U":
            for files in (self.written, self.flushed, self.since):
                files.pop(name, None)  # type: ignore[attr-defined]
        elif change.op == "C":
            self.written[name] = bytearray()
            self.flushed[name] = b""
            self.since.pop(name, None)
        elif change.op == "S":
            self.flushes += 1
            self.flushed[name] = bytes(self.written.get(name, b""))
            self.since.pop(name, None)
        else:
            _write(self.written.setdefault(name, bytearray()), change)
            self.since[name].append(change)

    def torn(self, rng: random.Random) -> dict[str, bytes]:
        """A state between ``flushed`` and ``written``."""
        files = {name: bytearray(data) for name, data in self.flushed.items()}
        for name, changes in self.since.items():
            for change in changes:
                if rng.random() < 0.5:
                    _write(files.setdefault(name, bytearray()), change, rng)
        return {name: bytes(data) for name, data in files.items()}

    def _rename(self, old: str, new: str) -> None:
        for files in (self.written, self.flushed, self.since):
            files.pop(new, None)  # type: ignore[attr-defined]
            if old in files:
                files[new] = files.pop(old)  # type: ignore[attr-defined]


def put_on_disk(files: Mapping[str, bytes | bytearray], folder: Path) -> None:
    """Write an image; what SQLite makes anew after a restart (``-shm``) is left out."""
    folder.mkdir()
    for name, data in files.items():
        if not name.endswith("-shm"):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def _write(data: bytearray, change: Change, rng: random.Random | None = None) -> None:
    if change.op == "T":
        del data[change.offset :]
        data.extend(bytes(change.offset - len(data)))
        return
    for start in range(0, len(change.data), _SECTOR if rng else max(len(change.data), 1)):
        if rng is not None and rng.random() < 0.2:
            continue
        piece = change.data[start : start + _SECTOR] if rng else change.data
        at = change.offset + start
        if len(data) < at:
            data.extend(bytes(at - len(data)))
        data[at : at + len(piece)] = piece

"""In which order the files of a folder were written, and how long ago, whatever the clock of the system says meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgecv._internal.private_files import write_all
from edgecv._internal.timing import clock_is_synced, steady_ns
from edgecv.protocols import Clock

_SANE_NS = 1_577_836_800 * 10**9  # 2020: a clock that says less was never set
_SHORT_NS = 24 * 3600 * 10**9  # an absence that is believed at once
_SETTLED_NS = 600 * 10**9  # a clock that ran on for so long without a jump is believed
_JUMP_NS = 60 * 10**9
_MOST_BYTES = 32 << 20
_LINES_TO_SPARE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """What a ring knows of the time, in nanoseconds."""

    wall: Clock = time.time_ns  # UTC; may be wrong, and may jump
    steady: Clock = steady_ns  # only ever goes on while the system is up
    is_synced: Callable[[], bool] = clock_is_synced  # whether the first follows a time server


@dataclass(frozen=True, slots=True, kw_only=True)
class RingFile:
    """One file of a ring."""

    path: Path
    stem: str  # its name up to the suffix: files with the same one belong together
    source: str  # the part of the name that stands for the source
    size_bytes: int
    began_ns: int  # the time in its name, UTC, as the frame had it: it may be wrong
    changed_ns: int  # when it was last written, UTC by the clock of then


class RingOrder:
    """Remembers stems in the order of writing, each with its moment on a time that counts only what really passed.

    That time goes on with the steady clock. What passed while nothing ran is told by the clock of the system: up to a day is
    believed at once, more only when that clock follows a time server or has run for ten minutes without a jump. So a clock that
    jumps, or was wrong for a while, makes no file older than it is. The list is kept in an open file, a line for each stem.

    Args:
        descriptor: A file that can be read and written; its contents are the list of earlier runs.
        clocks: The time.
    """

    def __init__(self, descriptor: int, clocks: Clocks | None = None) -> None:
        self._descriptor = descriptor
        self._clocks = clocks or Clocks()
        self._moments: dict[str, int] = {}
        self._is_new = True
        self._last_ns = self._last_wall_ns = 0  # both clocks when an earlier run wrote its last line
        self._read()
        self._earlier = set(self._moments)
        self._began_ns = self._seen_ns = self._calm_since_ns = self._clocks.steady()
        self._seen_wall_ns = self._clocks.wall()
        self._is_settled = False  # what passed while nothing ran is known

    def take_in(self, files: Iterable[RingFile]) -> None:
        """Learn which files there are; call it once, first. What is not in the list was written after what is.

        Without a list, as after an update of EdgeCV, the order and the ages are those that the file system knows.
        """
        found = {file.stem: file for file in sorted(files, key=lambda file: (file.changed_ns, file.stem))}
        self._moments = {stem: moment for stem, moment in self._moments.items() if stem in found}
        if self._is_new:
            sane = [file.changed_ns for file in found.values() if file.changed_ns >= _SANE_NS]
            self._last_ns = self._last_wall_ns = max(sane, default=0)
        for stem, file in found.items():
            if stem not in self._moments:
                self._moments[stem] = self._last_ns - (self._age_of_unknown_ns(file) if self._is_new else 0)
        self._earlier = set(self._moments)
        self._rewrite()

    def add(self, stem: str) -> None:
        """A file is about to be written."""
        self._moments.pop(stem, None)
        self._moments[stem] = self._now_ns()
        self._earlier.discard(stem)
        self._append(f"{self._moments[stem]} {self._clocks.wall()} {stem}\n")

    def positions(self) -> dict[str, int]:
        """The place of each stem in the order of writing."""
        return {stem: at for at, stem in enumerate(self._moments)}

    def age_ns(self, stem: str) -> int:
        """How long ago a file was begun, as far as that is known; never more."""
        return max(0, self._now_ns() - self._moments.get(stem, self._now_ns()))

    def settle(self, wall_ns: int | None = None) -> None:
        """Look at the clocks: find out what passed while nothing ran."""
        if self._is_settled:
            return
        now_ns, wall_ns = self._clocks.steady(), self._clocks.wall() if wall_ns is None else wall_ns
        if abs((wall_ns - self._seen_wall_ns) - (now_ns - self._seen_ns)) > _JUMP_NS:
            self._calm_since_ns = now_ns
        self._seen_ns, self._seen_wall_ns = now_ns, wall_ns
        is_calm = now_ns - self._calm_since_ns >= _SETTLED_NS or self._clocks.is_synced()
        away_ns = wall_ns - (now_ns - self._began_ns) - self._last_wall_ns
        if is_calm or (self._last_wall_ns >= _SANE_NS and 0 <= away_ns <= _SHORT_NS):
            self._is_settled = True
            if min(self._last_wall_ns, wall_ns) >= _SANE_NS and away_ns > 0:
                self._moments = {
                    stem: moment - (away_ns if stem in self._earlier else 0) for stem, moment in self._moments.items()
                }
                self._rewrite()

    def forget_all_but(self, stems: set[str]) -> None:
        """Drop the entries of deleted files once there are many; files of ``stems`` still exist."""
        if len(self._moments) > 2 * len(stems) + _LINES_TO_SPARE:
            self._moments = {stem: moment for stem, moment in self._moments.items() if stem in stems}
            self._rewrite()

    def close(self) -> None:
        """Note the time of the end; the file stays open."""
        self._append(f"{self._now_ns()} {self._clocks.wall()}\n")

    def _now_ns(self) -> int:
        return self._last_ns + self._clocks.steady() - self._began_ns

    def _age_of_unknown_ns(self, file: RingFile) -> int:
        """From the earlier of its two times that can be right, to the newest file."""
        sane = [time_ns for time_ns in (file.changed_ns, file.began_ns) if time_ns >= _SANE_NS]
        return max(0, self._last_wall_ns - min(sane)) if sane else 0

    def _read(self) -> None:
        data = b""
        with suppress(OSError):
            data = os.pread(self._descriptor, _MOST_BYTES, 0)
        for line in data.split(b"\n"):
            fields = line.decode("ascii", "replace").split(" ")
            with suppress(ValueError, IndexError):  # half a line, of a run that was killed
                moment_ns, wall_ns = int(fields[0]), int(fields[1])
                self._is_new = False
                if moment_ns >= self._last_ns:
                    self._last_ns, self._last_wall_ns = moment_ns, wall_ns
                if len(fields) == 3 and fields[2]:
                    self._moments.setdefault(fields[2], moment_ns)

    def _rewrite(self) -> None:
        wall_ns = self._clocks.wall()
        behind_ns = self._now_ns()
        lines = [f"{moment} {wall_ns - (behind_ns - moment)} {stem}\n" for stem, moment in self._moments.items()]
        last = f"{self._last_ns} {self._last_wall_ns}\n" if not self._is_settled else f"{behind_ns} {wall_ns}\n"
        data = ("".join(lines) + last).encode()
        with suppress(OSError):  # a full disk: the files are what matters
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            write_all(self._descriptor, data)
            os.ftruncate(self._descriptor, len(data))

    def _append(self, line: str) -> None:
        with suppress(OSError):
            os.lseek(self._descriptor, 0, os.SEEK_END)
            write_all(self._descriptor, line.encode())

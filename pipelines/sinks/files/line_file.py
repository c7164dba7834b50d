"""A text file that grows by whole lines, and that others may rotate, cut or move away meanwhile."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgecv._internal.atomic import Kind
from edgecv._internal.output_files import not_opened, open_target
from edgecv._internal.private_files import append_file
from edgecv.errors import ConfigError, SinkError
from edgecv.pipelines.sinks.options import LineSinkOptions

log = logging.getLogger("edgecv.pipelines")

_CHUNK_BYTES = 64 * 1024
_FIRST_LINE_BYTES = 4096
_PERIODS = {"hour": "%Y%m%d%H", "day": "%Y%m%d"}  # of local time; they sort as they follow


@dataclass(frozen=True, slots=True, kw_only=True)
class LineStyle:
    """What the lines of a file are like."""

    header: bytes = b""  # the first line, with its end
    is_whole: Callable[[bytes], bool] = lambda _line: False  # of a last line that has no end
    beginnings: tuple[bytes, ...] = ()  # of a first line, where there is no header
    kind: Kind | None = None  # the files that are replaced or gone on with; any by default


class LineFile:
    """Lines that leave the process whole, so that a kill cuts none.

    A write that fails half-way, as on a full disk, is taken back; the next one is tried anew. A file that was renamed or deleted
    is made anew under its name, one that was cut to nothing (``logrotate`` with ``copytruncate``) goes on from its beginning.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        options: LineSinkOptions | None = None,
        style: LineStyle | None = None,
    ) -> None:
        """Open the target: a file, or ``-`` for standard output. The option ``append`` goes before ``overwrite``.

        Raises:
            ConfigError: the file exists and is neither to be replaced nor gone on with, or has another first line.
            SinkError: it cannot be written there.
        """
        self._name, self._path = str(path), Path(path)
        self._options, self._style = options or LineSinkOptions(), style or LineStyle()
        self._is_stdout = self._name == "-"
        self._broken = ""
        self._half = 0  # bytes of half a line at the end that could not be taken back
        self._descriptor = self._open(overwrite or self._options.overwrite)
        self._period = self._period_of(os.fstat(self._descriptor).st_mtime)

    def check_open(self) -> None:
        """Raise ``SinkError`` when nothing can be written any more."""
        if self._broken or self._descriptor < 0:
            raise SinkError(f"{self._name} is {self._broken or 'closed'}.")

    def write(self, lines: bytes) -> None:
        """Append whole lines. Raises ``SinkError``: they could not be written whole."""
        self.check_open()
        try:
            if not self._is_stdout:
                self._follow_name()
                self._rotate_if_due(len(lines))
            self._append(lines)
        except OSError as error:
            if not self._is_regular():
                self._broken = f"broken: {error.strerror}"
            raise self._failure(error) from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._descriptor >= 0:
            if self._half:
                with contextlib.suppress(OSError):
                    self._take_back()
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self, overwrite: bool) -> int:
        if self._is_stdout:
            if self._options.rotates or self._options.append:
                raise ConfigError(
                    "Standard output is not rotated.", "Leave append, max_mb and every out, or name a file."
                )
            descriptor = _stdout_copy()
        elif self._options.append:
            descriptor = self._open_to_append()
        else:
            with open_target(self._path, overwrite=overwrite, kind=self._style.kind) as file:
                descriptor = os.dup(file.fileno())
            _set_append(descriptor)
        if not os.fstat(descriptor).st_size or not stat.S_ISREG(os.fstat(descriptor).st_mode):
            self._descriptor = descriptor
            try:
                self._write_header()
            except OSError as error:
                os.close(descriptor)
                raise self._failure(error) from error
        return descriptor

    def _failure(self, error: OSError) -> SinkError:
        hint = (
            "The reader of the pipe ended." if isinstance(error, BrokenPipeError) else _HINTS.get(error.errno or 0, "")
        )
        return SinkError(f"{self._name} cannot be written: {error.strerror}.", hint or "Is the disk full?")

    def _open_to_append(self) -> int:
        try:
            descriptor = append_file(self._path)
        except OSError as error:
            raise not_opened(self._name, error) from error
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                self._check_kind()
                self._mend(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _mend(self, descriptor: int) -> None:
        """Take away half a line at the end, which a power cut or a full disk left; end one that only lacks its end."""
        with self._path.open("rb") as file:
            size = end = file.seek(0, os.SEEK_END)
            tail = b""
            while end and b"\n" not in tail:
                start = max(0, end - _CHUNK_BYTES)
                file.seek(start)
                tail, end = file.read(end - start) + tail, start
        rest = tail.rpartition(b"\n")[2]
        if not rest:
            return
        if self._style.is_whole(rest):
            os.write(descriptor, b"\n")
            return
        os.ftruncate(descriptor, size - len(rest))
        log.warning("%s ended in half a line of %d bytes, which was removed.", self._name, len(rest))

    def _check_kind(self) -> None:
        """Refuse what is no file of these lines; one whose first line was cut short is."""
        style = self._style
        with self._path.open("rb") as file:
            first = file.readline(_FIRST_LINE_BYTES)
        beginnings = (style.header,) if style.header else style.beginnings
        if not first.endswith(b"\n") and any(beginning.startswith(first) for beginning in beginnings):
            return
        if style.header:
            if first.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n") != style.header.rstrip(b"\r\n"):
                raise ConfigError(
                    f"{self._name} has other columns than what is to be appended.",
                    "Write to a new file, or move that one away.",
                )
        elif style.kind is not None and (found := style.kind.other(self._path)):
            raise ConfigError(f"{self._name} is {found}: nothing is appended to it.", "Write to a new file.")

    def _write_header(self) -> None:
        if self._style.header:
            self._append(self._style.header)

    def _append(self, lines: bytes) -> None:
        if self._half:
            self._take_back()
        left = memoryview(lines)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            self._half = len(lines) - len(left)
            with contextlib.suppress(OSError):
                self._take_back()
            raise

    def _take_back(self) -> None:
        size = os.fstat(self._descriptor).st_size
        if self._is_regular():
            os.ftruncate(self._descriptor, max(0, size - self._half))
        self._half = 0

    def _is_regular(self) -> bool:
        return self._descriptor >= 0 and stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    def _follow_name(self) -> None:
        """Make the file anew where it was renamed or deleted, and begin again where it was cut to nothing."""
        own = os.fstat(self._descriptor)
        try:
            there = os.lstat(self._path)
        except FileNotFoundError:
            self._begin_anew()
            return
        if (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino):
            self._begin_anew()
        elif stat.S_ISREG(own.st_mode) and not own.st_size:
            self._half = 0
            self._write_header()

    def _begin_anew(self) -> None:
        try:
            descriptor = self._open_to_append()
        except ConfigError as error:
            raise SinkError(error.message, error.hint) from error
        os.close(self._descriptor)
        self._descriptor, self._half = descriptor, 0
        if not os.fstat(descriptor).st_size:
            self._write_header()

    def _rotate_if_due(self, more_bytes: int) -> None:
        options = self._options
        if not options.rotates:
            return
        period = self._period_of(time.time())
        is_over = period > self._period  # a clock that goes back begins nothing
        self._period = period
        size = os.fstat(self._descriptor).st_size
        too_large = options.max_mb and size + more_bytes > options.max_mb * 1e6
        if size > len(self._style.header) and (is_over or too_large):
            self._rotate()

    def _rotate(self) -> None:
        """``NAME`` becomes ``NAME.1``, that ``NAME.2`` and so on, as ``logging.handlers`` has it; the last goes."""
        for number in range(self._options.keep - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self._name}.{number}").replace(f"{self._name}.{number + 1}")
        self._path.replace(f"{self._name}.1")
        self._begin_anew()

    def _period_of(self, time_s: float) -> str:
        return time.strftime(_PERIODS[self._options.every], time.localtime(time_s)) if self._options.every else ""


_HINTS = {
    errno.ENOSPC: "Is the disk full? It is tried again with each result.",
    errno.EDQUOT: "Is the quota used up? It is tried again with each result.",
}


def _set_append(descriptor: int) -> None:
    """Every write goes to the end, wherever that is by then: others may cut the file."""
    import fcntl

    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)


def _stdout_copy() -> int:
    """A copy of the descriptor: closing the sink must not close the process's own standard output."""
    try:
        sys.stdout.flush()
        return os.dup(sys.stdout.fileno())
    except (OSError, ValueError, AttributeError) as error:
        raise SinkError("There is no standard output to write to.", "Give a file: jsonl:out.jsonl") from error

"""A text file that grows by whole lines."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import BinaryIO

from edgecv.atomic import Kind
from edgecv.errors import SinkError
from edgecv.media import open_target
from edgecv.private_files import write_all


class LineFile:
    """Lines that leave the process whole, so that a kill cuts none."""

    def __init__(self, path: str | Path, *, overwrite: bool = False, kind: Kind | None = None) -> None:
        """Open the target.

        Args:
            path: A file, or ``-`` for standard output.
            overwrite: Replace an existing file,
            kind: if it is of this kind; any file by default.

        Raises:
            ConfigError: the file exists and ``overwrite`` is not set, or it is of another kind.
            SinkError: it cannot be written there.
        """
        self._name = str(path)
        # A copy of the descriptor: closing the sink must not close the process's own standard output.
        self._file: BinaryIO = (
            _stdout_copy() if self._name == "-" else open_target(path, overwrite=overwrite, kind=kind)
        )
        self._broken = ""

    def check_open(self) -> None:
        """Raise ``SinkError`` when nothing can be written any more: what follows half a line would be lost."""
        if self._broken or self._file.closed:
            raise SinkError(f"{self._name} is {self._broken or 'closed'}.")

    def write(self, lines: bytes) -> None:
        """Append whole lines.

        Raises:
            SinkError: they, or some before, could not be written whole.
        """
        self.check_open()
        try:
            write_all(self._file.fileno(), lines)
        except OSError as error:
            self._broken = f"broken: {error.strerror}"
            hint = "The reader of the pipe ended." if isinstance(error, BrokenPipeError) else "Is the disk full?"
            raise SinkError(f"{self._name} cannot be written: {error.strerror}.", hint) from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()


def _stdout_copy() -> BinaryIO:
    try:
        sys.stdout.flush()
        return os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    except (OSError, ValueError, AttributeError) as error:
        raise SinkError("There is no standard output to write to.", "Give a file: jsonl:out.jsonl") from error

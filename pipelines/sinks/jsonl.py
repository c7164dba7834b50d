"""``jsonl:out.jsonl``: one JSON document per frame and line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import BinaryIO

import msgspec

from edgecv.errors import SinkError
from edgecv.media import open_target
from edgecv.pipelines.sinks.options import FileSinkOptions
from edgecv.results import Result
from edgecv.uris import Uri, read_options


class JsonlSink:
    """Writes ``Result.as_dict()`` line by line; each line leaves the process whole, so a kill cuts none."""

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Open the target.

        Args:
            path: A file, or ``-`` for standard output.
            overwrite: Replace an existing file.

        Raises:
            ConfigError: the file exists and ``overwrite`` is not set.
            SinkError: it cannot be written there.
        """
        self._name = str(path)
        self._is_stdout = self._name == "-"
        # A copy of the descriptor: closing the sink must not close the process's own standard output.
        self._file: BinaryIO = _stdout_copy() if self._is_stdout else open_target(path, overwrite=overwrite)
        self._broken = ""
        self._encoder = msgspec.json.Encoder()

    @classmethod
    def from_uri(cls, uri: Uri, *, fps: float = 0.0, overwrite: bool = False) -> JsonlSink:  # noqa: ARG003 - the seam's
        """Open ``jsonl:FILE`` or ``jsonl:-``; errors as in the constructor."""
        options = read_options(uri, FileSinkOptions)
        return cls(uri.path, overwrite=overwrite or options.overwrite)

    def emit(self, result: Result) -> None:
        """Write one line.

        Raises:
            SinkError: it, or one before, could not be written whole: what follows half a line would be lost.
        """
        if self._broken or self._file.closed:
            raise SinkError(f"{self._name} is {self._broken or 'closed'}.")
        try:
            self._write(self._encoder.encode(result.as_dict()) + b"\n")
        except OSError as error:
            self._broken = f"broken: {error.strerror}"
            hint = "The reader of the pipe ended." if isinstance(error, BrokenPipeError) else "Is the disk full?"
            raise SinkError(f"{self._name} cannot be written: {error.strerror}.", hint) from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def _write(self, line: bytes) -> None:
        """The line in one system call as a rule; a pipe or a full disk may take it in parts."""
        rest = memoryview(line)
        while rest:
            rest = rest[self._file.write(rest) :]


def _stdout_copy() -> BinaryIO:
    try:
        sys.stdout.flush()
        return os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    except (OSError, ValueError, AttributeError) as error:
        raise SinkError("There is no standard output to write to.", "Give a file: jsonl:out.jsonl") from error

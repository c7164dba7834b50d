"""``jsonl:out.jsonl``: one JSON document per frame and line, and one per event that belongs to no frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import msgspec

from edgecv.atomic import file_kind
from edgecv.events import Event
from edgecv.pipelines.sinks.documents import encode, event_document
from edgecv.pipelines.sinks.line_file import LineFile
from edgecv.pipelines.sinks.options import FileSinkOptions
from edgecv.printable import printable_json
from edgecv.results import Result
from edgecv.uris import Uri, read_options

_RESULTS = file_kind("a JSONL file of results", r'\s*\{"(index|source_id|event)":')


class JsonlSink:
    """Writes ``Result.as_dict()`` line by line; each line leaves the process whole, so a kill cuts none.

    Events of steps stand in the line of their frame, under ``events``. What happens to a source gets a line of its own,
    ``{"event": {"kind", "time_ns", "source_id", "data", "priority"}}``: a line that has no ``event`` is a frame.
    """

    options_type: ClassVar[type[msgspec.Struct]] = FileSinkOptions

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Open the target.

        Args:
            path: A file, or ``-`` for standard output.
            overwrite: Replace an existing file.

        Raises:
            ConfigError: the file exists and ``overwrite`` is not set.
            SinkError: it cannot be written there.
        """
        self._file = LineFile(path, overwrite=overwrite, kind=_RESULTS)
        self._on_stdout = str(path) == "-"

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
        self._write(result.as_dict())

    def emit_event(self, event: Event) -> None:
        """Write one line; errors as in ``emit``."""
        self._write(event_document(event))

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def _write(self, document: Any) -> None:
        self._file.check_open()
        line = encode(document)
        if self._on_stdout:  # that may be a terminal
            line = printable_json(line.decode()).encode()
        self._file.write(line + b"\n")

"""``jsonl:out.jsonl``: one JSON document per frame and line, and one per event that belongs to no frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import msgspec

from edgecv._internal.atomic import file_kind
from edgecv._internal.printable import printable_json
from edgecv.events import Event
from edgecv.pipelines.sinks.documents import encode, event_document
from edgecv.pipelines.sinks.files.line_file import LineFile, LineStyle
from edgecv.pipelines.sinks.options import LineSinkOptions
from edgecv.pipelines.uris import Uri, read_options
from edgecv.protocols import SinkType
from edgecv.results import Result

_BEGINNINGS = (b'{"index":', b'{"source_id":', b'{"event":')
_RESULTS = file_kind("a JSONL file of results", r'\s*\{"(index|source_id|event)":')


class JsonlSink(SinkType):
    """Writes ``Result.as_dict()`` line by line; each line leaves the process whole, so a kill cuts none.

    Events of steps stand in the line of their frame, under ``events``. What happens to a source gets a line of its own,
    ``{"event": {"kind", "time_ns", "source_id", "data", "priority"}}``: a line that has no ``event`` is a frame.
    """

    Options: ClassVar[type[msgspec.Struct]] = LineSinkOptions

    def __init__(self, path: str | Path, *, overwrite: bool = False, options: LineSinkOptions | None = None) -> None:
        """Open the target: a file, or ``-`` for standard output.

        Raises:
            ConfigError: the file exists and is neither to be replaced nor gone on with.
            SinkError: it cannot be written there.
        """
        self._on_stdout = str(path) == "-"
        self._file = LineFile(
            path,
            overwrite=overwrite,
            options=options,
            style=LineStyle(is_whole=_is_json, beginnings=_BEGINNINGS, kind=_RESULTS),
        )

    @classmethod
    def from_uri(cls, uri: Uri, *, fps: float = 0.0, overwrite: bool = False) -> JsonlSink:  # noqa: ARG003 - the seam's
        """Open ``jsonl:FILE`` or ``jsonl:-``; errors as in the constructor."""
        return cls(uri.path, overwrite=overwrite, options=read_options(uri, LineSinkOptions))

    def emit(self, result: Result) -> None:
        """Write one line. Raises ``SinkError``: it could not be written whole; the next one is tried anew."""
        self._write(result.as_dict())

    def emit_event(self, event: Event) -> None:
        """Write one line; errors as in ``emit``."""
        self._write(event_document(event))

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def _write(self, document: Any) -> None:
        line = encode(document)
        if self._on_stdout:  # that may be a terminal
            line = printable_json(line.decode()).encode()
        self._file.write(line + b"\n")


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=dict)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True

"""``csv:out.csv``: one row per detection, for spreadsheets and data frames."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import msgspec

from edgecv._internal.atomic import file_kind
from edgecv._internal.printable import printable
from edgecv.pipelines.sinks.files.csv_rows import Cell, csv_lines, harmless
from edgecv.pipelines.sinks.files.line_file import LineFile, LineStyle
from edgecv.pipelines.sinks.options import LineSinkOptions
from edgecv.pipelines.uris import Uri, read_options
from edgecv.protocols import SinkType
from edgecv.results import Classification, Detections, Result

COLUMNS = (
    "source_id",
    "index",
    "captured_ns",
    "class_id",
    "label",
    "confidence",
    "tracker_id",
    "left",
    "top",
    "right",
    "bottom",
    "position_s",
    "path",
)

_RESULTS = file_kind("a CSV file of results", r"source_id,index,")


class CsvSink(SinkType):
    """Writes a header and one row per detection, or per frame the best class of a classifier.

    Frames in which nothing was found give no row; events and masks are not written. Quoted as in RFC 4180, UTF-8, lines end
    in CR LF. A text that a spreadsheet would take for a formula gets a ``'`` in front of it. The rows of a frame leave the
    process together, so a kill cuts none.
    """

    Options: ClassVar[type[msgspec.Struct]] = LineSinkOptions

    def __init__(self, path: str | Path, *, overwrite: bool = False, options: LineSinkOptions | None = None) -> None:
        """Open the target: a file, or ``-`` for standard output.

        Raises:
            ConfigError: the file exists and is neither to be replaced nor gone on with, or has other columns.
            SinkError: it cannot be written there.
        """
        self._on_terminal = str(path) == "-" and sys.stdout.isatty()  # a file or a program gets labels as they are
        self._file = LineFile(
            path, overwrite=overwrite, options=options, style=LineStyle(header=csv_lines([COLUMNS]), kind=_RESULTS)
        )

    @classmethod
    def from_uri(cls, uri: Uri, *, fps: float = 0.0, overwrite: bool = False) -> CsvSink:  # noqa: ARG003 - the seam's
        """Open ``csv:FILE`` or ``csv:-``; errors as in the constructor."""
        return cls(uri.path, overwrite=overwrite, options=read_options(uri, LineSinkOptions))

    def emit(self, result: Result) -> None:
        """Write the rows of one frame.

        Raises ``SinkError`` when they could not be written whole; the next ones are tried anew.
        """
        self._file.check_open()
        rows = list(_rows(result))
        if rows:
            self._write(rows)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def _write(self, rows: Sequence[tuple[Cell, ...]]) -> None:
        shown = [tuple(printable(str(cell)) for cell in row) for row in rows] if self._on_terminal else rows
        self._file.write(csv_lines(shown))


def _rows(result: Result) -> Iterator[tuple[Cell, ...]]:
    if result.detections is not None:
        for at in range(len(result.detections)):
            yield (*_start(result, result.detections, at), *_place(result.detections, at), *_end(result))
    if result.classification is not None and len(result.classification):
        yield (*_start(result, result.classification, 0), "", "", "", "", "", *_end(result))


def _start(result: Result, found: Detections | Classification, at: int) -> tuple[Cell, ...]:
    class_id, confidence = int(found.class_id[at]), float(found.confidence[at])
    frame = result.frame
    named = harmless(frame.source_id), frame.index, frame.captured_ns, class_id, harmless(result.label(class_id))
    return (*named, f"{confidence:.6f}")


def _end(result: Result) -> tuple[Cell, ...]:
    return _position(result), harmless(result.frame.path)


def _place(found: Detections, at: int) -> tuple[Cell, ...]:
    tracker: Cell = "" if found.tracker_id is None else int(found.tracker_id[at])
    return (tracker, *(f"{float(side):.3f}" for side in found.xyxy[at]))


def _position(result: Result) -> Cell:
    position_s = result.frame.position_s
    return "" if position_s is None else f"{position_s:.3f}"

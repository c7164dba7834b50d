"""``counts:out.csv?every_s=60``: what lines and zones counted, a row per interval, source and counter."""

from __future__ import annotations

import contextlib
import csv
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec

from edgecv._internal.atomic import file_kind
from edgecv.events import Event
from edgecv.pipelines.sinks.files.count_intervals import IntervalCount, SourceIntervals
from edgecv.pipelines.sinks.files.csv_rows import Cell, csv_lines, harmless
from edgecv.pipelines.sinks.files.line_file import LineFile, LineStyle
from edgecv.pipelines.sinks.options import LineSinkOptions
from edgecv.pipelines.uris import Uri, read_options
from edgecv.protocols import SinkType
from edgecv.results import Frame, Result
from edgecv.status import PipelineStatus

COLUMNS = ("start", "position_s", "source_id", "counter", "count", "total", "peak", "last", "frames")

_KIND = file_kind("a CSV file of counts", r"start,position_s,source_id,counter,")
_GRACE_NS = 5_000_000_000  # an interval of a camera is given so long after its end, for results that are on their way
_MOST_WAITING = 10_000  # rows that a full disk keeps back
_TAIL_BYTES = 1 << 20  # where the last rows of an earlier run are looked for
_GONE = ("ended", "failed")
_IDLE_S = 30.0  # after which no result of a source that is gone is on its way any more


class CountsOptions(LineSinkOptions, frozen=True, kw_only=True):
    """What the query of ``counts:`` may say, beyond that of every file that grows by lines.

    Attributes:
        every_s: Length of an interval, seconds.
    """

    every_s: Annotated[float, msgspec.Meta(ge=1, le=86_400)] = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Came:
    """When the newest of a source came here, and when it was captured: the clock of a recording is not that of today."""

    monotonic_s: float
    captured_ns: int

    def now_ns(self, monotonic_s: float) -> int:
        """What the clock of the source shows by now."""
        return self.captured_ns + round((monotonic_s - self.monotonic_s) * 1e9)


class CountsSink(SinkType):
    """Writes a header, and for each interval a row per source and counter, also where nothing happened.

    Intervals of a camera are aligned to the wall clock (UTC), those of a file to its own time. What only grows has ``count``
    (in the interval) and ``total`` (at its end); a level, such as ``yard.inside``, has ``peak`` and ``last``. ``frames`` says
    how many results there were: with 0 nobody looked. An interval in which the program was stopped or started has a row for
    each part, so counts are added up; what a killed program counted and did not write stands in a row with ``frames`` 0, by
    the totals of the state file. Quoted as in RFC 4180, UTF-8, lines end in CR LF.
    """

    Options: ClassVar[type[msgspec.Struct]] = CountsOptions

    def __init__(self, path: str | Path, *, overwrite: bool = False, options: CountsOptions | None = None) -> None:
        """Open the target: a file, or ``-`` for standard output.

        Raises:
            ConfigError: the file exists and is neither to be replaced nor gone on with, or has other columns.
            SinkError: it cannot be written there.
        """
        self._options = options or CountsOptions()
        self._every_s = self._options.every_s
        style = LineStyle(header=csv_lines([COLUMNS]), kind=_KIND)
        self._file = LineFile(path, overwrite=overwrite, options=self._options, style=style)
        self._earlier = _last_totals(Path(path)) if self._options.append else {}
        self._sources: dict[str, SourceIntervals] = {}
        self._came: dict[str, _Came] = {}
        self._rows: deque[tuple[Cell, ...]] = deque(maxlen=_MOST_WAITING)
        self._status: Callable[[], PipelineStatus] | None = None
        self._closed = False

    @classmethod
    def from_uri(cls, uri: Uri, *, fps: float = 0.0, overwrite: bool = False) -> CountsSink:  # noqa: ARG003 - the seam's
        """Open ``counts:FILE`` or ``counts:-``; errors as in the constructor."""
        return cls(uri.path, overwrite=overwrite, options=read_options(uri, CountsOptions))

    def attach(self, status: Callable[[], PipelineStatus]) -> None:
        """Ask ``status`` whether a source that gives nothing is still there."""
        self._status = status

    def emit(self, result: Result) -> None:
        """Count the events of a result, and write the rows of intervals that have ended.

        Raises ``SinkError`` when rows could not be written; they are tried again with the next ones.
        """
        self._file.check_open()
        source_id = result.frame.source_id
        source = self._source(source_id, _is_file(result.frame), result.frame.captured_ns)
        self._take(source_id, source.begin(result.frame))
        for event in result.events:
            self._count(event)
        self._recover(source_id, source, result.frame.captured_ns)
        self._take(source_id, source.add(result))
        self._recover(source_id, source, result.frame.captured_ns)
        self._write()

    def emit_event(self, event: Event) -> None:
        """Count an event whose frame a step dropped. Raises ``SinkError`` when the sink is closed."""
        self._file.check_open()
        self._count(event)

    def tick(self) -> None:
        """Write the rows of intervals that have ended, also where a camera gives nothing; errors as in ``emit``."""
        monotonic_s = time.monotonic()
        gone = self._gone(monotonic_s)
        for source_id, source in list(self._sources.items()):
            came = self._came[source_id]
            if source_id in gone:
                if monotonic_s - came.monotonic_s >= _IDLE_S:
                    self._take(source_id, source.rest())
                    del self._sources[source_id], self._came[source_id]
            elif not source.is_file:
                self._take(source_id, source.until(came.now_ns(monotonic_s) - _GRACE_NS))
        self._write()

    def close(self) -> None:
        """Write what the intervals hold so far and close the file; a second call does nothing.

        Raises ``SinkError`` when it could not be written.
        """
        if self._closed:
            return
        self._closed = True
        try:
            for source_id, source in self._sources.items():
                self._take(source_id, source.rest())
            self._write()
        finally:
            self._file.close()

    def _source(self, source_id: str, is_file: bool, captured_ns: int) -> SourceIntervals:
        self._came[source_id] = _Came(monotonic_s=time.monotonic(), captured_ns=captured_ns)
        source = self._sources.get(source_id)
        if source is not None and source.is_file is not is_file:  # an event came first, which cannot tell
            self._take(source_id, source.rest())
            source = None
        if source is None:
            source = self._sources[source_id] = SourceIntervals(self._every_s, is_file=is_file)
        return source

    def _count(self, event: Event) -> None:
        if "counter" in event.data and "total" in event.data:
            known = self._sources.get(event.source_id)
            is_file = "position_s" in event.data if known is None else known.is_file
            self._source(event.source_id, is_file, event.time_ns).count(event)

    def _gone(self, monotonic_s: float) -> set[str]:
        """The sources that were removed or have ended, where somebody has to know; their last results may be on their way."""
        asks = any(
            source.is_file or source.is_silent(self._came[source_id].now_ns(monotonic_s) - _GRACE_NS)
            for source_id, source in self._sources.items()
        )
        if self._status is None or not asks:
            return set()
        there = {one.source_id for one in self._status().sources if one.health.state not in _GONE}
        return self._sources.keys() - there

    def _recover(self, source_id: str, source: SourceIntervals, now_ns: int) -> None:
        """A row for what was counted after the last one was written: a killed program writes none, its state file knows."""
        for name, first in source.first_totals.items() if self._earlier else ():
            start_s, total = self._earlier.pop((harmless(source_id), harmless(name)), (0.0, first))
            if first > total:
                at_s = min(start_s + self._every_s, now_ns / 1e9)
                self._take(
                    source_id,
                    [IntervalCount(number=int(at_s // self._every_s), counter=name, count=first - total, total=first)],
                )

    def _take(self, source_id: str, counts: Iterable[IntervalCount]) -> None:
        is_file = self._sources[source_id].is_file
        self._rows.extend(self._row(source_id, one, is_file) for one in counts)

    def _row(self, source_id: str, one: IntervalCount, is_file: bool) -> tuple[Cell, ...]:
        start_s = one.number * self._every_s
        start = "" if is_file else _utc(start_s)
        position = f"{start_s:.3f}" if is_file else ""
        numbers = ("" if value is None else value for value in (one.count, one.total, one.peak, one.last))
        return (start, position, harmless(source_id), harmless(one.counter), *numbers, one.frames)

    def _write(self) -> None:
        if self._rows:
            self._file.write(csv_lines(tuple(self._rows)))
            self._rows.clear()


def _is_file(frame: Frame) -> bool:
    """Whether its own time is that of a file; one that is played at its pace is as good as a camera."""
    return frame.position_ns is not None and frame.scene_time_ns is None


def _utc(time_s: float) -> str:
    whole = float(time_s).is_integer()
    text = datetime.fromtimestamp(time_s, timezone.utc).isoformat(timespec="seconds" if whole else "milliseconds")
    return text.replace("+00:00", "Z")


def _last_totals(path: Path) -> dict[tuple[str, str], tuple[float, int]]:
    """By source and counter: start (UTC seconds) and total of the last row that an earlier run wrote."""
    last: dict[tuple[str, str], tuple[float, int]] = {}
    for place in (path.with_name(f"{path.name}.1"), path):
        for row in _tail(place):
            with contextlib.suppress(ValueError):
                cells = dict(zip(COLUMNS, row, strict=True))
                start_s = datetime.fromisoformat(cells["start"].replace("Z", "+00:00")).timestamp()
                last[cells["source_id"], cells["counter"]] = start_s, int(cells["total"])
    return last


def _tail(path: Path) -> Iterator[list[str]]:
    if not path.is_file():  # to read from a pipe would wait
        return
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return
    with contextlib.suppress(csv.Error):
        yield from csv.reader(text.splitlines())

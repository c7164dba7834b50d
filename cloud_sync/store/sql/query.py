"""Answers one SQL query over a store. It reads the store and nothing else, and changes nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edgecv._internal.extras import require
from edgecv.cloud_sync.store.layout import PARQUET
from edgecv.cloud_sync.store.rewrite import literal, quoted, work_database
from edgecv.cloud_sync.store.sql.views import VIEWS, make_views
from edgecv.errors import ConfigError, EdgeCVError, SyncError

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a query may use; beyond its memory it spills to the disk."""

    memory_mb: int = 2048
    threads: int = 0  # 0: as many as there are processors


class Answers:
    """Stores with their views, open for queries."""

    def __init__(self, duck: Any, hot: int, files: Sequence[str] = ()) -> None:
        self._duck = duck
        self._files = files  # the folders of Parquet files
        self.hot = hot  # how many events are still in landing.db

    def run(self, sql: str, take: Callable[[Any], _T]) -> _T:
        """Run one SELECT and hand its rows, a ``pyarrow.RecordBatchReader``, to ``take``; gives what that returns.

        Ctrl-C ends it at once.

        Raises:
            ConfigError: it is no SELECT, is wrong, or asks for what a query may not do.
            SyncError: the memory does not suffice, or a file of the store is damaged.
        """
        duckdb, pa = require("duckdb", "cloud"), require("pyarrow", "cloud")

        def work() -> _T:
            statement = self._checked(sql)
            return take(pa.RecordBatchReader.from_stream(self._duck.sql(statement)))

        try:
            return _interruptible(work, self._duck.interrupt)
        except (duckdb.OutOfMemoryException, MemoryError) as error:
            raise SyncError("The query needs more memory than it may use.", "Give it more: --memory-mb.") from error
        except (duckdb.IOException, duckdb.HTTPException) as error:
            raise _explained(error, SyncError) from error
        except OSError as error:  # what a reader of Arrow says when DuckDB stumbles over a file after the first rows
            if not any(folder in str(error) for folder in self._files):
                raise
            raise _explained(error, SyncError) from error
        except (duckdb.Error, pa.ArrowException) as error:
            is_damaged = any(folder in str(error) and folder not in sql for folder in self._files)
            raise _explained(error, SyncError if is_damaged else ConfigError) from error
        except (OverflowError, ValueError) as error:
            raise ConfigError(
                f"The answer holds a value that cannot be written: {error}", "Make it a text: the_column::VARCHAR."
            ) from error

    def interrupt(self) -> None:
        """End the query that runs; may be called from any thread."""
        self._duck.interrupt()

    def _checked(self, sql: str) -> str:
        duckdb = require("duckdb", "cloud")
        statements = self._duck.extract_statements(sql)
        if len(statements) != 1:
            raise ConfigError(f"A query is one statement, not {len(statements)}.", "Ask one after the other.")
        is_pragma = sql.lstrip()[:6].upper() == "PRAGMA"  # DuckDB before 2 makes a SELECT of some
        if is_pragma or statements[0].type != duckdb.StatementType.SELECT:
            raise ConfigError("A query only reads: it is a SELECT.", f"Select from {', '.join(VIEWS)}.")
        return sql


@contextmanager
def open_answers(folders: Sequence[Path], bounds: Bounds | None = None) -> Iterator[Answers]:
    """Open stores for queries; several are read as one, with each event once.

    Raises:
        SyncError: a folder is no store, or cannot be read.
        MissingDependency: duckdb or pyarrow is not installed.
    """
    bounds = bounds or Bounds()
    duckdb = require("duckdb", "cloud")
    places = [folder.resolve() for folder in folders]
    if len(set(places)) != len(places):
        raise ConfigError("A store is named twice.", "Name each once.")
    threads = bounds.threads or os.cpu_count() or 1
    with _spill_folder() as spill, work_database(spill, memory=f"{bounds.memory_mb}MB", threads=threads) as duck:
        try:
            hot = make_views(duck, places)
            folders_below = [f"{place / PARQUET}/" for place in places]
            # As they are, and as `scan` writes them: DuckDB looks at both.
            allowed = ", ".join(map(quoted, {*folders_below, *map(literal, folders_below)}))
            duck.execute(f"SET allowed_directories=[{allowed}]")
            duck.execute("SET enable_external_access=false")
            duck.execute("SET lock_configuration=true")
        except duckdb.Error as error:
            raise _explained(error, SyncError) from error
        yield Answers(duck, hot, folders_below)


@contextmanager
def _spill_folder() -> Iterator[Path]:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="edgecv-query-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _explained(error: Exception, kind: type[EdgeCVError]) -> EdgeCVError:
    """DuckDB's own words, without the copy of the query and of its stack below them."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    hints = [line for line in lines[1:] if line.startswith(("Candidate", "Did you mean", "Hint"))]
    if "file system operations are disabled" in first:
        return ConfigError(
            "A query reads the store alone; no other file may be opened.", f"Select from {', '.join(VIEWS)}."
        )
    if kind is SyncError:
        return SyncError(f"The store cannot be read: {first}", "See what is damaged: edgecv store verify.")
    return kind(first, " ".join(hints) or f"Select from {', '.join(VIEWS)}; DESCRIBE one shows its columns.")


def _interruptible(work: Callable[[], _T], interrupt: Callable[[], None]) -> _T:
    """Work in another thread, so that a signal reaches this one; then ``interrupt`` ends the work."""
    done: list[_T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 (raised again by the thread that waits)
            failed.append(error)

    thread = threading.Thread(target=run, name="edgecv-query", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
    except BaseException:
        interrupt()
        thread.join(10.0)
        raise
    if failed:
        raise failed[0]
    return done[0]

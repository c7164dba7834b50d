"""``edgecv query`` asks the store of an ingest in SQL."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from edgecv.cli.console import note, print_table
from edgecv.errors import ConfigError, SyncError

_TABLE_ROWS = 200
_MANY_HOT = 200_000


def query(
    sql: Annotated[str, typer.Argument(help="One SELECT over events, detections, counts, sources, devices ...")],
    db: Annotated[list[Path], typer.Option(help="Folder of an ingest; several are read as one, each event once.")],
    to: Annotated[Path | None, typer.Option(help="Write to this file: .csv, .json or .parquet.")] = None,
    form: Annotated[str, typer.Option("--format", help="table, csv, json or parquet.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --to.")] = False,
    memory_mb: Annotated[int, typer.Option(min=64, help="Memory for the query; beyond it spills to the disk.")] = 2048,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0 takes all processors.")] = 0,
) -> None:
    """Ask the events of all devices a question in SQL, also while ingest runs."""
    from edgecv.cloud_sync.store.audit import write_audit
    from edgecv.cloud_sync.store.sql.output import FORMATS, format_of, write_file
    from edgecv.cloud_sync.store.sql.query import Bounds, open_answers

    if form not in ("", "table", *FORMATS):
        raise ConfigError(f"{form!r} is no format.", "Use table, csv, json or parquet.")
    if to is not None and form == "table":
        raise ConfigError("A table goes to the screen.", "Leave --to out, or choose another --format.")
    chosen: Any = form or ("table" if to is None else format_of(to))
    with open_answers(db, Bounds(memory_mb=memory_mb, threads=threads)) as answers:
        if answers.hot > _MANY_HOT:
            note(f"{answers.hot} events are not merged yet, which makes queries slow: edgecv ingest --merge-at hourly")
        for folder in db:
            try:
                write_audit(folder, "query", {"sql": sql, "to": str(to or "")})
            except SyncError as error:
                note(f"this query is not in the audit log: {error.message}")
        if to is not None:
            rows = answers.run(sql, lambda reader: write_file(reader, to, chosen, force=force))
            note(f"{rows} rows are in {to}")
        else:
            answers.run(sql, lambda reader: _show(reader, chosen))


def _show(reader: Any, form: Any) -> None:
    from edgecv.cloud_sync.store.sql.output import WRITERS

    if form != "table":
        WRITERS[form](reader, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    rows, more = _first_rows(reader)
    shown = [["" if value is None else str(value) for value in row] for row in rows]
    print_table(f"{len(rows)} rows", reader.schema.names, shown)
    if more:
        note(f"these are the first {_TABLE_ROWS} rows; --format csv, json or parquet gives all")


def _first_rows(reader: Any) -> tuple[list[list[object]], bool]:
    from edgecv.cloud_sync.store.sql.output import rows_of

    rows: list[list[object]] = []
    for row in rows_of(reader):
        if len(rows) == _TABLE_ROWS:
            return rows, True
        rows.append(row)
    return rows, False

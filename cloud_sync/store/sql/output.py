"""Writes the rows of an answer as CSV, JSON or Parquet; they pass through in batches, however many there are."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Literal

from edgecv._internal.atomic import new_file
from edgecv._internal.extras import require
from edgecv._internal.printable import printable_json
from edgecv._internal.private_files import FILE_MODE
from edgecv.errors import ConfigError, SyncError

Format = Literal["csv", "json", "parquet"]
FORMATS: tuple[Format, ...] = ("csv", "json", "parquet")
_INTERVAL = "month_day_nano_interval"  # the difference of two times


def format_of(path: Path) -> Format:
    """The format that a file name asks for.

    Raises:
        ConfigError: it asks for none.
    """
    for name in FORMATS:
        if path.suffix.lower() == f".{name}":
            return name
    raise ConfigError(f"What is {path.name} to be?", "End its name in .csv, .json or .parquet, or say --format.")


def write_file(reader: Any, path: Path, form: Format, *, force: bool = False) -> int:
    """Write an answer to a file of its owner alone, which appears whole or not at all; gives the number of rows.

    Raises:
        ConfigError: the file exists, and ``force`` is not set.
        SyncError: it cannot be written.
    """
    if path.is_dir() or ((path.exists() or path.is_symlink()) and not force):
        raise ConfigError(f"{path} exists already.", "Choose another name, or replace it with --force.")
    try:
        with new_file(path, FILE_MODE) as file:
            return WRITERS[form](reader, file)
    except OSError as error:
        raise SyncError(
            f"{path} cannot be written: {error.strerror or error}.", "Does the folder exist, and is there space?"
        ) from error


def rows_of(reader: Any) -> Iterator[list[object]]:
    """The rows, with values that JSON can hold."""
    for batch in reader:
        columns = [_plain_column(column) for column in batch.columns]
        yield from ([column[at] for column in columns] for at in range(batch.num_rows))


def _plain_column(column: Any) -> list[object]:
    if str(column.type) == _INTERVAL:
        return [None if one is None else _interval(one) for one in column.to_pylist()]
    return [plain(value) for value in column.to_pylist()]


def _interval(value: Any) -> float | str:
    """Seconds; a month has none that are always right."""
    seconds = float(value.days * 86_400 + value.nanoseconds / 1e9)
    return f"{value.months} months {seconds:g} s" if value.months else seconds


def plain(value: Any) -> Any:
    """A value that JSON can hold: times as in RFC 3339, ``None`` for a number that is none."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    found = next((spell for kind, spell in _SPELLED if isinstance(value, kind)), str)
    return found(value)


_SPELLED: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (float, lambda value: value if math.isfinite(value) else None),
    (datetime, lambda value: value.replace(tzinfo=None).isoformat() + "Z"),
    (date, date.isoformat),
    (timedelta, timedelta.total_seconds),
    (Decimal, lambda value: int(value) if value == value.to_integral_value() else float(value)),
    (bytes, bytes.hex),
)


def write_csv(reader: Any, file: BinaryIO) -> int:
    """CSV in UTF-8 with a header; lists and structures as JSON."""
    count = 0
    text = io.TextIOWrapper(file, "utf-8", errors="backslashreplace", newline="", write_through=True)
    try:
        writer = csv.writer(text)
        writer.writerow(reader.schema.names)
        for row in rows_of(reader):
            writer.writerow([json.dumps(one) if isinstance(one, list | dict) else one for one in row])
            count += 1
    finally:
        text.detach()
    return count


def write_json(reader: Any, file: BinaryIO) -> int:
    """A JSON array with an object per row, one a line."""
    count = 0
    names = reader.schema.names
    for row in rows_of(reader):
        line = json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False, allow_nan=False)
        file.write((b",\n" if count else b"[\n") + printable_json(line).encode("utf-8", "backslashreplace"))
        count += 1
    file.write(b"\n]\n" if count else b"[]\n")
    return count


def write_parquet(reader: Any, file: BinaryIO) -> int:
    """Parquet with the types of the answer."""
    parquet = require("pyarrow.parquet", "cloud")
    count = 0
    for field in reader.schema:
        if str(field.type) == _INTERVAL:
            raise ConfigError(f"Parquet has no type for the interval {field.name}.", "Ask for its seconds: epoch(...).")
    with parquet.ParquetWriter(file, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)
            count += batch.num_rows
    return count


WRITERS: dict[Format, Callable[[Any, BinaryIO], int]] = {
    "csv": write_csv,
    "json": write_json,
    "parquet": write_parquet,
}

"""Reads reports that ``edgecv bench --json`` wrote. A file may come from anywhere, so what is wrong in it is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edgecv._internal.bounded import read_bounded
from edgecv.benchmarks.report import SCHEMA, Report
from edgecv.errors import ConfigError

_MOST_BYTES = 64 << 20
_FEWEST, _MOST = 1e-9, 1e12  # of images per second and milliseconds
_MEASURE_AGAIN = "Write one with: edgecv bench BUNDLE --json > FILE"


def read_reports(path: Path) -> list[Report]:
    """The reports of a file: a list, or a single one.

    Raises:
        ConfigError: it cannot be read, is damaged, or is of another version.
    """
    try:
        found: Any = msgspec.json.decode(read_bounded(path, _MOST_BYTES))
        documents = found if isinstance(found, list) else [found]
        for document in documents:
            _check_schema(path, document)
        reports = msgspec.convert(documents, list[Report])
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.", _MEASURE_AGAIN) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no report of edgecv bench: {error}.", _MEASURE_AGAIN) from error
    if not reports or not all(map(_is_sound, reports)):
        raise ConfigError(f"{path} holds no times, or impossible ones.", _MEASURE_AGAIN)
    return reports


def _check_schema(path: Path, document: Any) -> None:
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        which = f"has version {schema}" if isinstance(schema, int) else "says no version"
        raise ConfigError(f"{path} {which} of the report; this EdgeCV compares version {SCHEMA}.", "Measure again.")


def _is_sound(report: Report) -> bool:
    stages = (value for stage in report.stages.values() for value in (stage.p50_ms, stage.p90_ms))
    return (
        bool(report.stages)
        and all(0 <= one < _MOST for one in (*stages, *report.times_ms))
        and _FEWEST < report.fps < _MOST
        and _FEWEST < report.headline_ms < _MOST
    )

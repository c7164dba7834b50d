"""Rows of a CSV file, as RFC 4180 has them, in UTF-8."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

Cell = str | int

# A spreadsheet computes a cell that begins like this, and formulas can call out:
# OWASP, "CSV Injection". Labels come from model files, names of sources from their owners.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def harmless(text: str) -> str:
    """A text with a ``'`` in front of it, where a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def csv_lines(rows: Sequence[tuple[Cell, ...]]) -> bytes:
    """Rows as lines that end in CR LF."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode("utf-8", "replace")

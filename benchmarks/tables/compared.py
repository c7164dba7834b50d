"""Comparisons as text and as a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from edgecv.benchmarks.comparing.compare import Compared
from edgecv.benchmarks.comparing.regression import Judged
from edgecv.benchmarks.report import as_document

COLUMNS = ("scenario", "variant", "file", "ms", "before", "change", "fps", "before", "verdict")


def compared_rows(found: Sequence[Compared]) -> list[tuple[str, ...]]:
    """A row per pair, for ``print_table``."""
    return [
        (
            one.new.scenario,
            one.new.variant,
            one.files[1],
            f"{one.new.headline_ms:.2f}",
            f"{one.old.headline_ms:.2f}",
            f"{one.change:+.1%}",
            f"{one.new.fps:.1f}",
            f"{one.old.fps:.1f}",
            one.verdict,
        )
        for one in found
    ]


def compared_document(found: Sequence[Compared]) -> list[dict[str, Any]]:
    """What JSON holds of every pair."""
    return [
        {
            "scenario": one.new.scenario,
            "files": list(one.files),
            "old_ms": one.old.headline_ms,
            "new_ms": one.new.headline_ms,
            "change": round(one.change, 6),
            "verdict": one.verdict,
            "differs": one.differs,
        }
        for one in found
    ]


def judged_document(found: Sequence[Judged]) -> list[dict[str, Any]]:
    """What JSON holds of every scenario that was judged."""
    return [
        {
            "scenario": one.scenario,
            "against": one.against,
            "differs": one.differs,
            **asdict(one.decision),
            "because": one.because,
            "report": as_document(one.report),
        }
        for one in found
    ]

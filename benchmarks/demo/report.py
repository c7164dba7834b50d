"""``report.html`` of the demo: one file, no script, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecv.quantize.report.template import render_report


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A JPEG with its caption."""

    title: str
    jpeg: bytes

    @property
    def base64(self) -> str:
        """The JPEG encoded as base64 text."""
        return base64.b64encode(self.jpeg).decode()


def write_report(path: Path, figures: Sequence[tuple[str, str]], images: Sequence[Image]) -> None:
    """Write the page; every text is escaped."""
    page = render_report("edgecv.benchmarks.demo", "demo", figures=figures, images=images)
    path.write_text(page, encoding="utf-8")

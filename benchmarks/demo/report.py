"""``report.html`` of the demo: one file, no script, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1b1f24; }
table { border-collapse: collapse; width: 100%; }
td { border-bottom: 1px solid #d8dee4; padding: .4rem .6rem; vertical-align: top; }
td:first-child { font-weight: 600; white-space: nowrap; } figure { margin: 1.5rem 0; } img { max-width: 100%; border-radius: 6px; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A JPEG with its caption."""

    title: str
    jpeg: bytes


def write_report(path: Path, figures: Sequence[tuple[str, str]], pictures: Sequence[Picture]) -> None:
    """Write the page; every text is escaped."""
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in figures)
    shown = "".join(
        f'<figure><img alt="{escape(picture.title)}" src="data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode()}">'
        f"<figcaption>{escape(picture.title)}: what the INT8 model finds</figcaption></figure>"
        for picture in pictures
    )
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>EdgeCV demo</title><style>{_STYLE}</style>'
        '<meta name="viewport" content="width=device-width">'
        "<h1>EdgeCV demo</h1><p>A detector of shapes, converted to INT8 on this machine, run over a generated clip; its events "
        "went through a broker into a store. mAP is measured on labelled frames that calibration did not see.</p>"
        f"<table>{rows}</table>{shown}</html>\n",
        encoding="utf-8",
    )

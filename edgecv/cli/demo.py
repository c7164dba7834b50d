"""``edgecv demo`` runs the whole job offline with an embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecv.cli.console import note, progress_bars


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo-output"),
) -> None:
    """Do the whole job offline: convert an embedded model to INT8, run a clip through it, land the events in a store."""
    from edgecv.benchmarks.demo.run import run_demo, show

    with progress_bars() as progress:
        outcome = run_demo(out, progress)
    show(outcome)
    note(f"Look at {out}/report.html and {out}/annotated.mp4")

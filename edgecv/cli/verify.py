"""``edgecv verify`` replays the golden vectors of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecv.bundles.bundle import Bundle
from edgecv.cli.console import print_json, print_table
from edgecv.cli.options import Json

_FIELDS = ("variant", "status", "cosine", "float_precision", "reason")


def verify(
    bundle: Annotated[Path, typer.Argument(help="Bundle to check.")],
    json: Json = False,
) -> None:
    """Replay a bundle's golden vectors on this machine: per variant ok, differs, cannot run, or skipped.

    A variant is skipped where its runtime is not installed. Exit code 1 if one differs or cannot run, or none could be checked.
    """
    from edgecv.bundles.golden import verify as verify_bundle

    opened = Bundle.open(bundle)
    opened.verify_files()
    verdicts = verify_bundle(opened)
    if json:
        rows = [{name: getattr(v, name) for name in _FIELDS} for v in verdicts]
        print_json({"bundle": str(bundle), "variants": rows})
    else:
        rows_text = [
            [v.variant, v.status, "–" if v.cosine is None else f"{v.cosine:.6f}", v.float_precision, v.reason]
            for v in verdicts
        ]
        print_table(str(bundle), ("variant", "status", "lowest cosine", "floats in", "reason"), rows_text)
    found = {verdict.status for verdict in verdicts}
    if found == {"skipped"} or not found <= {"ok", "skipped"}:
        raise typer.Exit(1)

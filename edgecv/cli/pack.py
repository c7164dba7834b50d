"""``edgecv pack`` zips a bundle for transfer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecv.bundles.packing import pack as pack_bundle
from edgecv.cli.console import say


def pack(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    out: Annotated[Path | None, typer.Option(help="File to write. Default: BUNDLE.zip.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Zip a bundle for transfer, after checking every file in it."""
    say(str(pack_bundle(bundle, out, force)))

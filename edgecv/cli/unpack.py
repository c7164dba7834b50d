"""``edgecv unpack`` restores a bundle from its zip file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecv.bundles.packing import unpack as unpack_bundle
from edgecv.cli.console import say


def unpack(
    archive: Annotated[Path, typer.Argument(help="Packed bundle (.zip).")],
    out: Annotated[Path | None, typer.Option(help="Folder to write. Default: the name without .zip.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing folder.")] = False,
) -> None:
    """Unzip a packed bundle; every member and every hash is checked before the folder appears."""
    say(str(unpack_bundle(archive, out, force)))

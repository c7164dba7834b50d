"""``edgecv devices`` describes this device and its installed runtimes, and lists the profiles of known boards."""

from __future__ import annotations

from typing import Annotated

import typer

from edgecv.cli.device_view import show
from edgecv.cli.options import Json

_Profiles = Annotated[bool, typer.Option("--profiles", help="List what is known to suit each board instead.")]


def devices(json: Json = False, profiles: _Profiles = False) -> None:
    """Show this device: board, cores and their INT8 features, limits, memory, accelerators and what they lack, runtimes."""
    show(json=json, profiles=profiles)

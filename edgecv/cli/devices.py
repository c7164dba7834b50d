"""``edgecv devices`` describes this device and its installed runtimes."""

from __future__ import annotations

from edgecv.cli.console import print_json, say
from edgecv.cli.options import Json


def devices(json: Json = False) -> None:
    """Show this device: board, CPU and its INT8 features, memory, accelerators, installed runtimes."""
    from edgecv.devices.describe import describe
    from edgecv.devices.detect import detect

    found = detect()
    if json:
        print_json(found.as_dict())
        return
    for name, value in describe(found):
        say(f"{name:14}{value}")

"""``edgecv devices`` describes this device and its installed runtimes, and lists the profiles of known boards."""

from __future__ import annotations

from typing import Annotated

import typer

from edgecv.cli.console import print_json, say
from edgecv.cli.options import Json

_Profiles = Annotated[bool, typer.Option("--profiles", help="List what is known to suit each board instead.")]


def devices(json: Json = False, profiles: _Profiles = False) -> None:
    """Show this device: board, cores and their INT8 features, limits, memory, accelerators and what they lack, runtimes."""
    from edgecv.devices.describe import describe
    from edgecv.devices.detect import detect
    from edgecv.devices.profiles import profile_of

    found = detect()
    mine = profile_of(found).name
    if profiles:
        _list_profiles(mine, json)
    elif json:
        print_json({**found.as_dict(), "profile": mine})
    else:
        for name, value in (*describe(found), ("profile", mine)):
            say(f"{name:14}{value}")


def _list_profiles(mine: str, json: bool) -> None:
    from dataclasses import asdict

    from edgecv.devices.profiles import profiles, summary_of

    if json:
        print_json([{**asdict(profile), "this": profile.name == mine} for profile in profiles()])
        return
    for profile in profiles():
        say(f"{profile.name:18}{profile.title}{'  <- this device' if profile.name == mine else ''}")
        say(f"{'':18}{summary_of(profile)}")

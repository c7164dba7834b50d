"""What ``edgecv devices`` prints, free of the parser of the command line, which alone takes as long as all of this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from edgecv.cli.console import log_lines, print_json, say

_OPTIONS = frozenset({"--json", "--profiles"})


def without_parser(arguments: Sequence[str]) -> bool:
    """Do ``edgecv devices`` if that, and nothing else but its own options, was asked for: a board answers at once.

    Returns:
        Whether it was done. Anything else, help and mistakes too, is the parser's.
    """
    if list(arguments[:1]) != ["devices"] or not _OPTIONS.issuperset(arguments[1:]):
        return False
    log_lines()
    show(json="--json" in arguments, profiles="--profiles" in arguments)
    return True


def show(*, json: bool, profiles: bool) -> None:
    """Print this device, or the profiles of known boards."""
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
    from edgecv.devices.profiles import profiles, summary_of

    if json:
        print_json([{**asdict(profile), "this": profile.name == mine} for profile in profiles()])
        return
    for profile in profiles():
        say(f"{profile.name:18}{profile.title}{'  <- this device' if profile.name == mine else ''}")
        say(f"{'':18}{summary_of(profile)}")

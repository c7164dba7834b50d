"""``edgecv store`` merges, thins and checks the store of an ingest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecv.cli.console import note, print_json, say
from edgecv.errors import ConfigError

_ACTIONS = ("merge", "retain", "verify")


def store(
    action: Annotated[str, typer.Argument(help="merge, retain or verify.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of an ingest.")],
    open_hours: Annotated[
        bool, typer.Option("--open-hours", help="merge: also the hour that is not over yet.")
    ] = False,
    days: Annotated[
        int | None, typer.Option(min=1, help="retain: how many days to keep; older hours are deleted.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="retain: of this tenant only.")] = "",
    timeout_s: Annotated[float, typer.Option(min=1, help="How long to wait for an ingest that runs.")] = 3600.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Merge events into Parquet, delete what is too old, or compare every file with its hash."""
    from edgecv.cloud_sync.store.requests import new_request
    from edgecv.cloud_sync.store.upkeep import order

    if action not in _ACTIONS:
        raise ConfigError(f"{action!r} is nothing that can be done to a store.", f"Use {', '.join(_ACTIONS)}.")
    if action == "verify":
        _verify(folder, as_json)
        return
    if action == "retain" and days is None:
        raise ConfigError("How much is to be kept?", "Say it: --days 30.")
    wishes = {"days": days, "tenant": tenant} if action == "retain" else {"open_hours": open_hours}
    result = order(folder, new_request(action, **wishes), timeout_s)
    if as_json:
        print_json(result)
    elif action == "merge":
        say(
            f"{result['events']} events were merged into {result['parts']} files; {result['compacted']} files became fewer"
        )
    else:
        deleted = (
            f"{result['stored']} events in {result['parts']} files, and {result['landed']} that were not merged yet"
        )
        say(f"kept from {result['from_hour']} UTC on; deleted {deleted}")


def _verify(folder: Path, as_json: bool) -> None:
    from edgecv.cloud_sync.store.verify import verify

    found = verify(folder)
    if as_json:
        print_json({"files": found.files, "bytes": found.bytes, "damaged": list(found.damaged), "strays": found.strays})
    else:
        say(f"{found.files} files, {found.bytes / 1e6:.1f} MB")
        for line in found.damaged:
            say(f"damaged: {line}")
        if found.strays:
            note(f"{found.strays} files belong to no part; no query reads them, and the next merge removes them")
    if found.damaged:
        raise typer.Exit(1)

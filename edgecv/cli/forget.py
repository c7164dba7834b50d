"""``edgecv forget`` takes what a device saw in a time out of the store."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer

from edgecv.cli.console import print_json, say
from edgecv.errors import ConfigError


def forget(
    db: Annotated[Path, typer.Option(help="Folder of an ingest.")],
    tenant: Annotated[str, typer.Option(help="Tenant of the device.")],
    device: Annotated[str, typer.Option(help="The device.")],
    begin: Annotated[str, typer.Option("--from", help="From when on, in UTC: 2026-11-28 or 2026-11-28T14:30.")],
    end: Annotated[str, typer.Option("--to", help="Until when, in UTC; that moment itself is kept.")],
    timeout_s: Annotated[float, typer.Option(min=1, help="How long to wait for an ingest that runs.")] = 3600.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Delete the events of a device and a time for good; what comes late is not stored. A tombstone says so."""
    from edgecv.cloud_sync.mqtt.topics import Address
    from edgecv.cloud_sync.store.forget import new_tombstone
    from edgecv.cloud_sync.store.requests import new_request
    from edgecv.cloud_sync.store.upkeep import order

    address = Address(tenant=tenant, device=device)
    from_us, to_us = _microseconds(begin), _microseconds(end)
    if from_us >= to_us:
        raise ConfigError(f"{begin} is not before {end}.", "--from is the earlier one.")
    tombstone = new_tombstone(address.tenant, address.device, from_us, to_us)
    result = order(db, new_request("forget", tombstone=tombstone), timeout_s)
    if as_json:
        print_json(result)
        return
    say(f"deleted {result['stored']} events from Parquet, {result['landed']} that were not merged yet")
    if not result["stored"] and not result["landed"]:
        say(f"nothing of {tenant}/{device} was there in that time; the tombstone stays: is the name right?")
    say("backups, files written by query --to, and what the device itself keeps are not touched")


def _microseconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text.removesuffix("Z"))
    except ValueError as error:
        raise ConfigError(f"{text!r} is no time.", "Write it as 2026-11-28 or 2026-11-28T14:30, in UTC.") from error
    if moment.tzinfo is not None:
        raise ConfigError(f"{text!r} has a time zone.", "Write it in UTC, without one.")
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    return round((moment.replace(tzinfo=timezone.utc) - epoch).total_seconds() * 1_000_000)

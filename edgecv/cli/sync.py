"""``edgecv sync`` looks into the outbox of a device, and empties it by hand."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from edgecv.cli.console import note, print_json, print_table, say
from edgecv.cli.options import Json
from edgecv.errors import ConfigError

if TYPE_CHECKING:
    from edgecv.cli.app_config import MqttTable
    from edgecv.cloud_sync.acks import Key
    from edgecv.cloud_sync.blobs.folder import Blob
    from edgecv.cloud_sync.outbox.view import OutboxView
    from edgecv.cloud_sync.stats import SyncStats

_Folder = Annotated[Path, typer.Argument(metavar="OUTBOX", help="Folder of the outbox.")]
_OVER_S = 0.05
_DEAD_ROOM = 32  # dead letters may take this part of an outbox

sync = typer.Typer(
    no_args_is_help=True, help="Look into the outbox of a device: what waits, what was lost, what was given up."
)


@sync.command()
def status(outbox: _Folder, json: Json = False) -> None:
    """Show what waits in each lane, what was lost, and why. A run may go on meanwhile."""
    from edgecv.cloud_sync.outbox.view import view_outbox

    with view_outbox(outbox) as view:
        blobs = _snapshots(outbox)
        if json:
            print_json(_status_document(view, blobs))
            return
        rows = [[lane.name, str(lane.rows), _mb(lane.used_bytes), lane.oldest[:19]] for lane in view.lanes()]
        print_table(str(outbox), ["lane", "events", "MB", "oldest"], rows)
        say(f"snapshots  {len(blobs)}, {_mb(sum(blob.size_bytes for blob in blobs))} MB")
        say(f"owner  {f'the running process {view.owner}' if view.owner else 'none, so nothing is sent'}")
        say(f"dead   {view.dead_rows}" + (f" (edgecv sync dead {outbox})" if view.dead_rows else ""))
        losses = view.losses()
        say(f"lost   {sum(loss.count for loss in losses)}")
        for loss in losses:
            where = f" of lane {loss.lane}" if loss.lane else ""
            say(f"  {loss.count} {loss.reason}{where}, {_time(loss.first_ns)} to {_time(loss.last_ns)}")
        for name in view.damaged_files:
            say(f"damaged file kept as {name}")


@sync.command()
def drain(
    outbox: Annotated[Path | None, typer.Argument(metavar="OUTBOX", help="Folder of the outbox.")] = None,
    mqtt: Annotated[str, typer.Option(help="Broker: mqtts://user@host?password_file=FILE.")] = "",
    tenant: Annotated[str, typer.Option(help="Owner of the device. By default that of the events.")] = "",
    device: Annotated[str, typer.Option(help="Name of the device. By default that of the events.")] = "",
    ack: Annotated[Literal["ingest", "broker"] | None, typer.Option(help="Who says that an event is safe.")] = None,
    config: Annotated[Path | None, typer.Option(help="Take all that from [mqtt] of this app.toml.")] = None,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Give up after so many seconds.")] = 60.0,
) -> None:
    """Send what waits until the outbox is empty; snapshots too, where --config asks for them. Exit code 1 if something is left."""
    from msgspec.structs import replace

    from edgecv.cli.run_app import open_cloud
    from edgecv.cloud_sync.outbox.limits import QUOTA_BYTES
    from edgecv.cloud_sync.outbox.view import view_outbox

    table = _mqtt_table(config, outbox, mqtt, ack)
    with view_outbox(Path(table.outbox)) as view:
        sources, waiting = view.sources(), sum(lane.rows for lane in view.lanes())
        if config is None:  # the limits of its run are not known: its dead letters must not make room for others
            table = replace(table, outbox_mb=(QUOTA_BYTES + _DEAD_ROOM * view.dead_bytes) / 1e6)
    snapshots = len(_snapshots(Path(table.outbox)))
    if not waiting and not (snapshots and table.snapshots):
        if snapshots:
            _end_with_snapshots(snapshots)
        note("Nothing waits.")
        return
    table = _addressed(table, sources, tenant, device)
    cloud = open_cloud(table)
    try:
        deadline_s = time.monotonic() + timeout_s
        before = cloud.stats()
        while _rest(cloud.stats()) and time.monotonic() < deadline_s:
            time.sleep(_OVER_S)
    finally:
        cloud.close()
    _end(before, cloud.stats(), asked=bool(table.snapshots), snapshots=len(_snapshots(Path(table.outbox))))


@sync.command()
def export(
    outbox: _Folder,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="New file of JSON lines, one event each.")],
    dead: Annotated[bool, typer.Option("--dead", help="Write the dead letters instead of what waits.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file of that name.")] = False,
) -> None:
    """Write what waits as JSON lines, and leave it in the outbox. A run may go on meanwhile."""
    from edgecv._internal.atomic import check_target, file_kind, new_file
    from edgecv._internal.private_files import FILE_MODE
    from edgecv.cloud_sync.outbox.view import view_outbox

    check_target(file, force, file_kind("a file of JSON lines", r"\s*\{"))
    written = damaged = 0
    with view_outbox(outbox) as view, new_file(file, FILE_MODE) as target:
        for body in view.bodies(dead=dead):
            if body is None:
                damaged += 1
            else:
                target.write(body + b"\n")
                written += 1
    note(f"{written} events written to {file}")
    if damaged:
        note(f"{damaged} are damaged on the disk and were left out")


@sync.command()
def dead(
    outbox: _Folder,
    action: Annotated[Literal["list", "retry"], typer.Argument(help="list, or retry: send them again.")] = "list",
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Which ones to retry.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Retry every one.")] = False,
    json: Json = False,
) -> None:
    """List the events that were given up, with the reason, or send them again. To retry, stop the run first."""
    from edgecv.cloud_sync.outbox.outbox import Outbox
    from edgecv.cloud_sync.outbox.view import view_outbox

    with view_outbox(outbox) as view:
        letters = list(view.dead_letters())
    if action == "list":
        if json:
            print_json({"dead": [{name: getattr(letter, name) for name in letter.__slots__} for letter in letters]})
            return
        rows = [
            [item.id, item.lane, item.type, item.time[:19], _time(item.died_ns), str(item.body_bytes), item.reason]
            for item in letters
        ]
        print_table(str(outbox), ["id", "lane", "type", "time", "given up", "bytes", "reason"], rows)
        return
    if bool(ids) == every:
        raise ConfigError("It is not said what to retry.", "Give ids from the list, or --all.")
    keys = None if every else [_key(text) for text in ids or ()]
    missing = sorted(set(ids or ()) - {letter.id for letter in letters})
    if missing:
        raise ConfigError(f"There is no dead letter {missing[0]} in {outbox}.", f"edgecv sync dead {outbox}")
    opened = Outbox(outbox)
    try:
        retried = opened.retry_dead(keys)
    finally:
        opened.close()
    note(f"{retried} go out again with the next run, or with edgecv sync drain")
    wanted = len(letters) if every else len(set(ids or ()))
    if retried < wanted:
        note(f"{wanted - retried} are damaged on the disk and stay")
        raise typer.Exit(1)


def _snapshots(outbox: Path) -> list[Blob]:
    """The snapshots that wait beside the events."""
    from edgecv.cloud_sync.blobs.folder import waiting_blobs

    return waiting_blobs(outbox / "blobs")


def _status_document(view: OutboxView, blobs: Sequence[Blob]) -> dict[str, Any]:
    return {
        "owner": view.owner,
        "lanes": {
            lane.name: {"events": lane.rows, "bytes": lane.used_bytes, "oldest": lane.oldest} for lane in view.lanes()
        },
        "snapshots": {"files": len(blobs), "bytes": sum(blob.size_bytes for blob in blobs)},
        "dead": {"events": view.dead_rows, "bytes": view.dead_bytes},
        "losses": [loss.as_dict() for loss in view.losses()],
        "damaged_files": view.damaged_files,
    }


def _mqtt_table(config: Path | None, outbox: Path | None, mqtt: str, ack: str | None) -> MqttTable:
    from msgspec.structs import replace

    from edgecv.cli.app_config import MqttTable, read_app_file

    if config is not None:
        table = read_app_file(config).mqtt
        if table is None:
            raise ConfigError(f"{config} has no [mqtt].", "Give --mqtt and the folder of the outbox instead.")
    else:
        if outbox is None or not mqtt:
            raise ConfigError("There is no broker or no outbox.", "edgecv sync drain OUTBOX --mqtt URL, or --config.")
        table = MqttTable(url=mqtt, tenant="", device="")
    given = {"url": mqtt, "outbox": "" if outbox is None else str(outbox), "ack": ack or ""}
    return replace(table, **{name: value for name, value in given.items() if value})


def _addressed(table: MqttTable, sources: set[str], tenant: str, device: str) -> MqttTable:
    """The table with the tenant and device of the events: nobody takes those of one device from another."""
    from msgspec.structs import replace

    if len(sources) > 1:
        raise ConfigError(
            f"The outbox {table.outbox} holds events of several devices: {', '.join(sorted(sources))}.",
            "Write them to a file: edgecv sync export.",
        )
    of_events = next(iter(sources), "").split("/")[1:] or ["", ""]
    tenant = tenant or table.tenant or of_events[0]
    device = device or table.device or of_events[-1]
    if sources and [tenant, device] != of_events:
        raise ConfigError(
            f"The events are of the device {'/'.join(of_events)}, not of {tenant}/{device}.",
            "Leave --tenant and --device out.",
        )
    return replace(table, tenant=tenant, device=device)


def _end(before: SyncStats, after: SyncStats, *, asked: bool, snapshots: int) -> None:
    given_up = after.dead - before.dead
    lost = after.snapshots_dropped - before.snapshots_dropped
    expired = f", {after.expired} deleted since their time to live was over" if after.expired else ""
    note(f"{after.acknowledged} delivered, {after.pending} wait still, {given_up} given up{expired}")
    if asked and (after.snapshots_sent or snapshots or lost):
        note(f"{after.snapshots_sent} snapshots delivered, {snapshots} wait still, {lost} given up")
    if after.last_error and (_rest(after) or given_up or lost):
        note(f"  last trouble: {after.last_error}")
    if snapshots and not asked:
        _end_with_snapshots(snapshots)
    if _rest(after) or given_up or lost:
        raise typer.Exit(1)


def _end_with_snapshots(count: int) -> NoReturn:
    """Pictures leave a device only when its configuration asks for them."""
    note(
        f"{count} snapshots wait still: edgecv sync drain --config app.toml sends them, if its [mqtt.snapshots] asks for them"
    )
    raise typer.Exit(1)


def _rest(stats: SyncStats) -> int:
    return stats.pending + stats.snapshots_waiting


def _key(text: str) -> Key:
    found = re.fullmatch(r"(\d{1,19}):(\d{1,19})", text, re.ASCII)
    if found is None:
        raise ConfigError(f"'{text}' is no id of an event.", "It looks like 123:4; edgecv sync dead lists them.")
    return (int(found[1]), int(found[2]))


def _time(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns / 1e9, tz=timezone.utc):%Y-%m-%dT%H:%M:%S}" if time_ns else ""


def _mb(used_bytes: int) -> str:
    return f"{used_bytes / 1e6:.1f}"

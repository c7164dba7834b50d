"""``edgecv run``: options and ``app.toml`` become one description of what is to be run; ``run_app.py`` runs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecv.cli.app_options import COMMAND_LINE, read_options, sources_named
from edgecv.cli.options import (
    AppBundle,
    AppComputeDevice,
    AppPrecision,
    AppRuntime,
    AppThreads,
    Classes,
    Confidence,
    Iou,
    Json,
    MaxFrames,
    MaxMegapixels,
    Out,
    ReplaceFiles,
    SaveVideo,
    Sources,
    Tiles,
    limit_images,
)
from edgecv.errors import ConfigError
from edgecv.pipelines.uris import parse_source

if TYPE_CHECKING:
    from edgecv.cli.app_config import AppFile, MqttTable
    from edgecv.pipelines.source_config import SourceConfig


def run(
    bundle: AppBundle = None,
    source: Sources = None,
    config: Annotated[
        Path | None,
        typer.Option(help="app.toml with sources, steps and sinks: see docs/app.md. The options here win."),
    ] = None,
    runtime: AppRuntime = None,
    precision: AppPrecision = None,
    threads: AppThreads = None,
    compute_device: AppComputeDevice = None,
    conf: Confidence = None,
    iou: Iou = None,
    classes: Classes = None,
    tiles: Tiles = None,
    policy: Annotated[
        str | None,
        typer.Option(help="auto, lossless, latest or every_nth. auto drops frames of live sources alone."),
    ] = None,
    nth: Annotated[int | None, typer.Option(min=1, help="Use one of this many frames (every_nth).")] = None,
    max_age_ms: Annotated[float | None, typer.Option(help="Drop frames older than this before the model.")] = None,
    track: Annotated[bool, typer.Option("--track", help="Give each object a number that stays (ByteTrack).")] = False,
    max_frames: MaxFrames = None,
    out: Out = None,
    save: SaveVideo = None,
    preview: Annotated[int | None, typer.Option(min=0, max=65535, help="Serve a web page on this port.")] = None,
    preview_host: Annotated[
        str | None,
        typer.Option(help="Address of the web page. Default: this machine alone. Others need a token."),
    ] = None,
    preview_token: Annotated[str | None, typer.Option(help="File with the token of the web page.")] = None,
    preview_path: Annotated[str | None, typer.Option(help="Path of the web page behind a proxy, as /door.")] = None,
    events_db: Annotated[
        str | None,
        typer.Option(help="Keep every event in this SQLite file, which the web page shows: see docs/events.md."),
    ] = None,
    edit: Annotated[
        bool, typer.Option("--edit", help="Let the web page change lines and zones, and write them into --config.")
    ] = False,
    metrics: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve metrics and /healthz on this port, which the web page may share."),
    ] = None,
    mqtt: Annotated[str | None, typer.Option(help="Broker: mqtts://USER@HOST?password_file=FILE")] = None,
    tenant: Annotated[str | None, typer.Option(help="Owner of this device, with --mqtt.")] = None,
    device: Annotated[str | None, typer.Option(help="Name of this device, with --mqtt.")] = None,
    outbox: Annotated[str | None, typer.Option(help="Folder where events wait until they are delivered.")] = None,
    ack: Annotated[str | None, typer.Option(help="ingest: an event counts once it is stored. broker: weaker.")] = None,
    wire: Annotated[str | None, typer.Option(help="zlib: for ingest. json: for others, with --ack broker.")] = None,
    platform: Annotated[
        str | None, typer.Option(help="Topics and limits of aws, azure, thingsboard ... or of a file of yours (.toml).")
    ] = None,
    events: Annotated[
        str | None,
        typer.Option(
            help="events, detections (frames with one at least, too), all (every frame), or kinds: line.crossed,zone.*."
        ),
    ] = None,
    ha: Annotated[
        bool,
        typer.Option("--ha", help="Show sources, zones and counts in Home Assistant, through the broker of --mqtt."),
    ] = False,
    governor: Annotated[
        str | None,
        typer.Option(help="auto: fewer frames, then a cheaper variant, before the device gets too hot. Default: off."),
    ] = None,
    force: ReplaceFiles = False,
    max_megapixels: MaxMegapixels = None,
    json: Json = False,
) -> None:
    """Run a model on cameras, videos or folders of images. The results go to files, a web page and the cloud."""
    import msgspec

    limit_images(max_megapixels)
    from edgecv.cli.app_config import HomeAssistantTable, check_app
    from edgecv.cli.run_app import run_app

    file = read_options(config, bundle, runtime, precision, threads, conf, iou, classes, compute_device, tiles)
    freshness = {"policy": policy, "nth": nth, "max_age_ms": max_age_ms}
    page = {"port": preview, "host": preview_host, "token_file": preview_token, "path": preview_path}
    page |= {"edit": edit or None}
    if events_db is not None and (preview is not None or file.preview is not None):
        page["events"] = events_db
    cloud = {"url": mqtt, "tenant": tenant, "device": device, "outbox": outbox, "ack": ack, "events": events}
    cloud |= {"wire": wire, "platform": platform}
    file = msgspec.structs.replace(
        file,
        sources=_sources(file.sources, source, freshness),
        steps=[{"type": "track"}, *file.steps] if track and not _tracks(file) else file.steps,
        sinks=[*file.sinks, *(out or []), *([f"video:{save}"] if save else []), *_events_sink(file, events_db)],
        preview=_table(file, "preview", page, "--preview PORT"),
        metrics=_table(file, "metrics", {"port": metrics}, "--metrics PORT"),
        mqtt=_mqtt(file, cloud),
        home_assistant=file.home_assistant or (HomeAssistantTable() if ha else None),
        max_frames=max_frames or file.max_frames,
        governor=_governor(file, governor),
    )
    app = check_app(file, str(config or COMMAND_LINE), code_beside=config)
    run_app(app, overwrite=force, json=json, path=config)


def _events_sink(file: AppFile, path: str | None) -> list[str]:
    """The sink of ``--events-db``; none where the file has it already."""
    return [] if path is None or path in file.events_files else [f"events:{path}"]


def _governor(file: AppFile, said: str | None) -> Any:
    if said not in (None, "auto", "off"):
        raise ConfigError(f"There is no governor '{said}'.", "auto or off.")
    return said or file.governor


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _sources(tables: list[SourceConfig], uris: list[str] | None, freshness: dict[str, Any]) -> list[SourceConfig]:
    """The sources of the command line, else those of the file, with the freshness of the command line where it says one."""
    import msgspec

    chosen = sources_named(tables, _named(uris)) if uris else tables
    given = _given(freshness)
    if given.get("policy", "every_nth") != "every_nth":
        given.setdefault("nth", 1)  # that of the file belongs to its policy
    return [msgspec.structs.replace(table, **given) for table in chosen]


def _named(uris: list[str]) -> list[tuple[str, str]]:
    """Each with a name of its own where one stands there twice; empty for the usual one."""
    return [
        (uri, f"{parse_source(uri).name}#{uris[:at].count(uri) + 1}" if uri in uris[:at] else "")
        for at, uri in enumerate(uris)
    ]


def _tracks(file: AppFile) -> bool:
    return any(step.get("type") == "track" for step in file.steps)


def _table(file: AppFile, name: str, options: dict[str, Any], needs: str) -> Any:
    """A table of the file with the options of the command line, which may also begin it."""
    from edgecv._internal.strict import read_struct
    from edgecv.cli.app_config import AppFile

    given, table = _given(options), getattr(file, name)
    if not given:
        return table
    begun = {key: getattr(table, key) for key in table.__struct_fields__} if table is not None else {}
    if "port" in options and "port" not in {**begun, **given}:
        raise ConfigError(f"The options of the {name} page are for {needs}, which is missing.", "Name a port: 8080.")
    return getattr(read_struct({name: {**begun, **given}}, AppFile, COMMAND_LINE), name)


def _mqtt(file: AppFile, options: dict[str, Any]) -> MqttTable | None:
    given = _given(options)
    if given and file.mqtt is None:
        if "url" not in given:
            raise ConfigError(
                f"--{next(iter(given))} is for --mqtt, which is missing.", "Name the broker: --mqtt mqtts://HOST"
            )
        if not {"tenant", "device"} <= given.keys():
            raise ConfigError("--mqtt needs --tenant and --device.", "They make the topics: edgecv/TENANT/DEVICE/ev")
    table: MqttTable | None = _table(file, "mqtt", options, "--mqtt URL")
    return table

"""``app.toml``: a whole application for ``edgecv run --config``: sources, gates, steps, sinks, sync.

Every name is checked: one that does not exist is an error with the nearest that does. Paths are relative to the current folder, as
on the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from edgecv._internal.strict import read_struct, read_toml
from edgecv.cli.app_parts import part, sink_part
from edgecv.cloud_sync.blobs.options import SnapshotOptions
from edgecv.cloud_sync.notify import NotifyOptions
from edgecv.errors import ConfigError
from edgecv.notifications.choice import read_choice, read_kinds
from edgecv.pipelines.loop.step_chain import check_ids, check_sources, linked_steps
from edgecv.pipelines.sinks.own import OwnSink
from edgecv.pipelines.source_config import SourceConfig
from edgecv.pipelines.uris import parse_sink
from edgecv.protocols import GateOptions, StepOptions
from edgecv.tiles.grid import Tiles, read_tiles

_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Count = Annotated[int, msgspec.Meta(ge=1)]


class ModelTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[model]``: as the options of ``edgecv run``, which win; ``None`` and ``auto`` leave it to the bundle or the
    runtime.

    Attributes:
        precision: ``auto``, ``fp32``, ``fp16``, ``int8``, or ``bf16``: the float32 files computed in bfloat16.
        threads: Threads of the session; 0: what ``edgecv tune`` found best, else all CPUs it may use.
        device: What the runtime computes on: ``cpu``, ``cuda``, ``tensorrt``, ``gpu``, ``npu``, ``auto`` or ``edgetpu``; never
            another one.
        cache_dir: Where a runtime keeps what it compiled, relative to where the program starts. By default nothing is kept for the
            CPU, and what was compiled for an accelerator lies in EdgeCV's own cache.
        extra: Options of the runtime, such as ``provider_options``; see ``edgecv/runtimes``.
        iou: Overlap above which two boxes are one.
        tiles: Look at each frame in so many tiles as well, such as ``2x2``; see ``edgecv/tiles``.
        tile_overlap: The part of a tile's side that it shares with its neighbour.
    """

    bundle: str = ""
    runtime: str = "auto"
    precision: str = "auto"
    threads: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    device: str = "cpu"
    cache_dir: str = ""
    extra: dict[str, Any] = {}
    confidence: _Share | None = None
    iou: _Share | None = None
    classes: list[str | int] | None = None
    tiles: str = ""
    tile_overlap: float | None = None

    @property
    def grid(self) -> Tiles | None:
        """The tiles; ``None`` without. Raises ``ConfigError`` where they make no sense."""
        return read_tiles(self.tiles, self.tile_overlap)


class PreviewTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[preview]``: the page at a port; names as at ``PreviewSink``, the file with the token, and whether its editor may write.

    ``events`` is by default the file of the sink ``events:``, where there is one.
    """

    port: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    host: str = "127.0.0.1"
    token_file: str = ""
    allowed_hosts: list[str] = []
    path: str = ""
    events: str = ""
    edit: bool = False


class MetricsTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[metrics]``: Prometheus metrics and ``/healthz``; names as in ``[preview]``."""

    port: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    host: str = "127.0.0.1"
    allowed_hosts: list[str] = []


class LaneTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[mqtt.lanes.NAME]``: as ``LaneLimits``, in megabytes."""

    reserved_mb: Annotated[float, msgspec.Meta(ge=0)] | None = None
    quota_mb: Annotated[float, msgspec.Meta(ge=0)] | None = None
    ttl_s: Annotated[float, msgspec.Meta(ge=0)] | None = None
    when_full: Literal["drop_oldest", "refuse"] | None = None


class LanesTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[mqtt.lanes]``: the lanes of the outbox, most urgent first."""

    alarm: LaneTable = LaneTable()
    event: LaneTable = LaneTable()
    telemetry: LaneTable = LaneTable()
    blob: LaneTable = LaneTable()


class MqttTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[mqtt]``: names as at ``MqttSink``; ``outbox`` is the folder where events wait.

    ``events`` is a word or a list of kinds of events, ``snapshots`` a list of kinds, or a table ``[mqtt.snapshots]``.
    """

    url: str
    tenant: str
    device: str
    outbox: str = "outbox"
    ack: Literal["ingest", "broker"] = "ingest"
    events: str | list[str] = "detections"
    telemetry_ttl_s: float | None = None
    lanes: LanesTable = LanesTable()
    outbox_mb: Annotated[float, msgspec.Meta(gt=0)] | None = None
    wire: Literal["zlib", "json"] | None = None
    platform: str | None = None
    window_bytes: _Count | None = None
    drain_events_s: float | None = None
    snapshots: SnapshotOptions | list[str] | None = None
    notify: NotifyOptions | None = None


class HomeAssistantTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[home_assistant]``: names as at ``HomeAssistantSink`` and ``HomeAssistantOptions``.

    ``url``, ``tenant``, ``device`` and ``folder`` are those of ``[mqtt]`` (``outbox``) where they are left out.
    """

    url: str = ""
    tenant: str = ""
    device: str = ""
    folder: str = ""
    name: str = ""
    prefix: str = "homeassistant"
    classes: list[str] | None = None
    expire_after_s: int = 60
    snapshots: bool = False
    snapshot_every_s: float = 10.0


class AppFile(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file; ``gates`` and ``steps`` are tables with a ``type`` (``edgecv plugins`` lists them), in order.

    Code of the application is named by ``python = "module:attribute"`` in place of the ``type``, and in ``sinks`` by such a table.
    """

    model: ModelTable = msgspec.field(default_factory=ModelTable)
    sources: list[SourceConfig] = []
    gates: list[dict[str, Any]] = []
    steps: list[dict[str, Any]] = []
    sinks: list[str | dict[str, Any]] = []
    preview: PreviewTable | None = None
    metrics: MetricsTable | None = None
    mqtt: MqttTable | None = None
    home_assistant: HomeAssistantTable | None = None
    max_frames: _Count | None = None
    governor: Literal["auto", "off"] = "off"  # `auto`: fewer frames, then a cheaper variant, before it gets too hot

    @property
    def sink_uris(self) -> list[str]:
        """The sinks that are named by a URI."""
        return [sink for sink in self.sinks if isinstance(sink, str)]

    @property
    def events_files(self) -> list[str]:
        """The files of the sinks ``events:``."""
        return [uri.path for uri in map(parse_sink, self.sink_uris) if uri.scheme == "events"]


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """What is to be run: the file as it was written, by hand or by options, and one struct of options per step and gate.

    ``sinks`` are URIs, and what was loaded for those of the application itself.
    """

    file: AppFile
    steps: tuple[StepOptions, ...]
    gates: tuple[GateOptions, ...]
    sinks: tuple[str | OwnSink, ...]


def read_app_file(path: Path) -> AppFile:
    """Read ``app.toml``; nothing is opened yet.

    Raises ``ConfigError`` when the file is missing or no TOML, a name does not exist, or a value does not fit.
    """
    return read_struct(
        read_toml(path, missing="Check the name and its folder.", example="Texts need quotes; see docs/app.md."),
        AppFile,
        str(path),
    )


def check_app(file: AppFile, where: str, *, code_beside: Path | None = None) -> App:
    """Check what only the whole shows: names of sources, and the options of sinks, gates and steps by their types.

    Code of the application is loaded only where ``code_beside`` is the file on this device in which its name stands.

    Raises ``ConfigError``, which calls the file ``where``, for a name that stands twice or does not exist, a value that
    does not fit, or a step that counts what nothing tracks; and ``UnknownPlugin`` for a step or gate.
    """
    names = [source.result_name for source in file.sources]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where} has two sources named '{name}'.", 'Give each a name of its own: name = "door".')
    read_tiles(file.model.tiles, file.model.tile_overlap)  # raises where they make no sense
    if file.mqtt is not None:
        read_choice(file.mqtt.events, f"{where}, [mqtt] events")
        if file.mqtt.notify is not None:
            read_kinds(file.mqtt.notify.events, f"{where}, [mqtt.notify] events")
    steps = tuple(part("steps", table, where, code_beside) for table in file.steps)
    check_ids(steps)
    linked = linked_steps(steps)
    gates = tuple(part("gates", table, where, code_beside) for table in file.gates)
    if names:  # a replay takes those of its recording
        check_sources((*linked, *gates), names)
    return App(
        file=file,
        steps=steps,
        gates=gates,
        sinks=tuple(sink_part(sink, len(file.sources), where, code_beside) for sink in file.sinks),
    )

"""``edgecv run``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecv.cli.console import note, print_json
from edgecv.cli.options import Confidence, Iou, Json, Precision, Runtime, Threads
from edgecv.errors import ConfigError

if TYPE_CHECKING:
    from edgecv.cloud_sync.sink import MqttSink
    from edgecv.pipelines.pipeline import Pipeline, SinkLike
    from edgecv.pipelines.summary import Summary
    from edgecv.results import Result

_STATUS_S = 2.0


def run(
    bundle: Annotated[Path, typer.Argument(help="Bundle, or a bare model file that carries metadata.")],
    source: Annotated[str, typer.Option(help="0, usb://0, FILE.mp4, images/, synthetic:// ...")],
    runtime: Runtime = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    conf: Confidence = None,
    iou: Iou = None,
    classes: Annotated[str | None, typer.Option(help="Names or numbers of the classes to keep, with commas.")] = None,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    out: Annotated[list[str] | None, typer.Option(help="Sink, such as jsonl:FILE; may be repeated.")] = None,
    save: Annotated[Path | None, typer.Option(help="Annotated video to write (.mp4).")] = None,
    mqtt: Annotated[str | None, typer.Option(help="Broker: mqtts://user@host?password_file=FILE.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Owner of this device, with --mqtt.")] = None,
    device: Annotated[str | None, typer.Option(help="Name of this device, with --mqtt.")] = None,
    outbox: Annotated[Path | None, typer.Option(help="Folder where events wait until they arrived.")] = None,
    ack: Annotated[str, typer.Option(help="ingest: stored by `edgecv ingest`. broker: weaker.")] = "ingest",
    events: Annotated[str, typer.Option(help="detections: frames with one at least. all: every frame.")] = "detections",
    force: Annotated[bool, typer.Option("--force", help="Replace existing output files.")] = False,
    json: Json = False,
) -> None:
    """Run a camera, video or folder through a model; results go to files and the cloud."""
    from edgecv.model import load
    from edgecv.pipelines.pipeline import Pipeline, check_model

    if json and "jsonl:-" in (out or ()):
        raise ConfigError("--json and --out jsonl:- both write to stdout.", "Write the results to a file.")
    cloud = _cloud(mqtt, tenant, device, outbox, ack, events)
    pipeline: Pipeline | None = None
    try:
        with load(bundle, runtime=runtime, precision=precision, threads=threads) as model:
            check_model(model)  # before a sink creates its file
            pipeline = Pipeline(
                source,
                model,
                sinks=_sinks(out, save, force, cloud),
                confidence=conf,
                iou=iou,
                classes=classes.split(",") if classes else None,
                max_frames=max_frames,
            )
            with pipeline:
                _follow(pipeline)
    finally:  # a camera only ever ends by a signal: that, too, is an end with a report
        if cloud is not None:
            cloud.close()
        if pipeline is not None:
            _report(pipeline.summary, cloud, json)


def _cloud(
    url: str | None, tenant: str | None, device: str | None, outbox: Path | None, ack: str, events: str
) -> MqttSink | None:
    if url is None:
        given = [name for name, value in (("--tenant", tenant), ("--device", device), ("--outbox", outbox)) if value]
        if given:
            raise ConfigError(f"{given[0]} is for --mqtt, which is missing.", "Name the broker: --mqtt mqtts://HOST")
        return None
    if tenant is None or device is None:
        raise ConfigError("--mqtt needs --tenant and --device.", "They make the topics: edgecv/TENANT/DEVICE/ev")
    from edgecv.cloud_sync.sink import MqttSink

    return MqttSink(
        url,
        tenant=tenant,
        device=device,
        outbox=outbox or Path("outbox"),
        ack=ack,  # type: ignore[arg-type]  # the sink checks it
        events=events,  # type: ignore[arg-type]
    )


def _sinks(out: list[str] | None, save: Path | None, force: bool, cloud: MqttSink | None) -> list[SinkLike]:
    named = [*(out or []), *([f"video:{save}"] if save else [])]
    sinks: list[SinkLike] = [_overwriting(uri) if force and uri != "jsonl:-" else uri for uri in named]
    return sinks + ([cloud] if cloud is not None else [])


def _overwriting(uri: str) -> str:
    return f"{uri}{'&' if '?' in uri else '?'}overwrite=1"


def _follow(pipeline: Pipeline) -> None:
    said = time.monotonic()
    for result in pipeline:
        if time.monotonic() - said >= _STATUS_S:
            said = time.monotonic()
            note(_status(pipeline.summary, result))


def _status(summary: Summary, result: Result) -> str:
    found = len(result.detections) if result.detections is not None else 0
    return f"frame {result.frame.index}: {found} detections, {summary.fps:.1f} fps, age {result.age_ms:.0f} ms"


def _report(summary: Summary, cloud: MqttSink | None, json: bool) -> None:
    document: dict[str, Any] = summary.as_dict()
    stats = cloud.stats() if cloud is not None else None
    if stats is not None:
        document["sync"] = {name: getattr(stats, name) for name in stats.__slots__}
    if json:
        print_json(document)
        return
    note(f"{summary.frames} frames in {summary.elapsed_s:.1f} s: {summary.fps:.1f} fps")
    note("  " + ", ".join(f"{stage} {ms:.1f} ms" for stage, ms in summary.stage_p50_ms.items()) + " (median)")
    for reason, count in summary.dropped.items():
        note(f"  {count} frames dropped: {reason}")
    if stats is not None:
        note(f"  events: {stats.accepted} accepted, {stats.acknowledged} delivered, {stats.pending} waiting on disk")
        if stats.pending and not stats.connected:
            note("  the broker is out of reach; they go out with the next run")
        if stats.last_error:
            note(f"  last trouble: {stats.last_error}")

"""Runs what ``edgecv run`` was asked for: puts the rooms together and tells people how it goes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from edgecv import registry
from edgecv._internal.private_files import keep_files_private
from edgecv._internal.secret_files import read_secret
from edgecv.cli.app_options import check_complete, load_model, load_options
from edgecv.cli.console import note
from edgecv.cli.counts_view import counts_so_far
from edgecv.cli.event_notes import event_notes
from edgecv.cli.home_assistant import home_assistant_sink
from edgecv.cli.run_report import report_run
from edgecv.cli.shape_notes import ShapeNotes
from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.pipelines.sinks.options import LineSinkOptions
from edgecv.pipelines.uris import parse_sink, parse_source
from edgecv.results import Result
from edgecv.status import Gauge

if TYPE_CHECKING:
    from edgecv.cli.app_config import App, AppFile, MqttTable
    from edgecv.cloud_sync.home_assistant.sink import HomeAssistantSink
    from edgecv.cloud_sync.sink import MqttSink
    from edgecv.devices.governor.models import CheaperModels
    from edgecv.model import Model
    from edgecv.pipelines.arguments import SinkLike
    from edgecv.pipelines.fitting_model import FittingModel
    from edgecv.pipelines.pipeline import Pipeline
    from edgecv.pipelines.preview.editor.book import StepBook
    from edgecv.pipelines.source_config import SourceConfig
    from edgecv.pipelines.summary import Summary

_STATUS_S = 2.0


def run_app(app: App, *, overwrite: bool, json: bool, path: Path | None = None) -> None:
    """Run until the sources end or a signal comes; the report comes in any case, as JSON on stdout or in words.

    What an ``app.toml`` describes (at ``path``) is a service: of its files, as of what cameras show, only the owner may
    read them; those of a clip that a person runs once follow the umask. Raises ``ConfigError`` when a part is missing or
    two parts want the same output, and what ``Pipeline`` raises.
    """
    from edgecv.cli.app_edit import AppSteps
    from edgecv.cli.governor import governed
    from edgecv.devices.governor.watch import FrameWatch
    from edgecv.pipelines.pipeline import Pipeline

    file = app.file
    watch = FrameWatch() if file.governor == "auto" else None
    _check(file, json)
    editor = AppSteps(app, path) if file.preview is not None else None
    live = [_is_live(source) for source in file.sources]
    if path is not None or any(live):
        keep_files_private()
    cloud = open_cloud(file.mqtt) if file.mqtt is not None else None
    home: HomeAssistantSink | None = None
    pipeline: Pipeline | None = None
    model = file.model
    try:
        gauges = _gauges(cloud)
        home = home_assistant_sink(file, gauges)
        with load_model(file, model.bundle) as loaded, _models(loaded, file) as models:
            pipeline = Pipeline(
                file.sources,
                loaded,
                sinks=[
                    *_sinks(app, gauges, editor, is_service=path is not None and not overwrite and all(live)),
                    *(sink for sink in (cloud, home) if sink is not None),
                ],
                steps=app.steps,
                gates=app.gates,
                confidence=model.confidence,
                iou=model.iou,
                classes=model.classes,
                max_frames=file.max_frames,
                overwrite=overwrite,
                on_result=None if watch is None else watch.on_result,
                on_event=_tell,
            )
            if editor is not None:
                editor.attach(pipeline)
            _advise(app, loaded)
            with pipeline, governed(pipeline, watch, models):
                _follow(pipeline, ShapeNotes(loaded))
    finally:  # a camera only ever ends by a signal: that, too, is an end with a report
        if home is not None:
            home.close()
        if cloud is not None:
            cloud.close()
        if pipeline is not None:
            report_run(pipeline.summary, None if cloud is None else cloud.stats(), json)
            if home is not None and home.trouble:
                note(f"  Home Assistant: {home.trouble}")


def _models(model: Model | FittingModel, file: AppFile) -> AbstractContextManager[CheaperModels | None]:
    """Cheaper variants of the bundle, where the governor may use them.

    Raises ``ConfigError`` for a model that a pipeline cannot use: before a sink creates its file.
    """
    from edgecv.devices.governor.models import CheaperModels
    from edgecv.pipelines.arguments import check_model
    from edgecv.pipelines.fitting_model import FittingModel

    check_model(model)
    if file.governor != "auto":
        return nullcontext()
    if isinstance(model, FittingModel):
        note("The governor lowers the frame rate alone: the bundle has several input shapes.")
        return nullcontext()
    return CheaperModels.of(model, load_options(file))


def _is_live(source: SourceConfig) -> bool:
    """Whether a source never ends by itself, or plays one that does not."""
    if not isinstance(source.uri, str | int | Path):
        return source.uri.live
    parsed = parse_source(source.uri)
    plays_live = source.plays.loop or (parsed.scheme == "synthetic" and parsed.options.get("live") == "1")
    return plays_live or registry.resolve("sources", parsed.scheme).supervised


def _advise(app: App, model: Model | FittingModel) -> None:
    """Say what will not work as the file wants it.

    A tracker carries objects on with detections that are not sure: it needs to see them.
    """
    confidence = app.file.model.confidence
    least = model.spec.decode.confidence if confidence is None else confidence
    from edgecv.pipelines.steps.track.tracker import Track

    for line in event_notes(app):
        note(line)
    for step in app.steps:
        if isinstance(step, Track) and least > (low := step.low):
            note(
                f"track: the model keeps detections from confidence {least:g} on; from {low:g} on it loses fewer objects. "
                f"In app.toml: [model] confidence = {low:g}, and a step confidence after track (docs/steps.md)."
            )


def _tell(event: Event) -> None:
    """What goes wrong is in the log, which is shown; that it is mended should be, too."""
    if event.kind == "source.live":
        note(f"Source {event.source_id} is live.")


def _check(file: AppFile, json: bool) -> None:
    check_complete(file, "run")
    on_stdout = [sink for sink in file.sink_uris if parse_sink(sink).path == "-"]
    if on_stdout and json:
        raise ConfigError(f"--json and {on_stdout[0]} both write to stdout.", "Write the results to a file.")


def open_cloud(table: MqttTable) -> MqttSink:
    """The sink that ``[mqtt]`` describes; errors as ``MqttSink``."""
    from edgecv.cli.outbox_limits import outbox_limits
    from edgecv.cloud_sync.blobs.options import SnapshotOptions
    from edgecv.cloud_sync.sink import MqttSink

    chosen = table.snapshots or None
    sink = MqttSink(
        table.url,
        tenant=table.tenant,
        device=table.device,
        outbox=Path(table.outbox),
        ack=table.ack,
        events=table.events,
        telemetry_ttl_s=table.telemetry_ttl_s,
        limits=outbox_limits(table),
        wire=table.wire,
        platform=table.platform,
        window_bytes=table.window_bytes,
        drain_events_s=table.drain_events_s,
        snapshots=SnapshotOptions(events=chosen) if isinstance(chosen, list) else chosen,
        notify=table.notify,
    )
    if sink.promise:
        note(f"mqtt: {sink.promise}")
    return sink


def _sinks(app: App, gauges: Sequence[Gauge], editor: StepBook | None, *, is_service: bool) -> list[SinkLike]:
    file = app.file
    sinks: list[SinkLike] = [_continued(sink) if is_service and isinstance(sink, str) else sink for sink in app.sinks]
    if file.preview is not None:
        from edgecv.pipelines.preview.sink import PreviewSink

        token = read_secret(file.preview.token_file) if file.preview.token_file else None
        page = PreviewSink(
            port=file.preview.port,
            host=file.preview.host,
            token=token,
            gauges=gauges,
            allowed_hosts=file.preview.allowed_hosts,
            path=file.preview.path,
            events=file.preview.events or next(iter(file.events_files), ""),
            editor=editor,
        )
        note(f"preview: {page.url}")
        sinks.append(page)
    if file.metrics is not None:
        from edgecv.pipelines.sinks.metrics.sink import MetricsSink

        numbers = MetricsSink(
            port=file.metrics.port,
            host=file.metrics.host,
            gauges=gauges,
            allowed_hosts=file.metrics.allowed_hosts,
        )
        note(f"metrics: http://{file.metrics.host}:{numbers.port}/metrics")
        sinks.append(numbers)
    return sinks


def _continued(sink: str) -> str:
    """A file that grows by lines goes on where it was: a service is started again and again."""
    uri = parse_sink(sink)
    said = {"append", "overwrite"} & uri.options.keys()
    grows_by_lines = issubclass(registry.resolve("sinks", uri.scheme).Options, LineSinkOptions)
    if not grows_by_lines or uri.path == "-" or said:
        return sink
    return f"{sink}{'&' if uri.options else '?'}append=1"


def _gauges(cloud: MqttSink | None) -> Sequence[Gauge]:
    from edgecv.devices.probes import device_gauges

    if cloud is None:
        return device_gauges()
    waiting = Gauge(
        name="sync_pending_events",
        help="Events on disk that the cloud has not acknowledged yet.",
        read=lambda: float(cloud.stats().pending),
    )
    return [*device_gauges(), waiting]


def _follow(pipeline: Pipeline, notes: ShapeNotes) -> None:
    said = time.monotonic()
    for result in pipeline:
        notes.look(result)
        if time.monotonic() - said >= _STATUS_S:
            said = time.monotonic()
            note(_status(pipeline.summary, result))


def _status(summary: Summary, result: Result) -> str:
    found = len(result.detections) if result.detections is not None else 0
    where = f"{result.frame.source_id} frame {result.frame.index}"
    counts = counts_so_far(summary.counts)
    line = f"{where}: {found} detections, {summary.fps:.1f} fps, age {result.age_ms:.0f} ms"
    return f"{line}; {counts}" if counts else line

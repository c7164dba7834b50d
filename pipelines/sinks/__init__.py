"""Sinks by name: the registry finds the ``SinkType`` of a scheme."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecv import registry
from edgecv._internal.extras import lazy_names
from edgecv.errors import ConfigError, PluginError
from edgecv.pipelines.uris import Uri, parse_sink, read_options
from edgecv.protocols import Sink, SinkType, lacks

if TYPE_CHECKING:
    from edgecv.pipelines.preview.sink import PreviewSink as PreviewSink
    from edgecv.pipelines.recording.sink import RecordSink as RecordSink
    from edgecv.pipelines.sinks.clips.sink import ClipsSink as ClipsSink
    from edgecv.pipelines.sinks.events.sink import EventsSink as EventsSink
    from edgecv.pipelines.sinks.files.counts import CountsSink as CountsSink
    from edgecv.pipelines.sinks.files.csv import CsvSink as CsvSink
    from edgecv.pipelines.sinks.files.jsonl import JsonlSink as JsonlSink
    from edgecv.pipelines.sinks.metrics.sink import MetricsSink as MetricsSink
    from edgecv.pipelines.sinks.video.segments import SegmentsSink as SegmentsSink
    from edgecv.pipelines.sinks.video.snapshots import SnapshotsSink as SnapshotsSink
    from edgecv.pipelines.sinks.video.video import VideoSink as VideoSink
    from edgecv.pipelines.sinks.webhook.sink import WebhookSink as WebhookSink

_LAZY = {
    "ClipsSink": "edgecv.pipelines.sinks.clips.sink",
    "CountsSink": "edgecv.pipelines.sinks.files.counts",
    "CsvSink": "edgecv.pipelines.sinks.files.csv",
    "EventsSink": "edgecv.pipelines.sinks.events.sink",
    "JsonlSink": "edgecv.pipelines.sinks.files.jsonl",
    "MetricsSink": "edgecv.pipelines.sinks.metrics.sink",
    "PreviewSink": "edgecv.pipelines.preview.sink",
    "RecordSink": "edgecv.pipelines.recording.sink",
    "SegmentsSink": "edgecv.pipelines.sinks.video.segments",
    "SnapshotsSink": "edgecv.pipelines.sinks.video.snapshots",
    "VideoSink": "edgecv.pipelines.sinks.video.video",
    "WebhookSink": "edgecv.pipelines.sinks.webhook.sink",
}

__all__ = [*_LAZY, "check_sink", "open_sink", "writes_files"]  # noqa: PLE0604 - the keys are strings


if not TYPE_CHECKING:  # a type checker shall find misspelt names
    __getattr__ = lazy_names(__name__, _LAZY)


def __dir__() -> list[str]:
    return sorted(__all__)


_BROKERS = frozenset({"mqtt", "mqtts", "ws", "wss"})
SINK_HINT = "A sink has emit(result) and close()."


def check_sink(uri: str | Uri, sources: int) -> None:
    """Refuse what can never work, before anything is opened.

    Raises:
        UnknownPlugin: no sink has that scheme.
        ConfigError: an option does not exist or has a wrong value, or the sink cannot take so many ``sources``.
    """
    parsed = parse_sink(uri)
    kind = _kind_of(parsed)
    read_options(parsed, kind.Options)
    if sources > 1 and kind.one_source:
        raise ConfigError(f"{parsed.name} holds one source, and there are {sources}.", "Write to segments:DIR instead.")


def _kind_of(uri: Uri) -> type[SinkType]:
    """What a scheme stands for; MQTT, which needs more than a URL, is found elsewhere."""
    if uri.scheme in _BROKERS and uri.scheme not in registry.names("sinks"):
        raise ConfigError(
            f"{uri.name} is a broker, and no sink that a URL can name: it needs the names of tenant and device, too.",
            "In app.toml: [mqtt] with url, tenant and device. With options: --mqtt URL --tenant NAME --device NAME. "
            "In Python: edgecv.cloud_sync.MqttSink(url, tenant=..., device=..., outbox=...).",
        )
    return registry.resolve("sinks", uri.scheme)


def writes_files(uri: Uri) -> bool:
    """Whether the path of a sink is a file or folder."""
    return registry.resolve("sinks", uri.scheme).writes_files


def open_sink(uri: str | Uri, *, fps: float = 0.0, overwrite: bool = False) -> Sink:
    """Open a sink.

    Args:
        uri: ``jsonl:out.jsonl``, ``jsonl:-``, ``video:out.mp4?overwrite=1`` ...
        fps: Frames per second of the source; 0.0 when frames come at any time.
        overwrite: Replace an existing target; the option ``overwrite=1`` of the URI does the same.

    Raises:
        UnknownPlugin: no sink has that scheme; the hint lists those there are.
        ConfigError: an option does not exist, or the target exists and is not to be overwritten.
        SinkError: the target cannot be written.
    """
    parsed = parse_sink(uri)
    kind = _kind_of(parsed)
    read_options(parsed, kind.Options)
    sink = kind.from_uri(parsed, fps=fps, overwrite=overwrite)
    if missing := lacks(sink, Sink):
        raise PluginError(f"The sink {parsed.name} lacks {', '.join(missing)}.", SINK_HINT)
    return sink

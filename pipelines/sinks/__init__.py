"""Sinks by name. A sink type has ``from_uri(uri, *, fps, overwrite)``; the registry finds it by its scheme."""

from __future__ import annotations

from edgecv import registry
from edgecv.protocols import Sink
from edgecv.uris import Uri, parse_sink


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
    sink: Sink = registry.resolve("sinks", parsed.scheme).from_uri(parsed, fps=fps, overwrite=overwrite)
    return sink

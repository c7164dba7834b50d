"""Sources by name: the registry finds the ``SourceType`` of a scheme."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgecv import registry
from edgecv.errors import PluginError

if TYPE_CHECKING:
    from edgecv.pipelines.uris import Uri
    from edgecv.protocols import Source, SourceType

SOURCE_HINT = "A source has source_id, live, fps, read() and close(): see docs/plugins.md."


def open_source(uri: str | int | Path | Uri) -> Source:
    """Open a camera, a stream, a video, a folder of images ...

    A live source (``edgecv.protocols.Supervised``) is opened in a process of its own and may be absent: its ``health`` says so,
    and it is tried again. Where the system has no memory without a name (not Linux), it is read in this process, once.

    Args:
        uri: ``0``, ``usb://0``, ``rtsp://cam/1``, ``clip.mp4``, ``images/``, ``'frames/*.png'``, ``synthetic://?frames=50`` ...
            With ``?speed=1`` a file, folder or recording plays at its own pace, with ``?loop=1`` over and over.

    Raises:
        UnknownPlugin: no source has that scheme; the hint lists those there are.
        ConfigError: an option does not exist or has a wrong value.
        MissingDependency: a package that the source needs is not installed.
        SourceError: the file or folder is missing, empty or unreadable.
    """
    # Here, not above: a worker imports this package before its parent has told it where msgspec and numpy lie.
    from edgecv.pipelines.uris import parse_source, read_options
    from edgecv.protocols import Source, lacks

    parsed = parse_source(uri)
    kind = registry.resolve("sources", parsed.scheme)
    if kind.supervised and hasattr(os, "memfd_create"):
        from edgecv.pipelines.sources.supervised.source import SupervisedSource

        return SupervisedSource(parsed)
    options = read_options(parsed, kind.Options)
    source = _played(kind, parsed, options)
    if missing := lacks(source, Source):
        raise PluginError(f"The source {parsed.name} lacks {', '.join(missing)}.", SOURCE_HINT)
    return source


def _played(kind: type[SourceType], uri: Uri, options: object) -> Source:
    from edgecv.pipelines.sources.played import PlayedSource, PlayOptions

    if isinstance(options, PlayOptions) and (options.speed or options.loop):
        return PlayedSource(lambda: kind(uri), options)
    return kind(uri)

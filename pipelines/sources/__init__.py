"""Sources by name. A source is a class made by ``SourceType(uri)``; the registry finds it by the scheme of the URI."""

from __future__ import annotations

from pathlib import Path

from edgecv import registry
from edgecv.protocols import Source
from edgecv.uris import Uri, parse_source


def open_source(uri: str | int | Path | Uri) -> Source:
    """Open a camera, a video, a folder of pictures ...

    Args:
        uri: ``0``, ``usb://0``, ``clip.mp4``, ``images/``, ``'frames/*.png'``, ``synthetic://?frames=50`` ...

    Raises:
        UnknownPlugin: no source has that scheme; the hint lists those there are.
        ConfigError: an option does not exist or has a wrong value.
        SourceError: the source is missing, empty or unreadable.
    """
    parsed = parse_source(uri)
    source: Source = registry.resolve("sources", parsed.scheme)(parsed)
    return source

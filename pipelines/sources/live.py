"""What live sources share: their options, and errors that trying again does not mend.

A live source runs in a worker process of its own (``edgecv.pipelines.sources.supervised``). Its class inherits ``LiveSource``;
its ``check`` is called where the app runs, ``__init__``, ``read`` and ``close`` in the worker.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Annotated, ClassVar

import msgspec

from edgecv import registry
from edgecv._internal.extras import require
from edgecv.errors import PluginError, SourceError
from edgecv.media.image_headers import max_megapixels
from edgecv.media.packets import Packet
from edgecv.pipelines.uris import Uri, read_options
from edgecv.protocols import SourceType

_Side = Annotated[int, msgspec.Meta(ge=0, le=16384)]
# A worker takes 0.1 GB, an MJPEG image 10 bytes per pixel (decoded, as BGR, copied and waiting; measured: 0.71 GB in all at 64
# megapixels, 0.17 GB at 4K). A decoder of H.264 or H.265 keeps up to 16 images, at 8K with 8 bits 0.05 GB each.
_BASE_BYTES, _BYTES_PER_PIXEL = 768 << 20, 12
_Seconds = Annotated[float, msgspec.Meta(ge=0.1, le=3600)]


class LiveOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the query of every live source may say; 0 leaves it to the camera.

    Attributes:
        width: In pixels, as ``height``.
        fps: At most so many frames per second; the others are passed over where they arrive.
        deadline_s: No frame for so long: the source is stale and opened anew.
        connect_s: How long an attempt may take until its first frame.
        max_megapixels: Largest image that is decoded; 0 for the limit of the process, which is 64.
        max_memory_mb: What the process that reads the camera may take, in MB; 0 for what such images need.
    """

    width: _Side = 0
    height: _Side = 0
    fps: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0
    deadline_s: _Seconds = 5.0
    connect_s: _Seconds = 10.0
    max_megapixels: Annotated[float, msgspec.Meta(ge=0, le=1024)] = 0.0
    max_memory_mb: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0

    @property
    def most_pixels(self) -> int:
        """The largest image, in pixels."""
        return round((self.max_megapixels or max_megapixels()) * 1e6)

    @property
    def memory_bytes(self) -> int:
        """What the process that reads the camera may take for itself, frames shared with us not counted."""
        if self.max_memory_mb:
            return self.max_memory_mb * 10**6
        return min(_BASE_BYTES + _BYTES_PER_PIXEL * self.most_pixels, _physical_bytes() * 3 // 4)


class LiveSource(SourceType):
    """The base of cameras and streams: they lose frames that nobody takes, and are opened again when they fail.

    Attributes:
        on_packet: Called by ``read`` with every image as the camera encoded it, where that is H.264, H.265 or JPEG, also with
            those of which no frame is made; ``None``: nobody wants them. A source that decodes nothing never calls it.
    """

    live = True
    on_packet: Callable[[Packet], None] | None = None
    supervised: ClassVar[bool] = True
    Options: ClassVar[type[msgspec.Struct]] = LiveOptions


class Unrecoverable(SourceError):
    """A ``SourceError`` that trying again hardly mends: a wrong password, a missing decoder or program."""


def _physical_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_size(width: int, height: int, name: str, options: LiveOptions) -> None:
    """Raise ``Unrecoverable`` for an image above the limit, before anything of its size is made."""
    if width * height > options.most_pixels:
        raise Unrecoverable(
            f"{name} sends images of {width} x {height} pixels: more than {options.most_pixels / 1e6:g} megapixels.",
            "They may be made to fill the memory. If you trust the camera, raise the limit: max_megapixels=",
            code="codec",
        )


def need(module: str, extra: str) -> None:
    """Raise ``MissingDependency`` unless a package is installed, without importing it; the hint holds the pip line."""
    if importlib.util.find_spec(module) is None:
        require(module, extra)


def checked_options(uri: Uri, target: str) -> LiveOptions:
    """The options of a live source of the class ``target``, after everything that can be said without touching the camera."""
    kind: type[SourceType] = registry.load(target)
    if not issubclass(kind.Options, LiveOptions):
        raise PluginError(
            f"The options of {target} are no LiveOptions, and it is supervised.",
            "Let the class inherit from edgecv.pipelines.sources.live.LiveSource.",
        )
    kind.check(uri)
    return read_options(uri, kind.Options)

"""``images/``, ``'frames/*.png'``, ``photo.jpg``: images as frames."""

from __future__ import annotations

import glob
import logging
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec

from edgecv.errors import SourceError
from edgecv.media.image_files import IMAGE_SUFFIXES, in_natural_order, text_of
from edgecv.media.images import list_images, read_image, unreadable
from edgecv.pipelines.sources.frames import FrameStamper
from edgecv.pipelines.sources.played import PlayOptions
from edgecv.pipelines.uris import Uri, parse_source, read_options
from edgecv.protocols import SourceType
from edgecv.results import Frame

log = logging.getLogger("edgecv.pipelines")


class ImagesOptions(PlayOptions, frozen=True, kw_only=True):
    """What the query may say.

    Attributes:
        fps: Images per second in a video made of them.
        max_megapixels: Largest image that is decoded; 0 for the limit of the process, which is 64.
    """

    fps: Annotated[float, msgspec.Meta(ge=0.01, le=1000)] = 1.0
    max_megapixels: Annotated[float, msgspec.Meta(ge=0, le=1024)] = 0.0


class ImagesSource(SourceType):
    """Every image of a folder or pattern, in the order in which a person counts: 1, 2, 10.

    Those that cannot be read are passed; after the last image an error names them all.
    """

    live = False
    Options: ClassVar[type[msgspec.Struct]] = ImagesOptions

    def __init__(self, uri: str | Uri) -> None:
        """List the images. Raises ``SourceError`` when there is none."""
        parsed = parse_source(uri)
        self.source_id = parsed.name
        options = read_options(parsed, ImagesOptions)
        self.fps, self._max_megapixels = options.fps, options.max_megapixels or None
        self._every = _paths(parsed.path)
        self._paths = iter(self._every)
        self._bad: list[SourceError] = []
        self._taken = 0
        self._stamper = FrameStamper(self.source_id)

    def read(self) -> Frame | None:
        """The next image that can be read, or ``None`` after the last.

        Raises ``SourceError``: some could not be read; raised once, after all the others, and names every one.
        """
        for path in self._paths:
            self._taken += 1
            try:
                image = read_image(path)
            except SourceError as error:
                self._bad.append(error)
                continue
            return self._stamper.stamp(image, (self._taken - 1) / self.fps, text_of(path))
        if self._bad:
            bad, self._bad = self._bad, []
            raise unreadable(bad, len(self._every))
        return None

    def close(self) -> None:
        """Read no more; a second call does nothing. Images that were passed until then are named in the log."""
        self._paths = iter(())
        if self._bad:
            log.warning("%s", unreadable(self._bad, len(self._every)).message)
            self._bad = []


def _paths(path: str) -> list[Path]:
    if Path(path).is_file():
        return [Path(path)]
    if not any(char in path for char in "*?[") or Path(path).is_dir():
        return list_images(path)
    found = in_natural_order(Path(name) for name in glob.glob(path, recursive=True))  # noqa: PTH207 - absolute patterns too
    images = [name for name in found if name.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise SourceError(f"No image matches {path}.", "Check the pattern; quote it in a shell.", code="missing")
    return images

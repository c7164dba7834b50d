"""``images/``, ``'frames/*.png'``, ``photo.jpg``: pictures as frames."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Annotated

import msgspec

from edgecv.errors import SourceError
from edgecv.media import list_images, read_image
from edgecv.pipelines.sources.frames import FrameStamper
from edgecv.results import Frame
from edgecv.uris import IMAGE_SUFFIXES, Uri, parse_source, read_options


class ImagesOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the query may say.

    Attributes:
        fps: Pictures per second in a video made of them.
        max_megapixels: Largest picture that is decoded; 0 for the limit of the process, which is 64.
    """

    fps: Annotated[float, msgspec.Meta(ge=0.01, le=1000)] = 1.0
    max_megapixels: Annotated[float, msgspec.Meta(ge=0, le=1024)] = 0.0


class ImagesSource:
    """Every picture of a folder or pattern, sorted by name; one that cannot be read ends it with an error.

    Attributes:
        source_id: The folder, pattern or file as it was given.
        live: ``False``.
        fps: The option ``fps``.
    """

    live = False

    def __init__(self, uri: str | Uri) -> None:
        """List the pictures.

        Raises:
            SourceError: there is no picture.
            ConfigError: an option does not exist or has a wrong value.
        """
        parsed = parse_source(uri)
        self.source_id = parsed.name
        options = read_options(parsed, ImagesOptions)
        self.fps, self._max_megapixels = options.fps, options.max_megapixels or None
        self._paths = iter(_paths(parsed.path))
        self._taken = 0
        self._stamper = FrameStamper(self.source_id)

    def read(self) -> Frame | None:
        """The next picture, or ``None`` after the last.

        Raises:
            SourceError: it cannot be read; the message names the file.
        """
        path = next(self._paths, None)
        if path is None:
            return None
        self._taken += 1
        return self._stamper.stamp(read_image(path, self._max_megapixels), (self._taken - 1) / self.fps)

    def close(self) -> None:
        """Read no more; a second call does nothing."""
        self._paths = iter(())


def _paths(path: str) -> list[Path]:
    if Path(path).is_file():
        return [Path(path)]
    if not any(char in path for char in "*?[") or Path(path).is_dir():
        return list_images(path)
    found = sorted(Path(name) for name in glob.glob(path, recursive=True))  # noqa: PTH207 - absolute patterns too
    pictures = [name for name in found if name.suffix.lower() in IMAGE_SUFFIXES]
    if not pictures:
        raise SourceError(f"No picture matches {path}.", "Check the pattern; quote it in a shell.", code="missing")
    return pictures

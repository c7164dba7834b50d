"""The images that are measured with: the same in every run."""

from __future__ import annotations

from edgecv.benchmarks.demo.scene import render_scene
from edgecv.errors import SourceError
from edgecv.pipelines.sources import open_source
from edgecv.results import Image

# Few: they stay in memory (2.8 MB each) and count in the RSS of the report.
IMAGES = 4
SIZE_WH = (1280, 720)


def rendered_images(count: int = IMAGES, size_wh: tuple[int, int] = SIZE_WH) -> list[Image]:
    """Shapes on textured ground with noise, by seed: ``(H, W, 3)`` uint8 BGR."""
    return [render_scene(seed, size_wh).image for seed in range(count)]


def read_images(uri: str, count: int = IMAGES) -> list[Image]:
    """The first images of a source; fewer when it ends before.

    Raises:
        SourceError: it gives none, or broke.
    """
    source = open_source(uri)
    try:
        frames = [frame.image for frame in (source.read() for _ in range(count)) if frame is not None]
    finally:
        source.close()
    if not frames:
        raise SourceError(f"{source.source_id} gives no images.", "Give another --source.", code="eof")
    return frames

"""The images that are measured with: real ones of the bundle where it has them, and the same in every run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle

import numpy as np

from edgecv._internal.extras import opencv
from edgecv.benchmarks.demo.scene import render_scene
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.golden import GOLDEN, golden_inputs, real
from edgecv.bundles.manifest import Variant
from edgecv.errors import SourceError
from edgecv.pipelines.sources import open_source
from edgecv.pipelines.sources.frames import FrameStamper
from edgecv.protocols import Array
from edgecv.results import Frame, Image
from edgecv.specs import PreprocessSpec, TensorSpec

# Few: they stay in memory (2.8 MB each) and count in the RSS of the report.
IMAGES = 4
SIZE_WH = (1280, 720)
RENDERED, OF_THE_BUNDLE = "rendered", "golden"  # what a report calls them


def rendered_images(count: int = IMAGES, size_wh: tuple[int, int] = SIZE_WH) -> list[Image]:
    """Shapes on textured ground with noise, by seed: ``(H, W, 3)`` uint8 BGR."""
    return [render_scene(seed, size_wh).image for seed in range(count)]


def bundle_images(bundle: Bundle | None, variant: Variant | None) -> list[Image] | None:
    """The image of the bundle's golden vectors and its three mirror images, at the size of a camera's image.

    ``None`` where there is no bundle, it has no golden vectors, or they are noise: what was converted without calibration images
    knows no real one.
    """
    if bundle is None or variant is None or bundle.manifest.calibration is None:
        return None
    if all(entry.path != GOLDEN for entry in bundle.manifest.extras):
        return None
    (spec,) = variant.models["main"].inputs
    tensor = golden_inputs(bundle, variant)["main"][spec.name]
    image: Image = opencv().resize(as_image(tensor, spec, bundle.spec_of(variant).preprocess), SIZE_WH)
    return [np.ascontiguousarray(one) for one in (image, image[:, ::-1], image[::-1], image[::-1, ::-1])]


def as_image(tensor: Array, spec: TensorSpec, preprocess: PreprocessSpec) -> Image:
    """The first image of an input tensor as ``(H, W, 3)`` uint8 BGR: what ``to_tensor`` did, undone."""
    planes = tensor[0] if spec.layout == "NHWC" else tensor[0].transpose(1, 2, 0)
    if spec.dtype == "uint8" and spec.scale is None:
        return np.ascontiguousarray(planes)
    unit = real(planes, spec) * np.array(preprocess.std) + np.array(preprocess.mean)
    pixels = np.clip(np.rint(unit * 255), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels[..., ::-1] if preprocess.color == "rgb" else pixels)


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


class Rotation:
    """Images from memory, over and over, as a source that waits: what a video file is, without decoding.

    Attributes:
        source_id: The name.
        live: ``False``: the source waits.
        fps: What it announces.
    """

    live = False
    fps = 25.0

    def __init__(self, name: str, images: Sequence[Image]) -> None:
        self.source_id = name
        self._images: Iterator[Image] = cycle(images)
        self._stamper = FrameStamper(name)

    def read(self) -> Frame | None:
        """The next frame; never the end."""
        return self._stamper.stamp(next(self._images).copy())

    def close(self) -> None:
        """Nothing is open."""

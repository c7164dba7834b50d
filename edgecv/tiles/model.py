"""``TiledModel``: a model that looks at an image in overlapping tiles, and once at the whole of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgecv.bundles.bundle import Bundle
from edgecv.detections import Classification, Detections, Image, check_image
from edgecv.errors import ConfigError
from edgecv.limits import Asked, Limits
from edgecv.model import Model
from edgecv.protocols import Array, LoadedModel, Tensors
from edgecv.tiles.grid import OVERLAP, Tiles, Window
from edgecv.tiles.views import put_together
from edgecv.vision.geometry import ImageTransform

if TYPE_CHECKING:
    from typing_extensions import Unpack

_TASKS = ("detect", "segment", "pose")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Views(ImageTransform):
    """The transform of the whole image, and those of the tiles."""

    windows: tuple[Window, ...]  # in pixels of the image: the whole of it first, then the tiles
    transforms: tuple[ImageTransform, ...]  # one for each window


class TiledModel(Model):
    """A model that finds small objects: it sees each tile of an image as large as else the whole image.

    It is used as the model that it is made of, which it shares: whoever closes one closes both. Every image costs one run of the
    model for each tile and one for the whole image; a model with a batch gets that many of them in a run. Objects that are cut
    by a tile's border are found in its neighbour or in the whole image, or their parts are joined.

    Attributes:
        tiles: The grid.
    """

    def __init__(self, model: Model, tiles: str | Tiles, overlap: float = OVERLAP) -> None:
        """Wrap a loaded model.

        Args:
            model: A detector, also one that finds masks or keypoints.
            tiles: How many tiles stand side by side and above each other, such as ``"2x2"`` or ``"3x2"``.
            overlap: The part of a tile's side that it shares with its neighbour, 0 to 0.5; as large as what must not be cut.

        Raises:
            ConfigError: there is no such grid, the overlap is out of its range, or the model cannot look at tiles.
        """
        grid = Tiles.read(tiles, overlap) if isinstance(tiles, str) else tiles
        if not isinstance(model, LoadedModel):
            raise ConfigError("Tiles are for a loaded model.", "Load it first: edgecv.Model.load(PATH).")
        check_tileable(model.name, model.task)
        super().__init__(model.name, model.spec, model.session, model.bundle, model.variant)
        self.tiles = grid

    def prepare(self, image: Image) -> tuple[dict[str, Array], ImageTransform]:
        """The session's feeds for the whole image and its tiles, one row for each, and the transforms to bring boxes back."""
        check_image(image)
        size_wh = (image.shape[1], image.shape[0])
        windows = ((0, 0, *size_wh), *self.tiles.windows(size_wh))
        parts = [image[top:bottom, left:right] for left, top, right, bottom in windows]
        rows: dict[str, list[Array]] = {}
        transforms: list[ImageTransform] = []
        for first in range(0, len(parts), self.batch):
            feeds, some = self._prepare_rows(parts[first : first + self.batch])
            transforms += some
            for name, value in feeds.items():
                rows.setdefault(name, []).append(value)
        whole = transforms[0]
        views = _Views(
            scale_xy=whole.scale_xy,
            offset_xy=whole.offset_xy,
            frame_wh=whole.frame_wh,
            windows=windows,
            transforms=tuple(transforms),
        )
        return {name: np.concatenate(values) for name, values in rows.items()}, views

    def infer(self, feeds: Tensors) -> dict[str, Array]:
        """Run the network on all rows, ``batch`` at a time, and return its raw outputs by name, a row for each."""
        count = len(next(iter(feeds.values())))
        runs = [
            self.session.run({name: value[first : first + self.batch] for name, value in feeds.items()})
            for first in range(0, count, self.batch)
        ]
        return {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}

    def decode(
        self, outputs: Tensors, transform: ImageTransform, row: int = 0, **limits: Unpack[Limits]
    ) -> Detections | Classification:
        """Raw outputs to the objects of the image that ``transform`` belongs to, each once; limits as in a call."""
        if not isinstance(transform, _Views) or row:
            raise ConfigError("These outputs are not those of tiles.", "Decode with what prepare of this model gave.")
        asked = Asked.of(self.spec.decode, **limits)
        found = [self._decoded(outputs, view, at, asked) for at, view in enumerate(transform.transforms)]
        merged = put_together(found, transform.windows, asked.spec.iou, asked.spec.max_detections)
        return asked.chosen(replace(merged, labels=self.labels))

    def many(self, images: Iterable[Image], **limits: Unpack[Limits]) -> list[Detections | Classification]:
        """Find what is in each of any number of images, one after the other; the views of an image fill the batch.

        Raises:
            EdgeCVError: as a call does.
        """
        return [self(image, **limits) for image in images]

    def _decoded(self, outputs: Tensors, view: ImageTransform, at: int, asked: Asked) -> Detections:
        found = self._decoder(
            {name: value[at : at + 1] for name, value in outputs.items()}, view, asked.spec, asked.multi_label
        )
        assert isinstance(found, Detections)  # a task of `_TASKS`
        return found


def check_path(path: str | Path) -> None:
    """Raise ``ConfigError`` for a bundle whose model cannot look at tiles; a bare file says it when it is loaded."""
    if Path(path).is_dir():
        bundle = Bundle.open(path)
        check_tileable(bundle.name, bundle.manifest.decode.task)


def tiled(model: Model, tiles: Tiles) -> TiledModel:
    """A model that was just loaded, with tiles; closed where it cannot look at them.

    Raises:
        ConfigError: it finds no boxes, or answers prompts.
    """
    try:
        return TiledModel(model, tiles)
    except ConfigError:
        model.close()
        raise


def check_tileable(name: str, task: str) -> None:
    """Raise ``ConfigError`` for a model whose answers tiles cannot be put together from."""
    if task not in _TASKS:
        raise ConfigError(
            f"{name} is a '{task}' model, and tiles are for {', '.join(_TASKS[:-1])} and {_TASKS[-1]}.",
            "Leave the tiles out.",
        )

"""``FittingModel``: a bundle's model in several input shapes, of which each source gets the one that wastes least on its frames."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgecv._internal.printable import printable
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.manifest import Variant
from edgecv.choosing import LoadOptions, choose_size, computed_on, runtime_options, shapes_in
from edgecv.errors import ConfigError
from edgecv.model import Model, load, open_variant
from edgecv.results import Frame
from edgecv.specs import ModelSpec, RuntimeOptions
from edgecv.status import resident_bytes
from edgecv.tiles.grid import Tiles
from edgecv.tiles.model import TiledModel, check_tileable, tiled
from edgecv.vision.input_shapes import Size, best_shape, shape_name, shapes_for

if TYPE_CHECKING:
    from typing_extensions import Unpack

log = logging.getLogger("edgecv.choosing")


class FittingModel:
    """Give it to a ``Pipeline`` in place of a model; ``load_fitting`` makes one.

    A shape is loaded when the first frame comes that wants it, so that a single camera has one session. Of a source the first
    frame decides. At most two shapes are loaded, however many sources there are: those that waste least on all of them together.

    Attributes:
        bundle: The bundle.
        tiles: The grid of tiles in which it looks at frames; ``None`` for the whole of each alone.
    """

    def __init__(self, bundle: Bundle, options: RuntimeOptions, tiles: Tiles | None = None) -> None:
        """Take note of the shapes; nothing is loaded yet.

        Args:
            bundle: The bundle.
            options: How its variants are chosen and run.
            tiles: Look at each frame in tiles, too; the shape is then the one that wastes least on a tile.

        Raises:
            ConfigError: the bundle has nothing that fits the options, or its model answers prompts or cannot look at tiles.
            MissingDependency: no runtime for it is installed.
        """
        if bundle.manifest.decode.task == "promptable-segment":
            raise ConfigError(f"{bundle.name} answers prompts.", "Load it with edgecv.load(...).")
        if tiles is not None:
            check_tileable(bundle.name, bundle.manifest.decode.task)
        self.bundle = bundle
        self.tiles = tiles
        self._options = options
        self._shapes = shapes_in(bundle, options)
        self._frames_wh: dict[str, Size] = {}  # of each source: the size of its first frame, or of a tile of it
        self._of_source: dict[str, Model] = {}
        self._models: dict[Size, Model] = {}
        self._changing = threading.Lock()
        self._closed = False

    @property
    def name(self) -> str:
        """Name of the bundle and of the variants that are loaded."""
        variants = (model.variant for model in tuple(self._models.values()))
        return "/".join(filter(None, (self.bundle.name, "+".join(one.name for one in variants if one is not None))))

    @property
    def spec(self) -> ModelSpec:
        """How images go in and results come out, with the model's own input size."""
        return self.bundle.spec

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, in the order of the class ids."""
        return self.bundle.labels

    @property
    def task(self) -> str:
        """What the model does, such as ``detect``."""
        return self.bundle.manifest.decode.task

    @property
    def variant(self) -> Variant:
        """The variant that was loaded first, or would be for a source of the model's own shape."""
        for model in tuple(self._models.values()):
            if model.variant is not None:
                return model.variant
        return choose_size(self.bundle, self._options, self._shapes[0]).variant

    def model_for(self, frame: Frame) -> Model:
        """The model in the shape that fits the source of a frame; it may be loaded now. May be called from any thread.

        Raises:
            BundleError: a file of the variant is missing or changed.
            SessionError: the runtime cannot load it.
            ConfigError: this was closed.
        """
        known = self._of_source.get(frame.source_id)
        if known is not None:
            return known
        with self._changing:
            if self._closed:
                raise ConfigError(f"{self.bundle.name} was closed.", "Load it again.")
            if frame.source_id not in self._of_source:
                size_wh = (frame.image.shape[1], frame.image.shape[0])
                self._frames_wh[frame.source_id] = size_wh if self.tiles is None else self.tiles.tile_wh(size_wh)
                self._plan()
            return self._of_source[frame.source_id]

    def forget(self, source_id: str) -> None:
        """Drop what is known of a source that is gone, and the shape that it alone had. May be called from any thread."""
        with self._changing:
            self._frames_wh.pop(source_id, None)
            self._of_source = {name: model for name, model in self._of_source.items() if name != source_id}
            used = tuple(self._of_source.values())
            self._models = {shape: model for shape, model in self._models.items() if model in used}

    def close(self) -> None:
        """Free the sessions; a second call does nothing."""
        with self._changing:
            self._closed, self._of_source = True, {}
            models, self._models = tuple(self._models.values()), {}
        for model in models:
            model.close()

    def __enter__(self) -> FittingModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _plan(self) -> None:
        """Choose shapes for the sources that are known. One that is given up is freed with the last frame that it computes."""
        chosen = shapes_for(tuple(self._frames_wh.values()), self._shapes)
        wanted = {name: best_shape(size, self._shapes, chosen) for name, size in self._frames_wh.items()}
        kept = {shape: model for shape, model in self._models.items() if shape in wanted.values()}
        for name, shape in wanted.items():
            if shape not in kept:
                kept[shape] = self._loaded(shape, name, kept)
        self._models = kept
        self._of_source = {name: kept[shape] for name, shape in wanted.items()}

    def _loaded(self, shape: Size, source: str, beside: dict[Size, Model]) -> Model:
        before = resident_bytes()
        chosen = choose_size(self.bundle, self._options, shape)
        model = open_variant(self.bundle, chosen.variant, chosen.options, chosen.runtime)
        model = model if self.tiles is None else TiledModel(model, self.tiles)
        model(np.zeros((shape[1], shape[0], 3), np.uint8))  # what it needs to compute is part of its memory
        more = (
            f": a second session, which takes {max(0, resident_bytes() - before) / 1e6:.0f} MB more memory"
            if beside
            else ""
        )
        log.info("%s: input %s for %s%s.", printable(self.bundle.path.name), shape_name(shape), printable(source), more)
        if self._options.device != "cpu":
            log.info("%s runs on %s.", printable(model.name), computed_on(model.session))
        return model


def load_fitting(path: str | Path, tiles: Tiles | None = None, **options: Unpack[LoadOptions]) -> Model | FittingModel:
    """As ``edgecv.load``; of a bundle with several input shapes a ``FittingModel``, which a ``Pipeline`` takes as well.

    Raises:
        ConfigError: the model cannot look at tiles, and there are to be some.
        EdgeCVError: as ``edgecv.load``.
    """
    if Path(path).is_dir():
        bundle, asked = Bundle.open(path), runtime_options(**options)
        if tiles is not None:
            check_tileable(bundle.name, bundle.manifest.decode.task)
        if len(bundle.sizes_wh) > 1 and not options.get("variant"):
            return FittingModel(bundle, asked, tiles)
    model: Model = load(path, **options)
    return model if tiles is None else tiled(model, tiles)

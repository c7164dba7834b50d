"""What the shape of a camera's images wastes: ``edgecv run`` says it once for each source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecv._internal.printable import printable
from edgecv.cli.console import note

if TYPE_CHECKING:
    from edgecv.model import Model
    from edgecv.pipelines.fitting_model import FittingModel
    from edgecv.results import Frame, Result


class ShapeNotes:
    """Looks at the first result of each source; a model that ``convert --fit`` cannot change is left alone."""

    def __init__(self, model: Model | FittingModel) -> None:
        self._model = model
        self._seen: set[str] = set()
        bundle = model.bundle
        self._has_shapes = (
            bundle is not None
            and bundle.manifest.preprocess.resize == "letterbox"
            and bundle.manifest.decode.task in ("detect", "segment", "pose", "obb")
        )

    def look(self, result: Result) -> None:
        """Say what the images of a source waste, where its model could have a better shape."""
        source = result.frame.source_id
        if source in self._seen:
            return
        self._seen.add(source)
        if self._has_shapes and (said := self._told(result.frame)):
            note(f"{printable(source)}: {said}.")

    def _told(self, frame: Frame) -> str:
        from edgecv.pipelines.fitting_model import FittingModel
        from edgecv.tiles.model import TiledModel
        from edgecv.vision.input_shapes import told_waste

        size_wh = (frame.image.shape[1], frame.image.shape[0])
        model = self._model.model_for(frame) if isinstance(self._model, FittingModel) else self._model
        return "" if isinstance(model, TiledModel) else told_waste(size_wh, model.spec.preprocess.size_wh)

"""Variants that answer pictures: raw outputs as real values, and what is decoded from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from edgecv.bundles.bundle import Bundle
from edgecv.bundles.manifest import Variant
from edgecv.model import load
from edgecv.protocols import Array, Session
from edgecv.quantize.labels.evaluate import COCO_LIMITS
from edgecv.results import Classification, Detections, Image
from edgecv.specs import TensorSpec
from edgecv.vision.geometry import ImageTransform
from edgecv.vision.letterbox import prepare
from edgecv.vision.tensors import image_input

Feeds = tuple[dict[str, Array], ImageTransform]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What a variant made of one picture.

    Attributes:
        outputs: The stored values by name.
        specs: What the outputs mean.
        shown: Boxes at the model's own confidence, or classes, best first; ``None`` where nothing is decoded.
        every: Boxes under COCO's protocol; ``None`` of a classifier and where nothing is decoded.
    """

    outputs: Mapping[str, Array]
    specs: tuple[TensorSpec, ...]
    shown: Detections | Classification | None = None
    every: Detections | None = None


class Runner:
    """One variant of a bundle, loaded; of SAM the encoder alone."""

    def __init__(self, bundle: Bundle, variant: Variant, *, decodes: bool) -> None:
        """Load it; ``decodes`` says whether boxes or classes are made of its outputs.

        Raises:
            EdgeCVError: as ``edgecv.load``.
        """
        model: Any = load(bundle.path, variant=variant.name)
        self._model = model
        self._spec = bundle.spec_of(variant)
        whole = hasattr(model, "session")
        self._decodes = decodes and whole
        self.session: Session = model.session if whole else model.sessions["encoder"]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Variants with equal inputs can be fed the same."""
        return self.session.inputs

    def feeds(self, image: Image) -> Feeds:
        """One picture as the session takes it, and the way back to its pixels."""
        tensor = image_input(self.session.inputs)
        array, transform = prepare(image, self._spec.preprocess, tensor)
        return {tensor.name: array}, transform

    def answer(self, feeds: Feeds) -> Answer:
        """Run the session and decode what comes out."""
        outputs = self.session.run(feeds[0])
        found = Answer(outputs=outputs, specs=self.session.outputs)
        return self._decoded(found, feeds[1]) if self._decodes else found

    def _decoded(self, found: Answer, transform: ImageTransform) -> Answer:
        shown = self._model.decode(found.outputs, transform)
        every = self._model.decode(found.outputs, transform, **COCO_LIMITS) if isinstance(shown, Detections) else None
        return Answer(outputs=found.outputs, specs=found.specs, shown=shown, every=every)

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._model.close()

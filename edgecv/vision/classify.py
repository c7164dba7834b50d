"""Class logits to classes, best first."""

from __future__ import annotations

import numpy as np

from edgecv.errors import SpecMismatch
from edgecv.protocols import Tensors
from edgecv.results import Classification
from edgecv.specs import DecodeSpec, TensorSpec
from edgecv.vision.geometry import ImageTransform

_TOP = 5  # classes returned by default, as ImageNet's top-5 has it


class LogitsDecoder:
    """Decoder ``logits``: one output ``(1, C)`` of raw class scores; confidences are their softmax."""

    def __init__(self, spec: DecodeSpec, outputs: tuple[TensorSpec, ...]) -> None:
        """Check the output.

        Raises:
            SpecMismatch: there is not exactly one ``(1, C)`` output, or C does not fit the labels.
        """
        if len(outputs) != 1 or len(outputs[0].shape) != 2:
            raise SpecMismatch(f"Expected one (1, classes) output, not {[o.shape for o in outputs]}.")
        self._output = outputs[0]
        classes = self._output.shape[1]
        if classes >= 0 and spec.labels and classes != len(spec.labels):
            raise SpecMismatch(f"{self._output.name} has {classes} classes for {len(spec.labels)} labels.")
        self._top = int(spec.options.get("top", _TOP))

    def __call__(
        self,
        outputs: Tensors,
        transform: ImageTransform,  # noqa: ARG002  (a class has no place in the picture)
        spec: DecodeSpec,
        multi_label: bool,  # noqa: ARG002
    ) -> Classification:
        """The best classes of at least ``spec.confidence``, but always the very best."""
        stored = outputs[self._output.name][0].astype(np.float32)
        scale, zero = self._output.scale, self._output.zero_point or 0
        logits = stored if scale is None else (stored - zero) * np.float32(scale)
        weights = np.exp(logits - logits.max())
        confidence = (weights / weights.sum()).astype(np.float32)
        order = np.argsort(-confidence, kind="stable")[: self._top]
        kept = order[(confidence[order] >= spec.confidence) | (np.arange(len(order)) == 0)]
        return Classification(class_id=kept.astype(np.int64), confidence=confidence[kept])

"""Class scores to classes, best first."""

from __future__ import annotations

import numpy as np

from edgecv.errors import SpecMismatch
from edgecv.protocols import Tensors
from edgecv.results import Classification, FloatArray
from edgecv.specs import DecodeSpec, TensorSpec
from edgecv.vision.geometry import ImageTransform
from edgecv.vision.tensors import real_values, sigmoid
from edgecv.vision.yolov8 import confidences

_TOP = 5  # classes returned by default, as ImageNet's top-5 has it
_ACTIVATIONS = ("softmax", "sigmoid", "none")


class LogitsDecoder:
    """Decoder ``logits``: one output ``(1, C)`` of class scores.

    ``options["activation"]`` makes confidences of them: ``softmax`` (the default: one class per image), ``sigmoid`` (each class
    on its own, for several labels per image) or ``none`` (they are confidences). One score with ``sigmoid`` or ``none`` is the
    confidence of the second of two classes. ``options["top"]`` is how many classes are returned at most.
    """

    def __init__(self, spec: DecodeSpec, outputs: tuple[TensorSpec, ...]) -> None:
        """Check the output.

        Raises:
            SpecMismatch: there is not exactly one ``(1, C)`` output, C does not fit the labels, or the activation is unknown.
        """
        if len(outputs) != 1 or len(outputs[0].shape) != 2:
            raise SpecMismatch(f"Expected one (1, classes) output, not {[o.shape for o in outputs]}.")
        self._output = outputs[0]
        self._activation = spec.options.get("activation", "softmax")
        if self._activation not in _ACTIVATIONS:
            raise SpecMismatch(f"There is no activation {self._activation!r}.", f"Known are {', '.join(_ACTIVATIONS)}.")
        given = self._output.shape[1]
        if given == 1 and self._activation == "softmax":
            raise SpecMismatch(
                f"{self._output.name} gives one score, of which a softmax is always 1.",
                'Give options={"activation": "sigmoid"} and two labels: the score is of the second.',
            )
        classes = max(2, given)
        if given >= 0 and spec.labels and classes != len(spec.labels):
            raise SpecMismatch(f"{self._output.name} has {classes} classes for {len(spec.labels)} labels.")
        self._top = int(spec.options.get("top", _TOP))

    def __call__(
        self,
        outputs: Tensors,
        transform: ImageTransform,  # noqa: ARG002  (a class has no place in the image)
        spec: DecodeSpec,
        multi_label: bool,  # noqa: ARG002
    ) -> Classification:
        """The best classes of at least ``spec.confidence``, but always the very best.

        Raises:
            SpecMismatch: with the activation ``none``, the scores are no confidences.
        """
        confidence = self._confidences(real_values(outputs[self._output.name][0], self._output))
        order = np.argsort(-confidence, kind="stable")[: self._top]
        kept = order[(confidence[order] >= spec.confidence) | (np.arange(len(order)) == 0)]
        return Classification(class_id=kept.astype(np.int64), confidence=confidence[kept])

    def _confidences(self, scores: FloatArray) -> FloatArray:
        if self._activation == "softmax":
            weights = np.exp(scores - scores.max())
            return (weights / weights.sum()).astype(np.float32)
        scores = sigmoid(scores) if self._activation == "sigmoid" else confidences(scores, self._output.name)
        return np.array([1 - scores[0], scores[0]], np.float32) if len(scores) == 1 else scores

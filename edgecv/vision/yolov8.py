"""YOLOv8 outputs to detections: from the raw head convolutions, or from the classic ``(1, 4 + classes, N)`` prediction.

The raw head is cut before everything that would need one number scale for boxes and scores: each of its six outputs has its
own, which is what makes INT8 work (docs/int8.md; microsoft/onnxruntime #14233). Here the threshold is applied to the
logits first, and only the cells that pass are decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from math import floor, inf, log

import numpy as np

from edgecv.errors import SpecMismatch
from edgecv.protocols import Array, Tensors
from edgecv.results import Detections, FloatArray, IntArray
from edgecv.specs import DecodeSpec, TensorSpec
from edgecv.vision.geometry import ImageTransform
from edgecv.vision.nms import nms
from edgecv.vision.tensors import cell_count, cells_last, channels_of, real_values, sigmoid, width_of

_FINISHED_ROW = 6  # x1, y1, x2, y2, confidence, class: of a network that suppresses by itself
_MOST_CONFIDENCE = 1.01  # a sigmoid's 1 in integers or fp16 may lie a step above it
MAX_CANDIDATES = 30_000  # boxes that enter suppression at most, the limit of the training code's own validation


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Boxes above the threshold, before suppression."""

    xyxy: FloatArray  # `(N, 4)` in model pixels
    confidence: FloatArray  # `(N,)`, 0 to 1
    class_id: IntArray  # `(N,)`
    # `(N,)`, where each comes from: its place in the grids laid end to end, finest first, each row by row
    cells: IntArray

    def chosen(self, indices: IntArray) -> Candidates:
        """Those at ``indices``, in their order."""
        return Candidates(
            xyxy=self.xyxy[indices],
            confidence=self.confidence[indices],
            class_id=self.class_id[indices],
            cells=self.cells[indices],
        )

    def in_frame(self, transform: ImageTransform) -> Detections:
        """The same as detections in frame pixels."""
        return Detections(xyxy=transform.boxes_to_frame(self.xyxy), confidence=self.confidence, class_id=self.class_id)


@dataclass(frozen=True, slots=True)
class _Level:
    """The two outputs of one stride; ``first`` is the place of its first cell in the grids laid end to end."""

    stride: int
    box: TensorSpec
    score: TensorSpec
    first: int


class RawHeadDecoder:
    """Decoder ``yolov8-raw``: outputs with the roles ``box/STRIDE`` (4 × bins channels) and ``class/STRIDE``.

    Source of the formulas: distribution focal loss, Li et al. 2020 (arXiv:2006.04388), equation 4 (a distance is the
    expectation over its bins); cell centres at half a cell, distances in cells.
    """

    def __init__(self, spec: DecodeSpec, outputs: tuple[TensorSpec, ...]) -> None:
        """Sort the outputs into levels.

        Raises:
            SpecMismatch: an output is missing, or its channels do not fit the labels.
        """
        by_role = {output.role: output for output in outputs}
        strides = sorted(int(role.partition("/")[2]) for role in by_role if role.startswith("box/"))
        wanted = {f"{kind}/{stride}" for kind in ("box", "class") for stride in strides}
        if not strides or wanted != by_role.keys() or len(outputs) != len(wanted):
            raise SpecMismatch(f"A raw head needs pairs of box/STRIDE and class/STRIDE, not {sorted(by_role)}.")
        boxes = [by_role[f"box/{stride}"] for stride in strides]
        firsts = [0, *accumulate(cell_count(box) for box in boxes)][:-1]
        self._levels = tuple(
            _Level(stride, box, by_role[f"class/{stride}"], first)
            for stride, box, first in zip(strides, boxes, firsts, strict=True)
        )
        self._firsts = np.array(firsts)
        self._widths = np.array([width_of(level.box) for level in self._levels])
        self._strides = np.array(strides, np.float32)
        self._check(len(spec.labels))

    @property
    def strides(self) -> tuple[int, ...]:
        """Model pixels per cell of each grid, finest first."""
        return tuple(level.stride for level in self._levels)

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the model's input in pixels."""
        finest = self._levels[0]
        width = width_of(finest.box)
        return width * finest.stride, cell_count(finest.box) // width * finest.stride

    def centers(self, cells: IntArray) -> tuple[FloatArray, FloatArray]:
        """Centres of cells ``(N, 2)`` in model pixels, and the strides of their grids ``(N,)``."""
        at = np.searchsorted(self._firsts, cells, side="right") - 1
        width, stride, inside = self._widths[at], self._strides[at], cells - self._firsts[at]
        xy = np.stack([inside % width, inside // width], axis=1) + 0.5
        return (xy * stride[:, None]).astype(np.float32), stride

    def _check(self, classes: int) -> None:
        for level in self._levels:
            if channels_of(level.box) % 4:
                raise SpecMismatch(f"{level.box.name} has {channels_of(level.box)} channels: not four distances.")
            if classes and channels_of(level.score) != classes:
                raise SpecMismatch(f"{level.score.name} has {channels_of(level.score)} classes for {classes} labels.")

    def __call__(self, outputs: Tensors, transform: ImageTransform, spec: DecodeSpec, multi_label: bool) -> Detections:
        """Detections of one frame; ``multi_label`` keeps every class of a box instead of its best."""
        return suppress(self.candidates(outputs, spec.confidence, multi_label), transform, spec)

    def candidates(self, outputs: Tensors, confidence: float, multi_label: bool = False) -> Candidates:
        """Boxes above ``confidence`` (0: every cell) before suppression: by stride, each grid row by row."""
        found = [_read_level(level, outputs, confidence, multi_label) for level in self._levels]
        logits, bins, cells, class_id = (np.concatenate(parts, axis=-1) for parts in zip(*found, strict=True))
        # All grids at once: most of the time goes into the number of calls, not of boxes.
        center, stride = self.centers(cells)
        return Candidates(xyxy=_boxes(bins, center, stride), confidence=sigmoid(logits), class_id=class_id, cells=cells)


class PredictionDecoder:
    """Decoder ``yolov8``: one output ``(1, 4 + classes, N)`` of centre x, centre y, width, height and sigmoid scores.

    ``options["box_scale"]`` is what boxes in other units than model pixels are multiplied by: ``[x, y]``.
    """

    def __init__(self, spec: DecodeSpec, outputs: tuple[TensorSpec, ...]) -> None:
        """Check the output.

        Raises:
            SpecMismatch: there is not exactly one three-dimensional output, or its rows do not fit the labels.
        """
        if len(outputs) != 1 or len(outputs[0].shape) != 3:
            raise SpecMismatch(f"Expected one (1, 4 + classes, N) output, not {[o.shape for o in outputs]}.")
        self._output = outputs[0]
        rows = self._output.shape[1]
        if rows >= 0 and spec.labels and rows != 4 + len(spec.labels):
            raise SpecMismatch(
                f"{self._output.name} has {rows} rows for 4 + {len(spec.labels)} labels.",
                "Rows of six are finished boxes: export the detector with nms=False and end2end=False."
                if self._output.shape[2] == _FINISHED_ROW
                else "Give one label per class.",
            )
        self._box_scale = np.array(spec.options.get("box_scale", (1, 1)), np.float32)

    def __call__(self, outputs: Tensors, transform: ImageTransform, spec: DecodeSpec, multi_label: bool) -> Detections:
        """Detections of one frame; ``multi_label`` keeps every class of a box instead of its best."""
        return suppress(self.candidates(outputs, spec.confidence, multi_label), transform, spec)

    def candidates(self, outputs: Tensors, confidence: float, multi_label: bool = False) -> Candidates:
        """Boxes above ``confidence`` (below 0: every cell) before suppression, in the order of the prediction.

        Raises:
            SpecMismatch: a score lies above 1, so it is no confidence.
        """
        prediction = real_values(outputs[self._output.name][0], self._output)
        cells, class_id = _above(prediction[4:], confidence, multi_label)
        scores = confidences(prediction[4 + class_id, cells].astype(np.float32), self._output.name)
        center, half = prediction[:2, cells].T * self._box_scale, prediction[2:4, cells].T * (self._box_scale / 2)
        return Candidates(
            xyxy=np.concatenate([center - half, center + half], axis=1).astype(np.float32),
            confidence=scores,
            class_id=class_id,
            cells=cells,
        )


def confidences(scores: FloatArray, output: str) -> FloatArray:
    """Scores that claim to be confidences, at most 1.

    Raises:
        SpecMismatch: one lies far above 1, or is no number: it would be reported as a confidence.
    """
    if not len(scores) or scores.max() <= _MOST_CONFIDENCE:
        return np.minimum(scores, np.float32(1))
    raise SpecMismatch(
        f"The output '{output}' gives a score of {scores.max():.4g}, and a confidence lies between 0 and 1: these are raw scores "
        "without a sigmoid or softmax, or another kind of output than was said.",
        "Convert the model (edgecv convert), export it again with its last activation, or say what it is with "
        "spec=edgecv.ModelSpec(...).",
    )


def suppress(candidates: Candidates, transform: ImageTransform, spec: DecodeSpec) -> Detections:
    """Keep the best box of each object and bring it to frame pixels."""
    return candidates.chosen(survivors(candidates, spec)).in_frame(transform)


def survivors(candidates: Candidates, spec: DecodeSpec) -> IntArray:
    """Indices ``(K,)`` of the best box of each object, best first."""
    order = best_first(candidates)
    kept = nms(
        candidates.xyxy[order], candidates.confidence[order], candidates.class_id[order], spec.iou, spec.max_detections
    )
    return order[kept]


def best_first(candidates: Candidates) -> IntArray:
    """Indices of the candidates that enter suppression."""
    return np.argsort(-candidates.confidence, kind="stable")[:MAX_CANDIDATES]


def _above(scores: Array, limit: float, multi_label: bool) -> tuple[IntArray, IntArray]:
    """Cells and classes of ``(classes, cells)`` scores above a limit: every class of a cell, or its best."""
    if multi_label:
        class_id, cells = np.nonzero(scores > limit)
        return cells, class_id
    if scores.T.flags.c_contiguous and scores.size != len(scores):
        cells = _cells_with_any(scores.T, limit)
    else:
        cells = np.flatnonzero(scores.max(axis=0) > limit)
    return cells, scores[:, cells].argmax(axis=0)


def _cells_with_any(rows: Array, limit: float) -> IntArray:
    """Rows of ``(cells, classes)`` with a number above the limit; 2.5 times as quick as their maxima, which are short runs."""
    if np.issubdtype(rows.dtype, np.integer):  # compared as what they are, not as float64
        whole = np.iinfo(rows.dtype)
        if not whole.min <= limit < whole.max:
            return np.arange(len(rows)) if limit < whole.min else np.zeros(0, np.int64)
        limit = rows.dtype.type(floor(limit))
    found = np.zeros(len(rows), np.bool_)
    found[np.flatnonzero(rows.reshape(-1) > limit) // rows.shape[1]] = True
    return np.flatnonzero(found)


def _read_level(
    level: _Level, outputs: Tensors, confidence: float, multi_label: bool
) -> tuple[FloatArray, FloatArray, IntArray, IntArray]:
    """Score logits ``(N,)``, bin logits ``(4 × bins, N)``, cells and classes of what passes in one grid."""
    logits = cells_last(outputs[level.score.name], level.score)
    cells, class_id = _above(logits, _stored_threshold(confidence, level.score), multi_label)
    bins = cells_last(outputs[level.box.name], level.box)[:, cells]
    return (
        real_values(logits[class_id, cells], level.score),
        real_values(bins, level.box),
        cells + level.first,
        class_id,
    )


def _boxes(bins: FloatArray, center: FloatArray, stride: FloatArray) -> FloatArray:
    """``(4 × bins, N)`` bin logits of cells with these centres ``(N, 2)`` and strides to ``(N, 4)`` xyxy in model pixels."""
    logits = bins.reshape(4, bins.shape[0] // 4, bins.shape[1])
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    positions = np.arange(logits.shape[1], dtype=np.float32)[None, :, None]
    reach = ((weights * positions).sum(axis=1) / weights.sum(axis=1)).T * stride[:, None]
    return np.concatenate([center - reach[:, :2], center + reach[:, 2:]], axis=1).astype(np.float32)


def _stored_threshold(confidence: float, spec: TensorSpec) -> float:
    """The logit of ``confidence`` in the numbers that the tensor holds."""
    logit = -inf if confidence <= 0 else inf if confidence >= 1 else log(confidence / (1 - confidence))
    return logit if spec.scale is None else logit / spec.scale + (spec.zero_point or 0)

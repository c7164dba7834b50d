"""YOLOv8 raw heads beyond boxes: masks, keypoints and rotated boxes.

Each is the head of ``edgecv.vision.yolov8`` with one more output per stride. Only the cells whose boxes survived suppression are
read from it (for rotated boxes: the cells that passed the threshold, since the angle decides what overlaps).
"""

from __future__ import annotations

from dataclasses import replace
from math import pi

import numpy as np

from edgecv.errors import SpecMismatch
from edgecv.protocols import Array, Tensors
from edgecv.results import BoolArray, Detections, FloatArray, IntArray
from edgecv.specs import DecodeSpec, TensorSpec
from edgecv.vision.geometry import ImageTransform
from edgecv.vision.mask_grid import axes, mixed
from edgecv.vision.tensors import cell_count, cells_last, channels_of, real_values, sigmoid, width_of
from edgecv.vision.yolov8 import Candidates, RawHeadDecoder, best_first, survivors

_EPSILON = 1e-7
_BLOCK = 256  # rotated boxes that are compared with all better ones at once: bounds the memory


class Branch:
    """One more output per stride of a raw head, such as ``mask/8``, ``mask/16``, ``mask/32``; read at chosen cells."""

    def __init__(self, role: str, strides: tuple[int, ...], outputs: tuple[TensorSpec, ...]) -> None:
        """Find the outputs.

        Raises:
            SpecMismatch: one is missing, or their channels differ.
        """
        by_role = {output.role: output for output in outputs}
        wanted = [f"{role}/{stride}" for stride in strides]
        if any(name not in by_role for name in wanted):
            raise SpecMismatch(f"The head needs the outputs {wanted}, not {sorted(by_role)}.")
        self._specs = tuple(by_role[name] for name in wanted)
        self.channels = channels_of(self._specs[0])
        if any(channels_of(spec) != self.channels for spec in self._specs):
            raise SpecMismatch(
                f"{wanted} have {[channels_of(spec) for spec in self._specs]} channels, not equally many."
            )

    def at(self, outputs: Tensors, cells: IntArray) -> FloatArray:
        """Real values ``(channels, N)`` at cells ``(N,)`` of the grids laid end to end."""
        values = np.empty((self.channels, len(cells)), np.float32)
        first = 0
        for spec in self._specs:
            here = (cells >= first) & (cells < first + cell_count(spec))
            values[:, here] = real_values(cells_last(outputs[spec.name], spec)[:, cells[here] - first], spec)
            first += cell_count(spec)
        return values


def _raw_head(spec: DecodeSpec, outputs: tuple[TensorSpec, ...]) -> RawHeadDecoder:
    """The decoder of the boxes alone."""
    return RawHeadDecoder(spec, tuple(output for output in outputs if output.role.startswith(("box/", "class/"))))


class SegmentDecoder:
    """Decoder ``yolov8-segment``: the raw head, ``mask/STRIDE`` coefficients and ``proto``, the masks they are mixed from.

    Source of the formula: YOLACT, Bolya et al. 2019 (arXiv:1904.02689), equation 1; the sign of the logit decides here.
    """

    def __init__(self, spec: DecodeSpec, outputs: tuple[TensorSpec, ...]) -> None:
        """Sort the outputs.

        Raises:
            SpecMismatch: an output is missing, or coefficients and prototypes do not go together.
        """
        self._boxes = _raw_head(spec, outputs)
        self._coefficients = Branch("mask", self._boxes.strides, outputs)
        found = [output for output in outputs if output.role == "proto"]
        if len(found) != 1 or channels_of(found[0]) != self._coefficients.channels:
            raise SpecMismatch(f"A mask head needs one proto of {self._coefficients.channels} channels, not {found}.")
        self._proto = found[0]

    def __call__(self, outputs: Tensors, transform: ImageTransform, spec: DecodeSpec, multi_label: bool) -> Detections:
        """Detections of one frame with ``mask (N, H, W)`` in frame pixels, each within its box."""
        candidates = self._boxes.candidates(outputs, spec.confidence, multi_label)
        kept = candidates.chosen(survivors(candidates, spec))
        found = kept.in_frame(transform)
        coefficients = self._coefficients.at(outputs, kept.cells).T
        return replace(found, mask=self._masks(outputs, coefficients, found.xyxy, transform))

    def _masks(
        self, outputs: Tensors, coefficients: FloatArray, xyxy: FloatArray, transform: ImageTransform
    ) -> BoolArray:
        grid_w = width_of(self._proto)
        grid_h = cell_count(self._proto) // grid_w
        stored = cells_last(outputs[self._proto.name], self._proto)
        prototypes = real_values(stored, self._proto).reshape(-1, grid_h, grid_w)
        frame_w, frame_h = transform.frame_wh
        x, y = axes(transform, self._boxes.size_wh, (grid_w, grid_h))
        masks = np.zeros((len(xyxy), frame_h, frame_w), np.bool_)
        for mask, weights, box in zip(masks, coefficients, xyxy, strict=True):
            left, top, right, bottom = (int(edge) for edge in np.ceil(box))  # pixel x lies inside from x1 <= x < x2
            if right > left and bottom > top:
                mask[top:bottom, left:right] = mixed(prototypes, weights, x, y, (left, top, right, bottom)) > 0
        return masks


class PoseDecoder:
    """Decoder ``yolov8-pose``: the raw head and ``keypoint/STRIDE``; ``options["keypoint_shape"]`` is ``[K, 2 or 3]``.

    A keypoint lies at its cell's top left corner plus twice the raw value, in cells. Without a third number per keypoint its
    confidence is 1.
    """

    def __init__(self, spec: DecodeSpec, outputs: tuple[TensorSpec, ...]) -> None:
        """Sort the outputs.

        Raises:
            SpecMismatch: an output is missing, or its channels do not fit ``keypoint_shape``.
        """
        self._boxes = _raw_head(spec, outputs)
        self._keypoints = Branch("keypoint", self._boxes.strides, outputs)
        shape = spec.options.get("keypoint_shape", ())
        if len(shape) != 2 or shape[1] not in (2, 3) or shape[0] * shape[1] != self._keypoints.channels:
            raise SpecMismatch(f"keypoint_shape {shape} does not fit {self._keypoints.channels} channels.")
        self._shape = (int(shape[0]), int(shape[1]))

    def __call__(self, outputs: Tensors, transform: ImageTransform, spec: DecodeSpec, multi_label: bool) -> Detections:
        """Detections of one frame with ``keypoints (N, K, 3)`` in frame pixels, clipped to the frame."""
        candidates = self._boxes.candidates(outputs, spec.confidence, multi_label)
        kept = candidates.chosen(survivors(candidates, spec))
        found = self.keypoints(outputs, kept.cells)
        xy = transform.to_frame(found[..., :2]).clip(0, np.array(transform.frame_wh, np.float32))
        return replace(kept.in_frame(transform), keypoints=np.concatenate([xy, found[..., 2:]], axis=2))

    def keypoints(self, outputs: Tensors, cells: IntArray) -> FloatArray:
        """Keypoints ``(N, K, 3)`` of cells ``(N,)`` in model pixels, with their confidence."""
        raw = self._keypoints.at(outputs, cells).T.reshape(-1, *self._shape)
        centers, strides = self._boxes.centers(cells)
        corners = centers - strides[:, None] / 2
        xy = corners[:, None] + raw[..., :2] * 2 * strides[:, None, None]
        seen = sigmoid(raw[..., 2:]) if self._shape[1] == 3 else np.ones_like(raw[..., :1])
        return np.concatenate([xy, seen], axis=2)


class ObbDecoder:
    """Decoder ``yolov8-obb``: the raw head and ``angle/STRIDE``, one number per cell.

    The four distances are measured along the axes of the rotated box; its angle is ``(sigmoid(raw) - 1/4) × pi``, clockwise in
    the image, of the side called width.
    """

    def __init__(self, spec: DecodeSpec, outputs: tuple[TensorSpec, ...]) -> None:
        """Sort the outputs.

        Raises:
            SpecMismatch: an output is missing, or there is not one angle per cell.
        """
        self._boxes = _raw_head(spec, outputs)
        self._angles = Branch("angle", self._boxes.strides, outputs)
        if self._angles.channels != 1:
            raise SpecMismatch(f"One angle per cell is needed, not {self._angles.channels}.")

    def __call__(self, outputs: Tensors, transform: ImageTransform, spec: DecodeSpec, multi_label: bool) -> Detections:
        """Detections of one frame with ``obb (N, 5)`` in frame pixels; ``xyxy`` is the upright box around each, clipped."""
        candidates = self._boxes.candidates(outputs, spec.confidence, multi_label)
        candidates = candidates.chosen(best_first(candidates))
        rotated = self.rotated(candidates, outputs)
        indices = rotated_nms(rotated, candidates.class_id, spec.iou, spec.max_detections)
        obb = rotated[indices].copy()
        obb[:, :2] = transform.to_frame(obb[:, :2])
        obb[:, 2:4] /= np.array(transform.scale_xy, np.float32)
        around = _around(obb)
        around[:, 0::2] = around[:, 0::2].clip(0, transform.frame_wh[0])
        around[:, 1::2] = around[:, 1::2].clip(0, transform.frame_wh[1])
        return Detections(
            xyxy=around, confidence=candidates.confidence[indices], class_id=candidates.class_id[indices], obb=obb
        )

    def rotated(self, candidates: Candidates, outputs: Tensors) -> FloatArray:
        """``(N, 5)`` boxes in model pixels: the upright ones turned about the centres of their cells."""
        angle = (sigmoid(self._angles.at(outputs, candidates.cells)[0]) - 0.25) * pi
        centers, _ = self._boxes.centers(candidates.cells)
        near, far = candidates.xyxy[:, :2], candidates.xyxy[:, 2:]
        x, y = ((near + far) / 2 - centers).T
        turned = np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], axis=1)
        return np.concatenate([centers + turned, far - near, angle[:, None]], axis=1).astype(np.float32)


def rotated_nms(boxes: FloatArray, class_id: IntArray, iou: float, max_detections: int) -> IntArray:
    """Drop every rotated box that overlaps a better one of its class, kept or not.

    That is the suppression this family of networks is measured with: Fast NMS, Bolya et al. 2019 (arXiv:1904.02689), section 3.
    Boxes are ``(N, 5)``: centre, width, height, angle in radians; best first. One with a higher ``probiou`` than ``iou`` to a
    better one goes. The result is ``(K,)`` indices, best first.
    """
    kept: list[int] = []
    for start in range(0, len(boxes), _BLOCK):
        stop = min(start + _BLOCK, len(boxes))
        overlap = probiou(boxes[start:stop], boxes[:stop])
        better = np.arange(stop)[None] < np.arange(start, stop)[:, None]
        same = class_id[start:stop, None] == class_id[None, :stop]
        dropped = ((overlap > iou) & better & same).any(axis=1)
        kept.extend(int(index) for index in start + np.flatnonzero(~dropped))
        if len(kept) >= max_detections:
            break
    return np.array(kept[:max_detections], np.int64)


def probiou(first: FloatArray, second: FloatArray) -> FloatArray:
    """Likeness of every one of ``(N, 5)`` rotated boxes with every one of ``(M, 5)``: ``(N, M)``, 0 to 1.

    A box stands for the Gaussian of the same spread; likeness is 1 minus the Hellinger distance of two Gaussians. Source:
    Llerena et al. 2021 (arXiv:2106.06072), ProbIoU; a uniform density of width w has the variance w² / 12.
    """
    x1, y1, a1, b1, c1 = (part[:, None] for part in _gaussian(first))
    x2, y2, a2, b2, c2 = (part[None] for part in _gaussian(second))
    a, b, c, x, y = a1 + a2, b1 + b2, c1 + c2, x1 - x2, y1 - y2
    determinant = a * b - c**2
    apart = (a * y**2 + b * x**2 - 2 * c * x * y) / (4 * (determinant + _EPSILON))
    own = np.sqrt((a1 * b1 - c1**2).clip(0) * (a2 * b2 - c2**2).clip(0))
    spread = 0.5 * np.log(determinant / (4 * own + _EPSILON) + _EPSILON)
    bhattacharyya = (apart + spread).clip(_EPSILON, 100)
    return (1 - np.sqrt(1 - np.exp(-bhattacharyya) + _EPSILON)).astype(np.float32)


def _gaussian(boxes: FloatArray) -> tuple[Array, ...]:
    """Mean x, mean y and covariance xx, yy, xy of rotated boxes, ``(N,)`` each in double precision."""
    x, y, width, height, angle = boxes.astype(np.float64).T
    along, across = width**2 / 12, height**2 / 12
    cos, sin = np.cos(angle), np.sin(angle)
    covariance = (along * cos**2 + across * sin**2, along * sin**2 + across * cos**2, (along - across) * cos * sin)
    return x, y, *covariance


def _around(obb: FloatArray) -> FloatArray:
    """Upright ``(N, 4)`` boxes around rotated ones."""
    cos, sin = np.abs(np.cos(obb[:, 4])), np.abs(np.sin(obb[:, 4]))
    half = np.stack([obb[:, 2] * cos + obb[:, 3] * sin, obb[:, 2] * sin + obb[:, 3] * cos], axis=1) / 2
    return np.concatenate([obb[:, :2] - half, obb[:, :2] + half], axis=1).astype(np.float32)

"""Masks, keypoints and rotated boxes from raw heads: known answers, both layouts, quantized outputs."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi

import numpy as np
import pytest

from edgecv.errors import SpecMismatch
from edgecv.protocols import Array
from edgecv.results import Detections
from edgecv.specs import DecodeSpec, TensorSpec
from edgecv.vision.geometry import ImageTransform
from edgecv.vision.yolov8_tasks import ObbDecoder, PoseDecoder, SegmentDecoder, probiou, rotated_nms

STRIDES, SIDE, BINS, CLASSES = (8, 16), 64, 8, 2
SAME = ImageTransform(scale_xy=(1.0, 1.0), offset_xy=(0.0, 0.0), frame_wh=(SIDE, SIDE))
# The image of 60x120 pixels lies in the middle of the model's, half as large.
HALVED = ImageTransform(scale_xy=(0.5, 0.5), offset_xy=(17.0, 2.0), frame_wh=(60, 120))
DECODERS = {"segment": SegmentDecoder, "pose": PoseDecoder, "obb": ObbDecoder}


@dataclass(frozen=True, slots=True, kw_only=True)
class Object:
    """One object to find: in cell ``(row, column)`` of a stride, distances in cells, what its third output says."""

    stride: int
    row: int
    column: int
    ltrb: tuple[int, int, int, int]
    branch: tuple[float, ...]
    logit: float = 3.0
    class_id: int = 0


class RawHead:
    """Raw outputs that hold the objects and nothing else, NCHW floats."""

    def __init__(self, role: str, channels: int, objects: tuple[Object, ...], proto: Array | None = None) -> None:
        self.tensors: dict[str, Array] = {}
        for stride in STRIDES:
            grid = (SIDE // stride, SIDE // stride)
            self.tensors[f"box/{stride}"] = np.zeros((1, 4 * BINS, *grid), np.float32)
            self.tensors[f"class/{stride}"] = np.full((1, CLASSES, *grid), -8, np.float32)
            self.tensors[f"{role}/{stride}"] = np.zeros((1, channels, *grid), np.float32)
        for item in objects:
            at = (slice(None), item.row, item.column)
            bins = np.full((4, BINS), -20, np.float32)
            bins[np.arange(4), item.ltrb] = 20
            self.tensors[f"box/{item.stride}"][0][at] = bins.reshape(-1)
            self.tensors[f"class/{item.stride}"][0][item.class_id, item.row, item.column] = item.logit
            self.tensors[f"{role}/{item.stride}"][0][at] = item.branch
        if proto is not None:
            self.tensors["proto"] = proto[None].astype(np.float32)

    def specs(self, layout: str = "NCHW", scales: dict[str, float] | None = None) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(
                name=role.replace("/", "_"),
                role=role,
                shape=tensor.shape if layout == "NCHW" else tensor.transpose(0, 2, 3, 1).shape,
                dtype="float32" if scales is None else "int8",
                layout=layout,
                scale=None if scales is None else scales[role],
                zero_point=None if scales is None else 3,
            )
            for role, tensor in self.tensors.items()
        )

    def outputs(self, layout: str = "NCHW") -> dict[str, Array]:
        moved = {role: t if layout == "NCHW" else t.transpose(0, 2, 3, 1) for role, t in self.tensors.items()}
        return {role.replace("/", "_"): np.ascontiguousarray(tensor) for role, tensor in moved.items()}

    def quantized(self) -> tuple[tuple[TensorSpec, ...], dict[str, Array]]:
        scales = {role: float(np.abs(tensor).max() / 120) or 1.0 for role, tensor in self.tensors.items()}
        specs = self.specs("NHWC", scales)
        floats = self.outputs("NHWC")
        stored = {s.name: (np.rint(floats[s.name] / (s.scale or 1)) + 3).clip(-128, 127).astype(np.int8) for s in specs}
        return specs, stored


def decode_spec(task: str, **options: object) -> DecodeSpec:
    return DecodeSpec(task=task, decoder=f"yolov8-{task}", labels=("a", "b"), options=dict(options))  # type: ignore[arg-type]


def decode(
    task: str, head: RawHead, transform: ImageTransform = SAME, layout: str = "NCHW", **options: object
) -> Detections:
    spec = decode_spec(task, **options)
    return DECODERS[task](spec, head.specs(layout))(head.outputs(layout), transform, spec, False)


def half_plane() -> Array:
    """Two prototypes of 16x16 cells (4 pixels each): left half positive, and nothing."""
    proto = np.zeros((2, 16, 16), np.float32)
    proto[0, :, :8], proto[0, :, 8:] = 1, -1
    return proto


def masked() -> RawHead:
    # centre (28, 28); 3 cells to each side: the box is 4..52
    first = Object(stride=8, row=3, column=3, ltrb=(3, 3, 3, 3), branch=(2, 0))
    second = Object(stride=16, row=1, column=2, ltrb=(1, 1, 1, 1), branch=(-1, 5), class_id=1, logit=2.0)
    return RawHead("mask", 2, (first, second), half_plane())


def test_a_mask_is_the_sign_of_the_mixed_prototypes_inside_its_box() -> None:
    found = decode("segment", masked())
    assert found.xyxy.tolist() == [[4, 4, 52, 52], [24, 8, 56, 40]]
    assert found.mask is not None and found.mask.dtype == np.bool_
    wanted = np.zeros((2, SIDE, SIDE), bool)
    wanted[0, 4:52, 4:32] = True
    wanted[1, 8:40, 32:56] = True  # a negative coefficient turns the prototype round
    assert np.array_equal(found.mask, wanted)


def test_masks_lie_in_the_pixels_of_the_frame() -> None:
    found = decode("segment", masked(), HALVED)
    assert found.mask is not None and found.mask.shape == (2, 120, 60)
    wanted = np.zeros((120, 60), bool)
    wanted[4:100, :30] = True  # the edge at model x 32 is frame x 30; the box is -26..70 x 4..100, clipped
    assert np.array_equal(found.mask[0], wanted)


def test_a_box_outside_the_frame_has_an_empty_mask() -> None:
    item = Object(stride=8, row=3, column=0, ltrb=(0, 1, 1, 1), branch=(1, 0))  # 4..12: left of the image
    found = decode("segment", RawHead("mask", 2, (item,), half_plane()), HALVED)
    assert found.mask is not None and found.mask.shape == (1, 120, 60) and not found.mask.any()


def test_nothing_found_has_no_masks_keypoints_or_rotated_boxes() -> None:
    segmented = decode("segment", RawHead("mask", 2, (), half_plane()), HALVED)
    assert segmented.mask is not None and segmented.mask.shape == (0, 120, 60)
    posed = decode("pose", RawHead("keypoint", 6, ()), keypoint_shape=[2, 3])
    assert posed.keypoints is not None and posed.keypoints.shape == (0, 2, 3)
    turned = decode("obb", RawHead("angle", 1, ()))
    assert turned.obb is not None and turned.obb.shape == (0, 5)


def test_keypoints_lie_twice_their_value_in_cells_from_the_corner_of_the_cell() -> None:
    near = Object(stride=8, row=2, column=4, ltrb=(1, 1, 1, 1), branch=(0, 0, 0, 0.25, -0.5, 2))
    far = Object(stride=16, row=2, column=1, ltrb=(1, 1, 1, 1), branch=(0.5, 1, -2, 9, 9, 0), logit=1.0)
    found = decode("pose", RawHead("keypoint", 6, (near, far)), keypoint_shape=[2, 3])
    assert found.keypoints is not None
    assert np.allclose(found.keypoints[0], [[32, 16, 0.5], [36, 8, 1 / (1 + np.exp(-2))]], atol=1e-5)
    assert np.allclose(found.keypoints[1, 0], [32, 64, 1 / (1 + np.exp(2))], atol=1e-5)
    assert np.allclose(found.keypoints[1, 1, :2], [SIDE, SIDE])  # clipped to the frame


def test_keypoints_without_visibility_are_certain() -> None:
    item = Object(stride=8, row=2, column=4, ltrb=(1, 1, 1, 1), branch=(0, 0, 0.25, -0.5))
    found = decode("pose", RawHead("keypoint", 4, (item,)), keypoint_shape=[2, 2])
    assert found.keypoints is not None
    assert np.allclose(found.keypoints[0], [[32, 16, 1], [36, 8, 1]])


def test_a_rotated_box_turns_about_the_centre_of_its_cell() -> None:
    # sigmoid = 3/4: a quarter turn. Distances 1, 1, 3, 1: the centre lies one cell along the turned axis, below the cell's.
    item = Object(stride=8, row=3, column=3, ltrb=(1, 1, 3, 1), branch=(log(3),))
    found = decode("obb", RawHead("angle", 1, (item,)))
    assert found.obb is not None
    assert np.allclose(found.obb[0], [28, 36, 32, 16, pi / 2], atol=1e-4)
    assert np.allclose(found.xyxy[0], [20, 20, 36, 52], atol=1e-3)
    halved = decode("obb", RawHead("angle", 1, (item,)), HALVED)
    assert halved.obb is not None
    assert np.allclose(halved.obb[0], [22, 68, 64, 32, pi / 2], atol=1e-4)


@pytest.mark.parametrize("task", ["segment", "pose", "obb"])
def test_layout_and_quantization_do_not_change_the_answer(task: str) -> None:
    angle = Object(stride=16, row=1, column=1, ltrb=(1, 1, 2, 1), branch=(0.7,))
    point = Object(stride=16, row=1, column=1, ltrb=(1, 1, 2, 1), branch=(0.7, 0.2, 1.0))
    heads = {
        "segment": (masked(), {}),
        "pose": (RawHead("keypoint", 3, (point,)), {"keypoint_shape": [1, 3]}),
        "obb": (RawHead("angle", 1, (angle,)), {}),
    }
    head, options = heads[task]
    planes, last = decode(task, head, HALVED, **options), decode(task, head, HALVED, "NHWC", **options)
    spec = decode_spec(task, **options)
    specs, stored = head.quantized()
    coarse = DECODERS[task](spec, specs)(stored, HALVED, spec, False)
    for name in ("xyxy", "confidence", "class_id", "mask", "keypoints", "obb"):
        wanted = getattr(planes, name)
        if wanted is not None:
            assert np.array_equal(getattr(last, name), wanted)
            assert np.allclose(getattr(coarse, name), wanted, atol=0.2)


def test_a_box_of_several_classes_keeps_its_mask_for_each() -> None:
    head = masked()
    head.tensors["class/8"][0, 1, 3, 3] = 2.5
    spec = decode_spec("segment")
    found = SegmentDecoder(spec, head.specs())(head.outputs(), SAME, spec, True)
    assert found.mask is not None and found.class_id.tolist() == [0, 1, 1]
    assert np.array_equal(found.mask[0], found.mask[1])


def test_probiou_is_one_for_equal_boxes_and_falls_with_distance() -> None:
    box = np.array([[20, 20, 16, 8, 0.3]], np.float32)
    others = np.repeat(box, 4, axis=0)
    others[1, 4] += pi  # the same rectangle
    others[2, 0] += 4
    others[3, 0] += 400
    likeness = probiou(box, others)[0]
    assert np.allclose(likeness[:2], 1, atol=1e-3)
    assert 0.3 < likeness[2] < 0.9
    assert likeness[3] < 1e-3
    swapped = np.array([[20, 20, 8, 16, 0.3 + pi / 2]], np.float32)
    assert np.allclose(probiou(box, swapped), 1, atol=1e-3)


def test_probiou_of_axis_aligned_boxes_is_the_distance_of_their_gaussians() -> None:
    first, second = np.array([[0, 0, 12, 12, 0]], np.float32), np.array([[6, 0, 12, 12, 0]], np.float32)
    # variance 12 on both axes: the Bhattacharyya distance is 6² / (8 * 12)
    assert np.allclose(probiou(first, second), 1 - np.sqrt(1 - np.exp(-36 / 96)), atol=1e-4)


def test_a_suppressed_rotated_box_still_suppresses() -> None:
    chain = np.array([[0, 0, 20, 10, 0], [4, 0, 20, 10, 0], [8, 0, 20, 10, 0], [90, 0, 20, 10, 0]], np.float32)
    near, far = float(probiou(chain[:1], chain[1:2])[0, 0]), float(probiou(chain[:1], chain[2:3])[0, 0])
    one_class = np.zeros(4, np.int64)
    assert rotated_nms(chain, one_class, (near + far) / 2, 10).tolist() == [0, 3]
    assert rotated_nms(chain, one_class, near + 0.01, 10).tolist() == [0, 1, 2, 3]
    assert rotated_nms(chain, np.array([0, 1, 2, 0]), (near + far) / 2, 10).tolist() == [0, 1, 2, 3]
    assert rotated_nms(chain, one_class, 0.99, 2).tolist() == [0, 1]


def test_suppression_in_blocks_is_suppression_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(0, 60, (90, 2)), rng.uniform(5, 25, (90, 2)), rng.uniform(-1, 2, (90, 1))], 1)
    boxes, class_id = boxes.astype(np.float32), rng.integers(0, 2, 90)
    at_once = rotated_nms(boxes, class_id, 0.4, 100)
    monkeypatch.setattr("edgecv.vision.yolov8_tasks._BLOCK", 7)
    assert np.array_equal(rotated_nms(boxes, class_id, 0.4, 100), at_once)
    assert 5 < len(at_once) < 90


def test_outputs_that_do_not_fit_are_named() -> None:
    head = masked()
    with pytest.raises(SpecMismatch, match="mask/16"):
        SegmentDecoder(decode_spec("segment"), tuple(s for s in head.specs() if s.role != "mask/16"))
    with pytest.raises(SpecMismatch, match="proto"):
        SegmentDecoder(decode_spec("segment"), tuple(s for s in head.specs() if s.role != "proto"))
    with pytest.raises(SpecMismatch, match="keypoint_shape"):
        PoseDecoder(decode_spec("pose", keypoint_shape=[17, 3]), RawHead("keypoint", 6, ()).specs())
    with pytest.raises(SpecMismatch, match="One angle"):
        ObbDecoder(decode_spec("obb"), RawHead("angle", 2, ()).specs())

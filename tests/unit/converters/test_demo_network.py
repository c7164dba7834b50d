"""The demo's network, its losses, and its export."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgecv.benchmarks.demo.scene import LABELS
from edgecv.benchmarks.lab.demo_training import network as demo_network, train as demo_training
from edgecv.benchmarks.lab.demo_training.network import (
    BINS,
    STRIDES,
    Prediction,
    ShapeDetector,
    cell_centers,
    flatten_levels,
)
from edgecv.benchmarks.lab.demo_training.train import (
    Batch,
    Plan,
    assign,
    complete_iou,
    distribution_focal,
    export,
    losses,
    train,
)
from edgecv.specs import DecodeSpec, TensorSpec
from edgecv.vision.geometry import ImageTransform
from edgecv.vision.yolov8 import RawHeadDecoder

CLASSES = len(LABELS)


@pytest.fixture(scope="module")
def network() -> ShapeDetector:
    """Random weights, scores around one half so that some cells pass any threshold."""
    torch.manual_seed(0)
    made = ShapeDetector(CLASSES).eval()
    for head in made.heads:
        torch.nn.init.zeros_(head.score[-1].bias)
        torch.nn.init.normal_(head.box[-1].bias, std=2.0)
    return made.requires_grad_(False)


def test_the_raw_head_has_a_box_and_a_class_map_per_stride(network: ShapeDetector) -> None:
    levels = network(torch.rand(2, 3, 96, 64))
    assert [tuple(box.shape) for box, _ in levels] == [(2, 4 * BINS, 96 // s, 64 // s) for s in STRIDES]
    assert [tuple(score.shape) for _, score in levels] == [(2, CLASSES, 96 // s, 64 // s) for s in STRIDES]


def test_the_prediction_has_a_row_per_number_and_a_column_per_cell(network: ShapeDetector) -> None:
    prediction = Prediction(network, (320, 320))(torch.rand(1, 3, 320, 320))
    assert tuple(prediction.shape) == (1, 4 + CLASSES, 40 * 40 + 20 * 20 + 10 * 10)
    assert prediction[:, 4:].min() > 0
    assert prediction[:, 4:].max() < 1


def test_the_prediction_is_what_the_run_time_decodes_from_the_raw_head(network: ShapeDetector) -> None:
    image = torch.rand(1, 3, 64, 96)
    columns = Prediction(network, (96, 64))(image)[0].numpy().T
    outputs, specs = {}, []
    for stride, pair in zip(STRIDES, network(image), strict=True):
        for role, tensor in zip(("box", "class"), pair, strict=True):
            name = f"{role}/{stride}"
            outputs[name] = tensor.numpy()
            specs.append(TensorSpec(name=name, role=name, shape=tuple(tensor.shape), dtype="float32", layout="NCHW"))
    spec = DecodeSpec(
        task="detect", decoder="yolov8-raw", labels=LABELS, confidence=0.0, iou=1.0, max_detections=len(columns)
    )
    # In the middle of a far larger frame, boxes that reach over the input's border are not clipped.
    shifted = ImageTransform(scale_xy=(1.0, 1.0), offset_xy=(-5000.0, -5000.0), frame_wh=(20_000, 20_000))
    found = RawHeadDecoder(spec, tuple(specs))(outputs, shifted, spec, multi_label=False)
    center, half = columns[:, :2] + 5000, columns[:, 2:4] / 2
    expected = np.concatenate([center - half, center + half, columns[:, 4:].max(axis=1, keepdims=True)], axis=1)
    decoded = np.concatenate([found.xyxy, found.confidence[:, None]], axis=1)
    difference = np.abs(expected[:, None] - decoded[None])  # the order of nearly equal scores is free
    nearest = difference[np.arange(len(expected)), difference[..., :4].sum(axis=2).argmin(axis=1)]
    assert len(decoded) == len(expected)
    assert nearest[:, :4].max() < 5e-3
    assert nearest[:, 4].max() < 1e-5


def test_fusing_batch_norms_changes_nothing(network: ShapeDetector) -> None:
    torch.manual_seed(1)
    lively = ShapeDetector(CLASSES).train()
    lively(torch.rand(4, 3, 64, 64))  # moves the running statistics away from 0 and 1
    lively.eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = flatten_levels(lively(image))
        after = flatten_levels(lively.fuse()(image))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in lively.modules())
    for one, other in zip(before, after, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_cell_centers_run_along_rows_from_the_fine_level_on() -> None:
    points, strides = cell_centers((64, 32))
    assert len(points) == len(strides) == 8 * 4 + 4 * 2 + 2 * 1
    assert points[:2].tolist() == [[0.5, 0.5], [1.5, 0.5]]
    assert (points[-1] * strides[-1]).tolist() == [48.0, 16.0]


def one_box(box: list[float], class_id: int) -> Batch:
    """An image of 64 x 64 with one real box and one of padding."""
    return Batch(
        image=torch.zeros(1, 3, 64, 64),
        xyxy=torch.tensor([[box, [0.0, 0.0, 0.0, 0.0]]]),
        class_id=torch.tensor([[class_id, 0]]),
        real=torch.tensor([[True, False]]),
    )


@pytest.mark.parametrize(
    "box", [[8.0, 8.0, 40.0, 48.0], [13.0, 21.0, 17.0, 25.0]], ids=["large", "between cell centres"]
)
def test_an_object_gets_cells_within_it_and_padding_gets_none(box: list[float]) -> None:
    points, strides = cell_centers((64, 64))
    centers = points * strides[:, None]
    found = torch.cat([centers - 12, centers + 12], dim=1)[None]
    targets = assign(torch.full((1, len(points), CLASSES), 0.1), found, centers, strides, one_box(box, 2))
    taken = targets.weight[0] > 0
    assert taken.any()
    assert (targets.xyxy[0][taken] == torch.tensor(box)).all()
    assert targets.scores[0][~taken].sum() == 0
    assert targets.scores[0, :, [0, 1, 3, 4, 5]].sum() == 0
    assert ((centers[taken] - torch.tensor([box[:2], box[2:]]).mean(0)).abs().amax(1) <= 32).all()


def test_complete_iou_is_one_for_equal_boxes_and_falls_with_distance() -> None:
    box = torch.tensor([[10.0, 10.0, 30.0, 20.0]])
    assert complete_iou(box, box).item() == pytest.approx(1.0, abs=1e-5)
    near, far = complete_iou(box, box + 40).item(), complete_iou(box, box + 400).item()
    assert 0 > near > far > -1.5


def test_distribution_focal_is_least_where_the_two_bins_share_the_distance() -> None:
    distance = torch.full((1, 4), 3.25)
    right = torch.full((1, 4, BINS), -20.0)
    right[..., 3], right[..., 4] = np.log(0.75), np.log(0.25)
    wrong = right.roll(1, dims=2)
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert distribution_focal(right, distance).item() == pytest.approx(entropy, abs=1e-4)
    assert distribution_focal(wrong, distance).item() > 2 * entropy
    assert torch.isfinite(distribution_focal(right, distance * 1000)).all()


def test_losses_of_an_image_without_objects_are_finite() -> None:
    batch = one_box([0.0, 0.0, 0.0, 0.0], 0)
    empty = Batch(image=batch.image, xyxy=batch.xyxy, class_id=batch.class_id, real=torch.zeros(1, 2, dtype=torch.bool))
    parts = losses(ShapeDetector(CLASSES)(empty.image), empty)
    assert all(torch.isfinite(part) for part in parts)
    sum(parts).backward()


def test_training_repeats_itself_and_its_export_agrees_with_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_training, "SIZE_PX", 64)
    plan = Plan(steps=3, batch=2, small_px=64, threads=1)
    first, second = train(plan), train(plan)
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    out = tmp_path / "tiny.onnx"
    assert export(first, out) <= demo_training.PARITY
    model = onnx.load(str(out))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert ast.literal_eval(metadata["names"]) == dict(enumerate(LABELS))
    assert metadata["imgsz"] == "[64, 64]"
    assert model.opset_import[0].version == demo_training.OPSET
    assert {node.op_type for node in model.graph.node}.isdisjoint({"BatchNormalization", "If", "Loop"})
    assert demo_network.STRIDES == (8, 16, 32)

"""Trains and exports the demo's detector: ``python -m edgecv.benchmarks.lab train_demo --out benchmarks/demo/shapes.onnx``.

Every image is rendered when it is needed, and seen once. Run by hand, never by the SDK; it needs the extra ``convert``.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch.nn import functional

import edgecv
from edgecv._internal.extras import require
from edgecv.benchmarks.demo.scene import LABELS, LabelledFrame, render_scene
from edgecv.benchmarks.lab.demo_training.network import (
    BINS,
    Prediction,
    ShapeDetector,
    Tensor,
    cell_centers,
    flatten_levels,
)
from edgecv.quantize.labels.coco import Truth, match_boxes
from edgecv.quantize.labels.scores import DetectorScores
from edgecv.results import Detections
from edgecv.vision.letterbox import letterbox

SIZE_PX = 320  # side of the exported input
OPSET = 17
PARITY = 1e-3  # greatest difference allowed between torch and the exported file, in pixels and in scores

_STREAM = 20_260_101  # seeds of training images; tests and evaluation use others
_HELD_OUT_STREAM = 77
_FRAME_SIZES = ((1.0, 1.0), (1.0, 0.75), (0.75, 1.0), (1.5, 1.125))  # of rendered frames, in parts of the input's side
_EMA_STEPS = 200  # over which the averaged weights catch up at the start
_CANDIDATES = 10  # cells per object
_SCORE_POWER, _IOU_POWER = 0.5, 6.0

_log = logging.getLogger("edgecv.demo_training")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to train.

    Attributes:
        steps: Optimizer steps.
        batch: Images per step.
        seed: Of weights and images.
        threads: CPU threads of torch.
        small_px: Input side of the first ``small_part`` of the steps, which is cheaper.
        learning_rate: At its highest.
        decay: Weight decay.
        ema: Decay of the averaged weights, which are the ones exported.
        gains: Weights of the class, box and distribution losses.
    """

    steps: int = 1800
    batch: int = 16
    seed: int = 0
    threads: int = 1
    small_px: int = 224
    small_part: float = 0.6
    warmup: int = 100
    learning_rate: float = 3e-3
    decay: float = 0.02
    ema: float = 0.997
    gains: tuple[float, float, float] = (1.0, 5.0, 1.0)

    def size_px(self, step: int) -> int:
        """Input side at a step."""
        return self.small_px if step < self.small_part * self.steps else SIZE_PX

    def rate(self, step: int) -> float:
        """Learning rate at a step: linear warm-up, then half a cosine (SGDR, Loshchilov & Hutter 2016, arXiv:1608.03983)."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        part = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * part)) / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Images ``(B, 3, H, W)`` RGB 0 to 1, and their truth padded to ``M`` boxes.

    Attributes:
        image: The images.
        xyxy: ``(B, M, 4)`` boxes in input pixels.
        class_id: ``(B, M)``.
        real: ``(B, M)`` bool: which of the boxes are none of the padding.
    """

    image: Tensor
    xyxy: Tensor
    class_id: Tensor
    real: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What each cell shall say: ``xyxy (B, N, 4)``, ``scores (B, N, classes)``, ``weight (B, N)``, 0 for background."""

    xyxy: Tensor
    scores: Tensor
    weight: Tensor


def train(plan: Plan) -> ShapeDetector:
    """Train a detector; the averaged weights, in evaluation mode."""
    torch.manual_seed(plan.seed)
    torch.set_num_threads(plan.threads)
    network = ShapeDetector(len(LABELS)).to(memory_format=torch.channels_last).train()
    averaged = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = _optimizer(network, plan)
    started = time.monotonic()
    for step, batch in enumerate(_batches(plan)):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        parts = losses(network(batch.image), batch)
        optimizer.zero_grad()
        sum(gain * part for gain, part in zip(plan.gains, parts, strict=True)).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        _average(averaged, network, plan.ema * (1 - math.exp(-(step + 1) / _EMA_STEPS)))
        if step % 50 == 0 or step == plan.steps - 1:
            _log.info(
                "step %d/%d  class %.3f  box %.3f  bins %.3f  %.0f s",
                *(step, plan.steps, *(part.item() for part in parts), time.monotonic() - started),
            )
    return averaged


def losses(levels: list[tuple[Tensor, Tensor]], batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Class, box and distribution loss of a batch of raw heads, each per unit of assigned weight.

    Binary cross entropy towards aligned scores (TOOD, Feng et al. 2021, arXiv:2108.07755), complete IoU (Zheng et al. 2019,
    arXiv:1911.08287), distribution focal loss (Li et al. 2020, arXiv:2006.04388, equation 6).
    """
    size_px = batch.image.shape[2]
    points, strides = cell_centers((size_px, size_px))
    boxes, logits = (tensor.transpose(1, 2) for tensor in flatten_levels(levels))
    bins = boxes.reshape(*boxes.shape[:2], 4, BINS)
    distances = bins.softmax(3) @ torch.arange(BINS, dtype=torch.float32)
    found = torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=2) * strides[:, None]
    targets = assign(logits.detach().sigmoid(), found.detach(), points * strides[:, None], strides, batch)
    total = targets.scores.sum().clamp(min=1)
    class_loss = functional.binary_cross_entropy_with_logits(logits, targets.scores, reduction="sum") / total
    taken = targets.weight > 0
    weight = targets.weight[taken]
    box_loss = ((1 - complete_iou(found[taken], targets.xyxy[taken])) * weight).sum() / total
    in_cells = targets.xyxy / strides[:, None]
    wanted = torch.cat([points - in_cells[..., :2], in_cells[..., 2:] - points], dim=2)[taken]
    bin_loss = (distribution_focal(bins[taken], wanted) * weight).sum() / total
    return class_loss, box_loss, bin_loss


@torch.no_grad()  # type: ignore[untyped-decorator,unused-ignore]
def assign(scores: Tensor, found: Tensor, centers: Tensor, strides: Tensor, batch: Batch) -> Targets:
    """Which cells answer for which object: task-aligned assignment (TOOD, arXiv:2108.07755, section 3.2).

    Args:
        scores: ``(B, N, classes)`` predicted.
        found: ``(B, N, 4)`` predicted boxes in input pixels.
        centers: ``(N, 2)`` of the cells in input pixels.
        strides: ``(N,)``.
        batch: The truth.
    """
    overlap = _iou(batch.xyxy[:, :, None], found[:, None])  # (B, M, N)
    eligible = _inside(batch.xyxy, centers, strides) & batch.real[..., None]
    of_class = scores.transpose(1, 2).gather(1, batch.class_id[..., None].expand(-1, -1, scores.shape[1]))
    alignment = of_class**_SCORE_POWER * overlap**_IOU_POWER + 1e-9  # never all zero: untrained boxes may miss
    alignment = alignment * eligible
    least = alignment.topk(_CANDIDATES, dim=2).values[..., -1:]
    chosen = eligible & (alignment >= least) & (alignment > 0)
    # A cell that several objects want goes to the one it overlaps most.
    best = torch.where(chosen, overlap, -1.0).argmax(dim=1)
    chosen &= functional.one_hot(best, batch.xyxy.shape[1]).transpose(1, 2).bool()
    alignment = alignment * chosen
    peak = alignment.amax(dim=2, keepdim=True).clamp(min=1e-9)
    weight = (alignment / peak * (overlap * chosen).amax(dim=2, keepdim=True)).amax(dim=1)
    rows = torch.arange(len(best))[:, None]
    one_hot = functional.one_hot(batch.class_id[rows, best], scores.shape[2])
    return Targets(xyxy=batch.xyxy[rows, best], scores=one_hot * weight[..., None], weight=weight)


def complete_iou(first: Tensor, second: Tensor) -> Tensor:
    """Complete IoU of ``(..., 4)`` xyxy boxes (Zheng et al. 2019, arXiv:1911.08287, equations 10 to 12)."""
    low = torch.minimum(first[..., :2], second[..., :2])
    high = torch.maximum(first[..., 2:], second[..., 2:])
    diagonal = ((high - low) ** 2).sum(-1) + 1e-7
    distance = ((first[..., :2] + first[..., 2:] - second[..., :2] - second[..., 2:]) ** 2).sum(-1) / 4
    iou = _iou(first, second)
    shape = 4 / math.pi**2 * (_slant(first) - _slant(second)) ** 2
    with torch.no_grad():
        balance = shape / (1 - iou + shape + 1e-7)
    return iou - distance / diagonal - balance * shape


def distribution_focal(bins: Tensor, distance: Tensor) -> Tensor:
    """Cross entropy with the two bins around each distance, mean of the four sides.

    Args:
        bins: ``(K, 4, BINS)`` logits.
        distance: ``(K, 4)`` in cells.

    Returns:
        ``(K,)``.
    """
    wanted = distance.clamp(0, BINS - 1 - 0.01)
    left = wanted.long()
    to_right = wanted - left
    log_share = bins.log_softmax(2)
    at_left = log_share.gather(2, left[..., None]).squeeze(2)
    at_right = log_share.gather(2, left[..., None] + 1).squeeze(2)
    return -(at_left * (1 - to_right) + at_right * to_right).mean(1)


def export(network: ShapeDetector, out: Path) -> float:
    """Write the detector as ``.onnx`` with the metadata that ``edgecv.load`` reads; its greatest difference from torch.

    Raises:
        RuntimeError: the file computes something else than the network.
    """
    prediction = Prediction(copy.deepcopy(network).to(memory_format=torch.contiguous_format), (SIZE_PX, SIZE_PX)).eval()
    frame = render_scene([_HELD_OUT_STREAM, 0], (SIZE_PX, SIZE_PX))
    image = _to_pixels([frame.image])
    with torch.no_grad(), warnings.catch_warnings():
        expected = prediction(image).numpy()
        prediction.network.fuse()
        warnings.simplefilter("ignore")  # the plain graph that every runtime reads comes from the older exporter
        names = {"input_names": ["images"], "output_names": ["output0"]}
        torch.onnx.export(prediction, (image,), str(out), opset_version=OPSET, dynamo=False, **names)
    _write_metadata(out)
    session = require("onnxruntime", "convert").InferenceSession(str(out), providers=["CPUExecutionProvider"])
    difference = float(np.abs(session.run(None, {"images": image.numpy()})[0] - expected).max())
    if difference > PARITY:
        raise RuntimeError(f"{out} differs from torch by {difference:g}, more than {PARITY:g}.")
    return difference


def evaluate(model: Path, count: int) -> dict[str, float]:
    """COCO mAP of an exported detector on ``count`` images (640 x 480) that training never saw."""
    frames = [render_scene([_HELD_OUT_STREAM, index], (640, 480)) for index in range(count)]
    pairs = []
    with edgecv.load(model) as detector:
        for frame in frames:
            found = detector(frame.image, confidence=0.001, iou=0.7, max_detections=300, multi_label=True)
            assert isinstance(found, Detections)
            pairs.append((Truth(xyxy=frame.xyxy, class_id=frame.class_id), found))
    return DetectorScores(pairs=tuple(pairs), matches=match_boxes(pairs, len(LABELS))).figures()


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, export, evaluate."""
    parser = argparse.ArgumentParser(prog="python -m edgecv.benchmarks.lab train_demo", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the .onnx to write")
    parser.add_argument("--steps", type=int, default=Plan().steps)
    parser.add_argument("--seed", type=int, default=Plan().seed)
    parser.add_argument("--threads", type=int, default=Plan().threads)
    parser.add_argument("--eval-images", type=int, default=300)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    started = time.monotonic()
    network = train(Plan(steps=given.steps, seed=given.seed, threads=given.threads))
    difference = export(network, given.out)
    _log.info("wrote %s: %d bytes, parity %.2g", given.out, given.out.stat().st_size, difference)
    result = evaluate(given.out, given.eval_images)
    minutes = (time.monotonic() - started) / 60
    _log.info("mAP50-95 %.4f  mAP50 %.4f  %.1f minutes", result["map50_95"], result["map50"], minutes)
    return 0


def _batches(plan: Plan) -> Iterator[Batch]:
    for step in range(plan.steps):
        size_px = plan.size_px(step)
        frames = [_training_frame([_STREAM, plan.seed, step, index], size_px) for index in range(plan.batch)]
        most = max(1, *(len(frame.class_id) for frame in frames))
        xyxy = torch.zeros(plan.batch, most, 4)
        class_id = torch.zeros(plan.batch, most, dtype=torch.long)
        real = torch.zeros(plan.batch, most, dtype=torch.bool)
        for row, frame in enumerate(frames):
            count = len(frame.class_id)
            xyxy[row, :count] = torch.from_numpy(frame.xyxy)
            class_id[row, :count] = torch.from_numpy(frame.class_id)
            real[row, :count] = True
        image = _to_pixels([frame.image for frame in frames]).contiguous(memory_format=torch.channels_last)
        yield Batch(image=image, xyxy=xyxy, class_id=class_id, real=real)


def _training_frame(seed: list[int], size_px: int) -> LabelledFrame:
    """A scene of one of several frame sizes, fitted to the input as the run time does it."""
    rng = np.random.default_rng(seed)
    across, down = _FRAME_SIZES[int(rng.integers(len(_FRAME_SIZES)))]
    frame = render_scene(rng, (round(size_px * across), round(size_px * down)))
    image, transform = letterbox(frame.image, (size_px, size_px))
    xyxy = transform.to_model(frame.xyxy.reshape(-1, 2)).reshape(-1, 4)
    return LabelledFrame(image=image, xyxy=xyxy, class_id=frame.class_id)


def _to_pixels(images: list[Any]) -> Tensor:
    stacked = np.stack([image[..., ::-1].transpose(2, 0, 1) for image in images])
    return torch.from_numpy(np.ascontiguousarray(stacked)).float() / 255


def _optimizer(network: ShapeDetector, plan: Plan) -> Any:
    """AdamW; biases and batch norms do not decay."""
    matrices = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": plan.decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=plan.learning_rate)


@torch.no_grad()  # type: ignore[untyped-decorator,unused-ignore]
def _average(averaged: ShapeDetector, network: ShapeDetector, decay: float) -> None:
    current = network.state_dict()
    for name, value in averaged.state_dict().items():
        if value.dtype.is_floating_point:
            value.lerp_(current[name], 1 - decay)


def _inside(boxes: Tensor, centers: Tensor, strides: Tensor) -> Tensor:
    """``(B, M, N)``: which cell centres lie in which boxes; boxes smaller than a cell count as large as one."""
    middle, half = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]) / 2
    reach = torch.maximum(half[:, :, None], strides[:, None] / 2)
    inside: Tensor = ((centers - middle[:, :, None]).abs() < reach).all(-1)
    return inside


def _iou(first: Tensor, second: Tensor) -> Tensor:
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    overlap = (high - low).clamp(min=0).prod(-1)
    return overlap / (_area(first) + _area(second) - overlap + 1e-7)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def _slant(boxes: Tensor) -> Tensor:
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(-1)
    return torch.atan(width / height.clamp(min=1e-7))


def _write_metadata(path: Path) -> None:
    """The keys that detector exports of this kind carry, and the licence."""
    model = onnx.load(str(path))
    content = {
        "names": repr(dict(enumerate(LABELS))),
        "stride": "32",
        "task": "detect",
        "imgsz": repr([SIZE_PX, SIZE_PX]),
        "license": "Apache-2.0",
        "author": "EdgeCV",
    }
    onnx.helper.set_model_props(model, content)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))

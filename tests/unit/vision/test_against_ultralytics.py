"""The same weights, the same photographs: EdgeCV's results are those of the code that trained the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.converters.checkpoints.checkpoint import read_checkpoint
from edgecv.converters.families.ultralytics_import import tasks
from edgecv.converters.families.yolov8 import open_checkpoint
from edgecv.converters.source import SourceOptions
from edgecv.media.images import read_image
from edgecv.results import Detections
from edgecv.specs import DecodeSpec, PreprocessSpec, TensorSpec
from edgecv.vision.letterbox import fit, letterbox
from edgecv.vision.yolov8 import PredictionDecoder, RawHeadDecoder

torch = pytest.importorskip("torch")

SIDE = 640  # COCO photographs keep their size: at others Ultralytics maps boxes back with the ratio before rounding to pixels
PHOTOGRAPHS = 6
BOX_PX, SCORE = 0.5, 1e-3  # the promise; below, agreement is held much closer
CASES = {
    "default": {"confidence": 0.25, "iou": 0.7, "max_detections": 300, "multi_label": False},
    "strict": {"confidence": 0.5, "iou": 0.45, "max_detections": 5, "multi_label": False},
    "validation": {"confidence": 0.001, "iou": 0.7, "max_detections": 300, "multi_label": True},
}

Reference = Callable[[np.ndarray], Any]


@pytest.fixture(scope="module")
def network(yolov8n: Path) -> Any:
    """The network as Ultralytics itself would load it, fused, in float."""
    return read_checkpoint(yolov8n)["model"].float().eval().fuse(verbose=False)


@pytest.fixture(scope="module")
def source(yolov8n: Path) -> Any:
    return open_checkpoint(yolov8n, SourceOptions(size_wh=(SIDE, SIDE)))


@pytest.fixture(scope="module")
def photographs(coco_images: list[Path]) -> list[np.ndarray]:
    return [read_image(path) for path in coco_images[:: len(coco_images) // PHOTOGRAPHS][:PHOTOGRAPHS]]


def theirs(network: Any, image: np.ndarray) -> tuple[Any, np.ndarray]:
    """Their letterbox, their network: the decoded prediction ``(1, 84, N)``."""
    tasks()
    from ultralytics.data.augment import LetterBox

    fitted = LetterBox((SIDE, SIDE), auto=False)(image=image)
    real = torch.from_numpy(np.ascontiguousarray(fitted[..., ::-1].transpose(2, 0, 1)[None])).float() / 255
    with torch.no_grad():
        return network(real)[0], fitted


def their_detections(prediction: Any, image: np.ndarray, limits: dict[str, Any]) -> np.ndarray:
    """Their suppression and scaling: rows of x1, y1, x2, y2, confidence, class."""
    from ultralytics.utils import ops
    from ultralytics.utils.nms import TorchNMS

    # `non_max_suppression` takes torchvision's operator whenever somebody imported torchvision, and it does not work
    # beside a CPU torch; these are its other steps.
    columns = prediction[0].T
    boxes, scores = ops.xywh2xyxy(columns[:, :4]), columns[:, 4:]
    if limits["multi_label"]:
        row, label = torch.where(scores > limits["confidence"])
        score = scores[row, label]
    else:
        score, label = scores.max(1)
        row = torch.where(score > limits["confidence"])[0]
        score, label = score[row], label[row]
    apart = boxes[row] + label[:, None] * 7680.0
    kept = TorchNMS.nms(apart, score, limits["iou"])[: limits["max_detections"]]
    scaled = ops.scale_boxes((SIDE, SIDE), boxes[row][kept].clone(), image.shape)
    return np.concatenate([scaled, score[kept][:, None], label[kept][:, None]], axis=1)


def unmatched(ours: Detections, rows: np.ndarray) -> int:
    """Their rows without a box of ours of the same class within the limits, each used once."""
    free = list(range(len(ours)))
    missing = 0
    for *box, score, label in rows:
        close = [
            index
            for index in free
            if ours.class_id[index] == label
            and abs(ours.confidence[index] - score) < SCORE
            and np.abs(ours.xyxy[index] - box).max() < BOX_PX
        ]
        if close:
            free.remove(close[0])
        missing += not close
    return missing


def test_the_letterbox_gives_the_very_same_pixels(network, photographs) -> None:
    for image in photographs:
        _, fitted = theirs(network, image)
        assert np.array_equal(letterbox(image, (SIDE, SIDE))[0], fitted)


@pytest.mark.parametrize("case", CASES)
def test_raw_head_detections_are_those_of_ultralytics(case, network, source, photographs) -> None:
    limits = dict(CASES[case])
    multi_label = limits.pop("multi_label")
    decode = DecodeSpec(task="detect", decoder="yolov8-raw", labels=source.spec.decode.labels, **limits)
    decoder = RawHeadDecoder(decode, source.parts[0].outputs)
    total = 0
    for image in photographs:
        fitted, transform = fit(image, source.spec.preprocess)
        with torch.no_grad():
            values = source.parts[0].module(torch.from_numpy(fitted[None]))  # the very module that is exported
        outputs = {spec.name: value.numpy() for spec, value in zip(source.parts[0].outputs, values, strict=True)}
        ours = decoder(outputs, transform, decode, multi_label)
        rows = their_detections(theirs(network, image)[0], image, CASES[case])
        assert len(ours) == len(rows)
        # Equal scores may change places, and with 0.001 one box in a thousand lies on the threshold of overlap.
        assert unmatched(ours, rows) <= len(rows) // 1000
        total += len(rows)
    assert total > 10


@pytest.mark.parametrize("case", CASES)
def test_classic_detections_are_those_of_ultralytics(case, network, photographs) -> None:
    limits = dict(CASES[case])
    multi_label = limits.pop("multi_label")
    decode = DecodeSpec(task="detect", decoder="yolov8", **limits)
    for image in photographs:
        prediction, _ = theirs(network, image)
        output = TensorSpec(name="output0", role="prediction", shape=tuple(prediction.shape), dtype="float32")
        _, transform = fit(image, PreprocessSpec(size_wh=(SIDE, SIDE)))
        ours = PredictionDecoder(decode, (output,))({"output0": prediction.numpy()}, transform, decode, multi_label)
        rows = their_detections(prediction, image, CASES[case])
        assert len(ours) == len(rows)
        assert unmatched(ours, rows) <= len(rows) // 1000


def test_candidates_before_suppression_are_those_of_ultralytics(network, source, photographs) -> None:
    from ultralytics.utils import ops

    image = photographs[0]
    fitted, _ = fit(image, source.spec.preprocess)
    outputs = source.parts[0].reference({"image": fitted[None]})
    ours = RawHeadDecoder(source.spec.decode, source.parts[0].outputs).candidates(outputs, 0.0)
    columns = theirs(network, image)[0][0].T
    assert np.abs(ours.xyxy - ops.xywh2xyxy(columns[:, :4]).numpy()).max() < 0.01
    assert np.abs(ours.confidence - columns[:, 4:].amax(1).numpy()).max() < 1e-5

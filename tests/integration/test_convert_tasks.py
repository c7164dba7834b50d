"""Every YOLOv8 task, from a checkpoint through ``edgecv.convert``, against what Ultralytics itself finds with the same weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgecv
from edgecv.converters.families import ultralytics_import
from edgecv.converters.families.torch_input import normalised, with_random_weights
from edgecv.converters.families.yolov8 import open_architecture, open_checkpoint
from edgecv.converters.source import SourceOptions
from edgecv.errors import ConfigError, UnsupportedSource
from edgecv.results import Classification, Detections, Image
from edgecv.specs import PreprocessSpec
from edgecv.vision.letterbox import fit

torch = pytest.importorskip("torch")

FORMATS = ("onnx", "openvino", "tflite")
SIZE = 96
# The head of a task is decoded alike in every format: the richest task has them all.
ONNX_FIRST = ("onnx", *(pytest.param(name, marks=pytest.mark.slow) for name in FORMATS[1:]))
CONFIDENCE, IOU = 0.3, 0.6
_MODELS = {
    "detect": ("DetectionModel", "yolov8n.yaml"),
    "segment": ("SegmentationModel", "yolov8n-seg.yaml"),
    "pose": ("PoseModel", "yolov8n-pose.yaml"),
    "obb": ("OBBModel", "yolov8n-obb.yaml"),
    "classify": ("ClassificationModel", "yolov8n-cls.yaml"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What EdgeCV and Ultralytics find in the same image with the same weights."""

    ours: Any
    theirs: Any
    bundle: edgecv.Bundle


WIDTH, HEIGHT = 128, 96


def image(seed: int = 7) -> Image:
    """Smooth blobs."""
    import cv2

    coarse = np.random.default_rng(seed).integers(0, 256, (9, 13, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8)


def calibration(folder: Path) -> tuple[Path, ...]:
    import cv2

    paths = [folder / f"{seed}.png" for seed in range(12)]
    for seed, path in enumerate(paths):
        cv2.imwrite(str(path), image(seed))
    return tuple(paths)


def checkpoint(task: str, path: Path) -> Path:
    """Random weights whose scores, boxes, angles and masks spread as those of a trained network do."""
    model_type, name = _MODELS[task]
    build = getattr(ultralytics_import.tasks(), model_type)
    spec = PreprocessSpec(size_wh=(SIZE, SIZE))
    network = with_random_weights(lambda: build(name, verbose=False), spec, calibration(path.parent))
    head = network.model[-1]
    real = torch.from_numpy(normalised(fit(image(), spec)[0], spec))
    last = (
        [head.linear]
        if task == "classify"
        else [
            branch[level][-1]
            for branch in (head.cv2, head.cv3, getattr(head, "cv4", ()))
            for level in range(len(branch))
        ]
    )
    for layer in last:
        spread(network, layer, real, 3.0 if task == "classify" else 1.5)
    if task != "classify":
        for level in range(head.nl):
            head.cv3[level][-1].bias.data[:] = -3.0 if head.nc > 1 else -0.5
    torch.save({"model": network, "train_args": {"imgsz": SIZE, "task": task}}, path)
    return path


def spread(network: Any, layer: Any, real: Any, deviation: float) -> None:
    """Scale the layer so that what it gives has that standard deviation."""
    seen = []
    hook = layer.register_forward_hook(lambda _module, _inputs, output: seen.append(float(output.std())))
    with torch.no_grad():
        network(real)
    hook.remove()
    layer.weight.data *= deviation / seen[0]
    layer.bias.data[:] = 0


@pytest.fixture(autouse=True)
def own_suppression(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ultralytics falls back on its own suppression where torchvision's operators do not load beside a CPU torch."""
    ultralytics_import.tasks()
    import torchvision
    from ultralytics.utils.nms import TorchNMS

    monkeypatch.setattr(torchvision.ops, "nms", TorchNMS.nms)


def ask_ultralytics(path: Path, task: str) -> Any:
    from ultralytics import YOLO

    (found,) = YOLO(str(path), task=task).predict(
        image(),
        imgsz=SIZE,
        conf=CONFIDENCE,
        iou=IOU,
        rect=False,
        retina_masks=True,
        save=False,
        verbose=False,
        device="cpu",
    )
    return found


def answers(task: str, folder: Path, model_format: str = "onnx") -> Answers:
    path = checkpoint(task, folder / f"tiny-{task}.pt")
    bundle = edgecv.convert(path, formats=(model_format,), precision="fp32", imgsz=SIZE, out=folder / f"{task}.ecv")
    exact = {"config": {"INFERENCE_PRECISION_HINT": "f32"}} if model_format == "openvino" else None
    with edgecv.load(bundle.path, extra=exact) as model:
        assert model.task == task
        ours = model(image()) if task == "classify" else model(image(), confidence=CONFIDENCE, iou=IOU)
    return Answers(ours=ours, theirs=ask_ultralytics(path, task), bundle=bundle)


def same_boxes(ours: Detections, theirs: Any) -> None:
    assert len(ours) == len(theirs) > 3
    assert np.abs(ours.confidence - theirs.conf.numpy()).max() < 1e-3
    assert np.array_equal(ours.class_id, theirs.cls.numpy().astype(int))


@pytest.mark.parametrize("model_format", ONNX_FIRST)
def test_detect_finds_what_ultralytics_finds(model_format: str, tmp_path: Path) -> None:
    found = answers("detect", tmp_path, model_format)
    same_boxes(found.ours, found.theirs.boxes)
    assert np.abs(found.ours.xyxy - found.theirs.boxes.xyxy.numpy()).max() < 0.5


def mask_overlap(ours: Detections, theirs: Any) -> float:
    wanted = theirs.masks.data.numpy().astype(bool)
    both = (ours.mask & wanted).sum(axis=(1, 2))
    return float((both / (ours.mask | wanted).sum(axis=(1, 2))).min())


@pytest.mark.parametrize("model_format", ("onnx", pytest.param("openvino", marks=pytest.mark.slow), "tflite"))
def test_segment_finds_the_masks_of_ultralytics(model_format: str, tmp_path: Path) -> None:
    found = answers("segment", tmp_path, model_format)
    seen = found.ours[found.ours.mask.any(axis=(1, 2))]  # ultralytics drops boxes whose mask is empty
    same_boxes(seen, found.theirs.boxes)
    assert np.abs(seen.xyxy - found.theirs.boxes.xyxy.numpy()).max() < 0.5
    assert found.ours.mask.shape[1:] == (HEIGHT, WIDTH)
    assert mask_overlap(seen, found.theirs) > 0.98


@pytest.mark.parametrize("model_format", ONNX_FIRST)
def test_pose_finds_the_keypoints_of_ultralytics(model_format: str, tmp_path: Path) -> None:
    found = answers("pose", tmp_path, model_format)
    same_boxes(found.ours, found.theirs.boxes)
    assert np.abs(found.ours.xyxy - found.theirs.boxes.xyxy.numpy()).max() < 0.5
    wanted = found.theirs.keypoints.data.numpy()
    assert found.ours.keypoints.shape == wanted.shape
    assert np.abs(found.ours.keypoints[..., 2] - wanted[..., 2]).max() < 1e-3
    assert np.abs(found.ours.keypoints[..., :2] - wanted[..., :2]).max() < 0.5


@pytest.mark.parametrize("model_format", ONNX_FIRST)
def test_obb_finds_the_rotated_boxes_of_ultralytics(model_format: str, tmp_path: Path) -> None:
    found = answers("obb", tmp_path, model_format)
    same_boxes(found.ours, found.theirs.obb)
    wanted = found.theirs.obb.xywhr.numpy()
    assert np.abs(found.ours.obb[:, :4] - wanted[:, :4]).max() < 0.5
    assert np.abs(found.ours.obb[:, 4] - wanted[:, 4]).max() < 1e-3
    assert np.ptp(found.ours.obb[:, 4]) > 0.05
    around = found.theirs.obb.xyxy.numpy().clip(0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
    assert np.abs(found.ours.xyxy - around).max() < 0.5


@pytest.mark.parametrize("model_format", ONNX_FIRST)
def test_classify_gives_the_confidences_of_ultralytics(model_format: str, tmp_path: Path) -> None:
    found = answers("classify", tmp_path, model_format)  # the image's short side is the size: no resizing, a cut alone
    assert isinstance(found.ours, Classification)
    assert found.ours.class_id.tolist() == found.theirs.probs.top5
    assert np.abs(found.ours.confidence - found.theirs.probs.top5conf.numpy()).max() < 1e-3
    assert found.ours.confidence[0] > 0.05


def test_a_classifier_sees_images_as_in_its_validation() -> None:
    spec = open_architecture(Path("yolov8n-cls.yaml"), SourceOptions(random_weights=True)).spec.preprocess
    ultralytics_import.tasks()
    from PIL import Image as Pillow
    from ultralytics.data.augment import classify_transforms

    large = np.repeat(np.repeat(image(), 6, axis=0), 6, axis=1)
    wanted = classify_transforms(224)(Pillow.fromarray(large)).numpy().transpose(1, 2, 0) * 255
    assert (spec.size_wh, spec.resize) == ((224, 224), "crop")
    assert np.abs(fit(large, spec)[0] - wanted).mean() < 0.6


def test_a_classifier_that_is_not_square_stretches() -> None:
    options = SourceOptions(random_weights=True, size_wh=(96, 64))
    assert open_architecture(Path("yolov8n-cls.yaml"), options).spec.preprocess.resize == "stretch"


@pytest.mark.parametrize("task", ["detect", "segment", "pose", "obb", "classify"])
def test_an_architecture_is_built_the_same_twice(task: str) -> None:
    name = Path(_MODELS[task][1])
    options = SourceOptions(size_wh=(64, 64), random_weights=True)
    first, second = open_architecture(name, options), open_architecture(name, options)
    feeds = {"image": np.random.default_rng(3).integers(0, 256, (1, 64, 64, 3), np.uint8)}
    given, again = first.parts[0].reference(feeds), second.parts[0].reference(feeds)
    assert first.spec.decode.task == task
    assert list(given) == [output.name for output in first.parts[0].outputs]
    for output in first.parts[0].outputs:
        assert given[output.name].shape == output.shape
        assert np.array_equal(given[output.name], again[output.name])
        assert 1e-4 < given[output.name].std() < 100


@pytest.mark.parametrize(
    ("name", "task"), [("yolo11n.yaml", "detect"), ("yolo11n-seg.yaml", "segment"), ("yolov8n-p2.yaml", "detect")]
)
def test_relatives_with_the_same_head_come_for_free(name: str, task: str) -> None:
    source = open_architecture(Path(name), SourceOptions(size_wh=(64, 64), random_weights=True))
    given = source.parts[0].reference({"image": np.zeros((1, 64, 64, 3), np.uint8)})
    assert source.spec.decode.task == task
    assert [given[output.name].shape for output in source.parts[0].outputs] == [
        output.shape for output in source.parts[0].outputs
    ]


@pytest.mark.parametrize("name", ["yoloe-v8n.yaml", "mine.yaml", "folder/yolov8n.yaml"])
def test_names_of_no_architecture_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedSource, match=r"names no architecture"):
        open_architecture(Path(name), SourceOptions(random_weights=True))


def test_an_architecture_without_weights_asks_for_them() -> None:
    with pytest.raises(ConfigError, match="where do its weights come from"):
        open_architecture(Path("yolov8n.yaml"), SourceOptions())


@pytest.mark.parametrize(
    ("name", "model_type", "reason"),
    [
        ("yolov10n.yaml", "DetectionModel", "v10Detect"),
        ("yolo26n.yaml", "DetectionModel", "end-to-end"),
        ("yolo26n-pose.yaml", "PoseModel", "Pose26"),
        ("yolov8n-world.yaml", "WorldModel", "WorldDetect"),
    ],
)
def test_checkpoints_with_other_heads_are_refused(name: str, model_type: str, reason: str, tmp_path: Path) -> None:
    network = getattr(ultralytics_import.tasks(), model_type)(name, verbose=False)
    torch.save({"model": network}, tmp_path / "other.pt")
    with pytest.raises(UnsupportedSource, match=reason):
        open_checkpoint(tmp_path / "other.pt", SourceOptions(size_wh=(64, 64)))


def test_a_size_that_the_coarsest_grid_does_not_divide_is_refused(tmp_path: Path) -> None:
    network = ultralytics_import.tasks().DetectionModel("yolov8n-p6.yaml", verbose=False)
    torch.save({"model": network}, tmp_path / "p6.pt")
    with pytest.raises(ConfigError, match="multiple of 64"):
        open_checkpoint(tmp_path / "p6.pt", SourceOptions(size_wh=(96, 96)))

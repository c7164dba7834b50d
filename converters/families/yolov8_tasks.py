"""The heads of Ultralytics networks: what each gives, under which roles, and which decoder reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from edgecv._internal.extras import require
from edgecv.converters.source import SIZE_STEP, logits_output
from edgecv.errors import ConfigError, UnsupportedSource
from edgecv.specs import DecodeSpec, PreprocessSpec, Task, TensorSpec

_DETECTOR_SIZE, _CLASSIFIER_SIZE = 640, 224


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One kind of head."""

    task: Task
    network: str  # Ultralytics' class of a network that ends in it
    decoder: str  # its registered name
    branch: str = ""  # role of the third output per stride; empty for none
    prototypes: bool = False  # mask prototypes come beside the strides


# By the class of the network's last layer. Heads that suppress by themselves or take text are not among them.
HEADS: Mapping[str, Head] = MappingProxyType(
    {
        "Detect": Head(task="detect", network="DetectionModel", decoder="yolov8-raw"),
        "Segment": Head(
            task="segment", network="SegmentationModel", decoder="yolov8-segment", branch="mask", prototypes=True
        ),
        "Pose": Head(task="pose", network="PoseModel", decoder="yolov8-pose", branch="keypoint"),
        "OBB": Head(task="obb", network="OBBModel", decoder="yolov8-obb", branch="angle"),
        "Classify": Head(task="classify", network="ClassificationModel", decoder="logits"),
    }
)


def head_of(network: Any, origin: str) -> Head:
    """The kind of a network's head; ``UnsupportedSource`` for one that EdgeCV does not decode."""
    torch = require("torch", "convert")
    layers = getattr(network, "model", None) if isinstance(network, torch.nn.Module) else None
    last = layers[-1] if isinstance(layers, torch.nn.Sequential) and len(layers) else None
    kind = type(last).__name__ if last is not None else type(network).__name__
    if last is None or kind not in HEADS:
        raise unread_head(origin, kind)
    if HEADS[kind].task != "classify":
        _check_raw(last, origin)
    return HEADS[kind]


def unread_head(origin: str, kind: str) -> UnsupportedSource:
    """The refusal of a network that ends in another head than those of ``HEADS``."""
    return UnsupportedSource(
        f"{origin} holds no YOLOv8 network that EdgeCV reads (its head is a {kind}).",
        f"Heads that are read: {', '.join(HEADS)}. For other models give an .onnx.",
    )


def _check_raw(last: Any, origin: str) -> None:
    kind = type(last).__name__
    if getattr(last, "one2one_cv2", None) is not None or getattr(last, "end2end", False):
        raise UnsupportedSource(
            f"{origin} has an end-to-end {kind} head (as YOLOv10 and YOLO26 have), which is another head than YOLOv8's.",
            "Give a YOLOv8 or YOLO11 network.",
        )
    if last.reg_max < 2:
        raise UnsupportedSource(
            f"{origin} has a {kind} head that predicts distances without a distribution over bins, as YOLOv8 does not.",
            "Give a YOLOv8 or YOLO11 network.",
        )


def preprocess_of(network: Any, head: Head, asked: tuple[int, int] | None) -> PreprocessSpec:
    """How images reach the network: the size asked for, else the one it was trained in.

    Detectors letterbox; classifiers bring the short side to the size and cut the centre, or stretch when the size is not square,
    as in their validation.
    """
    if head.task != "classify":
        return PreprocessSpec(size_wh=asked or _trained_size(network, _DETECTOR_SIZE))
    return classifier_preprocess(asked or _trained_size(network, _CLASSIFIER_SIZE))


def classifier_preprocess(size_wh: tuple[int, int]) -> PreprocessSpec:
    """How Ultralytics' classifiers see images in their validation."""
    resize: Literal["crop", "stretch"] = "crop" if size_wh[0] == size_wh[1] else "stretch"
    return PreprocessSpec(size_wh=size_wh, resize=resize, interpolation="antialias")


def _trained_size(network: Any, default: int) -> tuple[int, int]:
    given = getattr(network, "args", None) or {}
    size = given.get("imgsz", default) if isinstance(given, dict) else default
    edge = -(-size // SIZE_STEP) * SIZE_STEP if isinstance(size, int) and size > 0 else default
    return edge, edge


def decode_of(network: Any, head: Head) -> DecodeSpec:
    """How the outputs are read."""
    last = network.model[-1]
    options = {"keypoint_shape": [int(size) for size in last.kpt_shape]} if head.branch == "keypoint" else {}
    confidence = 0.0 if head.task == "classify" else DecodeSpec(task=head.task, decoder=head.decoder).confidence
    return DecodeSpec(
        task=head.task,
        decoder=head.decoder,
        labels=_labels(network, last.linear.out_features if head.task == "classify" else last.nc),
        confidence=confidence,
        options=options,
    )


def _labels(network: Any, classes: int) -> tuple[str, ...]:
    return numbered_names(getattr(network, "names", None) or {}, classes)


def numbered_names(names: Any, classes: int) -> tuple[str, ...]:
    """Names of classes from a list or from a dictionary by number; the number where there is none."""
    known = dict(enumerate(names)) if isinstance(names, (list, tuple)) else names if isinstance(names, dict) else {}
    texts = {str(number): str(name) for number, name in known.items()}
    return tuple(texts.get(str(number), str(number)) for number in range(classes))


def outputs_of(network: Any, head: Head, size_wh: tuple[int, int]) -> tuple[TensorSpec, ...]:
    """Specs of what ``raw_outputs`` gives, in its order; ``ConfigError`` where the coarsest grid does not divide the size."""
    last = network.model[-1]
    if head.task == "classify":
        return (logits_output(last.linear.out_features),)
    strides = tuple(int(stride) for stride in last.stride)
    if any(size % max(strides) for size in size_wh):
        coarsest, size = max(strides), f"{size_wh[0]}x{size_wh[1]}"
        raise ConfigError(
            f"This network needs an input size that is a multiple of {coarsest}, not {size}.",
            f"Use for example --imgsz {10 * coarsest}.",
        )
    return detector_outputs(
        head, size_wh, strides, last.reg_max, last.nc, last.cv4[0][-1].out_channels if head.branch else 0
    )


def detector_outputs(
    head: Head, size_wh: tuple[int, int], strides: tuple[int, ...], bins: int, classes: int, branch_channels: int
) -> tuple[TensorSpec, ...]:
    """Specs of a raw head: boxes and classes per stride, then the third branch per stride, then prototypes."""
    roles = [
        (f"{role}/{s}", channels, s) for s in strides for role, channels in (("box", 4 * bins), ("class", classes))
    ]
    if head.branch:
        roles += [(f"{head.branch}/{stride}", branch_channels, stride) for stride in strides]
    if head.prototypes:
        # The prototypes' network doubles the finest grid; a mask is a sum of all prototypes.
        roles.append(("proto", branch_channels, strides[0] // 2))
    return tuple(
        TensorSpec(
            name=role.replace("/", "_"),
            role=role,
            shape=(1, channels, size_wh[1] // stride, size_wh[0] // stride),
            dtype="float32",
            layout="NCHW",
        )
        for role, channels, stride in roles
    )


def raw_outputs(layers: Any, kept: set[int], x: Any) -> tuple[Any, ...]:
    """Run the layers on ``(1, 3, H, W)`` floats, up to the last convolutions of the head (or a classifier's logits).

    A layer's ``f`` names where its inputs come from (-1: the layer before).
    """
    made: list[Any] = []
    for layer in layers[:-1]:
        x = layer(_features(layer, made, x))
        made.append(x if layer.i in kept else None)
    return _head_outputs(layers[-1], _features(layers[-1], made, x))


def _features(layer: Any, made: list[Any], before: Any) -> Any:
    if layer.f == -1:
        return before
    return made[layer.f] if isinstance(layer.f, int) else [before if at == -1 else made[at] for at in layer.f]


def _head_outputs(last: Any, features: Any) -> tuple[Any, ...]:
    head = HEADS[type(last).__name__]
    if head.task == "classify":
        return (last.linear(last.pool(last.conv(features)).flatten(1)),)
    pairs = tuple(branch[level](x) for level, x in enumerate(features) for branch in (last.cv2, last.cv3))
    third = tuple(last.cv4[level](x) for level, x in enumerate(features)) if head.branch else ()
    return (*pairs, *third, *((last.proto(features[0]),) if head.prototypes else ()))

"""What is said about a model: how to feed it, what its tensors are, how to read them, how to run it.

They stand in ``bundle.json``, so they are msgspec structs: read strictly, an unknown or missing key names itself.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Task = Literal["detect", "segment", "pose", "obb", "classify", "promptable-segment"]


class PreprocessRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a frame becomes the pixels that the model was trained on, whatever the size of the model's input.

    Attributes:
        resize: ``letterbox`` keeps the aspect ratio and pads, ``stretch`` does not, ``crop`` cuts the centre.
        crop_fraction: Part of the resized image's short side that ``crop`` keeps.
        pad_value: Grey level of the padding, or its (blue, green, red), 0 to 255.
        pad_anchor: Where the image sits in its padding.
        interpolation: How pixels are interpolated; ``antialias`` filters when it shrinks, as Pillow does.
        color: Channel order the network was trained on.
        mean: Per channel (in ``color`` order), subtracted after dividing pixels by 255.
        std: Per channel (in ``color`` order), divided by after that.
    """

    resize: Literal["letterbox", "stretch", "crop"] = "letterbox"
    crop_fraction: float = 1.0
    pad_value: int | tuple[int, int, int] = 114
    pad_anchor: Literal["center", "top-left"] = "center"
    interpolation: Literal["linear", "area", "cubic", "antialias"] = "linear"
    color: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


class PreprocessSpec(PreprocessRule, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Geometry and colour: from a frame to the pixels the model was trained on; see ``PreprocessRule``.

    Attributes:
        size_wh: Width and height of the model's input in pixels.
    """

    size_wh: tuple[int, int]

    @classmethod
    def of(cls, rule: PreprocessRule, size_wh: tuple[int, int]) -> PreprocessSpec:
        """The rule for an input of one size."""
        return cls(size_wh=size_wh, **msgspec.structs.asdict(rule))

    @property
    def rule(self) -> PreprocessRule:
        """The same without the size."""
        fields = msgspec.structs.asdict(self)
        del fields["size_wh"]
        return PreprocessRule(**fields)


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input or output of one model file.

    Attributes:
        name: Its name in the file.
        role: What it means: ``image``, ``box/8``, ``class/8``, ``prediction``, ``logits`` ...; the number is the stride.
        shape: Its shape; -1 where the file leaves a dimension open.
        dtype: A numpy name: ``uint8``, ``int8``, ``float16``, ``float32``.
        layout: Order of the axes, such as ``NHWC`` or ``NCHW``; empty where that says nothing.
        scale: With ``zero_point``: real = scale * (stored - zero_point); ``None`` for tensors that hold real values.
        zero_point: See ``scale``.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    dtype: str
    layout: str = ""
    scale: float | None = None
    zero_point: int | None = None


class DecodeSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How raw outputs become results.

    Attributes:
        task: What the model does.
        decoder: Registered name of the decoder.
        labels: Name of each class.
        confidence: Lowest confidence kept by default.
        iou: Boxes of one class that overlap more than this are one object.
        max_detections: At most this many boxes per frame.
        options: What only this decoder needs.
    """

    task: Task
    decoder: str
    labels: tuple[str, ...] = ()
    confidence: float = 0.25
    iou: float = 0.7
    max_detections: int = 300
    options: dict[str, Any] = {}


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bare model file needs to be told: ``edgecv.load("model.onnx", spec=ModelSpec(...))``."""

    preprocess: PreprocessSpec
    decode: DecodeSpec


class RuntimeOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to run a model on this machine.

    Attributes:
        runtime: ``auto`` or a registered runtime.
        device: ``cpu``, ``cuda``, ``tensorrt``, ``gpu``, ``npu``, ``auto`` or ``edgetpu``: what the runtime shall compute on,
            and never something else.
        threads: Threads of the session; 0: as many as this process may use CPUs, by its binding and its quota.
        cores: Numbers of the cores that the session computes on, such as the big ones of a chip with two kinds; empty for any.
        lanes: Images that ``run`` computes at the same time when it is called from so many threads; they share ``threads``.
            With 2 each image takes longer, but more of them get done: no thread waits for another at the end of each layer
            (YOLOv8n INT8 in OpenVINO on two cores: 30 instead of 36 ms of processor time per image).
        precision: ``auto``, ``fp32``, ``fp16`` or ``int8``: which files of a bundle. ``bf16``: the float32 ones, computed in
            bfloat16; never chosen unasked, because scores differ (by up to 0.03 on YOLOv8n).
        variant: Name of a bundle's variant; empty for the best one.
        cache_dir: Where the runtime may keep compiled models; empty: nowhere for the CPU, EdgeCV's own cache for the others.
        extra: Options of one runtime, passed through by name.
    """

    runtime: str = "auto"
    device: str = "cpu"
    threads: int = 0
    cores: tuple[int, ...] = ()
    lanes: int = 1
    precision: Literal["auto", "fp32", "fp16", "int8", "bf16"] = "auto"
    variant: str = ""
    cache_dir: str = ""
    extra: dict[str, Any] = {}

    @property
    def lane_threads(self) -> int:
        """Threads of one image; 0 where nobody gave a number: ``open_session`` does."""
        return max(1, self.threads // self.lanes) if self.threads else 0

"""``SourceModel``: what every family hands to the exporters, whatever it was read from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecv.bundle import Source
from edgecv.errors import ConfigError
from edgecv.protocols import Array
from edgecv.results import Image
from edgecv.specs import ModelSpec, TensorSpec

SIZE_STEP = 32  # the coarsest stride of the detectors; other sizes cut cells in half


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """What the caller asks of a source.

    Attributes:
        size_wh: Input size in pixels; ``None`` for the source's own.
        trust_pickle: Run the code in a checkpoint that needs it.
    """

    size_wh: tuple[int, int] | None = None
    trust_pickle: bool = False

    def __post_init__(self) -> None:
        if self.size_wh and not all(size >= SIZE_STEP and size % SIZE_STEP == 0 for size in self.size_wh):
            raise ConfigError(
                f"The input size {self.size_wh[0]}x{self.size_wh[1]} is not a multiple of {SIZE_STEP}.",
                "Use for example --imgsz 640 or --imgsz 640x384.",
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceModel:
    """A float model that takes ``(1, H, W, 3)`` uint8 BGR pixels and gives its raw outputs.

    Attributes:
        name: Name of the bundle to be.
        family: ``yolov8`` ...
        licence: Licence of the weights, an SPDX expression or ``unknown``.
        origin: File and hash.
        spec: Preprocessing and decoding.
        input: The image tensor.
        outputs: The raw outputs, in order.
        reference: What the source itself computes for a fitted ``(H, W, 3)`` uint8 BGR picture: outputs by name. Independent of
            the export, so that parity means something.
        module: A torch module of that form; ``None`` when the source is a graph.
        graph: An ONNX model of that form; ``None`` when the source is a module.
    """

    name: str
    family: str
    licence: str
    origin: Source
    spec: ModelSpec
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    reference: Callable[[Image], dict[str, Array]]
    module: Any = None
    graph: Any = None


def raw_head_outputs(
    size_wh: tuple[int, int], strides: tuple[int, ...], bins: int, classes: int
) -> tuple[TensorSpec, ...]:
    """Specs of a raw detection head: box and class output per stride."""
    width, height = size_wh
    return tuple(
        TensorSpec(
            name=f"{role}_{stride}",
            role=f"{role}/{stride}",
            shape=(1, channels, height // stride, width // stride),
            dtype="float32",
            layout="NCHW",
        )
        for stride in strides
        for role, channels in (("box", 4 * bins), ("class", classes))
    )


def image_input(size_wh: tuple[int, int]) -> TensorSpec:
    """The uint8 image input that every export has: the graph normalises."""
    return TensorSpec(name="image", role="image", shape=(1, size_wh[1], size_wh[0], 3), dtype="uint8", layout="NHWC")


def origin(path: Path, sha256: str) -> Source:
    """The record of where a model came from; the folder is the user's own business."""
    return Source(file=path.name, sha256=sha256)

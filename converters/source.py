"""``SourceModel``: what every family hands to the exporters, whatever it was read from."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol, get_args

import numpy as np

from edgecv import registry
from edgecv.bundles.bundle import sha256_of
from edgecv.bundles.manifest import Source
from edgecv.converters.normalisation import read_normalisation
from edgecv.errors import ConfigError
from edgecv.protocols import Array, Tensors
from edgecv.quantize.quantizer import Exported
from edgecv.results import Image
from edgecv.specs import ModelSpec, TensorSpec

MAX_BATCH = 64  # beyond it a run holds gigabytes and no CPU gains anything
# What a caller may say of a source that not every source takes.
_CHOICES = ("trust_pickle", "weights", "random_weights", "pretrained", "preprocess", "labels", "activation")
Architecture = Literal["conv", "transformer", "float"]
Activation = Literal["", "softmax", "sigmoid", "none"]
MAX_SIZE = 4096  # a side at which a small detector's activations already take 15 GB
RANDOM = "random weights, seed 0"  # how the record of a source calls them
SIZE_STEP = 32  # the coarsest stride of the detectors; other sizes cut cells in half


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """What the caller asks of a source.

    Attributes:
        size_wh: Input size in pixels; ``None`` for the source's own.
        trust_pickle: Run the code in a checkpoint that needs it.
        weights: Weights for an architecture that was named.
        random_weights: Weights from seed 0 for an architecture that was named; batch norms see the calibration images.
        pretrained: The library's own weights, which it downloads.
        images: Calibration images, for batch norms of random weights; ``convert`` fills them in.
        preprocess: Of a foreign classifier's input: any of ``mean std color resize``; the rest is assumed and recorded.
        labels: Names of the classes, where the source has none.
        activation: What makes confidences of a foreign classifier's scores, where its file does not say: ``softmax``, ``sigmoid``
            (several labels per image, or one output for two classes) or ``none``.
        batch: Images per run, 1 to 64, fixed in the files: ``model.many(images)`` fills them.
    """

    size_wh: tuple[int, int] | None = None
    trust_pickle: bool = False
    weights: Path | None = None
    random_weights: bool = False
    pretrained: bool = False
    images: tuple[Path, ...] = ()
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    activation: Activation = ""
    batch: int = 1

    def accept(self, origin: str, *names: str) -> None:
        """Refuse what was given and means nothing to a source: what was asked for is never left out in silence.

        Args:
            origin: The source.
            names: Those of ``trust_pickle weights random_weights pretrained preprocess labels activation`` that it takes.

        Raises:
            ConfigError: another one was given.
        """
        for name in _CHOICES:
            given = getattr(self, name)
            if given and name not in names:
                flags = tuple(given) if isinstance(given, Mapping) else (name,)
                said = ", ".join(f"--{flag.replace('_', '-')}" for flag in flags)
                raise ConfigError(f"{said} means nothing for {origin}.", f"Leave {said} out.")

    def __post_init__(self) -> None:
        if type(self.batch) is not int or not 1 <= self.batch <= MAX_BATCH:
            raise ConfigError(
                f"The batch size must be 1 to {MAX_BATCH}, not {self.batch}.", f"Use --batch 1 to --batch {MAX_BATCH}."
            )
        if self.weights is not None:
            object.__setattr__(self, "weights", Path(self.weights))  # a caller may give a string
        object.__setattr__(self, "labels", tuple(self.labels))
        read_normalisation(self.preprocess)
        if self.activation not in get_args(Activation):
            raise ConfigError(f"There is no activation '{self.activation}'.", "Use softmax, sigmoid or none.")
        if sum((self.weights is not None, self.random_weights, self.pretrained)) > 1:
            raise ConfigError("--weights, --random-weights and --pretrained exclude each other.", "Give one of them.")
        if self.size_wh and not all(SIZE_STEP <= size <= MAX_SIZE and size % SIZE_STEP == 0 for size in self.size_wh):
            raise ConfigError(
                f"The input size {self.size_wh[0]}x{self.size_wh[1]} is no multiple of {SIZE_STEP} up to {MAX_SIZE}.",
                "Use for example --imgsz 640 or --imgsz 640x384.",
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """One network of a model; most models have one, SAM has an encoder and a decoder.

    Attributes:
        inputs: In the order of the module's arguments.
        outputs: In the order of what the module returns.
        reference: What the source itself computes: outputs by name from inputs by name. Independent of the export, so that
            parity means something.
        name: ``main`` for the only part, else ``encoder`` or ``decoder``.
        module: A torch module; ``None`` when the source is a graph.
        graph: An ONNX model; ``None`` when the source is a module.
        architecture: ``conv`` or ``transformer``: which recipes suit it; ``float``: it is never quantized.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    reference: Callable[[Tensors], dict[str, Array]]
    name: str = "main"
    module: Any = None
    graph: Any = None
    architecture: Architecture = "conv"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """Inputs of a part for one image, and what the source makes of them; both by the part's names."""

    feeds: Tensors
    outputs: Tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far an export may be from its source, in every output on every image.

    Attributes:
        cosine: The least cosine of the whole output. It sees a wrong direction, and no wrong scale.
        worst: The largest difference of one element, as a part of the largest magnitude in the output.
    """

    cosine: float
    worst: float


# fp16 keeps eleven bits of each weight; errors add up over sixty layers. The limits of the worst element are several times what
# was measured on members of every family (docs/adr/0013).
TOLERANCES: Mapping[str, Tolerance] = MappingProxyType(
    {"fp32": Tolerance(cosine=0.9999, worst=0.001), "fp16": Tolerance(cosine=0.999, worst=0.05)}
)
# Of ResNets and SAMs, which were measured to be nearer.
CLOSE_TOLERANCES: Mapping[str, Tolerance] = MappingProxyType(
    {**TOLERANCES, "fp16": Tolerance(cosine=0.999, worst=0.02)}
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceModel:
    """A float model that takes ``(N, H, W, 3)`` uint8 BGR pixels and gives its raw outputs; ``N`` is 1 but for ``--batch``.

    Attributes:
        name: Name of the bundle to be.
        family: ``yolov8`` ...
        licence: Licence of the weights, an SPDX expression or ``unknown``.
        origin: File and hash.
        spec: Preprocessing and decoding.
        parts: The networks, in the order they run.
        assumptions: What was assumed because the source does not say; printed and recorded.
        trained: False for random weights: there is nothing in an image that two such models could agree on.
        prompts: Example inputs of later parts that no earlier part makes.
        tolerances: How far exports of a float precision may be from the source.
    """

    name: str
    family: str
    licence: str
    origin: Source
    spec: ModelSpec
    parts: tuple[Part, ...]
    assumptions: tuple[str, ...] = ()
    trained: bool = True
    prompts: Mapping[str, Array] = field(default_factory=dict)
    tolerances: Mapping[str, Tolerance] = field(default_factory=lambda: TOLERANCES)

    @property
    def batch(self) -> int:
        """How many images one run takes."""
        return self.parts[0].inputs[0].shape[0]

    def entry(self, image: Image) -> dict[str, Array]:
        """Input of the first part for one fitted ``(H, W, 3)`` uint8 BGR image.

        Of a batch, the first row is the image, each further one the image shifted sideways: rows that mix are seen.
        """
        rows = np.stack([np.roll(image, row * image.shape[1] // self.batch, axis=1) for row in range(self.batch)])
        return {self.parts[0].inputs[0].name: rows}

    def examples(self, image: Image) -> dict[str, Example]:
        """What the source makes of one fitted image, part by part; later parts take what earlier ones give."""
        known: dict[str, Array] = {**self.entry(image), **self.prompts}
        found = {}
        for part in self.parts:
            feeds = {spec.name: known[spec.name] for spec in part.inputs}
            outputs = part.reference(feeds)
            found[part.name] = Example(feeds=feeds, outputs=outputs)
            known |= outputs
        return found


class Exporter(Protocol):
    """Writes parts in one format; made without arguments.

    Attributes:
        format: The name of the format in a bundle.
        runtime: The registered runtime that opens what it writes.
    """

    format: ClassVar[str]
    runtime: ClassVar[str]

    @abstractmethod
    def export(self, part: Part, folder: Path) -> Exported:
        """Write a part in fp32 into an empty folder."""
        ...

    @abstractmethod
    def half(self, exported: Exported, part: Part, folder: Path) -> Exported:
        """Write the same in fp16 into an empty folder."""
        ...


@dataclass(frozen=True, slots=True)
class Family:
    """How a kind of source is read. A plain function may be registered in its place: its networks are convolutions.

    Attributes:
        open: Reads the source at a path, or the one of that name.
        architecture: Which recipes suit its networks.
    """

    open: Callable[[Path, SourceOptions], SourceModel]
    architecture: Architecture = "conv"

    def __call__(self, path: Path, options: SourceOptions) -> SourceModel:
        """Read the source at a path with ``open``."""
        return self.open(path, options)


def family(name: str) -> Family:
    """A registered family; ``UnknownPlugin`` where there is none, ``PluginError`` where it cannot be loaded."""
    found = registry.resolve("families", name)
    return found if isinstance(found, Family) else Family(found)


def exporter(name: str) -> Exporter:
    """A registered exporter; errors as ``family``, and ``PluginError`` for one that lacks a member."""
    found = registry.resolve("exporters", name)
    kind: type[Exporter] = registry.check(found, Exporter, f"The exporter '{name}'")
    return kind()


def image_input(size_wh: tuple[int, int]) -> TensorSpec:
    """The uint8 image input that every export has: the graph normalises."""
    return TensorSpec(name="image", role="image", shape=(1, size_wh[1], size_wh[0], 3), dtype="uint8", layout="NHWC")


def logits_output(classes: int) -> TensorSpec:
    """The output of a classifier."""
    return TensorSpec(name="logits", role="logits", shape=(1, classes), dtype="float32")


def class_labels(given: tuple[str, ...], known: tuple[str, ...], origin: str) -> tuple[str, ...]:
    """The labels that the caller gave, one for each class, or those that the source has; else ``ConfigError``."""
    if given and len(given) != len(known):
        raise ConfigError(f"{origin} has {len(known)} classes, not {len(given)}.", "Give one label per class.")
    return given or known


def origin(path: Path) -> Source:
    """The record of where a model came from; the folder is the user's own business."""
    return Source(file=path.name, sha256=sha256_of(path))


def made_origin(name: str, how: str = RANDOM) -> Source:
    """The record of weights that no file of the user's holds."""
    text = f"{name}: {how}"
    return Source(file=text, sha256=hashlib.sha256(text.encode()).hexdigest())


def no_weights(name: str, hint: str) -> ConfigError:
    """The refusal of an architecture without a word on its weights."""
    return ConfigError(f"'{name}' names an architecture; where do its weights come from?", hint)

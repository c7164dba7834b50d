"""``Quantizer``: what the adapter of each format offers to the search."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from edgecv import registry
from edgecv._internal.foreign import foreign_errors
from edgecv._internal.quiet import quiet
from edgecv.errors import QuantizationError
from edgecv.protocols import Array
from edgecv.quantize.gradients.stats import GradientStats
from edgecv.quantize.recipes import QuantizeRecipe
from edgecv.quantize.record import ErrorSource
from edgecv.specs import TensorSpec

# For one image, outputs by layer: of the float model, and of the INT8 model as real numbers.
LayerOutputs = tuple[Mapping[str, Array], Mapping[str, Array]]


@contextmanager
def library(name: str) -> Iterator[None]:
    """Calls into a quantizing library, in silence; what it raises is a ``QuantizationError``: a recipe fails, the rest goes on."""
    hint = "Report it with the model; --debug shows the whole error."
    with foreign_errors(QuantizationError, f"{name} cannot quantize this network", hint), quiet():
        yield


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exported:
    """One part as files of one format."""

    files: tuple[Path, ...]  # the file to open first, then what lies beside it
    inputs: tuple[TensorSpec, ...]  # as the part's, in its order, under the names of the file
    outputs: tuple[TensorSpec, ...]  # likewise; layout and stored type may differ


class Quantizer(Protocol):
    """Quantizes one float model by any number of recipes; calibration runs once."""

    def __init__(self, files: Sequence[Path], outputs: tuple[TensorSpec, ...], work: Path) -> None:
        """Prepare the float model in ``files``, whose outputs are ``outputs``; ``work`` is a folder for what lies in between."""

    @abstractmethod
    def calibrate(self, images: Sequence[Array], gradients: GradientStats | None = None, seed: int = 0) -> None:
        """Measure what recipes need to know; called again with another seed, it forgets what it has measured.

        Args:
            images: ``(N, H, W, 3)`` each.
            gradients: Of the network that the files were made from, collected over the same images; recipes whose method
                is ``gradient`` use them. A format may have no use for them.
            seed: Of samples that are drawn.
        """

    @abstractmethod
    def quantize(self, recipe: QuantizeRecipe, folder: Path) -> tuple[tuple[Path, ...], tuple[TensorSpec, ...]]:
        """Write the model of a recipe into ``folder``: its files, and the specs of its outputs.

        Raises:
            QuantizationError: the runtime would not run it as integers.
        """

    @abstractmethod
    def layer_outputs(self, recipe: QuantizeRecipe, images: Sequence[Array]) -> Iterator[LayerOutputs]:
        """What every quantized layer gives for each image; nothing where layers cannot be told apart."""


@runtime_checkable
class TellsErrorSources(Protocol):
    """A quantizer that can tell which kinds of rounding make the error of a static recipe."""

    @abstractmethod
    def error_sources(self, recipe: QuantizeRecipe, images: Sequence[Array], source: Path) -> tuple[ErrorSource, ...]:
        """What each kind does alone, measured on images ``(N, H, W, 3)``; nothing where the model has no class scores.

        ``source`` is the float model before its weights were rounded, if they were.
        """


@runtime_checkable
class WeighsRanges(Protocol):
    """A quantizer that can tell how many ranges it chooses by gradients."""

    @abstractmethod
    def weighted(self, recipe: QuantizeRecipe) -> int:
        """Of how many tensors a recipe that was made has the range by gradients; 0: none was found in the network."""


def quantizer_type(model_format: str) -> type[Quantizer]:
    """The registered quantizer of a format.

    Raises:
        UnknownPlugin: there is none.
        PluginError: it cannot be loaded, or lacks a member.
    """
    found = registry.resolve("quantizers", model_format)
    kind: type[Quantizer] = registry.check(found, Quantizer, f"The quantizer '{model_format}'")
    return kind

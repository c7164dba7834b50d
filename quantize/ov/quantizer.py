"""Static INT8 for OpenVINO: the adapter to NNCF."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv.protocols import Array
from edgecv.quantize.gradients.stats import GradientStats
from edgecv.quantize.ov.ir import names_of, save_ir
from edgecv.quantize.ov.ranges import set_ranges
from edgecv.quantize.quantizer import LayerOutputs, library
from edgecv.quantize.recipes import QuantizeRecipe
from edgecv.specs import TensorSpec

_CONVOLUTIONS = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData"}


class NncfQuantizer:
    """Quantizes one float OpenVINO model by any number of recipes."""

    def __init__(self, files: Sequence[Path], outputs: tuple[TensorSpec, ...], work: Path) -> None:
        """Take a float model; ``work`` is a folder for files in between.

        Raises:
            MissingDependency: nncf or openvino is not installed.
        """
        require("nncf", "convert")
        self._path = files[0]
        self._outputs = outputs
        self._work = work
        self._images: list[Array] = []
        self._gradients = GradientStats()
        self._weighted: dict[str, int] = {}  # how many ranges each recipe has by gradients

    def calibrate(
        self,
        images: Sequence[Array],
        gradients: GradientStats | None = None,
        seed: int = 0,  # noqa: ARG002
    ) -> None:
        """Remember the images ``(N, H, W, 3)``, which NNCF reads with each recipe, and the gradients."""
        self._images = list(images)
        self._gradients = gradients or GradientStats()

    def quantize(self, recipe: QuantizeRecipe, folder: Path) -> tuple[tuple[Path, ...], tuple[TensorSpec, ...]]:
        """Write the INT8 model into ``folder``: its files, and the specs of its outputs."""
        openvino, nncf = require("openvino", "convert"), require("nncf", "convert")
        model = openvino.Core().read_model(str(self._path))
        kept = names_of(model)
        with library("NNCF"):
            make = _compressed if recipe.kind == "weights" else self._static
            quantized = make(nncf, model, recipe)
        return save_ir(quantized, folder / "model.xml", kept=kept), self._outputs

    def weighted(self, recipe: QuantizeRecipe) -> int:
        """See ``WeighsRanges``."""
        return self._weighted.get(recipe.name, 0)

    def layer_outputs(
        self,
        recipe: QuantizeRecipe,  # noqa: ARG002  (the seam's form)
        images: Sequence[Array],  # noqa: ARG002
    ) -> Iterator[LayerOutputs]:
        """Nothing: NNCF merges layers, so that those of the two models do not correspond."""
        return iter(())

    def _static(self, nncf: Any, model: Any, recipe: QuantizeRecipe) -> Any:
        images = drawn(self._images, recipe.seed)
        presets = {True: nncf.QuantizationPreset.MIXED, False: nncf.QuantizationPreset.PERFORMANCE}
        quantized = nncf.quantize(
            model,
            nncf.Dataset(images),
            preset=presets[recipe.activations == "uint8"],
            subset_size=len(images),
            fast_bias_correction=recipe.bias_correction != "accurate",
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                disable_bias_correction=recipe.bias_correction == "none"
            ),
            ignored_scope=nncf.IgnoredScope(names=list(recipe.float_layers)),
        )
        if recipe.method == "gradient" and self._gradients.tensors:
            self._weighted[recipe.name] = set_ranges(quantized, self._path, self._images[0], self._gradients)
        return quantized


def drawn(images: list[Array], seed: int) -> list[Array]:
    """The images that NNCF sees: all with seed 0; with another, a draw of seven of eight, since it takes whole tensors of each."""
    if seed == 0:
        return images
    kept = max(1, len(images) * 7 // 8)
    return [images[at] for at in np.sort(np.random.default_rng(seed).permutation(len(images))[:kept])]


def _compressed(nncf: Any, model: Any, recipe: QuantizeRecipe) -> Any:
    present = {node.get_type_name() for node in model.get_ops()}
    # NNCF refuses a type that is absent.
    kept = sorted(present & _CONVOLUTIONS) if recipe.weights_of == "products" else []
    return nncf.compress_weights(
        model, mode=nncf.CompressWeightsMode.INT8_SYM, ignored_scope=nncf.IgnoredScope(types=kept)
    )

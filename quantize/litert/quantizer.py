"""INT8 for TFLite: the adapter to ai-edge-quantizer.

Ranges come from our own statistics (``ranges.py``) instead of the quantizer's calibrator, whose moving average lets the first
images dominate; it takes them as its calibration result, a public argument.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgecv._internal.extras import require
from edgecv.errors import QuantizationError
from edgecv.protocols import Array
from edgecv.quantize.gradients.stats import GradientStats
from edgecv.quantize.litert.entry import take_pixels_as_integers
from edgecv.quantize.litert.padding import pad_with_zero_points
from edgecv.quantize.quantizer import LayerOutputs, library
from edgecv.quantize.ranges import Range, TensorStats, copy_groups, gradient, joined, minmax, range_of, union
from edgecv.quantize.recipes import QuantizeRecipe
from edgecv.quantize.statistics import Statistics
from edgecv.specs import TensorSpec

_COPYING = ("CONCATENATION", "SLICE", "SPLIT", "MAX_POOL_2D", "RESIZE_NEAREST_NEIGHBOR", "PAD", "RESHAPE", "TRANSPOSE")
_ARITHMETIC = ("ADD", "SUB", "MUL", "DIV")
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_NO_QUANTIZE = "no_quantize"
_PIXEL_RANGE = (0.0, 255.0)


class LitertQuantizer:
    """Quantizes one float TFLite model by any number of recipes; calibration runs once."""

    def __init__(self, files: Sequence[Path], outputs: tuple[TensorSpec, ...], work: Path) -> None:  # noqa: ARG002
        """Take a float model.

        Raises:
            MissingDependency: ai-edge-quantizer or ai-edge-litert is not installed.
        """
        self._path = files[0]
        self._outputs = outputs
        # Not allocated: of a large network every tensor at once is more memory than there is, and weights alone need none.
        self._interpreter: Any = _interpreter(files[0])
        self._names = {detail["index"]: detail["name"] for detail in self._interpreter.get_tensor_details()}
        # `_get_ops_details` is the only way to the graph without a flatbuffer schema of our own.
        self._operators = [op for op in self._interpreter._get_ops_details() if op["op_name"] != "DELEGATE"]
        self._stats = Statistics(self._runs)

    def calibrate(self, images: Sequence[Array], gradients: GradientStats | None = None, seed: int = 0) -> None:
        """Measure every float tensor over images ``(N, H, W, 3)``; see ``Quantizer``."""
        self._stats = Statistics(self._runs, images, gradients, seed)

    def quantize(self, recipe: QuantizeRecipe, folder: Path) -> tuple[tuple[Path, ...], tuple[TensorSpec, ...]]:
        """Write the INT8 model into ``folder``: its files, and the specs of its outputs, which keep their stored integers."""
        quantizer = require("ai_edge_quantizer.quantizer", "convert")
        path = folder / "model.tflite"
        rules, ranges = self._rules(recipe), self._calibration(recipe) if recipe.kind == "static" else None
        with library("ai-edge-quantizer"):
            work = quantizer.Quantizer(str(self._path))
            work.load_quantization_recipe(rules)
            done = work.quantize(ranges)
            done.export_model(str(path), overwrite=True)
        pad_with_zero_points(path)
        if recipe.entry == "integer":
            take_pixels_as_integers(path)
        return (path,), _stored_outputs(path, self._outputs)

    def weighted(self, recipe: QuantizeRecipe) -> int:  # noqa: ARG002  (the seam's form)
        """See ``WeighsRanges``."""
        return self._stats.weighted()

    def layer_outputs(self, recipe: QuantizeRecipe, images: Sequence[Array]) -> Iterator[LayerOutputs]:
        """See ``Quantizer``: a layer is a convolution, named after the tensor it makes and seen after its SiLU."""
        with tempfile.TemporaryDirectory() as folder:
            (path, *_), _ = self.quantize(recipe, Path(folder))
            interpreter = _keeping_all(path)
        details = {detail["name"]: detail for detail in interpreter.get_tensor_details()}
        tensors = {
            layer: tensor
            for layer, tensor in self._layer_tensors().items()
            if tensor in details and details[tensor]["dtype"] == np.int8
        }
        entry = interpreter.get_input_details()[0]["index"]
        for wanted, image in zip(self._runs(images), images, strict=True):
            interpreter.set_tensor(entry, image)
            interpreter.invoke()
            found = {
                name: _real(interpreter.get_tensor(details[name]["index"]), details[name]) for name in tensors.values()
            }
            yield (
                {n: wanted[tensor] for n, tensor in tensors.items()},
                {n: found[tensor] for n, tensor in tensors.items()},
            )

    def _layer_tensors(self) -> dict[str, str]:
        """Of every convolution: the tensor that leaves it, after its SiLU where it has one."""
        silu = self._silu_inputs()
        products = {
            self._names[int(index)]: self._names[int(op["outputs"][0])]
            for op in self._operators
            if op["op_name"] == "MUL"
            for index in op["inputs"]
        }
        made = [self._names[int(op["outputs"][0])] for op in self._operators if op["op_name"] in _CONVOLUTIONS]
        return {name: products[name] if name in silu else name for name in made}

    def _runs(self, images: Sequence[Array]) -> Iterator[Mapping[str, Array]]:
        made = {int(index) for op in self._operators for index in op["outputs"]}
        interpreter = _keeping_all(self._path)
        detail = {d["index"]: d for d in interpreter.get_tensor_details()}
        floats = [index for index in made if detail[index]["dtype"] == np.float32]
        entry = interpreter.get_input_details()[0]["index"]
        for image in images:
            interpreter.set_tensor(entry, image)
            interpreter.invoke()
            yield {self._names[index]: interpreter.get_tensor(index) for index in floats}

    def _rules(self, recipe: QuantizeRecipe) -> list[dict[str, Any]]:
        recipes: Any = require("ai_edge_quantizer.recipe", "convert")
        rules: list[dict[str, Any]]
        if recipe.kind == "weights":
            rules = recipes.dynamic_wi8_afp32()
            return (
                rules if recipe.weights_of == "everything" else [{**r, "operation": "FULLY_CONNECTED"} for r in rules]
            )
        rules = recipes.static_wi8_ai8()
        # int8 softmax has a fixed scale of 1/256, which collapses a classifier over many classes.
        kept = [(".*", "SOFTMAX")]
        at = next(at for at, op in enumerate(self._operators) if op["op_name"] == "CONV_2D")
        # Pixels are normalised in float: rounded before and after, they lose half a grey level each time.
        before = self._operators[:at] if recipe.entry == "float" else []
        entry = [op for op in before if op["op_name"] in _ARITHMETIC]
        stem = [self._operators[at]] if recipe.stem == "float" else []
        kept += [(re.escape(self._names[int(op["outputs"][0])]), op["op_name"]) for op in (*entry, *stem)]
        kept += [(re.escape(layer), "*") for layer in recipe.float_layers]
        return rules + [
            {"regex": regex, "operation": operation, "algorithm_key": _NO_QUANTIZE, "op_config": rules[0]["op_config"]}
            for regex, operation in kept
        ]

    def _calibration(self, recipe: QuantizeRecipe) -> dict[str, dict[str, Array]]:
        stats = self._stats.of(recipe.method)
        pixels = set(self._pixels()) if recipe.entry == "integer" else set()
        made = {self._names[int(i)] for op in self._operators if op["op_name"] not in _COPYING for i in op["outputs"]}
        ranges: dict[str, Range] = {}
        for group in copy_groups(self._copies(), stats):
            parts = list(self._group_ranges({name: stats[name] for name in sorted(group)}, recipe, made))
            ranges |= dict.fromkeys(group, union([*parts, *([_PIXEL_RANGE] if group & pixels else [])]))
        return {
            name: {"min": np.array([low], np.float32), "max": np.array([high], np.float32)}
            for name, (low, high) in ranges.items()
        }

    def _group_ranges(
        self, group: Mapping[str, TensorStats], recipe: QuantizeRecipe, made: set[str]
    ) -> Iterator[Range]:
        """What one range for tensors that are copied into each other has to hold.

        Where the gradients are known, the tensors that are computed tell it together: copies bring no error of their own.
        """
        outputs, silu_inputs = self._output_names(), self._silu_inputs()
        weighted = [name for name in group if group[name].weights is not None and name not in outputs]
        sources = [name for name in weighted if name in made] or weighted
        for silu in (False, True):
            alike = [group[name] for name in sources if group[name].silu is silu]
            if alike:
                yield gradient(joined(alike))
        for name, stats in group.items():
            if name in outputs:
                yield minmax(stats)
            elif name not in weighted and (name in made or not sources):
                yield range_of(stats, recipe.method, recipe.silu_method, name in silu_inputs)

    def _output_names(self) -> set[str]:
        return {detail["name"] for detail in self._interpreter.get_output_details()}

    def _silu_inputs(self) -> set[str]:
        users: dict[int, set[str]] = {}
        for op in self._operators:
            for index in op["inputs"]:
                users.setdefault(int(index), set()).add(op["op_name"])
        return {self._names[index] for index, names in users.items() if {"LOGISTIC", "MUL"} <= names}

    def _pixels(self) -> Iterator[str]:
        """Tensors that hold the pixels as floats."""
        return (self._names[int(op["outputs"][0])] for op in self._operators if op["op_name"] == "CAST")

    def _copies(self) -> Iterator[list[str]]:
        """Groups of tensors that an operator only copies into each other."""
        for op in self._operators:
            if op["op_name"] in _COPYING:
                sources = op["inputs"] if op["op_name"] == "CONCATENATION" else op["inputs"][:1]
                yield [self._names[int(index)] for index in (*sources, *op["outputs"])]


def _interpreter(path: Path, **options: Any) -> Any:
    return require("ai_edge_litert.interpreter", "convert").Interpreter(model_path=str(path), **options)


def _keeping_all(path: Path) -> Any:
    """An interpreter that keeps the output of every operator after the run: what calibration has to see.

    Raises:
        QuantizationError: there is not that much memory.
    """
    interpreter = _interpreter(path, num_threads=os.cpu_count(), experimental_preserve_all_tensors=True)
    try:
        interpreter.allocate_tensors()
    except (RuntimeError, MemoryError) as error:
        raise QuantizationError(
            f"LiteRT cannot hold every tensor of {path.name} at once, as calibration needs: {error or 'out of memory'}.",
            "Use a smaller --imgsz or --batch, or another format.",
        ) from error
    return interpreter


def _real(stored: Array, detail: Mapping[str, Any]) -> Array:
    scale, zero_point = detail["quantization"]
    return ((stored.astype(np.float32) - zero_point) * scale).astype(np.float32)


def _stored_outputs(path: Path, specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    interpreter = _interpreter(path)
    details = interpreter.get_signature_runner().get_output_details()
    changed = []
    for spec in specs:
        detail = details[spec.name]
        scale, zero_point = detail["quantization"]
        stored = {"scale": float(scale), "zero_point": int(zero_point)} if scale else {}
        changed.append(msgspec.structs.replace(spec, dtype=np.dtype(detail["dtype"]).name, **stored))
    return tuple(changed)

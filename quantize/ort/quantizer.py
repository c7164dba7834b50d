"""Static INT8 for ONNX Runtime: the adapter to ``onnxruntime.quantization``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgecv._internal.extras import require
from edgecv._internal.printable import nearest
from edgecv.errors import QuantizationError
from edgecv.protocols import Array
from edgecv.quantize.gradients.stats import GradientStats
from edgecv.quantize.lint.lint import refuse_findings
from edgecv.quantize.ort.bias import IMAGES, correct_biases
from edgecv.quantize.ort.error_sources import error_sources
from edgecv.quantize.ort.graph import Graph, load, op_counts, save
from edgecv.quantize.ort.layers import block_of, feeds_silu, layer_tensors, rounded_tensors
from edgecv.quantize.ort.opset import lower_opset
from edgecv.quantize.ort.stem import find_stem, pack_stem
from edgecv.quantize.ort.tensorrt import quantize_for_tensorrt
from edgecv.quantize.ort.weights import halve_tables, quantize_products, store_convolutions
from edgecv.quantize.quantizer import LayerOutputs, library
from edgecv.quantize.ranges import Range, minmax, range_of
from edgecv.quantize.recipes import CPU_CLASSES, QuantizeRecipe
from edgecv.quantize.record import ErrorSource
from edgecv.quantize.statistics import Statistics
from edgecv.specs import TensorSpec

MINIMUM_FUSED = 0.9  # below this share of integer convolutions a "quantized" model is slower than float
_MOST_BYTES = 2**31 - 1  # of a protobuf message
_FLOAT_TENSORS = ("float32",)
_MOST_REDUCED = 64  # seven bits: 2 x 255 x 64 fits into 16 bits


class OrtStaticQuantizer:
    """Quantizes one float ONNX model by any number of recipes; calibration runs once."""

    def __init__(self, files: Sequence[Path], outputs: tuple[TensorSpec, ...], work: Path) -> None:
        """Take a float model; ``work`` is a folder for files in between.

        Raises:
            QuantizationError: its weights are larger than one protobuf message.
            MissingDependency: onnx or onnxruntime is not installed.
        """
        size = sum(path.stat().st_size for path in files)
        if size > _MOST_BYTES:
            raise QuantizationError(
                f"The float model has {size / 2**30:.1f} GiB, larger than the 2 GiB that onnxruntime's quantizer reads.",
                "Use --fp32 for onnx, or --to openvino for INT8.",
            )
        self._outputs = outputs
        self._work = work
        self._prepared = work / "prepared.onnx"
        preprocess = require("onnxruntime.quantization.shape_inference", "convert").quant_pre_process
        with library("onnxruntime"):
            # Symbolic shapes would need a fixed-shape graph to change nothing; ours are fixed.
            preprocess(str(files[0]), str(self._prepared), skip_symbolic_shape=True)
        self._stats = Statistics(self._run_all)
        self._corrected_on: Sequence[Array] = ()

    def calibrate(self, images: Sequence[Array], gradients: GradientStats | None = None, seed: int = 0) -> None:
        """Measure every float tensor over images ``(N, H, W, 3)``; see ``Quantizer``."""
        self._corrected_on = images[:IMAGES]
        self._stats = Statistics(self._run_all, images, gradients, seed)

    def quantize(self, recipe: QuantizeRecipe, folder: Path) -> tuple[tuple[Path, ...], tuple[TensorSpec, ...]]:
        """Write the INT8 model into ``folder``: its files, and the specs of its outputs, which keep their stored integers.

        Raises:
            QuantizationError: the runtime would not run it as integers.
        """
        out = folder / "model.onnx"
        if recipe.kind == "weights":
            quantize_products(self._prepared, out)
            if recipe.weights_of == "everything":
                store_convolutions(out)
            halve_tables(out)
            return (out,), self._outputs
        prepared = load(self._prepared)
        quantized = self._quantized(recipe, prepared, out)
        if recipe.placement == "inputs":
            save(quantized, out)
            refuse_findings(out, recipe.name)
            return (out,), self._outputs
        stem = find_stem(quantized) if recipe.stem == "packed" else None
        if stem is not None:
            pack_stem(quantized, stem, _MOST_REDUCED if recipe.reduce_range else 127)
        outputs = _integer_outputs(quantized, self._outputs)
        save(quantized, out)
        config = CPU_CLASSES[recipe.cpu_class].config if recipe.cpu_class in CPU_CLASSES else {}
        check_fused(out, self._work, int(stem is None) + len(recipe.float_layers), config)
        return (out,), outputs

    def weighted(self, recipe: QuantizeRecipe) -> int:  # noqa: ARG002  (the seam's form)
        """See ``WeighsRanges``."""
        return self._stats.weighted()

    def layer_outputs(self, recipe: QuantizeRecipe, images: Sequence[Array]) -> Iterator[LayerOutputs]:
        """See ``Quantizer``: a layer is a convolution, seen after its SiLU, since ranges are chosen by the error there."""
        quantized = self._quantized(recipe, load(self._prepared), self._work / "layers.onnx")
        prepared = load(self._prepared)
        floats = layer_tensors(prepared)
        rounded = rounded_tensors(quantized, floats)
        names = [name for name in floats if name in rounded]
        pairs = zip(
            self._run(prepared, [floats[name] for name in names], images),
            self._run(quantized, [rounded[name] for name in names], images),
            strict=True,
        )
        for wanted, found in pairs:
            yield {n: wanted[floats[n]] for n in names}, {n: found[rounded[n]] for n in names}

    def error_sources(self, recipe: QuantizeRecipe, images: Sequence[Array], source: Path) -> tuple[ErrorSource, ...]:
        """See ``TellsErrorSources``; the first convolution counts as float, since ``stem.py`` computes it in its own way."""
        prepared = load(self._prepared)
        quantized = self._quantized(recipe, load(self._prepared), self._work / "sources.onnx")

        def run(model: Any, names: Sequence[str]) -> Iterator[dict[str, Array]]:
            return self._run(model, names, images)

        before = load(source) if recipe.rounding != "nearest" else None
        return error_sources(quantized, prepared, self._outputs, run, before)

    def _run_all(self, images: Sequence[Array]) -> Iterator[dict[str, Array]]:
        """Every float tensor of the float model, for each image."""
        model = load(self._prepared)
        made = [name for node in model.graph.node for name in node.output if name]
        names = dict.fromkeys([*Graph(model).output_names(), *made])
        for tensors in self._run(model, list(names), images):
            yield {name: tensor for name, tensor in tensors.items() if tensor.dtype.name in _FLOAT_TENSORS}

    def _run(self, model: Any, names: Sequence[str], images: Sequence[Array]) -> Iterator[dict[str, Array]]:
        """Tensors of a model by name, for each image; graph optimizations are off so that each tensor exists."""
        runtime = require("onnxruntime", "onnx")
        value = require("onnx.helper", "convert").ValueInfoProto
        shown = type(model)()
        shown.CopyFrom(model)
        known = set(Graph(model).output_names())
        shown.graph.output.extend(value(name=name) for name in dict.fromkeys(names) if name not in known)
        options = runtime.SessionOptions()
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        with tempfile.NamedTemporaryFile(dir=self._work, suffix=".onnx") as file:
            save(shown, Path(file.name))
            session = runtime.InferenceSession(file.name, options, providers=["CPUExecutionProvider"])
        entry = session.get_inputs()[0].name
        for image in images:
            yield dict(zip(names, session.run(list(names), {entry: image}), strict=True))

    def _quantized(self, recipe: QuantizeRecipe, prepared: Any, out: Path) -> Any:
        if recipe.placement == "inputs":
            _check_layers(prepared, recipe.float_layers)
            lower_opset(prepared)
            quantize_for_tensorrt(prepared, self._stats.of(recipe.method), recipe)
            return prepared
        tools: Any = require("onnxruntime.quantization", "convert")
        calibrate: Any = require("onnxruntime.quantization.calibrate", "convert")
        types = {"uint8": tools.QuantType.QUInt8, "int8": tools.QuantType.QInt8}
        cache = self._work / "ranges.json"
        ranges = {
            name: (np.float32(low), np.float32(high)) for name, (low, high) in self._ranges(recipe, prepared).items()
        }
        with library("onnxruntime"):
            data = calibrate.TensorsData(tools.CalibrationMethod.MinMax, ranges)
            calibrate.save_tensors_data(data, str(cache), smooth_quant=False)
            tools.quantize_static(
                str(self._prepared),
                str(out),
                None,
                quant_format=tools.QuantFormat.QDQ,
                activation_type=types[recipe.activations],
                weight_type=types[recipe.weights],
                per_channel=recipe.per_channel,
                reduce_range=recipe.reduce_range,
                nodes_to_exclude=[*_float_nodes(prepared), *_blocks(prepared, recipe.float_layers)],
                calibrate_method=tools.CalibrationMethod.MinMax,
                calibration_cache_path=str(cache),
                extra_options={"ActivationSymmetric": recipe.symmetric},
            )
        cache.unlink()
        quantized = load(out)
        if recipe.bias_correction != "none":
            correct_biases(quantized, prepared, lambda model, names: self._run(model, names, self._corrected_on))
        return quantized

    def _ranges(self, recipe: QuantizeRecipe, prepared: Any) -> dict[str, Range]:
        graph = Graph(prepared)
        outputs = set(graph.output_names())
        # An output keeps its whole range: a score that is cut off is a changed result.
        return {
            name: minmax(stats)
            if name in outputs
            else range_of(stats, recipe.method, recipe.silu_method, feeds_silu(graph, name))
            for name, stats in self._stats.of(recipe.method).items()
        }


def check_fused(model: Path, work: Path, kept_float: int = 0, config: Mapping[str, str] | None = None) -> None:
    """Check that onnxruntime turns the convolutions of ``model`` into integer ones on this CPU, but for ``kept_float``.

    ``config`` holds session options under which this CPU fuses what the model's own fuses by itself.

    Raises:
        QuantizationError: it does not.
    """
    runtime = require("onnxruntime", "onnx")
    optimized = work / "optimized.onnx"
    options = runtime.SessionOptions()
    options.optimized_model_filepath = str(optimized)
    options.log_severity_level = 4
    for key, value in (config or {}).items():
        options.add_session_config_entry(key, value)
    runtime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    counts = op_counts(load(optimized))
    optimized.unlink()
    fused = counts["QLinearConv"]
    total = fused + counts["Conv"] + counts["FusedConv"] - kept_float
    if fused < MINIMUM_FUSED * total:
        raise QuantizationError(
            f"onnxruntime runs only {fused} of {total} convolutions as integers: it would be slower than float.",
            "Choose the recipe for this CPU, or keep float with --fp32.",
        )


def _float_nodes(model: Any) -> list[str]:
    """Names of the nodes up to the first convolution: they stay float here (``stem.py`` takes what it can)."""
    names = []
    for node in model.graph.node:
        names.append(node.name)
        if node.op_type == "Conv":
            break
    return names


def _blocks(model: Any, layers: Sequence[str]) -> list[str]:
    """Names of the nodes of the named convolutions and of their activations.

    Raises:
        QuantizationError: there is no such convolution.
    """
    _check_layers(model, layers)
    convolutions = {node.name: node for node in model.graph.node if node.op_type == "Conv"}
    graph = Graph(model)
    return [node.name for layer in layers for node in block_of(graph, convolutions[layer])]


def _check_layers(model: Any, layers: Sequence[str]) -> None:
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    missing = next((layer for layer in layers if layer not in convolutions), None)
    if missing is not None:
        raise QuantizationError(
            f"The model has no convolution '{missing}' to keep float.",
            nearest(missing, convolutions).strip() or "`edgecv convert --analyze` lists their names.",
        )


def _integer_outputs(model: Any, specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """End the graph before its last ``DequantizeLinear``: the decoder turns into floats only the cells it needs."""
    graph = Graph(model)
    changed = []
    for spec, value in zip(specs, model.graph.output, strict=True):
        last = graph.maker(spec.name)
        before = graph.maker(last.input[0]) if last is not None and last.op_type == "DequantizeLinear" else None
        if last is None or before is None or before.op_type != "QuantizeLinear" or len(graph.users(last.input[0])) != 1:
            changed.append(spec)
            continue
        scale, zero = graph.constant(before.input[1]), graph.constant(before.input[2])
        if scale is None or zero is None or scale.ndim:
            changed.append(spec)
            continue
        model.graph.node.remove(last)
        before.output[0] = spec.name
        value.type.tensor_type.elem_type = require("onnx.helper", "convert").np_dtype_to_tensor_dtype(zero.dtype)
        changed.append(msgspec.structs.replace(spec, dtype=zero.dtype.name, scale=float(scale), zero_point=int(zero)))
    return tuple(changed)

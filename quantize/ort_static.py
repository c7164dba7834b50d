"""Static INT8 for ONNX Runtime: the adapter to ``onnxruntime.quantization``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgecv.errors import QuantizationError
from edgecv.extras import require
from edgecv.protocols import Array
from edgecv.quantize.onnx_graph import Graph, load, op_counts, save
from edgecv.quantize.ranges import ESTIMATORS, Range, TensorStats, collect
from edgecv.quantize.recipes import QuantizeRecipe
from edgecv.quantize.stem import find_stem, pack_stem, patch_moments
from edgecv.quiet import quiet
from edgecv.specs import TensorSpec

MINIMUM_FUSED = 0.9  # below this share of integer convolutions a "quantized" model is slower than float
_STEM_PICTURES = 24  # second moments of pixel patches are stable long before
_FLOAT_TENSORS = ("float32",)


class OrtStaticQuantizer:
    """Quantizes one float ONNX model by any number of recipes; calibration runs once."""

    def __init__(self, files: Sequence[Path], outputs: tuple[TensorSpec, ...], work: Path) -> None:
        """Take a float model; ``work`` is a folder for files in between.

        Raises:
            MissingDependency: onnx or onnxruntime is not installed.
        """
        self._outputs = outputs
        self._work = work
        self._prepared = work / "prepared.onnx"
        preprocess = require("onnxruntime.quantization.shape_inference", "convert").quant_pre_process
        with quiet():
            # Symbolic shapes would need a fixed-shape graph to change nothing; ours are fixed.
            preprocess(str(files[0]), str(self._prepared), skip_symbolic_shape=True)
        self._stats: dict[str, TensorStats] = {}
        self._pictures: list[Array] = []

    def calibrate(self, pictures: Sequence[Array]) -> None:
        """Measure every float tensor over pictures ``(N, H, W, 3)``."""
        self._pictures = [picture[None] for batch in pictures[:_STEM_PICTURES] for picture in batch][:_STEM_PICTURES]
        self._stats = collect(self._run_all(pictures), len(pictures))

    def quantize(self, recipe: QuantizeRecipe, folder: Path) -> tuple[tuple[Path, ...], tuple[TensorSpec, ...]]:
        """Write the INT8 model into ``folder``: its files, and the specs of its outputs, which keep their stored integers.

        Raises:
            QuantizationError: the runtime would not run it as integers.
        """
        out = folder / "model.onnx"
        if recipe.kind == "weights":
            self._quantize_weights(out)
            return (out,), self._outputs
        prepared = load(self._prepared)
        quantized = self._quantized(recipe, prepared, out)
        if recipe.stem == "packed":
            stem = find_stem(quantized)
            if stem is not None:
                pack_stem(quantized, stem, patch_moments(stem, self._pictures))
        outputs = _integer_outputs(quantized, self._outputs)
        save(quantized, out)
        check_fused(out, self._work, kept_float=int(recipe.stem == "float"))
        return (out,), outputs

    def _quantize_weights(self, out: Path) -> None:
        """Weights of matrix products as int8, activations quantized as they come: what transformers bear."""
        tools: Any = require("onnxruntime.quantization", "convert")
        with quiet():
            tools.quantize_dynamic(
                str(self._prepared),
                str(out),
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                weight_type=tools.QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},
            )

    def _run_all(self, pictures: Sequence[Array]) -> Iterator[dict[str, Array]]:
        """Run the float model with every tensor as an output, graph optimizations off so that each one exists."""
        runtime = require("onnxruntime", "onnx")
        model = load(self._prepared)
        value = require("onnx.helper", "convert").ValueInfoProto
        known = set(Graph(model).output_names())
        for name in [name for node in model.graph.node for name in node.output if name and name not in known]:
            model.graph.output.append(value(name=name))
        everything = self._work / "every-tensor.onnx"
        save(model, everything)
        options = runtime.SessionOptions()
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        session = runtime.InferenceSession(str(everything), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        entry = session.get_inputs()[0].name
        for picture in pictures:
            tensors = dict(zip(names, session.run(names, {entry: picture}), strict=True))
            yield {name: tensor for name, tensor in tensors.items() if tensor.dtype.name in _FLOAT_TENSORS}
        everything.unlink()

    def _quantized(self, recipe: QuantizeRecipe, prepared: Any, out: Path) -> Any:
        tools: Any = require("onnxruntime.quantization", "convert")
        calibrate: Any = require("onnxruntime.quantization.calibrate", "convert")
        types = {"uint8": tools.QuantType.QUInt8, "int8": tools.QuantType.QInt8}
        cache = self._work / "ranges.json"
        ranges = {
            name: (np.float32(low), np.float32(high)) for name, (low, high) in self._ranges(recipe, prepared).items()
        }
        with quiet():
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
                nodes_to_exclude=_float_nodes(prepared),
                calibrate_method=tools.CalibrationMethod.MinMax,
                calibration_cache_path=str(cache),
            )
        cache.unlink()
        return load(out)

    def _ranges(self, recipe: QuantizeRecipe, prepared: Any) -> dict[str, Range]:
        graph = Graph(prepared)
        outputs = set(graph.output_names())
        chosen: dict[str, Range] = {}
        for name, stats in self._stats.items():
            method = recipe.silu_method if _feeds_silu(graph, name) else recipe.method
            # An output keeps its whole range: a score that is cut off is a changed result.
            chosen[name] = ESTIMATORS["minmax" if name in outputs else method](stats)
        return chosen


def check_fused(model: Path, work: Path, kept_float: int = 0) -> None:
    """Check that onnxruntime turns the convolutions of ``model`` into integer ones on this CPU, but for ``kept_float``.

    Raises:
        QuantizationError: it does not.
    """
    runtime = require("onnxruntime", "onnx")
    optimized = work / "optimized.onnx"
    options = runtime.SessionOptions()
    options.optimized_model_filepath = str(optimized)
    options.log_severity_level = 4
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


def _feeds_silu(graph: Graph, tensor: str) -> bool:
    users = graph.users(tensor)
    sigmoids = [node.output[0] for node in users if node.op_type == "Sigmoid"]
    return any(node.op_type == "Mul" and set(node.input) & set(sigmoids) for node in users)


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

"""Exports the parts of a model as ONNX files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from edgecv._internal.extras import require
from edgecv.converters.exporters.common import MAX_FILE_BYTES, example_inputs, library, weight_bytes
from edgecv.converters.source import Part
from edgecv.errors import UnsupportedSource
from edgecv.quantize.ort import graph as onnx_graph
from edgecv.quantize.ort.opset import lower_opset
from edgecv.quantize.ort.pixels import cast_pixels_first
from edgecv.quantize.quantizer import Exported

OPSET = (
    18  # what torch's exporter writes natively; it is written as 17, which TensorRT 8.6 reads, where that says the same
)


class OnnxExporter:
    """Writes a part as one float ``.onnx`` with fixed shapes; weights beyond 2 GiB lie beside it."""

    format: ClassVar[str] = "onnx"
    runtime: ClassVar[str] = "onnxruntime"

    def export(self, part: Part, folder: Path) -> Exported:
        """See ``Exporter``.

        Raises:
            ConversionError: torch cannot express the network as ONNX.
            MissingDependency: onnx, torch or onnxscript is not installed.
        """
        path = folder / "model.onnx"
        if part.graph is not None:
            onnx_graph.save(part.graph, path)
        else:
            _export_module(part, path)
        return Exported(files=_files(path), inputs=part.inputs, outputs=part.outputs)

    def half(self, exported: Exported, part: Part, folder: Path) -> Exported:
        """See ``Exporter``; inputs and outputs keep their types. TensorRT takes this file: pixels are cast first.

        Raises:
            UnsupportedSource: the weights are larger than one protobuf message.
            ConversionError: onnxruntime's converter cannot express the network.
        """
        size = sum(path.stat().st_size for path in exported.files)
        if size > MAX_FILE_BYTES:
            raise UnsupportedSource(
                f"The float model has {size / 2**30:.1f} GiB, larger than the 2 GiB that the fp16 converter reads.",
                "Use --fp32 for onnx, or --to openvino --fp16.",
            )
        path = folder / "model.onnx"
        model = onnx_graph.load(exported.files[0])
        cast_pixels_first(model)
        float16 = require("onnxruntime.transformers.float16", "convert")
        onnx_graph.unshare_constants(model, "Resize")  # the converter defines the casts of a shared one twice
        with library(f"{part.name} cannot be stored in fp16", "Use --fp32 for onnx."):
            halved = float16.convert_float_to_float16(model, keep_io_types=True)
        onnx_graph.save(halved, path)
        return replace(exported, files=_files(path))


def _files(path: Path) -> tuple[Path, ...]:
    return (path, *sorted(other for other in path.parent.iterdir() if other != path))


def _export_module(part: Part, path: Path) -> None:
    torch = require("torch", "convert")
    large = weight_bytes(part.module) > MAX_FILE_BYTES
    require("onnxscript", "convert")
    with library(f"torch cannot export {part.name} to ONNX"), torch.no_grad():
        torch.onnx.export(
            part.module,
            example_inputs(part),
            str(path),
            input_names=[spec.name for spec in part.inputs],
            output_names=[spec.name for spec in part.outputs],
            opset_version=OPSET,
            dynamo=True,
            external_data=large,
            verbose=False,
        )
    if not large:
        model = onnx_graph.load(path)
        if lower_opset(model):
            onnx_graph.save(model, path)

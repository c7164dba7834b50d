"""The ONNX exporter."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from edgecv.converters.source import SourceModel
from edgecv.errors import ConversionError
from edgecv.extras import require
from edgecv.quantize import onnx_graph
from edgecv.quiet import quiet

OPSET = 18  # what torch's exporter writes natively; onnxruntime's static quantization takes up to 20


class OnnxExporter:
    """Writes a source as one float ``.onnx`` file with fixed shapes."""

    format: ClassVar[str] = "onnx"
    suffix: ClassVar[str] = ".onnx"

    def export(self, source: SourceModel, path: Path) -> None:
        """Write ``path``.

        Raises:
            ConversionError: torch cannot express the network as ONNX.
            MissingDependency: onnx, torch or onnxscript is not installed.
        """
        if source.graph is not None:
            onnx_graph.save(source.graph, path)
        else:
            _export_module(source, path)


def _export_module(source: SourceModel, path: Path) -> None:
    torch = require("torch", "convert")
    require("onnxscript", "convert")
    example = torch.zeros(source.input.shape, dtype=torch.uint8)
    try:
        with torch.no_grad(), quiet():
            torch.onnx.export(
                source.module,
                (example,),
                str(path),
                input_names=[source.input.name],
                output_names=[output.name for output in source.outputs],
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except (RuntimeError, torch.onnx.OnnxExporterError) as error:
        raise ConversionError(
            f"torch cannot export {source.name} to ONNX: {str(error).splitlines()[0]}",
            "Report it with the model; --debug shows the whole error.",
        ) from error

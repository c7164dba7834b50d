"""Exports the parts of a model as OpenVINO IR."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

from edgecv._internal.extras import require
from edgecv.converters.exporters.common import channels_last, example_inputs, library
from edgecv.converters.source import Part
from edgecv.quantize.ort import graph as onnx_graph
from edgecv.quantize.ov.ir import names_of, number_above, save_ir
from edgecv.quantize.quantizer import Exported


class OpenVinoExporter:
    """Writes a part as OpenVINO IR: ``model.xml`` and ``model.bin``. Images leave it in NHWC, as its kernels compute."""

    format: ClassVar[str] = "openvino"
    runtime: ClassVar[str] = "openvino"

    def export(self, part: Part, folder: Path) -> Exported:
        """See ``Exporter``.

        Raises:
            ConversionError: OpenVINO cannot express the network.
            MissingDependency: openvino or torch is not installed.
        """
        kept = frozenset() if part.graph is None else onnx_graph.names_of(part.graph)
        number_above(kept)
        return _save(_converted(part), part, folder, half=False, kept=kept)

    def half(self, exported: Exported, part: Part, folder: Path) -> Exported:
        """See ``Exporter``; weights are stored in fp16, the device computes in what it has."""
        openvino = require("openvino", "convert")
        model = openvino.Core().read_model(str(exported.files[0]))
        return _save(model, part, folder, half=True, kept=names_of(model))


def _converted(part: Part) -> Any:
    """The part as an OpenVINO model with the part's names.

    Both roads go through ``convert_model``: it fuses x * sigmoid(x) into one Swish node, which makes the quantized graph a fifth
    faster than the same network through ``core.read_model`` (docs/adr/0006).
    """
    openvino = require("openvino", "convert")
    shapes = [openvino.PartialShape(list(spec.shape)) for spec in part.inputs]
    with library(f"OpenVINO cannot convert {part.name}"):
        if part.graph is not None:
            model = _from_graph(openvino, part)
        else:
            with require("torch", "convert").no_grad():
                model = openvino.convert_model(part.module, example_input=example_inputs(part), input=shapes)
    model = _channels_last(openvino, model, part)
    for port, spec in zip((*model.inputs, *model.outputs), (*part.inputs, *part.outputs), strict=True):
        port.get_tensor().set_names({spec.name})
    return model


def _from_graph(openvino: Any, part: Part) -> Any:
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "model.onnx"
        onnx_graph.save(part.graph, path)
        return openvino.convert_model(str(path))


def _channels_last(openvino: Any, model: Any, part: Part) -> Any:
    """The model with its NCHW outputs in NHWC: turning them back costs YOLOv8n a millisecond of 28."""
    made = openvino.opset13
    results = []
    for result, spec in zip(model.get_results(), part.outputs, strict=True):
        value = result.input_value(0)
        if spec.layout == "NCHW":
            value.get_tensor().set_names(set())  # an .onnx has named it; the name is the output's
            value = made.transpose(value, made.constant([0, 2, 3, 1])).output(0)
        results.append(made.result(value))
    return openvino.Model(results, model.get_parameters(), part.name)


def _save(model: Any, part: Part, folder: Path, half: bool, kept: frozenset[str]) -> Exported:
    outputs = tuple(channels_last(spec) for spec in part.outputs)
    return Exported(files=save_ir(model, folder / "model.xml", half, kept), inputs=part.inputs, outputs=outputs)

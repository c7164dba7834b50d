"""The TFLite exporter, through litert-torch: no TensorFlow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from edgecv._internal.extras import require
from edgecv.converters.exporters.common import MAX_FILE_BYTES, channels_last, example_inputs, library, weight_bytes
from edgecv.converters.source import Part
from edgecv.errors import UnsupportedSource
from edgecv.quantize.quantizer import Exported
from edgecv.specs import TensorSpec

_HALF_WEIGHTS = "float_casting"


class TfliteExporter:
    """Writes a part as ``model.tflite``. Images leave it in NHWC, the layout its kernels compute in."""

    format: ClassVar[str] = "tflite"
    runtime: ClassVar[str] = "litert"

    def export(self, part: Part, folder: Path) -> Exported:
        """See ``Exporter``.

        Raises:
            UnsupportedSource: the source is a graph (TFLite is made from a torch module alone), or too large for the format.
            ConversionError: litert-torch cannot express the network.
            MissingDependency: litert-torch is not installed.
        """
        if part.module is None:
            raise UnsupportedSource(
                "An .onnx cannot be converted to TFLite.", "Give the checkpoint (.pt) it was exported from."
            )
        if weight_bytes(part.module) > MAX_FILE_BYTES:
            raise UnsupportedSource(
                f"The weights of {part.name} need {weight_bytes(part.module) / 2**30:.1f} GiB; a .tflite holds 2.",
                "Use --to onnx (weights beside the file) or --to openvino.",
            )
        torch, litert = require("torch", "convert"), require("litert_torch", "convert")
        path = folder / "model.tflite"
        with library(f"litert-torch cannot convert {part.name}"), torch.no_grad():
            content = litert.convert(_channels_last(torch, part), example_inputs(part)).model_content()
        path.write_bytes(content)  # its own writer ends the process when the disk is full
        return Exported(
            files=(path,),
            inputs=tuple(_named(spec, f"args_{at}") for at, spec in enumerate(part.inputs)),
            outputs=tuple(_named(channels_last(spec), f"output_{at}") for at, spec in enumerate(part.outputs)),
        )

    def half(self, exported: Exported, part: Part, folder: Path) -> Exported:
        """See ``Exporter``; weights are stored in fp16, computation stays fp32 where the kernels want it.

        Raises:
            ConversionError: ai-edge-quantizer cannot express the network.
        """
        quantizer = require("ai_edge_quantizer.quantizer", "convert")
        path = folder / "model.tflite"
        with library(f"{part.name} cannot be stored in fp16", "Use --fp32 for tflite."):
            work = quantizer.Quantizer(str(exported.files[0]))
            work.load_quantization_recipe(_half_recipe())
            work.quantize().export_model(str(path), overwrite=True)
        return replace(exported, files=(path,))


def _half_recipe() -> list[dict[str, Any]]:
    weights = {"num_bits": 16, "symmetric": True, "granularity": "TENSORWISE", "dtype": "FLOAT"}
    return [
        {
            "regex": ".*",
            "operation": operation,
            "algorithm_key": _HALF_WEIGHTS,
            "op_config": {
                "weight_tensor_config": weights,
                "compute_precision": "FLOAT",
                "explicit_dequantize": True,
                "skip_checks": False,
                "min_weight_elements": 0,
            },
        }
        for operation in ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "FULLY_CONNECTED")
    ]


def _channels_last(torch: Any, part: Part) -> Any:
    """The module with its NCHW outputs in NHWC: the transpositions cancel against those of the layout TFLite computes in."""
    moved = [spec.layout == "NCHW" for spec in part.outputs]

    class ChannelsLast(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.module = part.module

        def forward(self, *inputs: Any) -> Any:
            made = self.module(*inputs)
            made = made if isinstance(made, (tuple, list)) else (made,)
            return tuple(t.permute(0, 2, 3, 1) if move else t for t, move in zip(made, moved, strict=True))

    return ChannelsLast().eval()


def _named(spec: TensorSpec, name: str) -> TensorSpec:
    return msgspec.structs.replace(spec, name=name)

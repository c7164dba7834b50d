"""One table: a name finds its code, lazily.

Adding a runtime, decoder, source, sink, family or format means one line here. Packages outside EdgeCV register through
entry points of the group ``edgecv.KIND`` (such as ``edgecv.runtimes``); a built-in name wins over an entry point.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from edgecv.errors import PluginError, UnknownPlugin

_TABLE: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "runtimes": {
            "litert": "edgecv.runtimes.litert:LiteRtSession",
            "onnxruntime": "edgecv.runtimes.ort:OnnxRuntimeSession",
            "openvino": "edgecv.runtimes.ov:OpenVinoSession",
        },
        "decoders": {
            "logits": "edgecv.vision.classify:LogitsDecoder",
            "yolov8-raw": "edgecv.vision.yolov8:RawHeadDecoder",
            "yolov8": "edgecv.vision.yolov8:PredictionDecoder",
            "yolov8-segment": "edgecv.vision.yolov8_tasks:SegmentDecoder",
            "yolov8-pose": "edgecv.vision.yolov8_tasks:PoseDecoder",
            "yolov8-obb": "edgecv.vision.yolov8_tasks:ObbDecoder",
        },
        # Sources and sinks are named by the scheme of their URI.
        "sources": {
            "file": "edgecv.pipelines.sources.video:VideoSource",
            "usb": "edgecv.pipelines.sources.camera:UsbSource",
            "csi": "edgecv.pipelines.sources.csi:CsiSource",
            "rtsp": "edgecv.pipelines.sources.network:NetworkSource",
            "rtsps": "edgecv.pipelines.sources.network:NetworkSource",
            "http": "edgecv.pipelines.sources.network:NetworkSource",
            "https": "edgecv.pipelines.sources.network:NetworkSource",
            "gst": "edgecv.pipelines.sources.gstreamer:GstSource",
            "images": "edgecv.pipelines.sources.images:ImagesSource",
            "synthetic": "edgecv.pipelines.sources.synthetic:SyntheticSource",
            "recording": "edgecv.pipelines.recording.recording:open_recorded",
        },
        "sinks": {
            "csv": "edgecv.pipelines.sinks.csv:CsvSink",
            "jsonl": "edgecv.pipelines.sinks.jsonl:JsonlSink",
            "preview": "edgecv.pipelines.preview.sink:PreviewSink",
            "metrics": "edgecv.pipelines.sinks.metrics:MetricsSink",
            "segments": "edgecv.pipelines.sinks.segments:SegmentsSink",
            "snapshots": "edgecv.pipelines.sinks.snapshots:SnapshotsSink",
            "video": "edgecv.pipelines.sinks.video:VideoSink",
            "webhook": "edgecv.pipelines.sinks.webhook:WebhookSink",
            "record": "edgecv.pipelines.recording.sink:RecordSink",
        },
        # Steps by the `type` of a table in app.toml: a strict msgspec struct of options with `build(labels) -> Step`.
        "steps": {
            "classes": "edgecv.pipelines.steps.class_filter:Classes",
            "classify": "edgecv.pipelines.steps.classify:Classify",
            "confidence": "edgecv.pipelines.steps.confidence:Confidence",
            "line": "edgecv.pipelines.steps.line:Line",
            "segment": "edgecv.pipelines.steps.segment:Segment",
            "track": "edgecv.pipelines.steps.track:Track",
            "zone": "edgecv.pipelines.steps.zone:Zone",
            "zone_filter": "edgecv.pipelines.steps.zone_filter:ZoneFilter",
        },
        # Gates likewise, with `build() -> Gate`: they say before the model runs whether a frame is worth it.
        "gates": {"motion": "edgecv.pipelines.steps.motion:Motion"},
        # What `edgecv convert` reads, by file suffix or by name, and what it writes, by format.
        "families": {
            ".pt": "edgecv.converters.yolov8:open_checkpoint",
            ".yaml": "edgecv.converters.yolov8:open_architecture",
            ".onnx": "edgecv.converters.onnx_source:open_onnx",
            "resnet18": "edgecv.converters.resnet:open_named",
            "resnet34": "edgecv.converters.resnet:open_named",
            "resnet50": "edgecv.converters.resnet:open_named",
            "resnet101": "edgecv.converters.resnet:open_named",
            "resnet152": "edgecv.converters.resnet:open_named",
            "mobile_sam": "edgecv.converters.sam:open_sam",
            "sam_b": "edgecv.converters.sam:open_sam",
            "sam_l": "edgecv.converters.sam:open_sam",
            "sam_h": "edgecv.converters.sam:open_sam",
            "sam2.1_t": "edgecv.converters.sam2:open_sam2",
        },
        "exporters": {
            "onnx": "edgecv.converters.onnx_target:OnnxExporter",
            "openvino": "edgecv.converters.openvino_target:OpenVinoExporter",
            "tflite": "edgecv.converters.tflite_target:TfliteExporter",
        },
        "quantizers": {
            "onnx": "edgecv.quantize.ort_static:OrtStaticQuantizer",
            "openvino": "edgecv.quantize.nncf_static:NncfQuantizer",
            "tflite": "edgecv.quantize.litert_static:LitertQuantizer",
        },
        "scenarios": {
            "single_stream": "edgecv.benchmarks.scenarios:single_stream",
            "pipeline": "edgecv.benchmarks.scenarios:pipeline",
        },
    }
)

KINDS: tuple[str, ...] = tuple(_TABLE)


def names(kind: str) -> tuple[str, ...]:
    """Every name of a kind, built in or installed, sorted."""
    return tuple(sorted({*_TABLE[kind], *(point.name for point in _entry_points(kind))}))


def target(kind: str, name: str) -> str:
    """``module:attribute`` behind a name.

    Raises:
        UnknownPlugin: no such name; the hint lists what there is.
    """
    if name in _TABLE[kind]:
        return _TABLE[kind][name]
    for point in _entry_points(kind):
        if point.name == name:
            return point.value
    known = names(kind)
    close = get_close_matches(name, known, n=1)
    suggestion = f"Did you mean '{close[0]}'? " if close else ""
    raise UnknownPlugin(
        f"There is no {kind.removesuffix('s')} named '{name}'.",
        f"{suggestion}Known: {', '.join(known)}.",
    )


def resolve(kind: str, name: str) -> Any:
    """Import what a name stands for.

    Raises:
        UnknownPlugin: no such name.
        PluginError: the plug-in is installed but broken.
    """
    module_name, _, attribute = target(kind, name).partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise PluginError(
            f"The {kind.removesuffix('s')} '{name}' ({module_name}:{attribute}) cannot be loaded: {error}",
            "Reinstall the package that provides it.",
        ) from error


def _entry_points(kind: str) -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group=f"edgecv.{kind}")

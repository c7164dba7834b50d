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
            "csv": "edgecv.pipelines.sinks.files.csv:CsvSink",
            "jsonl": "edgecv.pipelines.sinks.files.jsonl:JsonlSink",
            "preview": "edgecv.pipelines.preview.sink:PreviewSink",
            "metrics": "edgecv.pipelines.sinks.metrics.sink:MetricsSink",
            "segments": "edgecv.pipelines.sinks.video.segments:SegmentsSink",
            "snapshots": "edgecv.pipelines.sinks.video.snapshots:SnapshotsSink",
            "video": "edgecv.pipelines.sinks.video.video:VideoSink",
            "webhook": "edgecv.pipelines.sinks.webhook.sink:WebhookSink",
            "record": "edgecv.pipelines.recording.sink:RecordSink",
        },
        # Steps by the `type` of a table in app.toml: a strict msgspec struct of options with `build(labels) -> Step`.
        "steps": {
            "classes": "edgecv.pipelines.steps.filter.classes:Classes",
            "classify": "edgecv.pipelines.steps.second_model.classify:Classify",
            "confidence": "edgecv.pipelines.steps.filter.confidence:Confidence",
            "line": "edgecv.pipelines.steps.count.line:Line",
            "segment": "edgecv.pipelines.steps.second_model.segment:Segment",
            "track": "edgecv.pipelines.steps.track.tracker:Track",
            "zone": "edgecv.pipelines.steps.count.zone:Zone",
            "zone_filter": "edgecv.pipelines.steps.filter.zone:ZoneFilter",
        },
        # Gates likewise, with `build() -> Gate`: they say before the model runs whether a frame is worth it.
        "gates": {"motion": "edgecv.pipelines.steps.motion:Motion"},
        # What `edgecv convert` reads, by file suffix or by name, and what it writes, by format.
        "families": {
            ".pt": "edgecv.converters.families.yolov8:open_checkpoint",
            ".yaml": "edgecv.converters.families.yolov8:open_architecture",
            ".onnx": "edgecv.converters.families.foreign_onnx.open:open_onnx",
            "resnet18": "edgecv.converters.families.resnet:open_named",
            "resnet34": "edgecv.converters.families.resnet:open_named",
            "resnet50": "edgecv.converters.families.resnet:open_named",
            "resnet101": "edgecv.converters.families.resnet:open_named",
            "resnet152": "edgecv.converters.families.resnet:open_named",
            "mobile_sam": "edgecv.converters.families.sam.sam:open_sam",
            "sam_b": "edgecv.converters.families.sam.sam:open_sam",
            "sam_l": "edgecv.converters.families.sam.sam:open_sam",
            "sam_h": "edgecv.converters.families.sam.sam:open_sam",
            "sam2.1_t": "edgecv.converters.families.sam.sam2:open_sam2",
        },
        "exporters": {
            "onnx": "edgecv.converters.exporters.ort:OnnxExporter",
            "openvino": "edgecv.converters.exporters.ov:OpenVinoExporter",
            "tflite": "edgecv.converters.exporters.litert:TfliteExporter",
        },
        "quantizers": {
            "onnx": "edgecv.quantize.ort.quantizer:OrtStaticQuantizer",
            "openvino": "edgecv.quantize.ov.quantizer:NncfQuantizer",
            "tflite": "edgecv.quantize.litert.quantizer:LitertQuantizer",
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

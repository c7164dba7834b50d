"""One table: a name finds its code, which is imported when it is first used.

Adding a runtime, decoder, source, sink, family or format means one line here. Packages outside EdgeCV register through
entry points of the group ``edgecv.KIND`` (such as ``edgecv.runtimes``). A name stands for one thing: where two packages, or a
package and EdgeCV, register the same name, using it is an error.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, overload

from edgecv._internal.printable import nearest
from edgecv.errors import PluginError, UnknownPlugin

if TYPE_CHECKING:
    from edgecv.protocols import DecoderType, GateOptions, RuntimeAdapter, SinkType, SourceType

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
            **dict.fromkeys(
                ("rtsp", "rtsps", "http", "https"), "edgecv.pipelines.sources.network.source:NetworkSource"
            ),
            "gst": "edgecv.pipelines.sources.gstreamer:GstSource",
            "images": "edgecv.pipelines.sources.images:ImagesSource",
            "synthetic": "edgecv.pipelines.sources.synthetic:SyntheticSource",
            "recording": "edgecv.pipelines.recording.source:RecordingSource",
        },
        "sinks": {
            "clips": "edgecv.pipelines.sinks.clips.sink:ClipsSink",
            "counts": "edgecv.pipelines.sinks.files.counts:CountsSink",
            "csv": "edgecv.pipelines.sinks.files.csv:CsvSink",
            "events": "edgecv.pipelines.sinks.events.sink:EventsSink",
            "jsonl": "edgecv.pipelines.sinks.files.jsonl:JsonlSink",
            "preview": "edgecv.pipelines.preview.sink:PreviewSink",
            "metrics": "edgecv.pipelines.sinks.metrics.sink:MetricsSink",
            "segments": "edgecv.pipelines.sinks.video.segments:SegmentsSink",
            "snapshots": "edgecv.pipelines.sinks.video.snapshots:SnapshotsSink",
            "video": "edgecv.pipelines.sinks.video.video:VideoSink",
            "webhook": "edgecv.pipelines.sinks.webhook.sink:WebhookSink",
            "record": "edgecv.pipelines.recording.sink:RecordSink",
        },
        # Steps by the `type` of a table in app.toml: see `step_type` in edgecv/pipelines/steps/options.py.
        "steps": {
            "absence": "edgecv.pipelines.steps.rules.absence:Absence",
            "appear": "edgecv.pipelines.steps.rules.stays:Appear",
            "blur": "edgecv.pipelines.privacy.blur:Blur",
            "classes": "edgecv.pipelines.steps.filter.classes:Classes",
            "classify": "edgecv.pipelines.steps.second_model.classify:Classify",
            "confidence": "edgecv.pipelines.steps.filter.confidence:Confidence",
            "crowd": "edgecv.pipelines.steps.rules.crowd:Crowd",
            "dwell": "edgecv.pipelines.steps.rules.stays:Dwell",
            "leave": "edgecv.pipelines.steps.rules.stays:Leave",
            "left_behind": "edgecv.pipelines.steps.rules.left_behind:LeftBehind",
            "line": "edgecv.pipelines.steps.count.line:Line",
            "segment": "edgecv.pipelines.steps.second_model.segment:Segment",
            "speed": "edgecv.pipelines.steps.rules.speed:Speed",
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
            **dict.fromkeys(
                ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
                "edgecv.converters.families.resnet:open_named",
            ),
            **dict.fromkeys(("mobile_sam", "sam_b", "sam_l", "sam_h"), "edgecv.converters.families.sam.sam:SAM"),
            "sam2.1_t": "edgecv.converters.families.sam.sam2:SAM2",
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
        # Which variant of a bundle runs on this device: `Adviser` in edgecv/choosing.py.
        "advisers": {"device": "edgecv.devices.tuning.advice:advise"},
        "scenarios": {
            "single_stream": "edgecv.benchmarks.scenarios.single_stream:single_stream",
            "multi_stream": "edgecv.benchmarks.scenarios.many_images:multi_stream",
            "offline": "edgecv.benchmarks.scenarios.many_images:offline",
            "pipeline": "edgecv.benchmarks.scenarios.pipeline:pipeline",
            "sustained": "edgecv.benchmarks.scenarios.single_stream:sustained",
        },
    }
)

KINDS: tuple[str, ...] = tuple(_TABLE)


def names(kind: str) -> tuple[str, ...]:
    """Every name of a kind, built in or installed, sorted."""
    return tuple(sorted({*_TABLE[kind], *(point.name for point in entry_points(kind))}))


def _one(kind: str) -> str:
    return "family" if kind == "families" else kind.removesuffix("s")


def place(kind: str, name: str) -> str:
    """The code behind a name, as ``module:attribute``.

    Raises:
        UnknownPlugin: there is no such name; the hint lists the names there are.
        PluginError: the name stands for two things; the message says where both are.
    """
    places = _places(kind, name)
    if not places:
        raise unknown(_one(kind), name, names(kind))
    if len(places) > 1:
        said = " and ".join(f"{code} (from {package})" for code, package in places.items())
        raise PluginError(
            f"The {_one(kind)} '{name}' is registered twice: {said}.",
            "Uninstall one of the packages, or ask its maker for another name.",
        )
    return next(iter(places))


def unknown(what: str, name: str, known: tuple[str, ...]) -> UnknownPlugin:
    """The error for a name that does not exist; its hint says the nearest name and lists all."""
    return UnknownPlugin(f"There is no {what} named '{name}'.", f"{nearest(name, known)}Known: {', '.join(known)}.")


@overload
def resolve(kind: Literal["runtimes"], name: str) -> type[RuntimeAdapter]: ...
@overload
def resolve(kind: Literal["decoders"], name: str) -> DecoderType: ...
@overload
def resolve(kind: Literal["sources"], name: str) -> type[SourceType]: ...
@overload
def resolve(kind: Literal["sinks"], name: str) -> type[SinkType]: ...
@overload
def resolve(kind: Literal["gates"], name: str) -> type[GateOptions]: ...
@overload
def resolve(kind: str, name: str) -> Callable[..., Any]: ...
def resolve(kind: str, name: str) -> Callable[..., Any]:
    """Import what a name stands for, and check that it has every member that its kind asks for.

    The kinds whose protocol stands in a room above the core are checked there: ``step_type``, ``family``, ``exporter`` ...

    Raises:
        UnknownPlugin: there is no such name.
        PluginError: the plug-in is installed but broken, lacks a member, or its name stands for two things.
    """
    code = place(kind, name)
    what = f"The {_one(kind)} '{name}' ({code})"
    try:
        found = load(code)
    except (ImportError, AttributeError) as error:
        raise PluginError(f"{what} cannot be loaded: {error}", "Reinstall the package that provides it.") from error
    from edgecv import protocols

    promised: Mapping[str, type] = {
        "runtimes": protocols.RuntimeAdapter,
        "sources": protocols.SourceType,
        "sinks": protocols.SinkType,
        "gates": protocols.GateOptions,
    }
    if kind in promised:
        return check(found, promised[kind], what)
    if not callable(found):
        raise PluginError(f"{what} must be a class or function, not {found!r}.", "See docs/plugins.md.")
    made: Callable[..., Any] = found
    return made


def load(code: str) -> Any:
    """Import the object that ``module:attribute`` names."""
    module, _, attribute = code.partition(":")
    return getattr(importlib.import_module(module), attribute)


def check(found: object, protocol: type, what: str) -> Any:
    """A class, after a look at whether it has every member of its protocol.

    Raises:
        PluginError: it is no class, or lacks a member.
    """
    from edgecv.protocols import lacks

    if not isinstance(found, type):
        raise PluginError(f"{what} must be a class, not {found!r}.", f"See {protocol.__name__} in docs/plugins.md.")
    if missing := lacks(found, protocol):
        raise PluginError(
            f"{what} lacks {', '.join(missing)}.",
            f"Let it inherit from {protocol.__module__}.{protocol.__name__} for its defaults, and declare the others.",
        )
    return found


def _places(kind: str, name: str) -> dict[str, str]:
    """What a name stands for, and which package says so: one place, unless two of them clash."""
    found = {_TABLE[kind][name]: "EdgeCV"} if name in _TABLE[kind] else {}
    for point in entry_points(kind):
        if point.name == name:
            found.setdefault(point.value, point.dist.name if point.dist is not None else "an unnamed package")
    return found


@cache
def entry_points(kind: str) -> importlib.metadata.EntryPoints:
    """The entry points of a kind: read once, since it takes a look at every installed package."""
    return importlib.metadata.entry_points(group=f"edgecv.{kind}")

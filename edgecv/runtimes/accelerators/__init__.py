"""What accelerators need beside the adapters: which devices there are, and where compiled models are kept."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# What `device` may be for the runtimes of EdgeCV, beside `cpu`. A plug-in's runtime says so itself, by refusing the others.
DEVICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "litert": ("edgetpu", "coral"),
        "onnxruntime": ("cuda", "tensorrt"),
        "openvino": ("gpu", "npu", "auto"),
    }
)


def knows(runtime: str, device: str) -> bool:
    """Whether a runtime may compute on a device, such as ``gpu.1`` or ``auto:gpu,npu``; whether it is there is another question."""
    kind = device.lower().partition(":")[0].partition(".")[0]
    return kind == "cpu" or runtime not in DEVICES or kind in DEVICES[runtime]

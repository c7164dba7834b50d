"""What accelerators need beside the adapters: which devices there are, and where compiled models are kept."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# What `device` may be for the runtimes of EdgeCV, beside `cpu`. A plug-in's runtime says so itself, by refusing the others.
DEVICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"litert": ("edgetpu",), "onnxruntime": ("cuda", "tensorrt"), "openvino": ("gpu", "npu")}
)

"""Adapters of runtimes. Under which names their packages are installed stands here, so that nobody loads one to ask."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

DISTRIBUTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "litert": ("ai-edge-litert", "tflite-runtime"),
        "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
        "openvino": ("openvino",),
    }
)

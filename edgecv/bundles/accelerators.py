"""What is said of variants for accelerators, in the report, on the model card and by ``edgecv info``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edgecv.bundles.manifest import Variant

_NOTES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "tensorrt": (
            "Not run on TensorRT: what was judged is the same rounding, computed by ONNX Runtime on the CPU that converted.",
            "INT8 is not always faster than fp16 there: measure both on the device.",
        ),
        "edgetpu": (
            "Not run on an Edge TPU: what was judged is the same integers, computed by LiteRT on the CPU that converted.",
            "Compile it on an x86 machine before you run it there: edgetpu_compiler -s {file}",
        ),
    }
)


def notes_on(variant: Variant) -> tuple[str, ...]:
    """What was not proven of a variant for an accelerator, and what is left to do; nothing for any other variant."""
    file = next((files.files[0].path for files in variant.models.values()), "")
    return tuple(note.format(file=file) for note in _NOTES.get(variant.cpu_class, ()))

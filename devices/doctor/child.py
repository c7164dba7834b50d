"""What the process does in which a runtime is tried: see ``native.py``. Its last line is JSON."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

from edgecv import registry
from edgecv._internal.foreign import first_line


def main(runtime: str, model: str) -> None:
    """Try a runtime, and print what became of it; a crash ends the process, which is an answer, too."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no file behind
    try:
        said = {"gpu_error": _try(runtime, Path(model))} if model else _import(runtime)
    except Exception as error:  # noqa: BLE001 - whatever a native library raises
        said = {"error": first_line(error)}
    print(json.dumps({"edgecv": "doctor", **said}), flush=True)


def _import(runtime: str) -> dict[str, Any]:
    """A plug-in's runtime: there is no tiny model for its format."""
    registry.resolve("runtimes", runtime)
    return {}


def _try(runtime: str, model: Path) -> str:
    """Compute the tiny model; why NVIDIA's GPU cannot be used by a runtime that was built for it, or nothing."""
    _compute(runtime, model, "cpu")
    if runtime != "onnxruntime" or not _has_cuda():
        return ""
    try:
        _compute(runtime, model, "cuda")
    except Exception as error:  # noqa: BLE001 - whatever a native library raises
        return first_line(error)
    return ""


def _has_cuda() -> bool:
    from edgecv._internal.extras import require

    return "CUDAExecutionProvider" in require("onnxruntime", "onnx").get_available_providers()


def _compute(runtime: str, model: Path, device: str) -> None:
    import numpy as np

    from edgecv.runtimes.adapter import open_session
    from edgecv.specs import RuntimeOptions

    session = open_session(runtime, model, RuntimeOptions(device=device, threads=1))
    try:
        session.run({spec.name: np.zeros(spec.shape, spec.dtype) for spec in session.inputs})
    finally:
        session.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

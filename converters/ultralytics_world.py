"""Import ultralytics the way a converter needs it: offline, installing nothing, beside any torchvision."""

from __future__ import annotations

import functools
import os
from typing import Any

from edgecv.extras import require


@functools.cache
def tasks() -> Any:
    """``ultralytics.nn.tasks``.

    Raises:
        MissingDependency: torch or ultralytics is not installed.
    """
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    declare_torchvision_operators()
    return require("ultralytics.nn.tasks", "convert")


@functools.cache
def declare_torchvision_operators() -> tuple[Any, ...]:
    """Declare the two operators whose absence makes ``import torchvision`` fail beside a CPU build of torch.

    torchvision's wheel carries compiled operators for one build of torch; beside another they do not load, and its Python part
    then asks for operators that nobody declared. Returns the library handle: the declaration lives as long as it does.
    """
    torch = require("torch", "convert")
    if _has_operator(torch, "nms"):
        return ()
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return (library,)


def _has_operator(torch: Any, name: str) -> bool:
    return bool(hasattr(torch.ops.torchvision, name))

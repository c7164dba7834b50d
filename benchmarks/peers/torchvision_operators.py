"""torchvision beside a CPU build of torch, where its compiled operators cannot be loaded.

Its wheel then fails at import («operator torchvision::nms does not exist»). Its Python parts need two operators to be declared, and
Ultralytics' predict needs ``nms`` to work: OpenCV's compiled one stands in, which is no slower than that of torchvision.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from edgecv.extras import require

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def declare_missing_operators() -> bool:
    """Let ``torchvision.ops.nms`` work in this process; does nothing where torchvision is whole or already mended.

    Returns:
        Whether OpenCV stands in.

    Raises:
        MissingDependency: torch, torchvision or OpenCV is not installed.
    """
    torch = require("torch", "convert")
    try:
        importlib.import_module("torchvision")
    except RuntimeError:  # what a failed registration of a fake operator raises
        pass
    else:
        return False
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(name + _SIGNATURE)
    library.impl("nms", _nms, "CPU")
    _KEPT.append(library)  # the operators go when the library object does
    torchvision = require("torchvision", "convert")
    # It asks this before each call, about its own library. Not before the import: that would register what is not there.
    torchvision.extension._has_ops = lambda: True
    return True


_KEPT: list[Any] = []


def _nms(boxes: Any, scores: Any, iou_threshold: float) -> Any:
    """``(N, 4)`` xyxy and ``(N,)`` to the indices kept, best first: the contract of ``torchvision.ops.nms``."""
    torch, cv2 = require("torch", "convert"), require("cv2", "vision")
    if not len(boxes):
        return torch.empty(0, dtype=torch.int64)
    corners = boxes.numpy().astype(np.float64)
    left_top_wh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    kept = cv2.dnn.NMSBoxes(left_top_wh, scores.numpy(), score_threshold=0.0, nms_threshold=iou_threshold)
    return torch.from_numpy(np.asarray(kept, np.int64).reshape(-1))

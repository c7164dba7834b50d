"""torchvision beside a CPU build of torch, where its compiled operators cannot be loaded.

The converters declare the two operators that its import then misses (``converters/families/ultralytics_import.py``).
Ultralytics' predict needs ``nms`` to work: OpenCV's compiled one stands in, which is no slower than that of torchvision.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv.converters.families.ultralytics_import import declare_torchvision_operators


def declare_missing_operators() -> bool:
    """Let ``torchvision.ops.nms`` work in this process; does nothing where torchvision is whole or already mended.

    Returns:
        Whether OpenCV stands in.

    Raises:
        MissingDependency: torch, torchvision or OpenCV is not installed.
    """
    library = declare_torchvision_operators()
    if library is None or library in _MENDED:
        return False
    library.impl("nms", _nms, "CPU")
    _MENDED.append(library)
    torchvision = require("torchvision", "convert")
    # It asks this before each call, about its own library. Not before the import: that would register what is not there.
    torchvision.extension._has_ops = lambda: True
    return True


_MENDED: list[Any] = []


def _nms(boxes: Any, scores: Any, iou_threshold: float) -> Any:
    """``(N, 4)`` xyxy and ``(N,)`` to the indices kept, best first: the contract of ``torchvision.ops.nms``."""
    torch, cv2 = require("torch", "convert"), require("cv2", "vision")
    if not len(boxes):
        return torch.empty(0, dtype=torch.int64)
    corners = boxes.numpy().astype(np.float64)
    left_top_wh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    kept = cv2.dnn.NMSBoxes(left_top_wh, scores.numpy(), score_threshold=0.0, nms_threshold=iou_threshold)
    return torch.from_numpy(np.asarray(kept, np.int64).reshape(-1))

"""Writes OpenVINO models as IR files."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

from edgecv._internal.extras import require

_DESCRIPTION_BYTES = 2_000_000  # of the .xml, which holds no weights


def save_ir(model: Any, path: Path, half: bool = False) -> tuple[Path, Path]:
    """Write a model as ``.xml`` and ``.bin``, its weights in fp16 with ``half``; the two paths.

    Raises:
        OSError: the disk is full. OpenVINO's writer reports a ``RuntimeError`` without a reason; what it takes back does not fit.
    """
    openvino = require("openvino", "convert")
    try:
        openvino.save_model(model, str(path), compress_to_fp16=half)
    except RuntimeError as error:
        if shutil.disk_usage(path.parent).free > _constant_bytes(model) + _DESCRIPTION_BYTES:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
    return path, path.with_suffix(".bin")


def _constant_bytes(model: Any) -> int:
    return sum(int(op.get_byte_size()) for op in model.get_ops() if op.get_type_name() == "Constant")

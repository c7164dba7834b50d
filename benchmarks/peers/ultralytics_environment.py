"""How Ultralytics is started as a peer: offline, installing nothing, its settings in a folder that goes away."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from edgecv.benchmarks.peers.torchvision_operators import declare_missing_operators
from edgecv.errors import ConfigError
from edgecv.extras import require

_NOTHING_UNASKED = {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true", "YOLO_VERBOSE": "false"}


def open_yolo(model: Path, threads: int) -> Any:
    """An ``ultralytics.YOLO`` of a checkpoint or an export.

    The thread count is set by the knobs that reach what Ultralytics opens by itself: ``OMP_NUM_THREADS`` before torch is loaded
    (Ultralytics would write 1) and the CPUs this process may use, which OpenVINO and ONNX Runtime count when they are given no
    number. Ultralytics gives them none.

    Raises:
        MissingDependency: ultralytics is not installed.
        ConfigError: the model is missing.
    """
    if not model.exists():
        raise ConfigError(f"{model} does not exist.", "Name an export of Ultralytics, or a checkpoint.")
    keep_to_cpus(threads)
    os.environ.update(_NOTHING_UNASKED, OMP_NUM_THREADS=str(threads))
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="edgecv-peer-"))
    declare_missing_operators()
    yolo = require("ultralytics", "convert").YOLO(str(model), task="detect")
    # Ultralytics sets torch back to one thread fewer than there are cores, when it chooses the device.
    yolo.add_callback("on_predict_start", lambda _: require("torch", "convert").set_num_threads(threads))
    return yolo


def keep_to_cpus(count: int) -> None:
    """Let this process and its children use ``count`` CPUs; fewer where it has fewer."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])

"""How Ultralytics is started as a peer: offline, installing nothing, its settings in a folder that goes away."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from edgecv._internal.extras import require
from edgecv.benchmarks.lab.peers.torchvision_operators import declare_missing_operators
from edgecv.errors import ConfigError

_NOTHING_UNASKED = {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true", "YOLO_VERBOSE": "false"}


def open_yolo(model: Path, threads: int, torch_threads: int = 0) -> Any:
    """An ``ultralytics.YOLO`` of a checkpoint or an export.

    ``threads`` is set by the CPUs this process may use: OpenVINO and ONNX Runtime take as many threads when they are given no
    number, and Ultralytics gives them none. torch, which prepares and decodes, keeps the number that Ultralytics chooses (one
    fewer than there are cores; more only wait for each other on a busy machine), unless ``torch_threads`` says otherwise.

    Raises:
        MissingDependency: ultralytics is not installed.
        ConfigError: the model is missing.
    """
    if not model.exists():
        raise ConfigError(f"{model} does not exist.", "Name an export of Ultralytics, or a checkpoint.")
    keep_to_cpus(threads)
    os.environ.pop("OMP_NUM_THREADS", None)
    os.environ.update(_NOTHING_UNASKED)
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="edgecv-peer-"))
    declare_missing_operators()
    yolo = require("ultralytics", "convert").YOLO(str(model), task="detect")
    if model.suffix == ".tflite":
        # Ultralytics gives LiteRT one thread fewer than there are cores, and has no option for it: this is in its favour.
        require("ultralytics.nn.backends.litert", "convert").NUM_THREADS = threads
    if torch_threads:
        torch = require("torch", "convert")
        # Not before: Ultralytics sets its own number when it chooses the device.
        yolo.add_callback("on_predict_start", lambda _: torch.set_num_threads(torch_threads))
    return yolo


def keep_to_cpus(count: int) -> None:
    """Let this process and its children use ``count`` CPUs; fewer where it has fewer."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])

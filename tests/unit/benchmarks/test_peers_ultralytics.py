from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgecv.benchmarks.lab.peers.ultralytics_environment import keep_to_cpus, open_yolo
from edgecv.errors import ConfigError

_SHARED = Path(__file__).parents[3] / "../shared"
_HAS_TORCH = all(importlib.util.find_spec(name) for name in ("torch", "torchvision"))
_NMS = """
import json, sys
from edgecv.benchmarks.lab.peers.torchvision_operators import declare_missing_operators
first, second = declare_missing_operators(), declare_missing_operators()
import numpy as np, torch, torchvision
rng = np.random.default_rng(0)
corner = rng.uniform(0, 100, (200, 2)); boxes = np.concatenate([corner, corner + rng.uniform(10, 60, (200, 2))], axis=1)
scores = rng.permutation(200) / 200 + 0.001
kept = torchvision.ops.nms(torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores, dtype=torch.float32), 0.5)
none = torchvision.ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
from edgecv.vision.nms import nms
ours = nms(boxes.astype(np.float32), scores.astype(np.float32), np.zeros(200, np.int64), 0.5, 300)
print(json.dumps({"second": second, "kept": kept.tolist(), "ours": ours.tolist(), "none": len(none)}))
"""


@pytest.mark.skipif(not _HAS_TORCH, reason="torch and torchvision are not installed")
def test_torchvision_suppresses_as_edgecv_does_with_or_without_its_own_operators():
    done = subprocess.run([sys.executable, "-c", _NMS], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kept"] == found["ours"]
    assert 10 < len(found["kept"]) < 200
    assert (found["second"], found["none"]) == (False, 0)


def test_a_missing_export_is_said_before_anything_is_imported(tmp_path: Path):
    with pytest.raises(ConfigError, match="does not exist"):
        open_yolo(tmp_path / "none.onnx", threads=1)


def test_children_get_the_cpus_of_the_parent():
    allowed = os.sched_getaffinity(0)
    try:
        keep_to_cpus(1)
        count = "import os; print(len(os.sched_getaffinity(0)))"
        done = subprocess.run([sys.executable, "-c", count], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.strip() == "1"
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.slow
@pytest.mark.skipif(not (_SHARED / "peers").is_dir(), reason="../shared/peers is not there")
@pytest.mark.skipif(not importlib.util.find_spec("ultralytics"), reason="ultralytics is not installed")
def test_ultralytics_predicts_with_its_own_export():
    paths = [str(_SHARED / "peers/ultralytics-openvino-int8"), str(_SHARED / "data/vtest.avi")]
    command = [sys.executable, "-m", "edgecv.benchmarks.lab", "peer_predict", *paths, "--frames", "8"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["frames"] == 7
    assert sum(found["counts"]) > 20
    assert found["fps"] > 0

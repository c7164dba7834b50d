"""What Ultralytics exports for masks, keypoints and rotated boxes is cut at the same raw head as its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgecv._internal.quiet import quiet
from edgecv.converters.families.foreign_onnx.open import open_onnx
from edgecv.converters.families.ultralytics_import import tasks
from edgecv.converters.families.yolov8 import open_checkpoint
from edgecv.converters.source import SourceOptions
from edgecv.errors import UnsupportedSource

SIDE = 64


@dataclass(frozen=True)
class Case:
    """A network of a task; 32 classes are as many as there are mask coefficients."""

    task: str
    network: str
    description: str
    classes: int


POSE = Case("pose", "PoseModel", "yolov8n-pose.yaml", 1)
CASES = [
    Case("segment", "SegmentationModel", "yolov8n-seg.yaml", 5),
    Case("segment", "SegmentationModel", "yolov8n-seg.yaml", 32),
    POSE,
    Case("obb", "OBBModel", "yolov8n-obb.yaml", 15),
]


@dataclass(frozen=True)
class Twins:
    """A checkpoint and what Ultralytics makes of it."""

    case: Case
    checkpoint: Path
    export: Path


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case.task}-{case.classes}")
def twins(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Twins:
    import torch
    from ultralytics import YOLO

    case: Case = request.param
    torch.manual_seed(0)
    network = getattr(tasks(), case.network)(case.description, nc=case.classes, verbose=False)
    network.args, network.task = {"imgsz": SIDE, "task": case.task}, case.task
    path = tmp_path_factory.mktemp("tasks") / "net.pt"
    torch.save({"model": network.half()}, path)
    with quiet():
        made = Path(YOLO(str(path), task=case.task).export(format="onnx", simplify=False, verbose=False, imgsz=SIDE))
    return Twins(case, path, made)


def test_the_export_is_the_checkpoint(twins: Twins) -> None:
    ours = open_onnx(twins.export, SourceOptions())
    theirs = open_checkpoint(twins.checkpoint, SourceOptions(size_wh=(SIDE, SIDE)))
    assert ours.spec == theirs.spec
    assert ours.spec.decode.task == twins.case.task
    assert ours.parts[0].outputs == theirs.parts[0].outputs
    image = np.random.default_rng(1).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)
    given, wanted = ours.parts[0].reference({"image": image}), theirs.parts[0].reference({"image": image})
    assert given.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(given[name], value, atol=2e-3 * np.abs(value).max(), err_msg=name)


def changed(twins: Twins, folder: Path, **metadata: str) -> Path:
    """The export with other metadata; an empty value takes the key away."""
    model = onnx.load(str(twins.export))
    kept = {entry.key: entry.value for entry in model.metadata_props}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {k: v for k, v in {**kept, **metadata}.items() if v})
    onnx.save(model, str(folder / "changed.onnx"))
    return folder / "changed.onnx"


def test_without_its_metadata_it_is_no_detector(twins: Twins, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedSource, match="no recognisable") as caught:
        open_onnx(changed(twins, tmp_path, author="", task="", head=""), SourceOptions())
    assert ".pt" in caught.value.hint


def test_metadata_of_another_task_are_not_believed(twins: Twins, tmp_path: Path) -> None:
    task, head = ("obb", "OBB") if twins.case.task != "obb" else ("pose", "Pose")
    with pytest.raises(UnsupportedSource, match="no recognisable"):
        open_onnx(changed(twins, tmp_path, task=task, head=head, kpt_shape="[17, 3]"), SourceOptions())


@pytest.mark.parametrize("twins", [POSE], indirect=True)
@pytest.mark.parametrize("shape", ["", "[]", "[17, 2]", "[1, 3]", "nonsense", "[99, 99]", "[-1, 3]", "[17]"])
def test_keypoints_of_another_shape_are_not_believed(twins: Twins, shape: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedSource, match="no recognisable"):
        open_onnx(changed(twins, tmp_path, kpt_shape=shape), SourceOptions())

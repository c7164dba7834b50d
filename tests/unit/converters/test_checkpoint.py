"""A checkpoint is data: reading one runs nothing that its author put there."""

from __future__ import annotations

import os
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import edgecv
from edgecv.converters.checkpoints.checkpoint import read_checkpoint
from edgecv.converters.checkpoints.weights import read_weights
from edgecv.converters.families.ultralytics_import import tasks
from edgecv.converters.families.yolov8 import open_checkpoint
from edgecv.converters.source import SourceOptions
from edgecv.errors import UnsupportedSource

SMALL = {
    "nc": 1,
    "backbone": [[-1, 1, "Conv", [8, 3, 2]]],
    "head": [[[0], 1, "Detect", ["nc"]]],
}


class Call:
    """Pickles as a call of ``function(*arguments)``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


def shell(marker: Path) -> Any:
    return Call(os.system, f"touch {marker}")


def evaluated(marker: Path) -> Any:
    return Call(eval, f"open({str(marker)!r}, 'w')")


def executed(marker: Path) -> Any:
    return Call(exec, f"open({str(marker)!r}, 'w')")


def model_description(marker: Path) -> Any:
    """Ultralytics evaluates the string ``activation`` of a description when a model is built from it."""
    return Call(tasks().DetectionModel, SMALL | {"activation": f"open({str(marker)!r}, 'w') and torch.nn.SiLU()"})


def loader(marker: Path) -> Any:
    return Call(tasks().load_checkpoint, str(marker))


def hub(marker: Path) -> Any:
    """A folder with a ``hubconf.py`` is enough for ``torch.hub`` to run it."""
    (marker.parent / "hubconf.py").write_text(f"open({str(marker)!r}, 'w')\ndef entry(): pass\n")
    return Call(torch.hub.load, str(marker.parent), "entry", "local")


def other_attribute(_marker: Path) -> Any:
    return Call(getattr, torch.nn.SiLU(), "__class__")


def attribute_of_no_module(_marker: Path) -> Any:
    return Call(getattr, {}, "forward")


def import_machinery(_marker: Path) -> Any:
    return Call(__import__, "os")


def module_called(_marker: Path) -> Any:
    return Call(torch.nn.Linear, 2, 2)


def read_a_file(_marker: Path) -> Any:
    return Call(open, "/etc/hostname")


ATTACKS = [
    shell,
    evaluated,
    executed,
    model_description,
    loader,
    hub,
    other_attribute,
    attribute_of_no_module,
    import_machinery,
    module_called,
    read_a_file,
]


@pytest.mark.parametrize("place", ["model", "ema", "train_args"])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda f: f.__name__)
def test_a_checkpoint_that_would_run_code_does_not(tmp_path: Path, attack, place: str) -> None:
    marker, path = tmp_path / "ran", tmp_path / "evil.pt"
    torch.save({"model": None, place: attack(marker)}, path)
    with pytest.raises(UnsupportedSource) as caught:
        read_checkpoint(path)
    assert not marker.exists()
    assert "--trust-pickle" in caught.value.hint
    assert str(path) in caught.value.message


def test_what_is_not_on_the_list_is_named(tmp_path: Path) -> None:
    torch.save({"model": shell(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(UnsupportedSource, match="system"):
        read_checkpoint(tmp_path / "evil.pt")


@pytest.mark.parametrize("attack", [shell, model_description], ids=lambda f: f.__name__)
def test_trusting_it_runs_the_code(tmp_path: Path, attack) -> None:
    marker = tmp_path / "ran"
    torch.save({"model": attack(marker)}, tmp_path / "trusted.pt")
    content = read_checkpoint(tmp_path / "trusted.pt", trust_pickle=True)
    assert marker.exists()
    assert set(content) == {"model"}


def test_an_attack_inside_a_real_checkpoint_does_not_run(untrained_64: Path, tmp_path: Path) -> None:
    content = read_checkpoint(untrained_64)
    content["model"].model[0].note = shell(tmp_path / "ran")
    torch.save(content, tmp_path / "evil.pt")
    with pytest.raises(UnsupportedSource):
        open_checkpoint(tmp_path / "evil.pt", SourceOptions())
    assert not (tmp_path / "ran").exists()


def empty(path: Path) -> None:
    path.touch()


def text(path: Path) -> None:
    path.write_text("weights")


def folder(path: Path) -> None:
    path.mkdir()


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "b")


def old_container(path: Path) -> None:
    torch.save({"model": None}, path, _use_new_zipfile_serialization=False)


def a_list(path: Path) -> None:
    torch.save([1, 2], path)


def state_dict(path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)


def yolo_weights(path: Path) -> None:
    torch.save({"model.0.conv.weight": torch.zeros(2), "model.22.cv2.0.0.conv.weight": torch.zeros(2)}, path)


def yolo_weights_in_a_checkpoint(path: Path) -> None:
    weights = {"0.conv.weight": torch.zeros(2), "22.dfl.conv.weight": torch.zeros(2)}
    torch.save({"epoch": 3, "model": weights, "optimizer": None}, path, _use_new_zipfile_serialization=False)


def resnet_weights(path: Path) -> None:
    torch.save({f"layer3.{at}.conv1.weight": torch.zeros(2) for at in range(2)}, path)


def program(path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Conv2d(3, 2, 1), torch.zeros(1, 3, 4, 4)), str(path))


def of_yolov5(path: Path) -> None:
    """As the repository saves it: a class of its own module ``models.yolo``."""
    module = types.ModuleType("models.yolo")
    module.Model = type("Model", (torch.nn.Module,), {"__module__": "models.yolo"})
    sys.modules |= {"models": types.ModuleType("models"), "models.yolo": module}
    try:
        torch.save({"model": module.Model()}, path)
    finally:
        del sys.modules["models"], sys.modules["models.yolo"]


def another_network(path: Path) -> None:
    torch.save({"model": torch.nn.Sequential(torch.nn.Linear(2, 2))}, path)


def truncated(path: Path) -> None:
    torch.save({"model": torch.nn.Linear(50, 50)}, path)
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (Path.exists, "does not exist"),
        (empty, "is empty"),
        (text, "not a PyTorch checkpoint"),
        (folder, "does not exist"),
        (other_zip, "cannot be read"),
        (old_container, "holds no YOLOv8 network"),
        (truncated, "not a PyTorch checkpoint|cannot be read"),
        (a_list, "holds a list"),
        (state_dict, "weights of a network .2 tensors: weight"),
        (yolo_weights, "weights of a YOLO network without the network"),
        (yolo_weights_in_a_checkpoint, "weights of a YOLO network without the network"),
        (resnet_weights, "weights of a ResNet without the network"),
        (program, "compiled program"),
        (of_yolov5, "package 'models', which is not installed"),
        (another_network, r"torch\.nn\.modules\.container\.Sequential"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_no_detector_checkpoint_says_so(tmp_path: Path, make, named: str) -> None:
    path = tmp_path / "bad.pt"
    make(path)
    with pytest.raises(UnsupportedSource, match=named) as caught:
        open_checkpoint(path, SourceOptions())
    assert caught.value.hint
    assert caught.value.exit_code == 1


def test_a_folder_with_the_name_of_the_missing_package_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_yolov5(tmp_path / "v5.pt")
    (tmp_path / "models").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnsupportedSource, match="package 'models', which is not installed"):
        open_checkpoint(tmp_path / "v5.pt", SourceOptions())


def test_code_that_is_missing_is_named_with_trust_too(tmp_path: Path) -> None:
    of_yolov5(tmp_path / "v5.pt")
    with pytest.raises(UnsupportedSource, match=r"needs code that is not here: the module 'models(\.yolo)?'") as caught:
        open_checkpoint(tmp_path / "v5.pt", SourceOptions(trust_pickle=True))
    assert "trust" not in caught.value.hint
    with pytest.raises(UnsupportedSource) as caught:
        open_checkpoint(tmp_path / "v5.pt", SourceOptions())
    assert "trust" not in caught.value.hint
    assert "yolov5nu" in caught.value.hint


@pytest.mark.parametrize("trust", [False, True])
def test_weights_of_a_resnet_name_the_command_for_them(trust: bool, tmp_path: Path) -> None:
    resnet_weights(tmp_path / "r.pt")
    with pytest.raises(UnsupportedSource) as caught:
        open_checkpoint(tmp_path / "r.pt", SourceOptions(trust_pickle=trust))
    assert "edgecv convert resnet18 --weights r.pt" in caught.value.hint


def test_another_head_is_named(tmp_path: Path) -> None:
    torch.save({"model": tasks().DetectionModel("yolov10n.yaml", verbose=False)}, tmp_path / "other.pt")
    with pytest.raises(UnsupportedSource, match="v10Detect"):
        open_checkpoint(tmp_path / "other.pt", SourceOptions())


def test_the_real_checkpoint_opens_without_trust(yolov8n: Path) -> None:
    content = read_checkpoint(yolov8n)
    network = content["model"]
    assert type(network) is tasks().DetectionModel
    stand_ins = [m for m in network.modules() if type(m).__module__.startswith("edgecv")]
    assert not stand_ins
    assert network.names[0] == "person"


def test_reading_it_safely_gives_what_reading_it_fully_gives(yolov8n: Path) -> None:
    safe, full = (read_checkpoint(yolov8n, trust)["model"].float().eval() for trust in (False, True))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(safe(image)[0], full(image)[0])
    assert [type(m) for m in safe.modules()] == [type(m) for m in full.modules()]


def test_a_source_says_what_the_checkpoint_holds(yolov8n: Path) -> None:
    source = open_checkpoint(yolov8n, SourceOptions(size_wh=(96, 64)))
    assert source.family == "yolov8"
    assert len(source.spec.decode.labels) == 80
    assert source.parts[0].inputs[0].shape == (1, 64, 96, 3)
    assert [o.shape for o in source.parts[0].outputs[:2]] == [(1, 64, 8, 12), (1, 80, 8, 12)]
    assert source.licence == "AGPL-3.0"
    assert source.origin.file == yolov8n.name
    assert len(source.origin.sha256) == 64


def test_the_size_is_the_trained_one_unless_asked(untrained_64: Path) -> None:
    assert open_checkpoint(untrained_64, SourceOptions()).spec.preprocess.size_wh == (64, 64)


def classifier(path: Path, extra: Any = None) -> Path:
    """As Ultralytics saves a trained classifier: how its images are prepared lies in the network."""
    network = tasks().ClassificationModel("yolov8n-cls.yaml", nc=10, verbose=False)
    from ultralytics.data.augment import classify_transforms

    network.transforms = classify_transforms(64)
    if extra is not None:
        network.transforms.transforms.append(extra)
    network.args = {"imgsz": 64, "task": "classify"}
    torch.save({"epoch": -1, "model": network.half(), "ema": None, "train_args": {"imgsz": 64}, "date": "today"}, path)
    return path


def test_a_classifier_with_its_transforms_converts_without_trust(tmp_path: Path) -> None:
    path = classifier(tmp_path / "tiny-cls.pt")
    made = edgecv.convert(path, precision="fp32", out=tmp_path / "c.ecv")
    assert made.manifest.decode.task == "classify"
    with edgecv.load(made.path) as model:
        assert len(model(np.zeros((80, 90, 3), np.uint8))) == 5


def test_what_is_not_needed_is_left_out_whatever_it_is(tmp_path: Path) -> None:
    """A transform that holds a function needs no trust: nobody uses it."""
    from torchvision.transforms import Lambda

    path = classifier(tmp_path / "odd-cls.pt", Lambda(os.getcwd))
    network = read_checkpoint(path)["model"]
    assert not hasattr(network, "transforms")


def test_a_command_among_the_transforms_is_still_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = classifier(tmp_path / "evil-cls.pt", shell(marker))
    with pytest.raises(UnsupportedSource) as caught:
        read_checkpoint(path)
    assert "--trust-pickle" in caught.value.hint
    assert not marker.exists()


# By architecture: generations that Ultralytics' description builds, and every task. The larger sizes wait for `make test-slow`.
NAMES = ["yolov8n-seg", "yolov8n-pose", "yolov8n-obb", "yolo11n", "yolov8n-cls"]
MORE = [
    "yolo11n-seg",
    "yolo11n-pose",
    "yolo11n-obb",
    "yolo11n-cls",
    "yolo12n",
    "yolov5n",
    "yolov9t",
    "yolov6n",
    "yolov3-tiny",
]
CLASSES = {"seg": "SegmentationModel", "pose": "PoseModel", "obb": "OBBModel", "cls": "ClassificationModel"}


@pytest.mark.parametrize("fused", [False, True], ids=["trained", "fused"])
@pytest.mark.parametrize(
    "name", [*NAMES, *(pytest.param(name, marks=pytest.mark.slow) for name in (*MORE, "yolov8n-p6", "yolov8n-ghost"))]
)
def test_every_architecture_is_built_as_it_was_saved(tmp_path: Path, name: str, fused: bool) -> None:
    network = getattr(tasks(), CLASSES.get(name.rpartition("-")[2], "DetectionModel"))(f"{name}.yaml", verbose=False)
    torch.save(
        {"model": (network.eval().fuse(verbose=False) if fused else network.half()), "ema": None}, tmp_path / "a.pt"
    )
    safe, full = (read_checkpoint(tmp_path / "a.pt", trust)["model"].float().eval() for trust in (False, True))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(_flat(safe(image)), _flat(full(image)), strict=True):
            assert torch.equal(ours, theirs)
    assert [type(m) for m in safe.modules()] == [type(m) for m in full.modules()]
    assert torch.equal(safe.stride, full.stride)
    assert safe.names == full.names


def _flat(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value
    return [tensor for item in items for tensor in _flat(item)]


def test_what_training_sets_in_a_layer_is_taken_over(tmp_path: Path) -> None:
    network = tasks().DetectionModel(SMALL, verbose=False)
    network.model[0].bn.eps, network.model[0].bn.momentum = 0.25, 0.5
    torch.save({"model": network}, tmp_path / "a.pt")
    made = read_checkpoint(tmp_path / "a.pt")["model"].model[0].bn
    assert (made.eps, made.momentum) == (0.25, 0.5)


def test_an_activation_is_built_and_forgotten(tmp_path: Path) -> None:
    """Ultralytics would keep it for the networks that are built later."""
    network = tasks().DetectionModel(SMALL | {"activation": "torch.nn.LeakyReLU(0.125)"}, verbose=False)
    torch.save({"model": network}, tmp_path / "a.pt")
    made = read_checkpoint(tmp_path / "a.pt")["model"].model[0]
    assert made.act.negative_slope == 0.125
    assert isinstance(tasks().Conv.default_act, torch.nn.SiLU)


def test_a_pruned_network_is_refused_with_the_layer_that_differs(tmp_path: Path) -> None:
    network = tasks().DetectionModel(SMALL, verbose=False)
    network.model[0].conv = torch.nn.Conv2d(3, 4, 3, 2, 1, bias=False)
    torch.save({"model": network}, tmp_path / "a.pt")
    with pytest.raises(UnsupportedSource, match=r"0\.conv\.out_channels is 4, and 8 by its description") as caught:
        read_checkpoint(tmp_path / "a.pt")
    assert "--trust-pickle" in caught.value.hint


LAYOUTS = {
    "state dict": lambda state: state,
    "Lightning": lambda state: {"state_dict": state, "hyper_parameters": {"lr": 1}, "callbacks": {}, "epoch": 1},
    "model": lambda state: {"model": state},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}},
}


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old container"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_are_found_where_training_programs_put_them(tmp_path: Path, layout: str, old: bool) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    path = tmp_path / "weights.pth"
    torch.save(LAYOUTS[layout](network.state_dict()), path, _use_new_zipfile_serialization=not old)
    found = read_weights(path, network.state_dict())
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        name: tensor.tolist() for name, tensor in network.state_dict().items()
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.uint8])
def test_tensors_come_back_as_they_were(tmp_path: Path, dtype: torch.dtype) -> None:
    whole = (torch.rand(6, 4) * 10).to(dtype)
    tensors = {"turned": whole.T, "part": whole[2:4, 1:], "none": whole[:0], "one": whole[0, 0]}
    torch.save(tensors, tmp_path / "t.pt")
    found = read_weights(tmp_path / "t.pt", tensors)
    assert all(torch.equal(found[name], tensor) and found[name].dtype == dtype for name, tensor in tensors.items())


def test_a_whole_pickled_network_gives_its_weights(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    torch.save(network, tmp_path / "whole.pth")
    assert set(read_weights(tmp_path / "whole.pth", network.state_dict())) == set(network.state_dict())

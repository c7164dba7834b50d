"""A checkpoint is data: reading one runs nothing that its author put there."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import edgecv
from edgecv.converters.checkpoint import read_checkpoint
from edgecv.converters.source import SourceOptions
from edgecv.converters.ultralytics_world import tasks
from edgecv.converters.yolov8 import open_checkpoint
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


def plain_pickle(path: Path) -> None:
    torch.save({"model": None}, path, _use_new_zipfile_serialization=False)


def a_list(path: Path) -> None:
    torch.save([1, 2], path)


def state_dict(path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)


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
        (plain_pickle, "not a PyTorch checkpoint"),
        (truncated, "not a PyTorch checkpoint|cannot be read"),
        (a_list, "holds a list"),
        (state_dict, "holds no YOLOv8 network|OrderedDict"),
        (another_network, "holds no YOLOv8 network"),
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
    """As Ultralytics saves a trained classifier: how its pictures are prepared lies in the network."""
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
    transforms = read_checkpoint(path)["model"].transforms
    assert [type(step).__module__ for step in transforms.transforms] == ["torchvision.transforms.transforms"] * 4
    assert transforms.transforms[0].interpolation.value == "bilinear"
    made = edgecv.convert(path, precision="fp32", out=tmp_path / "c.ecv")
    assert made.manifest.decode.task == "classify"
    with edgecv.load(made.path) as model:
        assert len(model(np.zeros((80, 90, 3), np.uint8))) == 5


def lambda_transform(_marker: Path) -> Any:
    """Not on the list: it holds a function."""
    from torchvision.transforms import Lambda

    return Lambda(os.getcwd)


def transform_called(_marker: Path) -> Any:
    from torchvision.transforms import Compose

    return Call(Compose, [])


def interpolation_of_no_text(_marker: Path) -> Any:
    from torchvision.transforms.functional import InterpolationMode

    return Call(InterpolationMode, ["bilinear"])


@pytest.mark.parametrize(
    "attack", [shell, lambda_transform, transform_called, interpolation_of_no_text], ids=lambda f: f.__name__
)
def test_code_among_the_transforms_is_still_refused(tmp_path: Path, attack) -> None:
    marker = tmp_path / "ran"
    tasks()
    path = classifier(tmp_path / "evil-cls.pt", attack(marker))
    with pytest.raises(UnsupportedSource) as caught:
        read_checkpoint(path)
    assert "--trust-pickle" in caught.value.hint
    assert not marker.exists()

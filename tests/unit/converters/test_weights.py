"""``--weights``: what training programs put around a network's tensors is taken off; what does not fit is named."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgecv.converters.checkpoints.weights import read_weights
from edgecv.converters.families.resnet import _loaded
from edgecv.converters.families.ultralytics_import import declare_torchvision_operators
from edgecv.converters.request import check_source
from edgecv.errors import UnsupportedSource

Weights = dict[str, Any]


def resnet18(**options: Any) -> Any:
    declare_torchvision_operators()
    from torchvision.models import resnet18 as build

    return build(**options)


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(1)
    return resnet18(num_classes=3)


def prefixed(prefix: str) -> Callable[[Weights], Any]:
    return lambda weights: {f"{prefix}{name}": tensor for name, tensor in weights.items()}


def with_head(*layers: Any) -> Callable[[Weights], Any]:
    """The head replaced by a chain; its one layer with weights keeps them."""
    at = next(number for number, layer in enumerate(layers) if isinstance(layer, torch.nn.Linear))
    return lambda weights: {name.replace("fc.", f"fc.{at}."): tensor for name, tensor in weights.items()}


def lightning(weights: Weights) -> Any:
    beside = {"criterion.weight": torch.ones(3), "train_acc.total": torch.zeros(())}
    return {"epoch": 3, "state_dict": {**prefixed("model.")(weights), **beside}, "hyper_parameters": {"lr": 0.1}}


LAYERS = (torch.nn.Dropout(), torch.nn.Linear(2, 2))
TAKEN: dict[str, Callable[[Weights], Any]] = {
    "plain": lambda weights: weights,
    "DataParallel": prefixed("module."),
    "torch.compile": prefixed("_orig_mod."),
    "both": prefixed("module._orig_mod."),
    "Lightning": lightning,
    "Lightning, net": lambda w: {"state_dict": prefixed("net.")(w)},
    "Lightning, backbone": lambda w: {"state_dict": prefixed("backbone.")(w)},
    "model_state_dict": lambda w: {"model_state_dict": w, "optimizer_state_dict": {"state": {}}},
    "model": lambda w: {"model": prefixed("module.")(w), "epoch": 1},
    "nested": lambda w: {"model": {"state_dict": w}},
    "timm": lambda w: {"state_dict": w, "state_dict_ema": w, "arch": "resnet18"},
    "an unknown key": lambda w: {"my_net": w, "step": 3},
    "averaged": lambda w: {"n_averaged": torch.tensor(4), **prefixed("module.")(w)},
    "Sequential head": with_head(*LAYERS),
    "Sequential head in Lightning": lambda w: {"state_dict": prefixed("model.")(with_head(*LAYERS)(w))},
    "before torch 0.4.1": lambda w: {name: tensor for name, tensor in w.items() if "num_batches" not in name},
    "half": lambda w: {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in w.items()},
}


@pytest.mark.parametrize("wrap", TAKEN.values(), ids=TAKEN)
def test_weights_are_taken_from_what_training_wrote(
    wrap: Callable[[Weights], Any], network: Any, tmp_path: Path
) -> None:
    torch.save(wrap(OrderedDict(network.state_dict())), tmp_path / "w.pth")
    made = _loaded(resnet18, tmp_path / "w.pth")
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(made(image), network.eval()(image), rtol=1e-2, atol=1e-2)


def without(*names: str) -> Callable[[Weights], Any]:
    return lambda weights: {name: tensor for name, tensor in weights.items() if not name.startswith(names)}


REFUSED: dict[str, tuple[Callable[[Weights], Any], str]] = {
    "no head": (without("fc."), "it lacks fc.weight"),
    "a head of another name": (
        lambda w: {name.replace("fc.", "head."): tensor for name, tensor in w.items()},
        "it lacks fc.weight and holds head.weight",
    ),
    "no bias": (without("fc.bias"), "it lacks fc.bias"),
    "another network": (lambda _: torch.nn.Linear(2, 2).state_dict(), "it lacks conv1.weight and holds weight"),
    "a deeper one": (lambda w: {**w, "layer1.7.conv1.weight": torch.zeros(2)}, "holds layer1.7.conv1.weight"),
    "several layers in the head": (
        lambda w: {**without("fc.")(w), "fc.0.weight": torch.zeros(8, 512), "fc.2.weight": torch.zeros(3, 8)},
        r"chain of several layers \(fc.0, fc.2\)",
    ),
    "two networks": (
        lambda w: {**prefixed("student.")(w), **prefixed("teacher.")(w)},
        r"more than once \(student.\*, teacher.\*\)",
    ),
    "another head beside it": (
        lambda w: {**prefixed("backbone.")(w), "classifier.weight": torch.zeros(7, 512)},
        r"beside the network \(backbone.\*\) it holds classifier.weight",
    ),
    "another shape": (lambda w: {**w, "conv1.weight": torch.zeros(64, 1, 7, 7)}, "conv1.weight is .64, 1, 7, 7., and"),
    "no tensors": (lambda _: {"epoch": 3, "config": {"a": 1}}, "no tensors by name, but epoch, config"),
}


@pytest.mark.parametrize(("wrap", "words"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_named(wrap: Callable[[Weights], Any], words: str, network: Any, tmp_path: Path) -> None:
    torch.save(wrap(OrderedDict(network.state_dict())), tmp_path / "w.pth")
    with pytest.raises(UnsupportedSource, match=words) as caught:
        _loaded(resnet18, tmp_path / "w.pth")
    assert not caught.value.message.endswith(":")
    assert caught.value.hint


def test_tensors_larger_than_the_file_are_refused_under_a_prefix_too(tmp_path: Path) -> None:
    """Names that share one storage would take memory that the file does not have."""
    big = torch.zeros(1 << 16)
    torch.save({f"module.layer{at}.weight": big for at in range(200)}, tmp_path / "w.pth")
    with pytest.raises(UnsupportedSource, match="larger than the file"):
        read_weights(tmp_path / "w.pth", {f"layer{at}.weight": big for at in range(200)})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("w.pth", "weights without a network"),
        ("w.ckpt", "Lightning"),
        ("w.safetensors", "weights without a network"),
        ("m.h5", "Keras"),
        ("m.keras", "Keras"),
        ("m.pb", "TensorFlow"),
        ("m.engine", "TensorRT"),
        ("m.torchscript", "TorchScript"),
        ("m.tflite", "finished TFLite"),
        ("m.xml", "finished OpenVINO"),
        ("m.mlpackage/", "Core ML"),
        ("saved/saved_model.pb", "SavedModel"),
        ("yolov8n_openvino_model/yolov8n.xml", "finished OpenVINO"),
        ("yolov8n.ecv/bundle.json", "bundle"),
        ("models/", "is a folder"),
    ],
)
def test_a_source_of_another_kind_gets_its_own_sentence(name: str, words: str, tmp_path: Path) -> None:
    place = tmp_path / name.partition("/")[0]
    if "/" in name:
        place.mkdir()
    if not name.endswith("/"):
        (tmp_path / name).write_bytes(b"\x00")
    with pytest.raises(UnsupportedSource, match=words) as caught:
        check_source(place)
    assert caught.value.hint
    assert "FILE" not in caught.value.hint

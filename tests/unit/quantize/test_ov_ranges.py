"""Ranges by gradient in OpenVINO's files: other constants in the graph that NNCF made, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from edgecv.converters.exporters.ov import OpenVinoExporter
from edgecv.converters.source import Part, image_input
from edgecv.quantize.gradients.stats import Fingerprint, GradientStats, SeenTensor
from edgecv.quantize.ov.ranges import ends, groups, in_form_of, rounding_nodes, set_ranges
from edgecv.quantize.quantizer import WeighsRanges, quantizer_type
from edgecv.quantize.ranges import TensorStats
from edgecv.quantize.recipes import RECIPES
from edgecv.specs import TensorSpec
from tests.unit.quantize.stored_weights import in_openvino

openvino = pytest.importorskip("openvino")
pytest.importorskip("nncf")

SIDE = 32
OUTPUTS = (
    TensorSpec(name="box", role="box/4", shape=(1, 8, 8, 8), dtype="float32", layout="NCHW"),
    TensorSpec(name="class", role="class/4", shape=(1, 5, 8, 8), dtype="float32", layout="NCHW"),
)


class Detector(torch.nn.Module):
    """Pixels to boxes and classes; what two branches give is concatenated, one of them ten times as large."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = torch.nn.Conv2d(3, 8, 3, 2, 1)
        self.next = torch.nn.Conv2d(8, 8, 3, 2, 1)
        self.side = torch.nn.Conv2d(8, 8, 3, 2, 1)
        self.box = torch.nn.Conv2d(16, 8, 1)
        self.classes = torch.nn.Conv2d(16, 5, 1)
        self.act = torch.nn.SiLU()
        self.requires_grad_(False)
        self.side.weight *= 10

    def forward(self, image: Any) -> Any:
        found = self.act(self.stem(image.permute(0, 3, 1, 2).float() / 255))
        both = torch.cat((self.act(self.next(found)), self.act(self.side(found))), 1)
        return self.box(both), self.classes(both)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Made:
    """The files of one export by two recipes, and what they were made from."""

    floats: Path
    by_nncf: Path
    by_gradient: Path
    part: Part


def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8) for _ in range(4)]


def weighted(module: Detector) -> GradientStats:
    """As ``collect`` gives them, where every value counts alike."""
    runs: list[list[np.ndarray]] = []
    hook = module.act.register_forward_hook(lambda _module, _given, found: runs[-1].append(found.numpy()))
    for image in images():
        runs.append([])
        module(torch.from_numpy(image))
    hook.remove()
    return GradientStats(tensors=[seen(str(at), tensors) for at, tensors in enumerate(zip(*runs, strict=True))])


def seen(name: str, tensors: Sequence[np.ndarray]) -> SeenTensor:
    values = np.concatenate([tensor.reshape(-1) for tensor in tensors])
    stats = TensorStats(
        low=float(values.min()), high=float(values.max()), sample=values, weights=np.ones(values.size, np.float32)
    )
    return SeenTensor(name=name, stats=stats, fingerprint=Fingerprint.of(tensors[0]))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("openvino")
    for name in ("float", "work", "mse", "gradient"):
        (folder / name).mkdir()
    part = Part(inputs=(image_input((SIDE, SIDE)),), outputs=OUTPUTS, reference=dict, module=Detector())
    exported = OpenVinoExporter().export(part, folder / "float")
    quantizer = quantizer_type("openvino")(exported.files, exported.outputs, folder / "work")
    quantizer.calibrate(images(), weighted(part.module))
    recipe = RECIPES["ov-mixed-gptq"]
    assert recipe.method == "gradient"
    (by_gradient, *_), _ = quantizer.quantize(recipe, folder / "gradient")
    assert isinstance(quantizer, WeighsRanges)
    assert quantizer.weighted(recipe) == 3
    (by_nncf, *_), _ = quantizer.quantize(msgspec.structs.replace(recipe, method="mse"), folder / "mse")
    return Made(floats=exported.files[0], by_nncf=by_nncf, by_gradient=by_gradient, part=part)


def read(path: Path) -> Any:
    return openvino.Core().read_model(str(path))


def ranges(model: Any) -> dict[str, tuple[float, float]]:
    return {name: ends(node) for name, node in rounding_nodes(model).items()}


def test_the_graph_is_that_of_nncf(made: Made) -> None:
    kinds = [
        [node.get_type_name() for node in read(path).get_ordered_ops()] for path in (made.by_nncf, made.by_gradient)
    ]
    assert sorted(kinds[0]) == sorted(kinds[1])
    assert "FakeQuantize" in kinds[0]


def test_weights_are_not_touched(made: Made) -> None:
    before, after = in_openvino(made.by_nncf), in_openvino(made.by_gradient)
    assert len(before) == len(after) > 3
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def test_every_activation_gets_another_range_and_pixels_keep_theirs(made: Made) -> None:
    before, after = ranges(read(made.by_nncf)), ranges(read(made.by_gradient))
    assert before.keys() == after.keys()
    assert len(before) == 3
    assert all(before[name] != after[name] for name in before)
    every = [node for node in read(made.by_gradient).get_ordered_ops() if node.get_type_name() == "FakeQuantize"]
    assert {ends(node) for node in every} - set(after.values()) == {(0.0, 1.0), (0.0, 255.0)}


def test_what_is_concatenated_keeps_one_range(made: Made) -> None:
    model = read(made.by_gradient)
    (joint,) = [group for group in groups(model) if len(group) > 1]
    assert len({ranges(model)[name] for name in joint}) == 1
    assert joint in groups(read(made.by_nncf))


def test_zero_is_a_step_and_values_leave_as_they_entered(made: Made) -> None:
    for node in rounding_nodes(read(made.by_gradient)).values():
        low, high = ends(node)
        zero_point = -low / (high - low) * 255
        assert zero_point == pytest.approx(round(zero_point), abs=1e-3)
        limits = [node.input_value(at).get_node().data.item() for at in range(1, 5)]
        assert limits[:2] == limits[2:]


def test_gradients_of_another_network_change_nothing(made: Made) -> None:
    other = Detector()
    for layer in (other.stem, other.next, other.side):
        layer.weight *= 3
    model = read(made.by_nncf)
    assert set_ranges(model, made.floats, images()[0], weighted(other)) == 0
    assert ranges(model) == ranges(read(made.by_nncf))


@pytest.mark.parametrize(
    ("before", "zero_point"), [((0.0, 3.0), 0), ((-2.0 * 128 / 127, 2.0), 128), ((-0.5, 2.0), None)]
)
def test_a_range_keeps_its_form(before: tuple[float, float], zero_point: int | None) -> None:
    values = np.linspace(-1, 4, 500, dtype=np.float32)
    stats = TensorStats(low=-1, high=4, sample=values, weights=np.ones(500, np.float32))
    low, high = in_form_of(before, stats)
    assert 3 <= high <= 4.1
    found = -low / (high - low) * 255
    assert found == pytest.approx(zero_point if zero_point is not None else round(found), abs=1e-6)
    assert zero_point is not None or 0 < round(found) < 128

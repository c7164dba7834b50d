"""The integers that rounding chose for a module are those in the files of all three formats, but for named exceptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from edgecv.converters.exporters.litert import TfliteExporter
from edgecv.converters.exporters.ort import OnnxExporter
from edgecv.converters.exporters.ov import OpenVinoExporter
from edgecv.converters.source import Part, image_input
from edgecv.quantize.quantizer import Exported, quantizer_type
from edgecv.quantize.recipes import RECIPES, QuantizeRecipe
from edgecv.quantize.rounding.grid import NNCF_WEIGHTS, SEVEN_BITS, SYMMETRIC, Grid
from edgecv.quantize.rounding.module import round_module
from edgecv.specs import TensorSpec
from tests.unit.quantize.stored_weights import Stored, in_onnx, in_openvino, in_tflite

SIDE = 64
EXPORTERS = {"onnx": OnnxExporter, "openvino": OpenVinoExporter, "tflite": TfliteExporter}
READERS = {"onnx": in_onnx, "openvino": in_openvino, "tflite": in_tflite}


class Convolutions(torch.nn.Module):
    """A detector's parts: a stem, a depthwise and a grouped convolution, a residual, two heads that end in 1x1."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = torch.nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.depthwise = torch.nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.grouped = torch.nn.Conv2d(16, 24, 3, stride=2, padding=1, groups=4)
        self.residual = torch.nn.Conv2d(24, 24, 3, padding=1, bias=False)
        self.boxes = torch.nn.Conv2d(24, 12, 1)
        self.scores = torch.nn.Conv2d(24, 5, 1)
        self.act = torch.nn.SiLU()
        self.requires_grad_(False)

    def forward(self, image: Any) -> Any:
        found = self.act(self.stem(image.permute(0, 3, 1, 2).float()))
        found = self.act(self.grouped(self.act(self.depthwise(found))))
        found = found + self.act(self.residual(found))
        return self.boxes(found), self.scores(found)


class Transformer(torch.nn.Module):
    """Patches, attention by linear layers, a multilayer perceptron: one block of a ViT."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = torch.nn.Conv2d(3, 32, 8, stride=8)
        self.before, self.between = torch.nn.LayerNorm(32), torch.nn.LayerNorm(32)
        self.query, self.keys, self.values = (torch.nn.Linear(32, size, bias=size > 32) for size in (32, 32, 40))
        self.projection = torch.nn.Linear(40, 32)
        self.wide, self.narrow = torch.nn.Linear(32, 80), torch.nn.Linear(80, 32)
        self.requires_grad_(False)

    def forward(self, image: Any) -> Any:
        tokens = self.patches(image.float().permute(0, 3, 1, 2) / 255).flatten(2).transpose(1, 2)
        found = self.before(tokens)
        weights = (self.query(found) @ self.keys(found).transpose(1, 2) / 6).softmax(-1)
        tokens = tokens + self.projection(weights @ self.values(found))
        return tokens + self.narrow(torch.nn.functional.gelu(self.wide(self.between(tokens))))


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    return [np.cumsum(rng.integers(0, 9, (1, SIDE, SIDE, 3)), axis=2).astype(np.uint8) for _ in range(count)]


def part_of(module: Any) -> Part:
    made = module(torch.zeros(1, SIDE, SIDE, 3, dtype=torch.uint8))
    made = made if isinstance(made, tuple) else (made,)
    names = ("boxes", "scores")
    outputs = tuple(
        TensorSpec(name=name, role=name, shape=tuple(t.shape), dtype="float32", layout="NCHW" if t.dim() == 4 else "")
        for name, t in zip(names, made, strict=False)
    )
    return Part(inputs=(image_input((SIDE, SIDE)),), outputs=outputs, reference=dict, module=module)


def stored(rounded: Any, model_format: str, recipes: list[QuantizeRecipe], folder: Path) -> list[Stored]:
    """The integers that each recipe stores of one export."""
    for name in ("float", "work"):
        (folder / name).mkdir()
    exported: Exported = EXPORTERS[model_format]().export(part_of(rounded), folder / "float")
    quantizer = quantizer_type(model_format)(exported.files, exported.outputs, folder / "work")
    if any(recipe.kind == "static" for recipe in recipes):
        quantizer.calibrate(pictures(4))
    found = []
    for recipe in recipes:
        place = folder / recipe.name
        place.mkdir()
        found.append(READERS[model_format](quantizer.quantize(recipe, place)[0][0]))
    return found


def integers(layer: Any, grid: Grid) -> np.ndarray:
    """Of a rounded layer, whose weights must lie on the grid that their own largest ones give."""
    weights = layer.weight.numpy()
    flat = weights.reshape(len(weights), -1).astype(np.float64)
    steps = flat / grid.scales(flat)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    return np.rint(steps).astype(int).reshape(weights.shape)


def changed(network: Any, found: Stored, grid: Grid) -> set[str]:
    """The layers of a rounded module whose integers are not in a file."""
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    layers = {name: integers(layer, grid) for name, layer in network.named_modules() if isinstance(layer, kinds)}
    return {name for name, wanted in layers.items() if not any(np.array_equal(wanted, one) for one in found)}


@pytest.fixture(scope="module")
def convolutions() -> dict[str, Any]:
    found = round_module(Convolutions().eval(), pictures(6), (SYMMETRIC, SEVEN_BITS))
    return {name: rounded.network for name, rounded in found.items()}


def uncorrected(*names: str) -> list[QuantizeRecipe]:
    """Recipes that leave biases as they are: the rounding has corrected them."""
    return [msgspec.structs.replace(RECIPES[name], bias_correction="none") for name in names]


@pytest.mark.slow  # torch's exporter takes ten seconds to be loaded and to export
def test_onnxruntime_finds_all_but_the_stem_which_it_packs(convolutions: dict[str, Any], tmp_path: Path) -> None:
    network = convolutions["int8"]
    packed, plain = stored(network, "onnx", uncorrected("ort-u8s8", "ort-s8s8-arm64"), tmp_path)
    assert changed(network, packed, SYMMETRIC) == changed(network, plain, SYMMETRIC) == {"stem"}
    assert len(plain) == 5  # there the stem stays float
    stem = integers(network.stem, SYMMETRIC)
    rows = packed[0].reshape(-1, len(stem), packed[0][0].size)
    assert len(rows) > 1  # several pixels at once: the same integers once for each, among zeros
    for pixel in rows:
        for row, wanted in zip(pixel, stem, strict=True):
            assert sorted(row[row != 0]) == sorted(wanted[wanted != 0])


@pytest.mark.slow
def test_onnxruntime_finds_seven_bits_again(convolutions: dict[str, Any], tmp_path: Path) -> None:
    network = convolutions["int7"]
    (found,) = stored(network, "onnx", uncorrected("ort-u8s7-x86"), tmp_path)
    assert changed(network, found, SEVEN_BITS) == {"stem"}
    assert all(np.abs(one).max() == 64 for one in found[1:])


def test_nncf_finds_all_but_the_first_layer_which_has_seven_bits(convolutions: dict[str, Any], tmp_path: Path) -> None:
    network = convolutions["int8"]
    (found,) = stored(network, "openvino", uncorrected("ov-mixed"), tmp_path)
    assert changed(network, found, SYMMETRIC) == {"stem"}
    assert np.abs(found[0] - integers(network.stem, SYMMETRIC) / 2).max() <= 1


@pytest.mark.slow  # litert-torch takes twenty seconds to be loaded and to convert
def test_ai_edge_quantizer_finds_all(convolutions: dict[str, Any], tmp_path: Path) -> None:
    network = convolutions["int8"]
    (found,) = stored(network, "tflite", uncorrected("litert-static"), tmp_path)
    assert changed(network, found, SYMMETRIC) == set()


@pytest.mark.parametrize(
    ("model_format", "recipe", "grid"),
    [
        pytest.param("onnx", "ort-dynamic", SYMMETRIC, marks=pytest.mark.slow),
        pytest.param("openvino", "ov-weights-products", NNCF_WEIGHTS),
        pytest.param("tflite", "litert-dynamic-products", SYMMETRIC, marks=pytest.mark.slow),
    ],
)
def test_the_products_of_a_transformer_are_found_again(
    model_format: str, recipe: str, grid: Grid, tmp_path: Path
) -> None:
    """Its first convolution stays float."""
    network = round_module(Transformer().eval(), pictures(6), (grid,))[grid.name].network
    (found,) = stored(network, model_format, [RECIPES[recipe]], tmp_path)
    assert changed(network, found, grid) == {"patches"}
    assert len(found) == 6


@pytest.mark.slow
def test_weights_alone_are_found_again_in_every_layer(convolutions: dict[str, Any], tmp_path: Path) -> None:
    network = convolutions["int8"]
    for model_format, recipe in (("onnx", "ort-weights"), ("tflite", "litert-dynamic")):
        folder = tmp_path / model_format
        folder.mkdir()
        (found,) = stored(network, model_format, [RECIPES[recipe]], folder)
        assert changed(network, found, SYMMETRIC) == set()


def test_weights_alone_are_found_again_in_openvino(tmp_path: Path) -> None:
    network = round_module(Convolutions().eval(), pictures(6), (NNCF_WEIGHTS,))["nncf-weights"].network
    (found,) = stored(network, "openvino", [RECIPES["ov-weights"]], tmp_path)
    assert changed(network, found, NNCF_WEIGHTS) == set()

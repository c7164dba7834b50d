"""The float network is rounded once for all formats, and recipes say onto which grid."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from edgecv._internal.progress import silent
from edgecv.converters.int8.rounding import RoundedParts, grid_of
from edgecv.converters.request import Int8Options
from edgecv.converters.source import Part, image_input, logits_output
from edgecv.errors import ConfigError, QuantizationError
from edgecv.quantize.recipes import RECIPES, first_recipes, last_recipes
from edgecv.quantize.rounding.folding import folded
from edgecv.quantize.rounding.grid import NNCF_WEIGHTS, SEVEN_BITS, SYMMETRIC


class Net(torch.nn.Module):
    """A convolution with a batch norm, and a head that gives scores or the number of the best class."""

    def __init__(self, best: bool = False, shared: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = torch.nn.BatchNorm2d(6)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.head = torch.nn.Linear(6, 4)
        self.best, self.shared = best, shared
        self.eval().requires_grad_(False)

    def forward(self, image: Any) -> Any:
        found = self.conv(image.permute(0, 3, 1, 2).float() / 255)
        normed = torch.nn.functional.silu(self.norm(found))
        if self.shared:
            normed = normed + found
        scores = self.head(normed.mean((2, 3)))
        return scores.argmax(1).float() if self.best else scores


def images(count: int = 8) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    return tuple(np.cumsum(rng.integers(0, 9, (1, 32, 32, 3)), axis=2).astype(np.uint8) for _ in range(count))


def parts(module: Any, *names: str) -> RoundedParts:
    part = Part(inputs=(image_input((32, 32)),), outputs=(logits_output(4),), reference=dict, module=module)
    recipes = [RECIPES[name] for name in names]
    return RoundedParts(part=part, images=images(), recipes=recipes, seed=0, progress=silent)


@pytest.mark.parametrize(
    ("recipe", "grid"),
    [
        ("ort-u8s8", None),
        ("fp16", None),
        ("ort-u8s8-gptq", SYMMETRIC),
        ("ort-u8s7-x86-gptq", SEVEN_BITS),
        ("ort-s8s8-arm64-gptq", SYMMETRIC),
        ("ov-mixed-gptq", SYMMETRIC),
        ("ov-weights-gptq", NNCF_WEIGHTS),
        ("ov-weights-products-gptq", NNCF_WEIGHTS),
        ("ort-dynamic-gptq", SYMMETRIC),
        ("litert-dynamic-products-gptq", SYMMETRIC),
        ("tensorrt-gptq", SYMMETRIC),
        ("litert-edgetpu-gptq", SYMMETRIC),
    ],
)
def test_each_recipe_has_the_grid_of_its_quantizer(recipe: str, grid: Any) -> None:
    assert grid_of(RECIPES[recipe]) is grid


def test_the_grids_of_all_first_recipes_are_made_from_the_same_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    monkeypatch.setattr(
        "edgecv.converters.int8.rounding.round_module",
        lambda module, given, grids, *options, **named: (
            passes.append([grid.name for grid in grids]) or round_module(module, given, grids, *options, **named)
        ),
    )
    from edgecv.quantize.rounding.module import round_module

    rounded = parts(Net(), "ort-u8s8-gptq", "ort-u8s7-x86-gptq", "litert-static-gptq")
    first = rounded.on(SYMMETRIC)
    assert rounded.on(SYMMETRIC).module is first.module
    rounded.on(SEVEN_BITS)
    assert passes == [["int7", "int8"]]
    rounded.on(NNCF_WEIGHTS)
    assert passes[1:] == [["nncf-weights"]]


def test_batch_norms_are_folded_before_weights_are_rounded() -> None:
    rounded = parts(Net(), "ort-u8s8-gptq")
    made = rounded.on(SYMMETRIC).module
    assert isinstance(made.norm, torch.nn.Identity)
    steps = made.conv.weight.reshape(6, -1).numpy()
    steps = steps / SYMMETRIC.scales(steps.astype(np.float64))
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    record = rounded.record(RECIPES["ort-u8s8-gptq"])
    assert record is not None
    assert [layer.name for layer in record.layers] == ["conv", "head"]
    assert rounded.record(RECIPES["ort-u8s8"]) is None


def test_folding_keeps_the_outputs_and_leaves_a_convolution_that_is_used_twice() -> None:
    (image, *_) = images(1)
    plain, shared = Net(), Net(shared=True)
    with torch.no_grad():
        given = torch.from_numpy(image)
        torch.testing.assert_close(folded(plain, image)(given), plain(given), atol=1e-4, rtol=1e-4)
    assert folded(shared, image) is shared


def test_a_network_without_gradients_keeps_ranges_by_values_and_says_so() -> None:
    recipe = RECIPES["ort-u8s8-gptq"]
    assert parts(Net(), recipe.name).note(recipe) == ""
    said = parts(Net(best=True), recipe.name).note(recipe)
    assert said.startswith("Ranges are chosen by values alone: ")
    assert parts(Net(best=True), recipe.name).note(RECIPES["ov-mixed-gptq"]) == said
    assert parts(Net(best=True), recipe.name).note(RECIPES["ort-u8s8"]) == ""


def test_images_of_one_kind_do_not_make_rounding_worse_than_nearest_on_others() -> None:
    """A few nearly equal images: what they do not show is damped."""
    net = Net()
    one = images(1)[0]
    alike = tuple(np.clip(one.astype(int) + shift, 0, 255).astype(np.uint8) for shift in range(4))
    part = Part(inputs=(image_input((32, 32)),), outputs=(logits_output(4),), reference=dict, module=net)
    rounded = RoundedParts(part=part, images=alike, recipes=(), seed=0, progress=silent).on(SYMMETRIC).module
    nearest = folded(net, one)
    for layer in (nearest.conv, nearest.head):
        flat = layer.weight.reshape(len(layer.weight), -1).numpy()
        scales = SYMMETRIC.scales(flat.astype(np.float64))
        layer.weight.data = torch.from_numpy((np.rint(flat / scales) * scales).astype(np.float32)).reshape(
            layer.weight.shape
        )
    gaps = []
    with torch.no_grad():
        for image in images(8)[1:]:
            given = torch.from_numpy(image)
            gaps.append([float(((made(given) - net(given)) ** 2).sum()) for made in (rounded, nearest)])
    ours, theirs = np.sum(gaps, axis=0)
    assert ours <= 1.5 * theirs


def test_quick_tries_no_rounded_recipe() -> None:
    for model_format in ("onnx", "openvino", "tflite"):
        for architecture in ("conv", "transformer"):
            quick = (
                *first_recipes(model_format, architecture, effort="quick"),
                *last_recipes(model_format, architecture, "quick"),
            )
            assert {recipe.rounding for recipe in quick} == {"nearest"}
            assert first_recipes(model_format, architecture)[0].rounding == "gptq"
    assert first_recipes("onnx", "conv", "x86", "quick")[0].name == "ort-u8s7-x86"


def test_rounded_recipes_leave_nncf_nothing_to_correct() -> None:
    for recipe in RECIPES.values():
        if recipe.rounding == "gptq" and recipe.format == "openvino":
            assert recipe.bias_correction == "none"
        assert recipe.per_channel or recipe.rounding == "nearest"


def test_an_unknown_effort_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no effort 'hard'"):
        Int8Options(effort="hard")  # type: ignore[arg-type]


def test_a_rounded_recipe_is_one_with_one_word_changed() -> None:
    plain, rounded = RECIPES["ort-dynamic"], RECIPES["ort-dynamic-gptq"]
    assert msgspec.structs.replace(rounded, name=plain.name, rounding="nearest") == plain


def normed(channels: int, **options: Any) -> Any:
    norm = torch.nn.BatchNorm2d(channels, **options)
    if norm.running_mean is not None:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return norm


class Chain(torch.nn.Module):
    """Layers one after the other; what ``twice`` names is added to what follows it."""

    def __init__(self, twice: str = "", **layers: Any) -> None:
        super().__init__()
        self.chain, self.twice = torch.nn.ModuleDict(layers), twice
        self.eval().requires_grad_(False)

    def forward(self, image: Any) -> Any:
        found = image.permute(0, 3, 1, 2).float() / 255
        kept = None
        for name, layer in self.chain.items():
            found = layer(found)
            if kept is not None:
                found, kept = found + kept, None
            kept = found if name == self.twice else kept
        return found


def two_convolutions(first: Any, between: Any, twice: str = "") -> Chain:
    torch.manual_seed(0)
    last = torch.nn.Conv2d(4, 4, 1)
    return Chain(twice, first=first, between=between, norm=normed(4), last=last, last_norm=normed(4))


def norms_left(module: Any) -> list[str]:
    with torch.no_grad():
        image = torch.from_numpy(images(1)[0])
        made = folded(module, images(1)[0])
        assert torch.allclose(module(image), made(image), atol=1e-4)
    return [name for name, layer in made.chain.items() if isinstance(layer, torch.nn.BatchNorm2d)]


def test_a_norm_that_cannot_be_folded_does_not_keep_the_others() -> None:
    convolution = torch.nn.Conv2d(3, 4, 3)
    spectral = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Conv2d(3, 4, 3))
    assert norms_left(two_convolutions(convolution, torch.nn.ReLU(inplace=True))) == ["norm"]
    assert norms_left(two_convolutions(spectral, torch.nn.Identity())) == ["norm"]
    assert norms_left(two_convolutions(convolution, torch.nn.Identity(), twice="between")) == ["norm"]
    assert norms_left(two_convolutions(convolution, torch.nn.Identity())) == []


def test_norms_of_the_batch_itself_stay() -> None:
    chain = Chain(first=torch.nn.Conv2d(3, 4, 3), norm=normed(4, track_running_stats=False))
    assert norms_left(chain) == ["norm"]
    training = Chain(first=torch.nn.Conv2d(3, 4, 3), norm=normed(4))
    training.chain["norm"].train()
    assert norms_left(training) == ["norm"]


class Once(torch.nn.Module):
    """Cannot be copied, as modules that hold what belongs to the process."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 4)
        self.copies = 0

    def __deepcopy__(self, memo: Any) -> Any:
        self.copies += 1
        raise RuntimeError("only one of it")

    def forward(self, image: Any) -> Any:
        return self.layer(image.float().mean((1, 2)))


def test_a_network_that_cannot_be_rounded_fails_its_recipes_once_and_leaves_the_others() -> None:
    module = Once()
    rounded = parts(module, "ort-u8s8-gptq", "litert-static-gptq")
    for _ in range(2):
        with pytest.raises(QuantizationError, match="cannot be rounded before the export: only one of it"):
            rounded.on(SYMMETRIC)
    assert module.copies == 1


def test_the_note_on_ranges_runs_no_image_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rounded, names = parts(Net(best=True)), ("ort-u8s8-gptq", "ort-u8s7-x86-gptq")
    for name in names:
        rounded.gradients(RECIPES[name])
    monkeypatch.setattr("edgecv.converters.int8.rounding.collect", lambda *_: pytest.fail("it ran again"))
    for name in names:
        assert rounded.note(RECIPES[name]).startswith("Ranges are chosen by values alone: ")


@pytest.mark.parametrize(
    ("name", "rounded"),
    [("ort-dynamic-gptq", ["head"]), ("ov-weights-products-gptq", ["head"]), ("ov-weights-gptq", ["conv", "head"])],
)
def test_convolutions_that_a_recipe_leaves_float_are_not_rounded(name: str, rounded: list[str]) -> None:
    net, recipe = Net(), RECIPES[name]
    made, grid = parts(net, name), grid_of(recipe)
    assert grid is not None
    found = made.on(grid).module
    record = made.record(recipe)
    assert record is not None
    assert [layer.name for layer in record.layers if not layer.reason] == rounded
    if "conv" not in rounded:
        assert torch.equal(found.conv.weight, net.conv.weight)
        assert [layer.reason for layer in record.layers if layer.reason] == ["its weights stay float"]

"""Statistics weighted by the gradient of the outputs, and the ranges they give."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from edgecv.converters.source import Part, exporter, image_input
from edgecv.quantize.gradients.collect import SAMPLES, collect, weighted_places
from edgecv.quantize.gradients.loss import BACKGROUND, signed_sum
from edgecv.quantize.gradients.network import graph_of, watched
from edgecv.quantize.gradients.stats import Fingerprint, GradientStats
from edgecv.quantize.quantizer import quantizer_type
from edgecv.quantize.ranges import TensorStats, gradient, joined, mse, range_of, silu_aware
from edgecv.quantize.recipes import RECIPES
from edgecv.quantize.statistics import FEW, Statistics
from edgecv.specs import TensorSpec

GRID = (
    TensorSpec(name="box", role="box/4", shape=(1, 8, 8, 8), dtype="float32", layout="NCHW"),
    TensorSpec(name="class", role="class/4", shape=(1, 5, 8, 8), dtype="float32", layout="NCHW"),
)
LOGITS = (TensorSpec(name="logits", role="logits", shape=(1, 6), dtype="float32"),)


class Detector(torch.nn.Module):
    """Pixels to boxes and classes, through a SiLU, a concatenation and a product that one branch alone uses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = torch.nn.Conv2d(3, 8, 3, 2, 1)
        self.next = torch.nn.Conv2d(8, 8, 3, 2, 1)
        self.box = torch.nn.Conv2d(16, 8, 1)
        self.classes = torch.nn.Conv2d(16, 5, 1)
        self.requires_grad_(False)

    def forward(self, image):
        x = torch.nn.functional.silu(self.stem(image.permute(0, 3, 1, 2).float() / 255))
        x = self.next(x)
        both = torch.cat((x, torch.nn.functional.silu(x)), 1)
        return self.box(both), self.classes(both)


class Classifier(torch.nn.Module):
    """Pixels to logits, or to the number of the best one."""

    def __init__(self, *, best: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(32 * 32 * 3, 6).requires_grad_(False)
        self.best = best

    def forward(self, image):
        found = self.layer(image.float().flatten(1) / 255)
        return found.argmax(1) if self.best else found


class Undefined(Classifier):
    """Its values are no numbers."""

    def forward(self, image):
        return super().forward(image) * float("nan")


class Unseen(torch.nn.Module):
    """What ``torch.export`` cannot take: a path that depends on the values."""

    def forward(self, image):
        return image.float() if image.sum() > 10 else image.float() * 2


def images(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (1, 32, 32, 3), np.uint8) for _ in range(count)]


def tensors_of(module: torch.nn.Module, image: np.ndarray) -> dict[str, torch.Tensor]:
    """Every tensor on the way to the outputs."""
    seen: dict[str, torch.Tensor] = {}
    pixels = torch.from_numpy(image)

    def keep(name: str, tensor: torch.Tensor) -> torch.Tensor:
        seen[name] = tensor.detach()
        return tensor

    with torch.no_grad():
        watched(graph_of(module, pixels), keep).run(pixels)
    return seen


@pytest.fixture(scope="module")
def one() -> GradientStats:
    """Of the detector over one image."""
    return collect(Detector(), images(1), GRID)


@pytest.fixture(scope="module")
def found() -> GradientStats:
    """Of the detector over two images."""
    return collect(Detector(), images(2), GRID)


@pytest.fixture(scope="module")
def made() -> dict[str, np.ndarray]:
    """What the detector makes of the first of them."""
    return {name: tensor.numpy() for name, tensor in tensors_of(Detector(), images(1)[0]).items()}


def stats_named(found: GradientStats) -> dict[str, TensorStats]:
    return {seen.name: seen.stats for seen in found.tensors}


def test_weights_are_the_squared_gradients_that_autograd_gives(one: GradientStats) -> None:
    module, (image,) = Detector(), images(1)
    found = stats_named(one)
    x = torch.nn.functional.silu(module.stem(torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255))
    x = module.next(x).requires_grad_()  # used by the SiLU and by the concatenation
    both = torch.cat((x, torch.nn.functional.silu(x)), 1)
    loss = signed_sum((module.box(both), module.classes(both)), GRID, torch.Generator().manual_seed(0))
    loss.backward()
    square, values = x.grad.square().numpy().ravel(), x.detach().numpy().ravel()
    for of in (np.ones_like, np.square):
        wanted = float((square * of(values)).sum())
        weighted = float((found["conv2d_1"].weights * of(found["conv2d_1"].sample)).sum())
        assert weighted == pytest.approx(wanted, rel=0.02)


def test_what_feeds_a_silu_alone_is_judged_behind_it(one: GradientStats) -> None:
    module, (image,) = Detector(), images(1)
    stats = stats_named(one)
    assert [name for name, seen in stats.items() if seen.silu] == ["conv2d"]
    x = module.stem(torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255)
    product = torch.nn.functional.silu(x).requires_grad_()
    y = module.next(product)
    both = torch.cat((y, torch.nn.functional.silu(y)), 1)
    signed_sum((module.box(both), module.classes(both)), GRID, torch.Generator().manual_seed(0)).backward()
    wanted = float((product.grad.square() * torch.nn.functional.silu(x).square()).sum())
    sample = torch.from_numpy(stats["conv2d"].sample)
    assert float((stats["conv2d"].weights * torch.nn.functional.silu(sample).square().numpy()).sum()) == pytest.approx(
        wanted, rel=0.02
    )


def test_a_tail_that_a_silu_takes_to_nothing_is_cut_but_not_into_what_is_left_of_it() -> None:
    values = np.concatenate([np.linspace(-60, 0, 3000), np.linspace(0, 20, 3000)]).astype(np.float32)
    stats = TensorStats(low=-60, high=20, sample=values, weights=np.ones(6000, np.float32), silu=True)
    low, _ = gradient(stats)
    assert -12 < low < -4


def test_silu_is_seen_as_a_sigmoid_and_a_product(found: GradientStats) -> None:
    assert {"sigmoid", "mul", "sigmoid_1", "mul_1", "cat"} <= stats_named(found).keys()


def test_the_same_images_give_the_same_statistics_and_another_seed_others(one: GradientStats) -> None:
    first = stats_named(one)
    second, other = (stats_named(collect(Detector(), images(1), GRID, seed=seed)) for seed in (0, 1))
    assert first.keys() == second.keys()
    for name, stats in first.items():
        assert np.array_equal(stats.sample, second[name].sample)
        assert np.array_equal(stats.weights, second[name].weights)
    assert any(not np.array_equal(stats.sample, other[name].sample) for name, stats in first.items())


def test_what_is_kept_does_not_grow_with_the_images(found: GradientStats) -> None:
    for some in (found, collect(Detector(), images(8), GRID)):
        for seen in some.tensors:
            assert len(seen.stats.sample) == len(seen.stats.weights) <= SAMPLES
            assert len(seen.fingerprint.values) <= 4096


def test_extremes_are_those_of_every_image(found: GradientStats) -> None:
    stats = stats_named(found)["conv2d_1"]
    values = [tensors_of(Detector(), image)["conv2d_1"] for image in images(2)]
    assert stats.low == pytest.approx(min(float(v.min()) for v in values))
    assert stats.high == pytest.approx(max(float(v.max()) for v in values))


def test_a_weighted_sample_is_right_in_the_mean() -> None:
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.normal(0, 2, 20_000).astype(np.float32))
    gradients = torch.from_numpy((rng.normal(0, 1, 20_000) * (rng.random(20_000) < 0.01)).astype(np.float32))
    at, weights = weighted_places(values, gradients, 2000, rng)
    sample = values[at].numpy()
    for of in (np.abs, np.square, lambda x: np.maximum(x - 3, 0) ** 2):
        wanted = float((gradients.numpy() ** 2 * of(values.numpy())).sum())
        assert float((weights * of(sample)).sum()) == pytest.approx(wanted, rel=0.1)


def test_cells_without_an_object_count_little_but_count() -> None:
    outputs = [torch.zeros(1, 8, 8, 8, requires_grad=True), torch.full((1, 5, 8, 8), -9.0)]
    outputs[1][0, 3, 2, 2] = 0.0
    outputs[1].requires_grad_()
    signed_sum(outputs, GRID, torch.Generator().manual_seed(0)).backward()
    for output in outputs:
        sizes = output.grad[0].abs().amax(0) * output.shape[1] ** 0.5
        assert float(sizes[2, 2]) == pytest.approx(1 + BACKGROUND)
        assert sorted(set(sizes.flatten().tolist())) == pytest.approx([BACKGROUND, 1 + BACKGROUND])


def test_a_network_beside_the_grids_counts_as_all_their_cells() -> None:
    specs = (*GRID, TensorSpec(name="proto", role="proto", shape=(1, 4, 16, 16), dtype="float32", layout="NCHW"))
    outputs = [torch.zeros(spec.shape, requires_grad=True) for spec in specs]
    signed_sum(outputs, specs, torch.Generator().manual_seed(0)).backward()
    sums = [float(output.grad.square().sum()) for output in outputs]
    assert sums == pytest.approx([sums[0]] * 3, rel=1e-4)


@pytest.mark.parametrize(
    ("module", "outputs", "reason"),
    [
        (Classifier(best=True), LOGITS, "No output has a gradient."),
        (Unseen(), LOGITS, "cannot be differentiated"),
        (Undefined(), LOGITS, "finite"),
        (None, LOGITS, "is a graph"),
    ],
    ids=["argmax", "data-dependent", "no numbers", "no module"],
)
def test_what_has_no_gradient_says_why(
    module: torch.nn.Module | None, outputs: Sequence[TensorSpec], reason: str
) -> None:
    found = collect(module, images(2), outputs)
    assert not found.tensors
    assert reason in found.missing
    assert found.stats_for({"x": images(1)[0].astype(np.float32)}) == {}


def test_dead_layers_have_no_statistics() -> None:
    """Ranges of outputs are not chosen, so that their statistics alone are none."""
    module = Detector()
    module.box.weight.zero_()
    assert stats_named(collect(module, images(2), GRID))
    module.classes.weight.zero_()
    found = collect(module, images(2), GRID)
    assert not found.tensors
    assert "finite gradient" in found.missing


def test_matching_finds_tensors_in_either_layout_and_under_float_noise(
    found: GradientStats, made: dict[str, np.ndarray]
) -> None:
    noise = 1e-6 * np.random.default_rng(0).standard_normal(made["mul"].shape).astype(np.float32)
    files = {
        "same": made["mul"] * (1 + noise),
        "moved": np.ascontiguousarray(made["cat"].transpose(0, 2, 3, 1)),
        "flat": made["conv2d_1"].reshape(1, 8, -1),
    }
    stats = stats_named(found)
    matched = found.stats_for(files)
    assert matched["same"] is stats["mul"]
    assert matched["moved"] is stats["cat"]
    assert matched["flat"] is stats["conv2d_1"]


def test_matching_refuses_a_twin_of_equal_values_in_another_order(
    found: GradientStats, made: dict[str, np.ndarray]
) -> None:
    real = made["conv2d_1"]
    twins = {
        "mirrored": real[..., ::-1],
        "channels": real[:, ::-1],
        "another": real + 0.05 * np.random.default_rng(0).standard_normal(real.shape).astype(np.float32),
        "constant": np.zeros_like(real),
        "infinite": np.full_like(real, -np.inf),
    }
    assert found.stats_for(twins) == {}
    assert not Fingerprint.of(np.zeros((1, 4))).fits(np.zeros(4))


def test_a_file_gets_weights_where_it_can_and_values_of_few_images_elsewhere(found: GradientStats) -> None:
    seen = [
        {"cat": made["cat"].numpy(), "other": np.full((1, 7), number, np.float32)}
        for number, made in enumerate(tensors_of(Detector(), image) for image in images(2))
    ]
    ran: list[int] = []

    def runs(chosen: Sequence[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        ran.append(len(chosen))
        return (seen[min(number, 1)] for number in range(len(chosen)))

    file = Statistics(runs, images(2) * 10, found)
    weighted = file.of("gradient")
    assert ran == [FEW]
    assert weighted["cat"] is stats_named(found)["cat"]
    assert (weighted["other"].weights, weighted["other"].high) == (None, 1)
    assert file.of("mse")["cat"].weights is None
    assert file.of("mse") is file.of("percentile")
    assert ran == [FEW, 20]
    assert file.weighted() == 1


def test_a_file_of_another_network_gets_values_of_all_images_and_tells(found: GradientStats) -> None:
    def runs(chosen: Sequence[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        return ({"x": np.full((1, 3), number, np.float32)} for number in range(len(chosen)))

    file = Statistics(runs, images(2) * 10, found)
    assert file.of("gradient")["x"].high == 19
    assert file.weighted() == 0


def test_without_gradients_the_method_falls_back_to_values_of_all_images() -> None:
    def runs(chosen: Sequence[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        return ({"x": image.astype(np.float32)} for image in chosen)

    file = Statistics(runs, images(12), GradientStats(missing="No output has a gradient."))
    stats = file.of("gradient")["x"]
    assert file.of("gradient") is file.of("mse")
    assert range_of(stats, "gradient", "silu", feeds_silu=False) == mse(stats)
    assert range_of(stats, "gradient", "silu", feeds_silu=True) == silu_aware(stats)


def test_tensors_of_one_range_are_judged_together() -> None:
    rng = np.random.default_rng(0)
    small, large = (
        TensorStats(low=-size, high=size, sample=rng.uniform(-size, size, 999).astype(np.float32), weights=weights)
        for size, weights in ((1.0, np.ones(999, np.float32)), (50.0, np.full(999, 1e-9, np.float32)))
    )
    both = joined([small, large])
    assert (both.low, both.high) == (-50, 50)
    assert gradient(both)[1] < gradient(large)[1]
    plain = joined([small, TensorStats(low=0, high=1, sample=small.sample)])
    assert plain.weights is None


def test_of_two_equal_tensors_the_first_is_taken() -> None:
    class Twice(Classifier):
        def forward(self, image):
            x = self.layer(image.float().flatten(1) / 255).abs()
            return torch.relu(x) + x

    found = collect(Twice(), images(1), LOGITS)
    values = tensors_of(Twice(), images(1)[0])["abs_1"].numpy()
    assert found.stats_for({"x": values})["x"] is stats_named(found)["abs_1"]


def test_the_range_protects_what_counts() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 5000), rng.normal(30, 1, 50)]).astype(np.float32)
    plain = TensorStats(low=float(values.min()), high=float(values.max()), sample=values)
    chosen = []
    for heavy in (values < 10, values > 10):
        weights = np.where(heavy, 1.0, 1e-6).astype(np.float32)
        chosen.append(gradient(TensorStats(low=plain.low, high=plain.high, sample=values, weights=weights)))
    assert chosen[0][1] < 0.5 * plain.high
    assert chosen[1][1] >= np.quantile(values[values > 10], 0.9)
    assert gradient(plain) == mse(plain)


def test_the_weighted_search_finds_what_trying_each_range_finds() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0, 3, 2000).astype(np.float32)
    weights = rng.random(2000).astype(np.float32) ** 8
    stats = TensorStats(low=float(values.min()), high=float(values.max()), sample=values, weights=weights)
    low, high = gradient(stats)

    def error(low: float, high: float) -> float:
        scale = (high - low) / 255
        zero = round(-low / scale)
        stored = np.clip(np.rint(values / scale) + zero, 0, 255)
        return float((weights * ((stored - zero) * scale - values) ** 2).sum())

    assert error(low, high) <= error(stats.low, stats.high)
    tried = [
        error(stats.low * a, stats.high * b) for a in (1, 0.8, 0.6, 0.4) for b in (1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
    ]
    assert error(low, high) <= min(tried) * 1.01


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="which kernels fuse depends on the processor")
@pytest.mark.parametrize(("model_format", "name"), [("onnx", "ort-u8s8"), ("tflite", "litert-static")])
def test_exported_files_take_the_ranges(model_format: str, name: str, tmp_path: Path) -> None:
    for folder in ("float", "work", "int8"):
        (tmp_path / folder).mkdir()
    part = Part(inputs=(image_input((32, 32)),), outputs=GRID, reference=dict, module=Detector())
    exported = exporter(model_format).export(part, tmp_path / "float")
    quantizer = quantizer_type(model_format)(exported.files, exported.outputs, tmp_path / "work")
    quantizer.calibrate(images(4), collect(part.module, images(4), GRID))
    recipe = msgspec.structs.replace(RECIPES[name], method="gradient")
    (path, *_), outputs = quantizer.quantize(recipe, tmp_path / "int8")
    assert path.stat().st_size > 0
    assert all(spec.scale for spec in outputs)
    weighted = quantizer._stats.of("gradient")
    assert {"conv", "silu"} <= {"silu" if one.silu else "conv" for one in weighted.values() if one.weights is not None}
    assert sum(one.weights is not None for one in weighted.values()) >= 0.8 * len(weighted)

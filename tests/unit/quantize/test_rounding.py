"""Weights are rounded so that the output of a layer changes least, onto a grid that the quantizers find again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from edgecv.quantize.rounding.gptq import round_layer
from edgecv.quantize.rounding.grid import NNCF_WEIGHTS, SEVEN_BITS, SYMMETRIC, Grid
from edgecv.quantize.rounding.module import round_module
from edgecv.quantize.rounding.moments import Moments

GRIDS = (SYMMETRIC, SEVEN_BITS, NNCF_WEIGHTS)


def alike(groups: int, count: int, columns: int, seed: int = 0) -> np.ndarray:
    """Rows ``(groups, count, columns)`` whose columns go together and have a mean."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(groups, count, 3)) @ rng.normal(size=(groups, 3, columns))
    return (mixed + 0.1 * rng.normal(size=(groups, count, columns)) + 2).astype(np.float32)


def moments_of(rows: np.ndarray) -> Moments:
    found = Moments.empty(len(rows), rows.shape[2])
    found.add(rows)
    return found


def some_weights(groups: int = 1, rows: int = 8, columns: int = 40) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(groups, rows, columns)).astype(np.float32)


def integers_as_a_quantizer_finds_them(weights: np.ndarray, grid: Grid) -> np.ndarray:
    scales = grid.scales(weights.astype(np.float64))
    return np.clip(np.rint(weights / scales), grid.least, grid.most)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.name)
@pytest.mark.parametrize("groups", [1, 3])
def test_a_quantizer_finds_the_same_integers_again(grid: Grid, groups: int) -> None:
    weights = some_weights(groups)
    found = round_layer(weights, moments_of(alike(groups, 400, 40)), grid)
    scales = grid.scales(weights.astype(np.float64))
    again = integers_as_a_quantizer_finds_them(found.weights, grid)
    np.testing.assert_allclose(again * scales, found.weights, rtol=1e-6)
    np.testing.assert_allclose(grid.scales(found.weights.astype(np.float64)), scales, rtol=1e-6)


@pytest.mark.parametrize("groups", [1, 3])
def test_the_output_changes_less_than_with_nearest_rounding_also_on_other_rows(groups: int) -> None:
    weights, seen, unseen = some_weights(groups), alike(groups, 400, 40), alike(groups, 400, 40)[:, ::-1]
    found = round_layer(weights, moments_of(seen[:, :300]), SYMMETRIC)
    scales = SYMMETRIC.scales(weights.astype(np.float64))
    nearest = np.rint(weights / scales) * scales

    def error(rounded: np.ndarray, shift: np.ndarray | float = 0.0) -> float:
        change = unseen @ (rounded - weights).transpose(0, 2, 1) + shift
        return float((change**2).mean())

    assert error(found.weights, found.shift[:, None]) < 0.2 * error(nearest)
    assert found.error < 0.5 * found.nearest_error


def test_the_bias_takes_back_the_mean_change() -> None:
    weights, rows = some_weights(), alike(1, 500, 40)
    found = round_layer(weights, moments_of(rows), SYMMETRIC)
    change = rows @ (found.weights - weights).transpose(0, 2, 1) + found.shift[:, None]
    np.testing.assert_allclose(change.mean(axis=1), 0, atol=1e-5)


def test_constant_inputs_leave_each_weight_at_its_nearest_step_and_the_bias_takes_all() -> None:
    weights, rows = some_weights(), np.full((1, 50, 40), 3.0, np.float32)
    found = round_layer(weights, moments_of(rows), SYMMETRIC)
    scales = SYMMETRIC.scales(weights.astype(np.float64))
    np.testing.assert_allclose(found.weights, np.rint(weights / scales) * scales, rtol=1e-6)
    change = rows @ (found.weights - weights).transpose(0, 2, 1) + found.shift[:, None]
    np.testing.assert_allclose(change, 0, atol=1e-4)


def test_rows_of_zeros_and_dead_columns_stay_finite() -> None:
    weights, rows = some_weights(), alike(1, 300, 40)
    weights[0, 2], rows[0, :, 5] = 0, 0
    found = round_layer(weights, moments_of(rows), SYMMETRIC)
    assert np.isfinite(found.weights).all() and np.isfinite(found.shift).all()
    assert not found.weights[0, 2].any()


def test_fewer_rows_than_columns_are_no_worse_than_nearest_on_what_was_seen() -> None:
    found = round_layer(some_weights(), moments_of(alike(1, 10, 40)), SYMMETRIC)
    assert found.error <= found.nearest_error


class Small(torch.nn.Module):
    """Every kind of layer that is rounded, and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = torch.nn.Conv2d(8, 8, 3, padding="same", groups=8, bias=False)
        self.grouped = torch.nn.Conv2d(8, 8, 3, dilation=2, padding=2, groups=2, padding_mode="reflect")
        self.up = torch.nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.last = torch.nn.Linear(4, 5)
        self.requires_grad_(False)

    def forward(self, image: Any) -> Any:
        found = self.first(image.permute(0, 3, 1, 2).float() / 255)
        found = self.grouped(torch.relu(self.depthwise(found)))
        return self.last(self.up(found).mean((2, 3)))


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    return [np.cumsum(rng.integers(0, 9, (1, 32, 32, 3)), axis=2).astype(np.uint8) for _ in range(count)]


def test_a_module_is_rounded_as_a_copy_with_a_record_of_each_layer() -> None:
    module = Small()
    before = copy.deepcopy(module.state_dict())
    found = round_module(module, pictures(6), (SYMMETRIC, NNCF_WEIGHTS))
    for name, tensor in before.items():
        assert torch.equal(module.state_dict()[name], tensor)
    assert set(found) == {"int8", "nncf-weights"}
    records = {layer.name: layer for layer in found["int8"].layers}
    assert set(records) == {"first", "depthwise", "grouped", "last", "up"}
    assert records["up"].reason == "transposed convolutions are rounded to the nearest step"
    for name in ("first", "depthwise", "grouped", "last"):
        assert records[name].error is not None and records[name].error <= records[name].nearest_error
        layer = dict(found["int8"].network.named_modules())[name]
        weights = layer.weight.numpy().reshape(len(layer.weight), -1)
        steps = weights / SYMMETRIC.scales(weights.astype(np.float64))
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
        assert (np.abs(np.rint(steps)).max(axis=1) == 127).all()


@pytest.mark.parametrize("name", ["first", "depthwise", "grouped"])
def test_the_rows_of_a_convolution_are_what_its_weights_meet(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of the drawn rows times the weights is the mean of the output."""
    module = Small()
    monkeypatch.setattr("edgecv.quantize.rounding.patches.ROWS_PER_IMAGE", 10**6)
    layer = dict(module.named_modules())[name]
    seen: list[Any] = []
    layer.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    with torch.no_grad():
        module(torch.from_numpy(pictures(1)[0]))
    from edgecv.quantize.rounding.module import _patches

    rows = _patches(torch, layer, seen[0][0], np.random.default_rng(0))
    weights = layer.weight.numpy().reshape(layer.groups, -1, rows.shape[2])
    made = (rows @ weights.transpose(0, 2, 1)).transpose(0, 2, 1).reshape(layer.out_channels, -1)
    bias = 0 if layer.bias is None else layer.bias.numpy()[:, None]
    np.testing.assert_allclose(made + bias, seen[0][1][0].reshape(layer.out_channels, -1).numpy(), atol=1e-4)


def test_a_shared_weight_and_a_layer_that_never_runs_are_named() -> None:
    module = Small()
    module.extra = torch.nn.Linear(4, 5)
    module.twin, module.twins = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    module.twins.weight = module.twin.weight
    reasons = {layer.name: layer.reason for layer in round_module(module, pictures(2), (SYMMETRIC,))["int8"].layers}
    assert reasons["extra"] == "it did not run on the calibration images"
    assert reasons["twin"] == reasons["twins"] == "several layers share its weights"


def test_a_network_larger_than_the_memory_for_moments_takes_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = round_module(Small(), pictures(3), (SYMMETRIC,))["int8"].network.state_dict()
    monkeypatch.setattr("edgecv.quantize.rounding.patches.MOST_BYTES", 1)
    monkeypatch.setattr("edgecv.quantize.rounding.patches.ROWS_PER_IMAGE", 10**6)
    parts = round_module(Small(), pictures(3), (SYMMETRIC,))["int8"].network.state_dict()
    assert parts.keys() == whole.keys()


class Calls(torch.nn.Module):
    """One layer, and how it is called."""

    def __init__(self, layer: Any, call: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.layer, self.call = layer, call
        self.eval().requires_grad_(False)

    def forward(self, image: Any) -> Any:
        return self.call(self.layer, image.permute(0, 3, 1, 2).float() / 255)


def convolution() -> Any:
    torch.manual_seed(0)
    return torch.nn.Conv2d(3, 4, 3)


@pytest.mark.parametrize(
    "call", [lambda layer, x: layer(input=x), lambda layer, x: layer(x[0])], ids=["by name", "one image alone"]
)
def test_a_convolution_is_rounded_however_it_is_called(call: Callable[[Any, Any], Any]) -> None:
    (record,) = round_module(Calls(convolution(), call), pictures(2), (SYMMETRIC,))["int8"].layers
    assert record.error is not None and record.error < record.nearest_error


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    ("layer", "call", "reason"),
    [
        (
            torch.nn.utils.parametrizations.weight_norm(convolution()),
            lambda layer, x: layer(x),
            "its weights are computed in each run",
        ),
        (convolution().half(), lambda layer, x: layer(x.half()), "its weights are float16"),
        (convolution().double(), lambda layer, x: layer(x.double()), "its weights are float64"),
        (
            convolution(),
            lambda layer, x: layer(torch.log(x - 0.5)),
            "its inputs are not finite on the calibration images",
        ),
    ],
    ids=["weight norm", "half", "double", "not finite"],
)
def test_what_cannot_be_rounded_stays_as_it_is_and_says_why(
    layer: Any, call: Callable[[Any, Any], Any], reason: str
) -> None:
    module = Calls(layer, call)
    found = round_module(module, pictures(2), (SYMMETRIC,))["int8"]
    assert [record.reason for record in found.layers] == [reason]
    for before, after in zip(module.state_dict().values(), found.network.state_dict().values(), strict=True):
        assert torch.equal(before, after)

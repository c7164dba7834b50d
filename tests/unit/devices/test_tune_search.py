"""The search of ``edgecv tune`` on simulated devices: noise, drift, slow starts, ties, failures and a clock that runs out."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

import pytest

from edgecv.devices.tuning.cells import Cell, cells_of, thread_counts
from edgecv.devices.tuning.contest import Contest
from edgecv.devices.tuning.rules import Block, Outcome, best_of
from edgecv.errors import SessionError
from edgecv.runtimes.paired import log_ratios, median_interval

PAIRS = [
    ("openvino-int8", "int8", "openvino"),
    ("onnx-int8", "int8", "onnxruntime"),
    ("tflite-int8", "int8", "litert"),
    ("openvino-fp32", "fp32", "openvino"),
    ("onnx-fp32", "fp32", "onnxruntime"),
    ("tflite-fp32", "fp32", "litert"),
]
LOAD_S, WARM_UP_S = 1.5, 1.0


class SimulatedDevice:
    """A clock, and a device whose speed varies: from run to run, from block to block, and slowly with its temperature."""

    def __init__(self, seed: int, true_ms: Mapping[Cell, float], *, noise: float = 0.03, drift: float = 0.05) -> None:
        self.now, self.longest_block_s, self.calls = 0.0, 0.0, 0
        self._random, self._true_ms, self._noise, self._drift = random.Random(seed), true_ms, noise, drift
        self._loaded: set[Cell] = set()
        self._slow_start = self._random.choice(list(true_ms))

    def clock(self) -> float:
        return self.now

    def measure(self, cell: Cell, seconds: float) -> Block:
        began, self.calls = self.now, self.calls + 1
        first = cell not in self._loaded
        if first:
            self._loaded.add(cell)
            self.now += LOAD_S + WARM_UP_S
        speed = self._true_ms[cell] * (1 + self._random.gauss(0, self._noise / 2))
        speed *= 1 + self._drift * math.sin(self.now / 15)
        speed *= 1.35 if first and cell == self._slow_start else 1.0
        times: list[float] = []
        while sum(times) < seconds * 1e3 or len(times) < 3:
            times.append(speed * math.exp(self._random.gauss(0, self._noise)))
            self.now += times[-1] / 1e3
        self.longest_block_s = max(self.longest_block_s, self.now - began)
        return Block(times_ms=tuple(times), rss_bytes=100 << 20)


def contest(device: SimulatedDevice, cells: tuple[Cell, ...], budget_s: float = 90.0, **more: object) -> Outcome:
    return Contest(cells, device.measure, lambda _: "", clock=device.clock, budget_s=budget_s, **more).run()  # type: ignore[arg-type]


def a_device(seed: int, gap: float, cells: tuple[Cell, ...]) -> tuple[SimulatedDevice, Cell]:
    """A device on which one cell is the best, and the next one slower by ``gap``; the others by up to three times."""
    chance = random.Random(seed)
    order = chance.sample(cells, len(cells))
    best_ms = chance.uniform(8, 60)
    true_ms = {cell: best_ms * (1 + gap) * chance.uniform(1.0, 3.0) for cell in order}
    true_ms[order[0]], true_ms[order[1]] = best_ms, best_ms * (1 + gap)
    return SimulatedDevice(seed, true_ms), order[0]


def wrong_of(seeds: range, gap: float) -> int:
    cells = cells_of(PAIRS, thread_counts(2))
    wrong = 0
    for seed in seeds:
        device, best = a_device(seed, gap, cells)
        found = contest(device, cells)
        wrong += found.best != best
        assert found.elapsed_s <= 90.0 + device.longest_block_s
    return wrong


def test_of_100_simulated_devices_at_least_99_get_the_right_cell_when_the_gap_is_five_percent() -> None:
    assert wrong_of(range(100), 0.05) <= 1


@pytest.mark.slow
def test_of_2000_simulated_devices_at_most_one_percent_get_the_wrong_cell() -> None:
    assert wrong_of(range(1000, 3000), 0.05) <= 20


@pytest.mark.parametrize("budget_s", [0.5, 5.0, 20.0, 45.0])
def test_a_small_budget_is_never_passed_by_more_than_a_block(budget_s: float) -> None:
    cells = cells_of(PAIRS, thread_counts(4))
    for seed in range(10):
        device, _ = a_device(seed, 0.2, cells)
        found = contest(device, cells, budget_s)
        assert found.elapsed_s <= budget_s + device.longest_block_s
        assert found.best is not None
        assert len(found.results) == len(cells)


def test_a_tie_goes_to_fewer_threads_then_to_less_memory() -> None:
    two, one, other = cells_of([PAIRS[0]], (2, 1)) + cells_of([PAIRS[1]], (1,))
    for seed in range(5):
        device = SimulatedDevice(seed, {two: 20.0, one: 20.1, other: 20.05})

        def measure(cell: Cell, seconds: float, device: SimulatedDevice = device) -> Block:
            block = device.measure(cell, seconds)
            return Block(times_ms=block.times_ms, rss_bytes=80 << 20 if cell is other else 120 << 20)

        found = Contest((two, one, other), measure, lambda _: "", clock=device.clock).run()
        assert found.best == other


def test_a_variant_that_the_gate_refuses_is_not_measured_and_the_reason_is_kept() -> None:
    cells = cells_of(PAIRS[:2], (2, 1))
    device = SimulatedDevice(0, {cell: 5.0 if cell.variant == "openvino-int8" else 9.0 for cell in cells})
    asked: list[Cell] = []

    def gate(cell: Cell) -> str:
        asked.append(cell)
        return "the outputs differ here" if cell.variant == "openvino-int8" else ""

    found = Contest(cells, device.measure, gate, clock=device.clock).run()
    assert found.best is not None
    assert found.best.variant == "onnx-int8"
    assert {r.reason for r in found.results if r.stage == "refused"} == {"the outputs differ here"}
    assert len(asked) == 2, "once for each variant on each runtime"


def test_a_cell_that_cannot_run_is_left_out_with_its_reason() -> None:
    cells = cells_of(PAIRS[:2], (2, 1))
    device = SimulatedDevice(0, dict.fromkeys(cells, 10.0))
    released: list[Cell] = []

    def measure(cell: Cell, seconds: float) -> Block:
        if cell.runtime == "openvino" and device.calls > 5:
            raise SessionError("it died of signal 4")
        return device.measure(cell, seconds)

    found = Contest(cells, measure, lambda _: "", clock=device.clock, release=released.append).run()
    assert found.best is not None
    assert found.best.runtime == "onnxruntime"
    failed = [result for result in found.results if result.stage == "failed"]
    assert failed
    assert {result.reason for result in failed} == {"it died of signal 4"}
    assert {result.cell for result in failed} <= set(released)


def test_where_nothing_can_run_there_is_no_best_cell() -> None:
    cells = cells_of(PAIRS, (1,))

    def measure(cell: Cell, seconds: float) -> Block:
        raise SessionError(f"{cell.runtime} is broken")

    found = Contest(cells, measure, lambda _: "", clock=lambda: 0.0).run()
    assert found.best is None
    assert len(found.results) == len(cells)


def test_a_block_in_which_the_device_throttled_is_measured_once_more() -> None:
    cells = cells_of(PAIRS[:1], (1,))
    device = SimulatedDevice(0, dict.fromkeys(cells, 10.0))
    told = iter(["", "the throttle counter moved"])
    found = contest(device, cells, disturbed=lambda: next(told, ""))
    assert device.calls == 2
    assert found.best == cells[0]


def test_the_best_cell_of_a_precision_is_found_among_all_that_were_measured() -> None:
    cells = cells_of(PAIRS, (2, 1))
    speed = {"openvino": 1.0, "onnxruntime": 1.3, "litert": 1.4}
    device = SimulatedDevice(
        0, {c: speed[c.runtime] * (10 if c.precision == "int8" else 30) * 2 / c.threads for c in cells}
    )
    results = contest(device, cells).results
    best = best_of(results, lambda cell: cell.precision == "fp32")
    assert best is not None
    assert (best.variant, best.threads) == ("openvino-fp32", 2)
    assert best_of(results, lambda _: True) == results[0].cell
    assert best_of(results, lambda cell: cell.runtime == "none") is None


@pytest.mark.parametrize(
    ("usable", "big", "wanted"),
    [(1, 0, (1,)), (2, 0, (2, 1)), (4, 0, (4, 2, 1)), (8, 4, (8, 4, 2, 1)), (0, 0, (1,)), (4, 8, (4, 2, 1))],
)
def test_thread_counts_stay_within_what_may_be_used(usable: int, big: int, wanted: tuple[int, ...]) -> None:
    assert thread_counts(usable, big) == wanted


def test_an_accelerator_takes_part_with_one_thread_count() -> None:
    cells = cells_of([("onnx-fp32", "fp32", "onnxruntime")], (4, 2, 1), ("cpu", "cuda"))
    assert [(cell.device, cell.threads) for cell in cells] == [("cpu", 4), ("cuda", 4), ("cpu", 2), ("cpu", 1)]


def test_a_device_takes_part_with_the_runtimes_that_know_it() -> None:
    pairs = [(f"{name}-fp32", "fp32", name) for name in ("onnxruntime", "openvino", "litert", "hailo")]
    cells = cells_of(pairs, (2,), ("cuda", "gpu.1", "auto:gpu,npu"))
    assert [(cell.device, cell.runtime) for cell in cells] == [
        *(("cuda", "onnxruntime"), ("cuda", "hailo")),
        *(("gpu.1", "openvino"), ("gpu.1", "hailo")),
        *(("auto:gpu,npu", "openvino"), ("auto:gpu,npu", "hailo")),
    ]


def test_the_interval_of_a_median_holds_it_in_19_of_20_samples() -> None:
    chance = random.Random(1)
    samples = [[chance.expovariate(1.0) for _ in range(11)] for _ in range(2000)]
    held = sum(low <= math.log(2) <= high for low, high in map(median_interval, samples))
    assert 0.95 <= held / len(samples) <= 0.995
    assert median_interval([1.0] * 5) == (-math.inf, math.inf)
    assert median_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0]) == (1.0, 6.0)


def test_a_log_ratio_is_above_zero_where_the_other_is_slower() -> None:
    assert log_ratios([1.0, 2.0], [1.0, 4.0]) == [0.0, pytest.approx(math.log(2))]

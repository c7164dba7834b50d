"""The governor in a closed loop with simulated boards, and what it does when the device says nonsense."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import pytest

from edgecv.devices.governor.decide import decide
from edgecv.devices.governor.rules import Ladder, Sample, State, ladder_for
from tests.unit.devices.boards_thermal import BOARDS, Board, ThermalBoard

LADDER = ladder_for(20, 2)
HOUR = 3600
RAMP_S = 2400


@dataclass(frozen=True)
class Run:
    """What a simulated run gave."""

    hottest_c: float
    mean_share: float  # of the full frame rate, the first part of the run not counted
    changes: tuple[float, ...]


def run(
    board: Board, seconds: int, seed: int = 0, *, skip: int = HOUR, noise_c: float = 0.3, step_c: float = 0.5
) -> Run:
    device = ThermalBoard(board, seed, noise_c, step_c)
    state = State(ladder=LADDER, limit_c=board.limit_c)
    hottest, shares, changes = 0.0, 0.0, []
    for second in range(seconds):
        share = LADDER.share(state.rung)
        device.advance(share)
        hottest = max(hottest, device.chip_c)
        shares += share if second >= skip else 0.0
        state, rung, _ = decide(state, Sample(temperature_c=device.read_c()), float(second))
        if rung is not None:
            changes.append(float(second))
    return Run(hottest, shares / (seconds - skip), tuple(changes))


def best_constant(board: Board) -> float:
    """The largest share of the frames at which a board stays 2.5 C below its limit for ever."""
    shares = (LADDER.share(rung) for rung in range(LADDER.last + 1))
    return max(share for share in shares if board.steady_c(share) <= board.limit_c - 2.5)


def check(board: Board, found: Run) -> None:
    assert found.hottest_c < board.limit_c
    assert found.mean_share >= 0.95 * best_constant(board)
    assert len(found.changes) <= 40


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_board_stays_below_its_limit_and_keeps_the_frames_that_the_best_constant_rate_keeps(board: Board) -> None:
    check(board, run(board, 3000, skip=1500))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_the_same_holds_for_four_hours(board: Board, seed: int) -> None:
    check(board, run(board, 4 * HOUR, seed))


@pytest.mark.slow
@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_bad_sensor_makes_more_changes_but_the_limit_holds(board: Board) -> None:
    found = run(board, 4 * HOUR, noise_c=0.8, step_c=1.0)
    assert found.hottest_c < board.limit_c
    assert found.mean_share >= 0.9 * best_constant(board)
    assert len(found.changes) <= 80


def test_a_cool_board_is_left_alone() -> None:
    cooled = next(board for board in BOARDS if "active cooler" in board.name)
    assert run(cooled, 1800, skip=0).changes == ()


@pytest.mark.parametrize(
    "board",
    [BOARDS[0], *(pytest.param(board, marks=pytest.mark.slow) for board in BOARDS[1:3])],
    ids=("Pi 5", "Pi 4", "Pi 3"),
)
def test_where_the_least_pace_is_too_hot_a_cheaper_model_runs_and_goes_again_when_there_is_room(board: Board) -> None:
    """Slowly the place gets so warm that the least pace of the full model ends 4 °C above the target; it cools later."""
    ladder, cheaper = ladder_for(20, 4, models=2), 0.4  # of the processor time of the full model
    warmer_c = board.limit_c + 1.5 - board.steady_c(ladder.share(ladder.last))
    device, state = ThermalBoard(board, 5), State(ladder=ladder, limit_c=board.limit_c)
    hottest, models, before = 0.0, [], 0
    for second in range(4 * RAMP_S):
        warm = min(1.0, second / RAMP_S, max(0.0, (3 * RAMP_S - second) / RAMP_S))
        device.board = replace(board, ambient_c=board.ambient_c + warm * warmer_c)
        model = ladder.model(state.rung)
        device.advance(ladder.share(state.rung) * (cheaper if model else 1.0))
        hottest = max(hottest, device.chip_c)
        if model != before:
            models.append((second, model))
            before = model
        state, _, _ = decide(state, Sample(temperature_c=device.read_c()), float(second))
    assert hottest < board.limit_c
    assert [model for _, model in models] == [1, 0]
    assert models[0][0] < 1.5 * RAMP_S
    assert 2 * RAMP_S < models[1][0] < 3 * RAMP_S
    assert ladder.share(state.rung) > 0.9 * best_constant(board), "frames came back after the model"


def test_by_speed_alone_a_dearer_model_is_tried_again_after_ten_minutes_only() -> None:
    ladder = Ladder(paces=2, models=2)
    state, changes = feed(State(ladder=ladder, limit_c=None), [Sample(temperature_c=None, speed=0.7)] * 200)
    assert [rung for _, rung, _ in changes] == [1, 2, 3]
    _, changes = feed(state, [Sample(temperature_c=None, speed=1.0)] * 1300, 200.0)
    assert (changes[0][0] - 180, changes[0][1]) == (600.0, 2)


def test_load_of_other_programs_is_answered_within_seconds() -> None:
    board = BOARDS[0]
    device = ThermalBoard(board, 3)
    state = State(ladder=LADDER, limit_c=board.limit_c)
    above_s = 0
    for second in range(HOUR):
        device.advance(LADDER.share(state.rung), 1.5 if second > 1800 and second % 600 < 120 else 0.0)
        above_s += device.chip_c > board.limit_c
        state, _, _ = decide(state, Sample(temperature_c=device.read_c()), float(second))
    assert above_s <= 20


def feed(state: State, readings: list[Sample], start: float = 0.0) -> tuple[State, list[tuple[float, int, str]]]:
    """One reading a second; the state at the end and what was changed."""
    changes = []
    for second, reading in enumerate(readings):
        state, rung, why = decide(state, reading, start + second)
        if rung is not None:
            changes.append((start + second, rung, why))
    return state, changes


def test_a_steep_rise_is_answered_before_the_limit() -> None:
    """sbc-bench's series 1MFf, as devices.md tells it: a bare Pi 4 went from 68.7 to 75 C in 20 s, and to 81.8 after 125 s."""
    points = [(0, 68.7), (20, 75.0), (125, 81.8)]
    series = [
        low + (high - low) * (second - begin) / (end - begin)
        for (begin, low), (end, high) in itertools.pairwise(points)
        for second in range(begin, end)
    ]
    _, changes = feed(State(ladder=LADDER, limit_c=80.0), [Sample(temperature_c=value) for value in series])
    first_s, rung, why = changes[0]
    assert series[int(first_s)] < 79.5
    assert rung == 3
    assert "near the limit" in why


@pytest.mark.parametrize("constant_c", [100.0, 85.0])
def test_a_sensor_that_says_the_same_whatever_the_load_is_ignored_and_gives_back(constant_c: float) -> None:
    state, changes = feed(State(ladder=LADDER, limit_c=80.0), [Sample(temperature_c=constant_c)] * 300)
    assert state.stuck
    assert state.rung == 0
    assert changes[-1][1] == 0
    assert "stuck" in changes[-1][2]
    assert changes[-1][0] <= 121


def test_a_stuck_sensor_that_moves_again_is_believed_again() -> None:
    state, _ = feed(State(ladder=LADDER, limit_c=80.0), [Sample(temperature_c=100.0)] * 200)
    state, changes = feed(state, [Sample(temperature_c=79.0 + 0.5 * (second % 3)) for second in range(60)], 200.0)
    assert not state.stuck
    assert changes


def test_without_a_sensor_the_rung_is_kept() -> None:
    hot = State(ladder=LADDER, limit_c=80.0, rung=10)
    state, changes = feed(hot, [Sample(temperature_c=None)] * 900)
    assert (state.rung, changes) == (10, [])


def test_a_sensor_that_disappears_is_not_taken_for_a_cold_one() -> None:
    state, _ = feed(
        State(ladder=LADDER, limit_c=80.0, rung=10), [Sample(temperature_c=77.0 + s % 2) for s in range(90)]
    )
    rung = state.rung
    state, changes = feed(state, [Sample(temperature_c=None)] * 900, 90.0)
    assert (state.rung, changes) == (rung, [])


def test_without_a_sensor_a_counter_that_moves_is_an_emergency_and_holds_for_ten_minutes() -> None:
    readings = [Sample(temperature_c=None, counters=0 if second < 30 else 7, speed=1.0) for second in range(1000)]
    _, changes = feed(State(ladder=LADDER, limit_c=None), readings)
    assert changes[0][:2] == (30.0, 3)
    assert "counter" in changes[0][2]
    assert changes[1][0] >= 630.0
    assert changes[1][1] == 2


def test_a_counter_that_moves_does_not_wait_for_the_temperature() -> None:
    readings = [Sample(temperature_c=50.0 + second % 2, counters=second // 30) for second in range(40)]
    _, changes = feed(State(ladder=LADDER, limit_c=80.0), readings)
    assert changes[0][:2] == (30.0, 3)


def test_without_a_sensor_a_processor_that_slows_down_gets_less_to_do_and_more_when_it_recovers() -> None:
    slow, fast = Sample(temperature_c=None, speed=0.7), Sample(temperature_c=None, speed=1.0)
    state, changes = feed(State(ladder=LADDER, limit_c=80.0), [slow] * 130)
    assert [rung for _, rung, _ in changes] == [1, 2]
    assert "70% of its speed" in changes[0][2]
    _, changes = feed(state, [fast] * 200, 130.0)
    assert [rung for _, rung, _ in changes] == [1, 0]


@pytest.mark.parametrize("jump_s", [-5000.0, 5000.0])
def test_after_a_jump_of_the_clock_the_rung_stays_and_every_wait_begins_anew(jump_s: float) -> None:
    warm = [Sample(temperature_c=70.0 + second % 2) for second in range(50)]
    state, changes = feed(State(ladder=LADDER, limit_c=80.0, rung=10), warm)
    assert changes == []
    state, changes = feed(state, warm, 50 + jump_s)
    assert (state.rung, changes) == (10, [])
    _, changes = feed(state, warm[:20], 100 + jump_s)
    assert [rung for _, rung, _ in changes] == [9]


def test_the_model_is_changed_last_one_at_a_time_and_not_twice_in_five_minutes() -> None:
    ladder = Ladder(paces=6, models=3)
    hot = [Sample(temperature_c=88.0 + second % 2) for second in range(700)]
    _, changes = feed(State(ladder=ladder, limit_c=80.0), hot)
    models = [(at, ladder.model(rung)) for at, rung, _ in changes if ladder.model(rung)]
    assert [model for _, model in models] == [1, 2]
    assert models[1][0] - models[0][0] >= 300
    assert max(rung for _, rung, _ in changes) == ladder.last


def test_a_ladder_ends_at_the_least_rate() -> None:
    ladder = ladder_for(20, 2)
    assert 20 * ladder.share(ladder.last) >= 2
    assert 20 * ladder.share(ladder.last) * 0.96 < 2
    assert ladder_for(5, 20).last == 0

"""The governor's decision, as a pure function: it keeps a device just below the temperature at which it slows down by itself."""

from __future__ import annotations

from dataclasses import replace
from operator import mul
from statistics import fmean, median

from edgecv.devices.governor.rules import RULES, Rules, Sample, State

Decision = tuple[State, int | None, str]  # the next state; the rung to change to, if any; why
Series = tuple[tuple[float, float], ...]  # times and values, the newest last
_FEWEST = 5  # samples that make a slope


def decide(state: State, sample: Sample, now: float, rules: Rules = RULES) -> Decision:
    """What to do after one sample; called about once a second.

    Args:
        state: What was returned last.
        sample: What the device says.
        now: Seconds, monotonic.
        rules: The constants.

    Returns:
        The next state, the rung to change to or ``None``, and the reason.
    """
    noted, moved = _note(state, sample, now, rules)
    if noted.stuck and not state.stuck:
        value = noted.temperatures[-1][1]
        return _change(noted, noted.same_rung, now, f"the sensor is stuck at {value:g} °C: it is ignored", rules)
    if moved and _passed(now, noted.emergency_at, rules.counter_every_s):
        text = "the device throttled, or its supply was too weak: a counter moved"
        return _emergency(replace(noted, counter_at=now), now, text, rules)
    if noted.limit_c is None or noted.stuck or not _is_known(noted, now, rules):
        return _by_speed(noted, now, rules)
    return _by_temperature(noted, noted.limit_c, now, rules)


def _note(state: State, sample: Sample, now: float, rules: Rules) -> tuple[State, bool]:
    """The state with the sample in it, and whether a counter moved."""
    if state.seen_at is not None and not 0 <= now - state.seen_at <= rules.gap_s:
        state = _forget(state, now)
    moved = None not in (state.counters, sample.counters) and (sample.counters or 0) > (state.counters or 0)
    temperatures = _appended(state.temperatures, sample.temperature_c, now, rules.slope_s)
    state = _watch(state, sample.temperature_c, now, rules)
    noted = replace(
        state,
        temperatures=temperatures,
        speeds=_appended(state.speeds, sample.speed, now, rules.mean_s),
        counters=state.counters if sample.counters is None else sample.counters,
        forecast_c=_forecast(temperatures, now, rules),
        seen_at=now,
        adjusted_at=now if state.adjusted_at is None else state.adjusted_at,
    )
    return noted, moved


def _forget(state: State, now: float) -> State:
    """After a jump of the clock, or a sleep: the rung stays, what was read does not, and every wait begins anew."""
    return State(
        ladder=state.ladder,
        limit_c=state.limit_c,
        rung=state.rung,
        counters=state.counters,
        adjusted_at=now,
        model_at=None if state.model_at is None else now,
        counter_at=None if state.counter_at is None else now,
    )


def _watch(state: State, value: float | None, now: float, rules: Rules) -> State:
    """Notice a sensor that always says the same, whatever the load."""
    last = state.temperatures[-1][1] if state.temperatures else None
    if value is None:
        return state
    if value != last or state.same_since is None:
        return replace(state, same_since=now, same_rung=state.rung, stuck=False)
    moved = abs(state.rung - state.same_rung) >= rules.stuck_rungs
    return replace(state, stuck=state.stuck or (moved and now - state.same_since >= rules.stuck_s))


def _is_known(state: State, now: float, rules: Rules) -> bool:
    """Whether there is a temperature that is fresh enough to act on."""
    return bool(state.temperatures) and now - state.temperatures[-1][0] <= rules.recent_s


def _by_temperature(state: State, limit_c: float, now: float, rules: Rules) -> Decision:
    forecast = state.forecast_c
    if forecast is not None and forecast >= limit_c - rules.guard_c:
        if _passed(now, state.emergency_at, rules.emergency_every_s):
            return _emergency(state, now, f"{forecast:.0f} °C are near the limit of {limit_c:.0f} °C", rules)
        return state, None, ""
    if not _passed(now, state.adjusted_at, rules.every_s):
        return state, None, ""
    mean = fmean(_last(state.temperatures, now, rules.mean_s))
    over = mean - (limit_c - rules.below_limit_c)
    if over > rules.dead_band_c:
        return _change(state, state.rung + 1, now, f"{mean:.1f} °C is above the target", rules)
    if over < -_room_c(state, rules) and _may_climb(state, now, rules):
        return _change(state, state.rung - 1, now, f"{mean:.1f} °C is below the target", rules)
    return replace(state, adjusted_at=now), None, ""


def _by_speed(state: State, now: float, rules: Rules) -> Decision:
    """Without a temperature: what the device does to the speed of the model says whether it slows down."""
    if not state.speeds or not _passed(now, state.adjusted_at, rules.every_s):
        return state, None, ""
    speed = fmean(_last(state.speeds, now, rules.mean_s))
    if speed < rules.slow:
        return _change(state, state.rung + 1, now, f"the processor runs at {speed:.0%} of its speed", rules)
    if speed > (1 + rules.slow) / 2 and _may_climb(state, now, rules):
        return _change(state, state.rung - 1, now, "the processor runs at full speed", rules)
    return replace(state, adjusted_at=now), None, ""


def _room_c(state: State, rules: Rules) -> float:
    """How far below the target something is given back: a dearer model heats by more than a rung of the pace does."""
    return rules.model_room_c if state.ladder.model(state.rung) else rules.dead_band_c


def _may_climb(state: State, now: float, rules: Rules) -> bool:
    changed_at = state.model_at if state.ladder.model(state.rung) else None
    waited = _passed(now, state.counter_at, rules.hold_s) and _passed(now, changed_at, rules.hold_s)
    return state.rung > 0 and waited


def _emergency(state: State, now: float, reason: str, rules: Rules) -> Decision:
    state = replace(state, emergency_at=now)
    return _change(state, state.rung + rules.emergency_rungs, now, reason, rules)


def _change(state: State, wanted: int, now: float, reason: str, rules: Rules) -> Decision:
    """Go to a rung, as far as the ladder and the last change of the model allow."""
    ladder = state.ladder
    rung = min(max(wanted, 0), ladder.last)
    if ladder.model(rung) != ladder.model(state.rung):
        one = ladder.model(state.rung) + (1 if rung > state.rung else -1)
        rung = ladder.paces + one  # one model at a time
        if not _passed(now, state.model_at, rules.model_every_s):
            rung = ladder.paces if ladder.model(state.rung) == 0 else state.rung
        else:
            state = replace(state, model_at=now)
    state = replace(state, adjusted_at=now)
    if rung == state.rung:
        return state, None, ""
    return replace(state, rung=rung), rung, reason


def _passed(now: float, since: float | None, wait_s: float) -> bool:
    return since is None or now - since >= wait_s


def _appended(series: Series, value: float | None, now: float, keep_s: float) -> Series:
    kept = series[_begin(series, now, keep_s) :]
    return kept if value is None else (*kept, (now, value))


def _last(series: Series, now: float, seconds: float) -> list[float]:
    """The values of the last seconds; the newest one where there are none."""
    return [value for _, value in series[min(_begin(series, now, seconds), len(series) - 1) :]]


def _begin(series: Series, now: float, seconds: float) -> int:
    """Where the last seconds begin."""
    return next((place for place, (at, _) in enumerate(series) if now - at < seconds), len(series))


def _forecast(series: Series, now: float, rules: Rules) -> float | None:
    """Where the temperature will be in a moment; ``None`` without any."""
    if not series:
        return None
    rise = _slope(series)
    return median(_last(series, now, rules.recent_s)) + (rules.forecast_s * rise if rise > rules.least_slope else 0.0)


def _slope(series: Series) -> float:
    """Degrees per second, by least squares; 0 for a few samples."""
    count, began = len(series), series[0][0]
    times, values = [at - began for at, _ in series], [value for _, value in series]
    squares = count * sum(map(mul, times, times)) - sum(times) ** 2
    products = count * sum(map(mul, times, values)) - sum(times) * sum(values)
    return products / squares if count >= _FEWEST and squares > 0 else 0.0

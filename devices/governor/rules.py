"""What the governor knows and remembers: samples, the ladder of rungs, its constants, its state."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The constants of rule B (devices.md section 6, where two-node simulations of boards found them).

    The rule needs no model of the board: one rung a minute towards a temperature below the limit, and a larger step at once when
    the limit comes near.
    """

    below_limit_c: float = 2.5  # the target lies so far below the limit
    dead_band_c: float = 0.7  # so near to the target nothing is changed
    every_s: float = 60.0  # between two rungs towards the target
    mean_s: float = 20.0  # the temperature is averaged over so long
    rung: float = 0.04  # part of the frames that a rung gives up
    recent_s: float = 10.0  # median for an emergency; 5 s made 290 changes in 4 h with a noise of 0.8 °C
    slope_s: float = 30.0  # the rise is measured over so long
    least_slope: float = 0.08  # °C per second; what rises more slowly is noise
    forecast_s: float = 10.0
    guard_c: float = 1.0  # an emergency begins so far below the limit
    emergency_rungs: int = 3  # about a tenth of the frames
    emergency_every_s: float = 5.0
    counter_every_s: float = 15.0  # a counter goes on for a while after the load fell
    hold_s: float = (
        600.0  # after a counter moved nothing is given back for so long, nor a dearer model after a cheaper one
    )
    model_every_s: float = 300.0  # between two changes of the model
    model_room_c: float = 5.0  # a dearer model comes back only so far below the target: it heats by about as much
    gap_s: float = 30.0  # a longer silence, or a clock that goes back, makes what was read worthless
    stuck_s: float = 120.0  # a sensor whose value stays exactly the same for so long,
    stuck_rungs: int = 5  # though so many rungs were changed, is stuck
    slow: float = (
        0.9  # without a temperature: a processor that is slower than this part of its best speed is slowed down
    )


RULES = Rules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """What can be given up, in order: frames per second down to a least rate, then the model for a cheaper one."""

    paces: int  # rungs that lower the pace
    models: int = 1  # the model, and cheaper ones

    @property
    def last(self) -> int:
        """The lowest rung, where everything is given up that may be."""
        return self.paces + self.models - 1

    def model(self, rung: int) -> int:
        """Which model a rung runs: 0 for the one that was loaded."""
        return max(0, rung - self.paces)

    def share(self, rung: int, rules: Rules = RULES) -> float:
        """Part of the full frame rate that a rung keeps."""
        return float((1 - rules.rung) ** min(rung, self.paces))


def ladder_for(full_fps: float, least_fps: float, models: int = 1, rules: Rules = RULES) -> Ladder:
    """The ladder between two frame rates."""
    share = min(1.0, least_fps / full_fps)
    return Ladder(paces=floor(log(share) / log(1 - rules.rung) + 1e-9), models=models)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What the device says at one moment; ``None`` is unknown, which is never taken for fine."""

    temperature_c: float | None
    counters: int | None = None  # throttling and over-current, counted since the start
    speed: float | None = None  # part of the best speed of this model on this device


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What the governor remembers from one decision to the next."""

    ladder: Ladder
    limit_c: float | None  # above it the device slows down by itself; `None` where nobody says
    rung: int = 0
    temperatures: tuple[tuple[float, float], ...] = ()  # time and degrees, of the last half minute
    speeds: tuple[tuple[float, float], ...] = ()
    counters: int | None = None
    forecast_c: float | None = None
    seen_at: float | None = None
    adjusted_at: float | None = None  # when a rung was last changed, or could have been
    emergency_at: float | None = None
    counter_at: float | None = None  # when a counter last moved
    model_at: float | None = None
    same_since: float | None = None  # since when the temperature has not changed at all
    same_rung: int = 0  # the rung at that time
    stuck: bool = False

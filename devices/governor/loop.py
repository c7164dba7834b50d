"""The thread that asks the device once a second, and does what ``decide`` says."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from edgecv.devices.governor.decide import decide
from edgecv.devices.governor.models import Swap
from edgecv.devices.governor.rules import Sample, State, ladder_for
from edgecv.errors import EdgeCVError
from edgecv.events import Event

EVERY_S = 1.0
_LEAST_SHARE = 0.2  # of the full frame rate: what is slower is of no use, and the device looks after itself then

log = logging.getLogger("edgecv.governor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seams:
    """What the governor may touch. Nothing of the system: no clock, no fan, no power mode."""

    sample: Callable[[], Sample]
    fps: Callable[[], float]  # frames per second now; 0 where there are none yet
    pace: Callable[[float | None], None]  # frames per second from now on; `None` for as many as there are
    tell: Callable[[Event], None]
    models: int = 1  # how many there are; the first is the one that runs
    model: Callable[[int], Swap | None] = lambda _: None  # go on with another one, by its number


class Governor:
    """Keeps a running pipeline below the temperature at which its device slows down: ``start``, later ``close``.

    Whatever it gives up, and gives back, is an event of the kind ``governor`` and a line of the log.
    """

    def __init__(self, seams: Seams, limit_c: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._seams, self._clock = seams, clock
        self._state = State(ladder=ladder_for(1.0, _LEAST_SHARE, seams.models), limit_c=limit_c)
        self._full_fps: float | None = None  # the rate when the first rung was taken
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgecv-governor", daemon=True)

    @property
    def rung(self) -> int:
        """How much is given up at this moment; 0 for nothing."""
        return self._state.rung

    def start(self) -> None:
        """Begin to look at the device, in a thread of its own."""
        if self._state.limit_c is None:
            log.warning(
                "Nothing says at which temperature this device slows down: the governor acts on throttling and speed alone."
            )
        self._thread.start()

    def close(self) -> None:
        """End; the pace stays as it is."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(EVERY_S * 5)

    def step(self) -> None:
        """Ask the device, decide, and act; called once a second."""
        before = self._state
        sample = self._seams.sample()
        state, rung, why = decide(before, sample, self._clock())
        if rung is not None and self._full_fps is None:
            self._full_fps = self._seams.fps() or None
        if rung is not None and self._full_fps is None:  # no frame came yet: there is nothing to slow down
            self._state = replace(state, rung=before.rung)
            return
        self._state = state
        if rung is not None:
            self._go(before.rung, rung, why, sample)

    def _run(self) -> None:
        while not self._closing.wait(EVERY_S):
            try:
                self.step()
            except Exception:  # the run goes on without it; unlike a sensor, it is not expected to fail
                log.exception("The governor ended by an error; the frames go on at the last pace.")
                return

    def _go(self, before: int, rung: int, why: str, sample: Sample) -> None:
        ladder = self._state.ladder
        try:
            swap = self._seams.model(ladder.model(rung)) if ladder.model(rung) != ladder.model(before) else None
        except EdgeCVError as error:
            self._state = replace(self._state, rung=before, ladder=replace(ladder, models=ladder.model(before) + 1))
            log.warning("The governor cannot go on with a cheaper model, so the frame rate is all it lowers: %s", error)
            return
        self._seams.pace(self._pace(rung))
        self._say(before, rung, why, sample, swap)
        if rung == 0:
            self._full_fps = None  # it may be another one the next time

    def _pace(self, rung: int) -> float | None:
        return None if rung == 0 or self._full_fps is None else self._full_fps * self._state.ladder.share(rung)

    def _say(self, before: int, rung: int, why: str, sample: Sample, swap: Swap | None) -> None:
        pace = self._pace(rung)
        data: dict[str, Any] = {
            "from": before,
            "to": rung,
            "reason": why,
            "fps": None if pace is None else round(pace, 2),
            "temperature_c": sample.temperature_c,
            "forecast_c": None if self._state.forecast_c is None else round(self._state.forecast_c, 1),
        }
        if swap is not None:
            data["model"] = swap.as_data()
        self._seams.tell(Event(kind="governor", time_ns=time.time_ns(), data=data))
        text = "all frames again" if pace is None else f"{pace:.1f} frames per second"
        log.warning("governor: %s: %s.", text if swap is None else f"{text}, {swap}", why)

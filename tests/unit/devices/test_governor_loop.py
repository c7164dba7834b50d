"""The governor's thread: what it does to a pipeline, and what it says."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from edgecv.devices.governor.loop import Governor, Seams
from edgecv.devices.governor.rules import Sample
from edgecv.devices.governor.watch import FrameWatch
from edgecv.events import Event
from edgecv.results import Frame, Result


@dataclass
class Device:
    """What a governor sees and does, by hand."""

    temperature_c: float | None = 60.0
    counters: int | None = 0
    fps: float = 20.0
    now: float = 0.0
    paces: list[float | None] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def sample(self) -> Sample:
        return Sample(temperature_c=self.temperature_c, counters=self.counters)

    def governor(self, limit_c: float | None = 80.0) -> Governor:
        seams = Seams(sample=self.sample, fps=lambda: self.fps, pace=self.paces.append, tell=self.events.append)
        return Governor(seams, limit_c, clock=lambda: self.now)

    def go(self, governor: Governor, seconds: int, *, wobble_c: float = 0.5) -> None:
        for second in range(seconds):
            self.now += 1.0
            if self.temperature_c is not None:
                self.temperature_c += wobble_c if second % 2 else -wobble_c
            governor.step()


def test_a_hot_device_gets_fewer_frames_and_all_of_them_when_it_is_cool_again() -> None:
    device = Device(temperature_c=83.0)
    governor = device.governor()
    device.go(governor, 8)
    assert device.paces[0] == pytest.approx(20 * 0.96**3)
    lowered = governor.rung
    device.temperature_c = 60.0
    device.go(governor, 60 * (lowered + 5))
    assert governor.rung == 0
    assert device.paces[-1] is None
    assert device.paces[-2] == pytest.approx(20 * 0.96)


def test_every_change_is_an_event_with_its_reason_and_a_line(caplog: pytest.LogCaptureFixture) -> None:
    device = Device(temperature_c=83.0)
    governor = device.governor()
    with caplog.at_level(logging.WARNING):
        device.go(governor, 3)
    event = device.events[0]
    assert event.kind == "governor"
    assert (event.data["from"], event.data["to"]) == (0, 3)
    assert "near the limit of 80 °C" in event.data["reason"]
    assert event.data["fps"] == pytest.approx(17.69, abs=0.01)
    assert event.data["forecast_c"] == pytest.approx(82.8, abs=0.5)
    assert any("frames per second" in line for line in caplog.messages)


def test_before_the_first_frame_nothing_is_given_up() -> None:
    device = Device(temperature_c=85.0, fps=0.0)
    governor = device.governor()
    device.go(governor, 20)
    assert (governor.rung, device.paces) == (0, [])
    device.fps = 10.0
    device.go(governor, 6)
    assert device.paces[0] == pytest.approx(10 * 0.96**3)


def test_an_unknown_limit_is_said_and_counters_still_act(caplog: pytest.LogCaptureFixture) -> None:
    device = Device(temperature_c=90.0)
    governor = device.governor(limit_c=None)
    governor.start()
    governor.close()
    assert any("throttling and speed alone" in line for line in caplog.messages)
    device.go(governor, 5)
    assert device.paces == []
    device.counters = 3
    device.go(governor, 1)
    assert governor.rung == 3


def test_the_thread_ends_and_an_error_in_it_does_not_reach_the_pipeline(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Sample:
        raise OSError("the sensor's file is a folder now")

    nothing = Seams(sample=broken, fps=lambda: 1.0, pace=lambda _: None, tell=lambda _: None)
    governor = Governor(nothing, 80.0)
    governor.start()
    deadline = time.monotonic() + 10
    while not caplog.messages and time.monotonic() < deadline:
        time.sleep(0.05)
    governor.close()
    assert any("ended by an error" in line for line in caplog.messages)


def test_a_watch_knows_the_rate_and_the_speed_of_the_last_seconds() -> None:
    now = [0.0]
    watch = FrameWatch(lambda: now[0])
    frame = Frame(image=np.zeros((2, 2, 3), np.uint8))

    def go(frames: int, period_s: float, ms: float, model: str = "tiny") -> None:
        for _ in range(frames):
            now[0] += period_s
            watch.on_result(Result(frame=frame, timings_ms={"inference": ms}, model=model))

    assert (watch.fps(), watch.speed()) == (0.0, None)
    go(200, 0.1, 20.0)
    assert watch.fps() == pytest.approx(10)
    assert watch.speed() == pytest.approx(1)
    go(150, 0.2, 25.0)
    assert watch.fps() == pytest.approx(5, rel=0.01)
    assert watch.speed() == pytest.approx(0.8)
    go(20, 0.2, 50.0, model="other")
    assert watch.speed() == pytest.approx(1), "another model has a speed of its own"
    now[0] += 100
    assert (watch.fps(), watch.speed()) == (0.0, None)
    for _ in range(100):  # two cameras whose models have inputs of their own take turns
        go(1, 0.1, 100.0, model="wide")
        go(1, 0.1, 40.0, model="square")
    assert watch.fps() == pytest.approx(10)
    assert watch.speed() == pytest.approx(1)
    for _ in range(100):
        go(1, 0.1, 125.0, model="wide")
        go(1, 0.1, 50.0, model="square")
    assert watch.speed() == pytest.approx(0.8)

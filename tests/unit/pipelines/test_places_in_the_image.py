"""Lines and zones outside the image, and in images whose size changes."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from edgecv.pipelines.loop.step_chain import StepChain, build_steps
from edgecv.pipelines.steps import Line, Track, Zone, ZoneFilter
from edgecv.results import Detections, Result
from tests.unit.pipelines.made_results import LABELS, made_frame

SMALL, LARGE, WIDE = (640, 480), (1280, 960), (1280, 480)


def one_person(at_s: float, x: float, y: float, size_wh: tuple[int, int]) -> Result:
    """A person who stands at a share of the image."""
    width, height = size_wh
    box = [x * width - 0.05 * width, y * height - 0.2 * height, x * width + 0.05 * width, y * height]
    found = Detections(xyxy=np.array([box], np.float32), confidence=np.array([0.9], np.float32), class_id=np.array([0]))
    return Result(frame=made_frame(at_s, size_wh=size_wh), labels=LABELS, detections=found)


def run(steps: list[object], results: list[Result]) -> tuple[StepChain, list[Result]]:
    chain = StepChain(build_steps(steps, LABELS), (), lambda _: 0.0)
    return chain, [done for result in results if (done := chain(result)) is not None]


def said(results: list[Result], kind: str) -> list[str]:
    return [event.data["message"] for result in results for event in result.events if event.kind == kind]


@pytest.mark.parametrize(
    ("step", "what"),
    [
        (Line(name="gate", points=[[0, 480], [640, 480]]), "line 'gate'"),
        (Line(name="gate", points=[[700, 0], [700, 400]]), "line 'gate'"),
        (Line(name="gate", points=[[0, 479.5], [640, 479.5]]), "line 'gate'"),
        (Zone(name="yard", points=[[1000, 800], [1800, 800], [1800, 1000]]), "zone 'yard'"),
        (Zone(name="yard", points=[[640, 0], [900, 0], [900, 480], [640, 480]]), "zone 'yard'"),
        (ZoneFilter(polygons=[[[0, 500], [640, 500], [640, 700]]]), "polygon 1 of the zone filter"),
    ],
)
def test_what_lies_outside_the_image_is_said_once(step: object, what: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "edgecv.pipelines"):
        _, done = run([Track(), step], [one_person(n / 10, 0.5, 0.5, SMALL) for n in range(5)])
    messages = said(done, "step.misplaced")
    assert len(messages) == 1
    assert messages[0].startswith(f"{what} lies outside the image of 640 x 480")
    assert messages[0] in caplog.text
    assert [event.kind for event in done[0].events] == ["step.misplaced"], "with the first frame"


@pytest.mark.parametrize(
    "step",
    [
        Line(name="gate", points=[[-50, 240], [900, 240]]),
        Line(name="gate", points=[[320, 470], [320, 600]]),
        Line(name="gate", points=[[0, 0], [640, 480]]),
        Line(name="gate", points=[[0, 0.5], [1, 0.5]], units="relative"),
        Zone(name="yard", points=[[0, 0], [640, 0], [640, 480], [0, 480]]),
        Zone(name="yard", points=[[-99, -99], [2000, -99], [2000, 2000], [-99, 2000]]),
        Zone(name="yard", points=[[600, 440], [900, 440], [900, 600]]),
        # an L round the corner of the image, of which only an arm is seen
        Zone(name="yard", points=[[-90, -90], [100, -90], [100, -10], [-10, -10], [-10, 300], [50, 300], [-90, 400]]),
    ],
)
def test_what_reaches_into_the_image_is_no_fault(step: object) -> None:
    _, done = run([Track(), step], [one_person(n / 10, 0.5, 0.5, SMALL) for n in range(5)])
    assert said(done, "step.misplaced") == []


@pytest.mark.parametrize("after", [LARGE, WIDE, (320, 240)])
@pytest.mark.parametrize("units", ["px", "relative"])
def test_a_camera_that_changes_its_size_counts_a_person_once(units: str, after: tuple[int, int]) -> None:
    by = (1, 1) if units == "relative" else SMALL
    line = Line(name="gate", points=[[0, 0.5 * by[1]], [by[0], 0.5 * by[1]]], units=units)
    zone = Zone(name="yard", points=[[0, 0.6 * by[1]], [by[0], 0.6 * by[1]], [by[0], by[1]], [0, by[1]]], units=units)
    results = []
    for number in range(60):  # walks down, over the line into the zone, and stays
        y = min(0.9, 0.3 + 0.02 * number)
        sizes = (SMALL, after)
        results.append(one_person(number / 10, 0.5, y, sizes[number >= 20 and number % 20 < 10]))
    chain, done = run([Track(), line, zone], results)
    assert chain.counts("cam") == {
        "gate.in": 0,
        "gate.out": 1,
        "yard.inside": 1,
        "yard.entered": 1,
        "yard.left": 0,
    } or chain.counts("cam") == {"gate.in": 1, "gate.out": 0, "yard.inside": 1, "yard.entered": 1, "yard.left": 0}
    ids = {int(one) for result in done if result.detections for one in result.detections.tracker_id}
    assert ids <= {-1, 1}
    told = said(done, "step.rescaled")
    assert len(told) == (0 if units == "relative" else 8), "each of the two shapes at each of four changes"
    assert all("moved in proportion" in message and "relative" in message for message in told)


def test_images_of_all_sizes_are_not_told_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    sizes = [SMALL, LARGE] * 30
    step = ZoneFilter(polygons=[[[0, 0], [600, 0], [600, 400]]])
    _, done = run([step], [one_person(n / 10, 0.5, 0.5, size) for n, size in enumerate(sizes)])
    assert len(said(done, "step.rescaled")) == 10


def test_two_cameras_of_two_sizes_change_nothing() -> None:
    results = []
    for number in range(6):
        for source, size in (("a", SMALL), ("b", LARGE)):
            made = one_person(number / 10, 0.5, 0.5, size)
            results.append(replace(made, frame=replace(made.frame, source_id=source)))
    _, done = run([ZoneFilter(polygons=[[[0, 0], [600, 0], [600, 400]]])], results)
    assert said(done, "step.rescaled") == []


def test_events_and_rows_of_a_file_say_at_which_second() -> None:
    results = [one_person(n / 10, 0.5, 0.5, SMALL) for n in range(8)]
    of_a_file = [
        replace(one, frame=replace(one.frame, position_ns=number * 500_000_000)) for number, one in enumerate(results)
    ]
    zone = Zone(name="yard", points=[[0, 0], [640, 0], [640, 480]])
    _, done = run([Track(), zone], of_a_file)
    entered = next(event for result in done for event in result.events if event.kind == "zone.entered")
    at = next(result for result in done if entered in result.events)
    assert entered.data["position_s"] == at.frame.position_s == at.as_dict()["position_s"]
    _, done = run([Track(), zone], results)
    assert all("position_s" not in event.data for result in done for event in result.events)
    assert "position_s" not in done[0].as_dict()

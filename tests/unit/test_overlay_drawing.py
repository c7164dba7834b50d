"""Lines and areas of steps are painted where their points are, with their totals."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.media.overlay_drawing import draw_overlays, overlay_text
from edgecv.overlays import Overlay
from edgecv.results import Frame, Image, Result

YELLOW, RED = (0, 215, 255), (0, 0, 255)
DOOR = Overlay(name="door", shape="line", points=((100.0, 120.0), (300.0, 120.0)), counts={"in": 3, "out": 2})
YARD = Overlay(name="yard", shape="zone", points=((40.0, 40.0), (280.0, 40.0), (280.0, 200.0), (40.0, 200.0)))


def painted(*overlays: Overlay, size_hw: tuple[int, int] = (240, 400), value: int = 0) -> Image:
    image = np.full((*size_hw, 3), value, np.uint8)
    draw_overlays(image, overlays)
    return image


def is_yellow(image: Image, x: int, y: int) -> bool:
    return tuple(image[y, x].tolist()) == YELLOW


def test_a_line_is_painted_from_its_first_point_to_its_second() -> None:
    image = painted(DOOR)
    assert all(is_yellow(image, x, 120) for x in range(100, 301))
    assert not image[120, 310:].any()
    assert not image[120, :90].any()


def test_the_arrow_shows_the_side_to_which_the_first_count_leads() -> None:
    def below_and_above(overlay: Overlay) -> tuple[bool, bool]:
        image = painted(overlay)
        return is_yellow(image, 200, 120 + 20), is_yellow(image, 200, 120 - 20)

    assert below_and_above(DOOR) == (True, False), "from left to right: the right side is below"
    turned = Overlay(name="d", shape="line", points=DOOR.points[::-1])
    assert below_and_above(turned) == (False, True)


def test_an_area_has_an_outline_and_a_light_tint_inside() -> None:
    image = painted(YARD, value=100)
    assert is_yellow(image, 40, 150)
    assert is_yellow(image, 150, 200)
    inside, outside = image[120, 160].astype(int), image[120, 340]
    assert (outside == 100).all()
    assert 5 < np.abs(inside - 100).max() < 25, "what is there stays visible"


def test_name_and_totals_stand_on_a_plate_that_lies_in_the_image() -> None:
    assert overlay_text(DOOR) == "door: in 3, out 2"
    assert overlay_text(YARD) == "yard"
    for points in (((390.0, 2.0), (399.0, 100.0)), ((0.0, 0.0), (0.0, 239.0)), ((399.0, 239.0), (380.0, 239.0))):
        image = painted(Overlay(name="door", shape="line", points=points, counts={"in": 10, "out": 20}))
        plate = (image == YELLOW).all(axis=2)
        assert plate.sum() > 800
        rows = np.flatnonzero(plate.sum(axis=1) > 60)
        assert len(rows) >= 10, "the plate has its whole height"


def test_plates_of_two_areas_in_one_place_do_not_cover_each_other() -> None:
    one = painted(YARD)
    two = painted(YARD, Overlay(name="other", shape="zone", points=YARD.points))
    assert (two == YELLOW).all(axis=2).sum() > (one == YELLOW).all(axis=2).sum() + 300


def test_a_rule_that_holds_is_red() -> None:
    image = painted(Overlay(name="crowd", shape="zone", points=YARD.points, active=True))
    assert tuple(image[150, 40].tolist()) == RED


@pytest.mark.parametrize(
    "points",
    [
        ((2000.0, 2000.0), (3000.0, 2000.0)),
        ((-1e12, 100.0), (1e12, 100.0)),
        ((2000.0, 2000.0), (3000.0, 2000.0), (2500.0, 3000.0)),
        ((-1e12, -1e12), (1e12, -1e12), (1e12, 1e12), (-1e12, 1e12)),
    ],
)
def test_points_far_outside_the_image_are_no_trouble(points: tuple[tuple[float, float], ...]) -> None:
    shape = "zone" if len(points) > 2 else "line"
    image = painted(Overlay(name="far", shape=shape, points=points))
    assert image.any(), "the name shows that there is something"


def test_a_plotted_result_shows_them_and_the_frame_stays_as_it_is() -> None:
    image = np.zeros((240, 400, 3), np.uint8)
    result = Result(frame=Frame(image=image), overlays=(DOOR, YARD))
    plotted = result.plot()
    assert is_yellow(plotted, 110, 120)
    assert is_yellow(plotted, 40, 150)
    assert not image.any()
    assert "overlays" not in result.as_dict()

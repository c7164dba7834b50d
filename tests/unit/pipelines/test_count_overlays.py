"""What line and zone counters give to be painted, and where it is seen."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from edgecv.overlays import Overlay
from edgecv.pipelines.preview.painted import encode
from edgecv.pipelines.sinks import open_sink
from edgecv.pipelines.steps import Line, Zone
from edgecv.results import Image, Result
from tests.unit.pipelines.recorded import LABELS, result_of, standing_at

LINE = Line(name="door", points=[[100, 300], [500, 300]], settle_s=0, per_class=True)
ZONE = Zone(name="yard", points=[[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]], units="relative", settle_s=0)


def walked(*options: Line | Zone) -> Result:
    """The last result of one object that walks down through the line and the area."""
    steps = [one.build(LABELS) for one in options]
    for at, y in enumerate((200, 280, 320, 400)):
        result = result_of(standing_at((400, y), ids=[1]), at * 0.1)
        for step in steps:
            result = step(result)
    return result


def test_a_line_gives_its_points_in_pixels_and_its_totals_by_short_name() -> None:
    (overlay,) = walked(LINE).overlays
    assert overlay == Overlay(
        name="door", shape="line", points=((100.0, 300.0), (500.0, 300.0)), counts={"in": 1, "out": 0}
    )


def test_an_area_gives_its_points_in_pixels_and_what_is_in_it() -> None:
    result = walked(LINE, ZONE)
    height, width = result.frame.image.shape[:2]
    (_, overlay) = result.overlays
    assert overlay.shape == "zone"
    assert overlay.points == tuple((x * width, y * height) for x, y in ZONE.points)
    assert overlay.counts == {"inside": 1, "entered": 1, "left": 0}


def test_the_points_move_with_the_size_of_the_image() -> None:
    step = LINE.build(LABELS)
    step(result_of(standing_at(ids=[]), 0.0))
    half = result_of(standing_at(ids=[]), 0.1)
    smaller = Result(frame=half.frame.with_image(half.frame.image[::2, ::2]), labels=LABELS, detections=half.detections)
    (overlay,) = step(smaller).overlays
    assert overlay.points == ((50.0, 150.0), (250.0, 150.0))


def test_an_overlay_is_made_anew_only_when_something_changed() -> None:
    step = LINE.build(LABELS)
    first, second = (step(result_of(standing_at(ids=[]), at * 0.1)).overlays[0] for at in range(2))
    assert first is second


def yellow(image: Image) -> bool:
    """Whether the line is there, whatever compression makes of it."""
    at = image[round(300 * image.shape[0] / 576), round(150 * image.shape[1] / 768)].astype(int)
    return bool(np.abs(at - (0, 215, 255)).max() < 90)


def test_page_video_and_drawn_snapshots_show_the_line_and_plain_ones_do_not(tmp_path: Path) -> None:
    result = walked(LINE)
    assert result.frame.image.shape[:2] == (576, 768)
    assert yellow(cv2.imdecode(np.frombuffer(encode(result, 960), np.uint8), cv2.IMREAD_COLOR))
    for name, draw in (("drawn", 1), ("plain", 0)):
        for sink in (f"snapshots:{tmp_path / name}?on=all&draw={draw}", f"segments:{tmp_path / name}-s?draw={draw}"):
            _write(sink, result)
        (picture,) = (tmp_path / name).glob("*.jpg")
        assert yellow(cv2.imread(str(picture))) is bool(draw)
        (video,) = (tmp_path / f"{name}-s").glob("*.mp4")
        assert yellow(_first_image(video)) is bool(draw)
    _write(f"video:{tmp_path / 'out.mp4'}", result)
    assert yellow(_first_image(tmp_path / "out.mp4"))


def _write(uri: str, result: Result) -> None:
    sink = open_sink(uri, fps=10.0)
    sink.emit(result)
    sink.close()


def _first_image(path: Path) -> Image:
    with av.open(str(path)) as container:
        image: Image = next(container.decode(video=0)).to_ndarray(format="bgr24")
        return image


@pytest.mark.parametrize("options", [LINE, ZONE])
def test_a_counter_for_another_source_draws_nothing(options: Line | Zone) -> None:
    other = type(options)(**{**{name: getattr(options, name) for name in options.__struct_fields__}, "sources": ("b",)})
    assert other.build(LABELS)(result_of(standing_at(ids=[]), 0.0)).overlays == ()

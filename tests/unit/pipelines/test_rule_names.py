"""Rules that name what does not exist are errors before anything opens; those that are right find their zones and lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecv.cli.app_config import check_app, read_app_file
from edgecv.errors import ConfigError
from edgecv.pipelines.loop.step_chain import build_steps, linked_steps
from edgecv.pipelines.steps import Crowd, Line, Speed, Track, Zone
from tests.unit.pipelines.recorded import LABELS

POINTS = "[[100, 100], [300, 100], [300, 300]]"
APP = f"""
[[sources]]
name = "door"
uri = "rtsp://door/1"

[[sources]]
name = "yard"
uri = "rtsp://yard/1"

[[steps]]
type = "track"

[[steps]]
type = "zone"
name = "hall"
points = {POINTS}
anchor = "center"

[[steps]]
type = "zone"
name = "entrance"
points = {POINTS}
sources = ["door"]

[[steps]]
type = "line"
name = "gate"
points = [[100, 100], [300, 100]]

[[steps]]
"""


def checked(tmp_path: Path, step: str) -> None:
    path = tmp_path / "app.toml"
    path.write_text(APP + step)
    app = check_app(read_app_file(path), "app.toml")
    build_steps(app.steps, LABELS)


@pytest.mark.parametrize(
    ("step", "message", "hint"),
    [
        ('type = "crowd"\nname = "x"\nleast = 2\nzone = "hal"', "the zone 'hal', and no step is called so", "'hall'"),
        (
            'type = "crowd"\nname = "x"\nleast = 2\nzone = "gate"',
            "names 'gate' as a zone, and it is a line",
            "hall, entrance",
        ),
        ('type = "crowd"\nname = "hall"\nleast = 2', "Two steps are named 'hall'", "a name of its own"),
        ('type = "crowd"\nname = "x"\nleast = 2\nsources = ["dor"]', "the source 'dor'", "'door'"),
        (
            'type = "crowd"\nname = "x"\nleast = 2\nzone = "entrance"\nsources = ["yard"]',
            "'entrance', which it names, is not",
            "door",
        ),
        (
            f'type = "crowd"\nname = "x"\nleast = 2\nzone = "hall"\npoints = {POINTS[:-1]}, [100, 300]]',
            "has points and names",
            "Leave",
        ),
        ('type = "dwell"\nname = "x"\nfor_s = 9\nclasses = ["persn"]', "no class 'persn'", "'person'"),
        ('type = "left_behind"\nname = "x"\nclasses = ["car"]\nnear_classes = ["men"]', "no class 'men'", "person"),
        ('type = "left_behind"\nname = "x"\nclasses = []', "classes", ""),
        ('type = "dwell"\nname = "x"', "for_s", ""),
        ('type = "absence"\nname = "x"\nfor_s = 0', "for_s", ""),
        ('type = "crowd"\nname = "x"\nleast = 0', "least", ""),
        ('type = "crowd"\nname = "x"\nleast = 2\nends_below = 3', "would end below 3", "at most"),
        ('type = "crowd"\nname = "a b"\nleast = 2', "name", ""),
        (
            'type = "crowd"\nname = "x"\nleast = 2\npoints = [[0, 0], [90, 90], [90, 0], [0, 90]]',
            "crosses itself",
            "corners",
        ),
        ('type = "crowd"\nname = "x"\nleast = 2\nsched = 3', "no option 'sched'", "schedule"),
        ('type = "speed"\nname = "x"\nlines = ["gate", "gat"]\ndistance_m = 3', "the line 'gat'", "'gate'"),
        ('type = "speed"\nname = "x"\nlines = ["gate", "gate"]\ndistance_m = 3', "two different lines", "first"),
        ('type = "speed"\nname = "x"\nlines = ["gate", "hall"]\ndistance_m = 3', "as a line, and it is a zone", "gate"),
        ('type = "speed"\nname = "x"\nlines = ["gate", [[9, 9], [9, 99]]]\ndistance_m = 3', "two different lines", ""),
        (
            'type = "speed"\nname = "x"\nlines = [[[9, 9], [9, 9]], [[50, 9], [50, 99]]]\ndistance_m = 3',
            "two different points",
            "",
        ),
        (
            'type = "speed"\nname = "x"\nlines = [[[9, 9], [9, 90]], [[50, 9], [50, 99]]]\ndistance_m = 0',
            "distance_m",
            "",
        ),
        (
            'type = "speed"\nname = "x"\nlines = [[[9, 9], [9, 90]], [[50, 9], [50, 99]]]\ndistance_m = 3\nover = 5\nunder = 5',
            "contradict",
            "under",
        ),
    ],
)
def test_a_wrong_rule_is_an_error_with_a_next_step(tmp_path: Path, step: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checked(tmp_path, step)
    assert message in f"{caught.value} {caught.value.hint}"
    assert hint in caught.value.hint


def test_a_rule_before_any_tracker_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "app.toml"
    path.write_text('[[steps]]\ntype = "dwell"\nname = "stay"\nfor_s = 5\n')
    with pytest.raises(ConfigError, match="'stay' needs tracked objects"):
        check_app(read_app_file(path), "app.toml")


def test_a_linked_rule_has_the_points_anchor_and_sources_of_its_zone() -> None:
    zone = Zone(
        name="hall", points=[[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]], units="relative", anchor="center", sources=["door"]
    )
    own, other = Crowd(name="a", zone="hall", least=2), Crowd(name="b", zone="hall", least=2, anchor="top_center")
    for order in ([zone, own, other], [own, other, zone]):
        linked = {step.name: step for step in linked_steps(order)}
        first, second = linked["a"], linked["b"]
        assert isinstance(first, Crowd) and isinstance(second, Crowd)
        assert (first.points, first.units, first.sources) == (
            ((0.1, 0.1), (0.9, 0.1), (0.9, 0.9)),
            "relative",
            ("door",),
        )
        assert (first.anchor, second.anchor) == ("center", "top_center")
        assert linked_steps([*order[:0], *linked.values()]), "a rule may be linked again"


def test_a_speed_rule_is_for_the_sources_of_both_its_lines() -> None:
    def lines(first: list[str], second: list[str]) -> list[object]:
        return [
            Line(name="a", points=[[9, 9], [9, 99]], sources=first),
            Line(name="b", points=[[50, 9], [50, 99]], sources=second),
            Speed(name="x", lines=["a", "b"], distance_m=3),
        ]

    for first, second in ((["door"], []), ([], ["door"]), (["door"], ["door"])):
        (*_, rule) = linked_steps(lines(first, second))
        assert isinstance(rule, Speed)
        assert rule.sources == ("door",)
    with pytest.raises(ConfigError, match="'door', and 'b'"):
        linked_steps(lines(["door"], ["yard"]))


@pytest.mark.parametrize(
    "rule", [Crowd(name="x", least=2, zone="hall"), Speed(name="x", lines=["a", "b"], distance_m=3)]
)
def test_a_rule_that_is_built_alone_says_that_it_does_not_know_what_it_names(rule: Crowd | Speed) -> None:
    with pytest.raises(ConfigError, match="does not know here"):
        rule.build(LABELS)


def test_a_rule_for_some_sources_leaves_the_others_alone() -> None:
    (_, rule) = build_steps([Track(), Crowd(name="x", least=1, sources=["door"])], LABELS)
    assert rule.step.counts("cam") == {}  # type: ignore[attr-defined]

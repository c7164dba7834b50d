"""Filters, areas, and the options that a configuration names."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, strategies as st

from edgecv import registry
from edgecv.cli.app_config import AppFile, check_app
from edgecv.errors import ConfigError
from edgecv.pipelines import steps
from edgecv.pipelines.loop.step_chain import linked_steps
from edgecv.pipelines.source_config import SourceConfig
from edgecv.pipelines.steps.filter.confidence import Confidence
from edgecv.pipelines.steps.filter.zone import ZoneFilter
from edgecv.pipelines.steps.regions import Shape, anchor_points, inside
from edgecv.results import Classification, Result
from tests.conftest import CHECKOUT
from tests.unit.pipelines.recorded import LABELS, at_s, boxes, result_of, standing_at

SQUARE = [[100, 100], [200, 100], [200, 200], [100, 200]]


def test_a_limit_per_class() -> None:
    found = boxes((0, 0, 9, 9, 0.3, 0), (0, 0, 9, 9, 0.3, 1), (0, 0, 9, 9, 0.7, 1), (0, 0, 9, 9, 0.1, 2))
    step = Confidence(least=0.3, classes={"bicycle": 0.6, "2": 0.05}).build(LABELS)
    kept = step(result_of(found)).detections
    assert kept is not None and kept.confidence.tolist() == pytest.approx([0.3, 0.7, 0.1])


def test_classifications_are_filtered_too() -> None:
    answer = Classification(class_id=np.array([2, 0]), confidence=np.array([0.6, 0.4], np.float32))
    result = replace(result_of(None), classification=answer)
    assert Confidence(least=0.5).build()(result).classification.class_id.tolist() == [2]
    assert steps.Classes(keep=["person"]).build(LABELS)(result).classification.class_id.tolist() == [0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Confidence(least=2), "least"),
        (Confidence(least=0.2, classes={"persn": 0.3}), "persn"),
        (steps.Classes(keep=[]), "keep"),
        (steps.Classes(keep=["dog"]), "dog"),
    ],
    ids=str,
)
def test_wrong_limits_are_refused(options: Confidence, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options.build(LABELS)


def kept_by(options: ZoneFilter, result: Result) -> list[bool]:
    step = options.build(LABELS)
    found = result.detections
    assert found is not None
    marked = replace(found, data={"row": np.arange(len(found))})
    kept = step(replace(result, detections=marked)).detections
    assert kept is not None and kept.data is not None
    return np.isin(np.arange(len(found)), kept.data["row"]).tolist()


def test_detections_in_any_area_stay() -> None:
    result = result_of(standing_at((150, 150), (250, 150), (450, 150), (150, 90)))
    other = [[400, 100], [500, 100], [450, 200]]
    assert kept_by(ZoneFilter(polygons=[SQUARE]), result) == [True, False, False, False]
    assert kept_by(ZoneFilter(polygons=[SQUARE, other]), result) == [True, False, True, False]
    assert kept_by(ZoneFilter(polygons=[SQUARE, other], keep="outside"), result) == [False, True, False, True]
    assert ZoneFilter(polygons=[SQUARE]).build()(result_of(None)).detections is None
    assert kept_by(ZoneFilter(polygons=[SQUARE]), result_of(boxes())) == []


@pytest.mark.parametrize(
    ("anchor", "point"),
    [
        ("bottom_center", (30, 60)),
        ("center", (30, 40)),
        ("top_center", (30, 20)),
        ("top_left", (10, 20)),
        ("top_right", (50, 20)),
        ("bottom_left", (10, 60)),
        ("bottom_right", (50, 60)),
    ],
)
def test_anchors(anchor: str, point: tuple[float, float]) -> None:
    x, y = point
    around = [[x - 1, y - 1], [x + 1, y - 1], [x + 1, y + 1], [x - 1, y + 1]]
    assert kept_by(ZoneFilter(polygons=[around], anchor=anchor), result_of(boxes((10, 20, 50, 60)))) == [True]


def test_relative_areas_follow_the_size_of_the_frame() -> None:
    halves = ZoneFilter(polygons=[[[0, 0], [0.5, 0], [0.5, 1], [0, 1]]], units="relative")
    step, found = halves.build(), standing_at((150, 150))
    small = replace(at_s(0), image=np.zeros((200, 200, 3), np.uint8))
    assert len(step(result_of(found)).detections) == 1
    assert len(step(replace(result_of(found), frame=small)).detections) == 0


@pytest.mark.parametrize("corner", [(768, 576), (767, 575)])
def test_a_box_cut_off_by_the_frame_stands_in_an_area_that_ends_there(corner: tuple[int, int]) -> None:
    x, y = corner
    whole = ZoneFilter(polygons=[[[0, 0], [x, 0], [x, y], [0, y]]])
    edges = boxes((0, 0, 20, 30), (748, 500, 768, 576), (748, 0, 768, 30), (0, 500, 10, 576))
    for anchor in ("bottom_center", "bottom_right", "top_left"):
        assert kept_by(msgspec.structs.replace(whole, anchor=anchor), result_of(edges)) == [True] * 4


@pytest.mark.parametrize(
    ("polygon", "units", "message"),
    [
        ([[0, 0], [10, 0]], "px", "three points"),
        ([[0, 0], [100, 100], [100, 0], [0, 100]], "px", "crosses itself"),
        ([[0, 0], [100, 0], [50, 0]], "px", "crosses itself"),
        ([[0, 0], [100, 0], [100, 0], [0, 100]], "px", "crosses itself"),
        ([[0, 0], [100, 0], [100, 100], [50, 0], [0, 100]], "px", "crosses itself"),
        ([[0, 0], [100, 0], [200, 0]], "px", "crosses itself"),
        ([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]], "px", "smaller than a pixel"),
        ([[10, 10], [90, 10], [90, 90]], "relative", "outside 0 to 1"),
        ([[float("nan"), 10], [90, 10], [90, 90]], "px", "no number"),
        ([[0, 10], [1e308, 10], [90, 90]], "px", "farther away"),
        ([[0, 0, 1], [90, 10], [90, 90]], "px", "option of ZoneFilter"),
    ],
)
def test_areas_that_are_none_are_refused(polygon: list[list[float]], units: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ZoneFilter(polygons=[polygon], units=units).build()


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=3, max_size=7))
def test_the_even_odd_rule_written_out(corners: list[tuple[int, int]]) -> None:
    """Against a ray counted edge by edge; half pixels lie on no corner."""
    polygon = np.array(corners, float)
    points = np.array([(x + 0.5, y + 0.25) for x in range(0, 30, 3) for y in range(0, 30, 3)])
    assert inside(points, polygon).tolist() == [_ray(x, y, corners) for x, y in points]


def _ray(x: float, y: float, corners: list[tuple[int, int]]) -> bool:
    odd = False
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        if min(y1, y2) <= y < max(y1, y2) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
            odd = not odd
    return odd


@given(st.integers(3, 9), st.integers(0, 10**6))
def test_stars_in_order_round_their_middle_are_areas(corners: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    angle = np.arange(corners) * 2 * np.pi / corners
    radius = rng.uniform(50, 200, corners)
    star = np.column_stack([300 + radius * np.cos(angle), 300 + radius * np.sin(angle)])
    shape = Shape.polygon([tuple(point) for point in star], "px", "a star")
    assert inside(np.array([[300.0, 300.0]]), shape.points).tolist() == [True]


def test_points_of_no_boxes() -> None:
    assert anchor_points(boxes().xyxy, "center", at_s(0)).shape == (0, 2)


@pytest.mark.parametrize("kind", ["steps", "gates"])
def test_every_registered_name_is_a_strict_set_of_options(kind: str) -> None:
    for name in registry.names(kind):
        options = registry.resolve(kind, name)
        assert issubclass(options, msgspec.Struct) and callable(options.build)
        assert options.__struct_config__.forbid_unknown_fields, name
        assert options.__struct_config__.frozen, name
        assert f'type = "{name}"' in (options.__doc__ or "")
        assert options is getattr(steps, options.__name__), "one way to name it in Python"
        described = "".join(inspect.cleandoc(kind.__doc__ or "") for kind in options.__mro__)
        for field in options.__struct_fields__:
            assert f"\n    {field}: " in described, f"{name}.{field} is not described"


def test_python_names_and_registered_names_are_the_same() -> None:
    registered = {registry.resolve(kind, name).__name__ for kind in ("steps", "gates") for name in registry.names(kind)}
    besides = {"Options", "PerSource", "Schedule", "checked"}
    assert registered | besides == set(steps.__all__) == set(dir(steps))
    with pytest.raises(AttributeError, match="Trak"):
        steps.Trak  # noqa: B018


def test_naming_a_step_loads_neither_opencv_nor_scipy() -> None:
    program = (
        "import sys; from edgecv.pipelines.steps import *; "
        "sys.exit(bool({'cv2', 'scipy', 'onnxruntime'} & {name.split('.')[0] for name in sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, timeout=60, check=False).returncode == 0


def test_lazy_names_point_to_modules_that_exist() -> None:
    for module in steps._LAZY.values():
        assert importlib.import_module(module)


def test_the_documented_tables_are_what_the_program_reads(tmp_path: Path) -> None:
    text = (CHECKOUT / "docs/steps.md").read_text()
    tables = [msgspec.toml.decode(block) for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)]
    gates = [table for document in tables for table in document.get("gates", [])]
    named = [table for document in tables for table in document.get("steps", [])]
    assert {table["type"] for table in gates} == set(registry.names("gates"))
    assert {table["type"] for table in named if "type" in table} == set(registry.names("steps"))
    (own,) = re.findall(r"```python\n(def crowd.*?)```", text, re.DOTALL)
    (tmp_path / "mystep.py").write_text(own)
    (tmp_path / "app.toml").write_text("")
    sources = [SourceConfig("0", "door")]
    file = AppFile(gates=gates, steps=named, sources=sources)
    app = check_app(file, "docs/steps.md", code_beside=tmp_path / "app.toml")
    assert len(app.gates) == len(gates)
    for options in linked_steps(app.steps):
        if "model" not in options.__struct_fields__:  # there is no such bundle
            assert callable(
                msgspec.structs.replace(options, **_no_state(options)).build((*LABELS, "backpack", "suitcase"))
            )


def _no_state(options: msgspec.Struct) -> dict[str, str]:
    return {"state": ""} if "state" in options.__struct_fields__ else {}

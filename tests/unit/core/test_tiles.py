"""Small objects are found in tiles, large ones in the whole image, and each stands in the answer once."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import edgecv
from edgecv.cli.app_config import AppFile, ModelTable, check_app
from edgecv.errors import ConfigError, SpecMismatch
from edgecv.pipelines.fitting_model import FittingModel, load_fitting
from edgecv.results import Classification, Detections, Frame
from edgecv.tiles.grid import Tiles, read_tiles
from edgecv.tiles.merge import Seen, merge
from edgecv.tiles.model import TiledModel
from edgecv.tiles.views import put_together
from tests.command_line import run_here
from tests.models import bright_cell, write_bundle
from tests.shapes import SQUARE, WIDE, write_shapes
from tests.unit.core.tiled import SIDE, Box, ColourSession, colour_model, scene

GRID = Tiles(columns=2, rows=2, overlap=0.25)  # of 224 pixels: tiles of 128, from 0 and from 96
WHOLE = (0, 0, 224, 224)
LEFT, RIGHT = (0, 0, 128, 224), (96, 0, 224, 224)


def boxes(found: Detections | Classification) -> list[list[float]]:
    assert isinstance(found, Detections)
    return sorted(found.xyxy.tolist())


def near(found: Detections | Classification, *wanted: Box) -> bool:
    rows = boxes(found)
    return len(rows) == len(wanted) and bool(np.abs(np.array(rows) - sorted(wanted)).max(initial=0) <= 2)


def seen(*rows: tuple[float, float, float, float, float]) -> Detections:
    """Boxes with a confidence each, of class 0, in pixels of the view."""
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Detections(xyxy=table[:, :4], confidence=table[:, 4], class_id=np.zeros(len(table), np.int64))


def test_a_small_object_is_found_in_a_tile_alone() -> None:
    plain, image = colour_model(), scene((150, 30, 164, 44))
    assert boxes(plain(image)) == []
    assert near(TiledModel(plain, GRID)(image), (150, 30, 164, 44))


def test_an_object_larger_than_a_tile_stays_one() -> None:
    assert near(TiledModel(colour_model(), GRID)(scene((20, 20, 210, 200))), (20, 20, 210, 200))


def test_an_object_in_the_strip_between_two_tiles_stands_once() -> None:
    assert near(TiledModel(colour_model(), GRID)(scene((98, 98, 126, 126))), (98, 98, 126, 126))


def test_parts_of_an_object_that_no_view_shows_whole_are_joined() -> None:
    wide = (40, 50, 190, 63)  # too low for the whole image, cut by both tiles
    plain, image = colour_model(), scene(wide)
    assert boxes(plain(image)) == []
    found = TiledModel(plain, GRID)(image)
    assert near(found, wide)


def test_parts_in_four_tiles_are_joined() -> None:
    views = [
        seen(),
        seen((60, 60, 128, 128, 0.6)),
        seen((0, 60, 80, 128, 0.7)),
        seen((60, 0, 128, 80, 0.5)),
        seen((0, 0, 80, 80, 0.4)),
    ]
    found = put_together(views, (WHOLE, *GRID.windows((224, 224))), 0.7, 300)
    assert boxes(found) == [[60, 60, 176, 176]]
    assert found.confidence.tolist() == pytest.approx([0.7])


def test_a_part_goes_where_another_view_shows_the_object_whole() -> None:
    found = put_together([seen((50, 20, 200, 120, 0.5)), seen((50, 20, 128, 120, 0.9))], (WHOLE, LEFT), 0.7, 300)
    assert boxes(found) == [[50, 20, 200, 120]]


def test_a_part_stays_where_the_whole_one_is_hardly_there() -> None:
    found = put_together([seen((0, 0, 224, 224, 0.05)), seen((50, 20, 128, 120, 0.9))], (WHOLE, LEFT), 0.7, 300)
    assert boxes(found) == [[0, 0, 224, 224], [50, 20, 128, 120]]


ANNA, BEN = (100.0, 20.0, 120.0, 70.0), (106.0, 22.0, 126.0, 72.0)  # they overlap by half


@pytest.mark.parametrize("apart", [0, -2, -4])  # pixels to the left: BEN ends at the border of his tile, or before it
@pytest.mark.parametrize("left", [(ANNA, BEN), (ANNA,), (BEN,)])
@pytest.mark.parametrize("right", [(ANNA, BEN), (ANNA,), (BEN,)])
@pytest.mark.parametrize("sure", [0.9, 0.4])
def test_two_people_who_stand_close_stay_two(
    left: tuple[tuple[float, ...], ...], right: tuple[tuple[float, ...], ...], sure: float, apart: int
) -> None:
    """Whichever tile saw which of them, and whoever is surer: if one view told them apart, two come out."""
    move, shift = np.array([apart, 0, apart, 0]), np.array([96, 0, 96, 0])
    rows = seen(*((*(np.array(one) + move), sure - 0.1 * at) for at, one in enumerate(left)))  # type: ignore[arg-type]
    others = seen(*((*(np.array(one) + move - shift), 0.6) for one in right))  # type: ignore[arg-type]
    found = put_together([seen(), rows, others], (WHOLE, LEFT, RIGHT), 0.7, 300)
    if len(left) == 2 or len(right) == 2:
        assert len(found) == 2
    elif left == right:
        assert len(found) == 1


def test_two_people_close_at_a_border_stay_two() -> None:
    """One is cut by the left tile, the other by the right one; they share the strip, one above the other."""
    left, right = seen((80, 20, 128, 60, 0.8)), seen((0, 75, 40, 130, 0.8))
    assert len(put_together([seen(), left, right], (WHOLE, LEFT, RIGHT), 0.7, 300)) == 2


def test_objects_of_two_classes_are_never_merged() -> None:
    model = TiledModel(colour_model(ColourSession(classes=(0, 1, 0, 0, 0, 0))), GRID)
    found = model(scene((30, 30, 70, 70), (34, 34, 74, 74)))
    assert sorted(found.names) == ["car", "person"]


def test_limits_hold_for_the_image_and_not_for_a_tile() -> None:
    image = scene((10, 10, 40, 40), (150, 10, 200, 60), (10, 150, 60, 200), (150, 150, 170, 170))
    model = TiledModel(colour_model(), GRID)
    assert len(model(image)) == 4
    assert near(model(image, max_detections=2), (150, 10, 200, 60), (10, 150, 60, 200))
    assert len(model(image, classes=["car"])) == 0
    assert len(model(image, confidence=0.95)) == 0


@pytest.mark.parametrize("batch", [2, 3, 5, 8])
def test_a_batch_takes_as_many_views_at_a_time_and_finds_the_same(batch: int) -> None:
    session = ColourSession(batch=batch)
    image = scene((10, 10, 40, 40), (98, 98, 126, 126), (150, 30, 164, 44))
    assert boxes(TiledModel(colour_model(session), GRID)(image)) == boxes(TiledModel(colour_model(), GRID)(image))
    assert session.runs == math.ceil(5 / batch)


def test_many_images_give_what_each_alone_gives() -> None:
    images = [scene((10, 10, 40, 40)), scene((150, 30, 164, 44), size_wh=(300, 224)), scene()]
    model = TiledModel(colour_model(), GRID)
    assert [boxes(found) for found in model.many(iter(images))] == [boxes(model(image)) for image in images]


def test_a_result_counts_the_time_of_all_views() -> None:
    session = ColourSession()
    result = TiledModel(colour_model(session), GRID).look(scene((10, 10, 40, 40)))
    assert session.runs == 5
    assert set(result.timings_ms) == {"preprocess", "inference", "postprocess"}
    assert (result.names, result.model) == (("person",), "colours")


@pytest.mark.parametrize("size_wh", [(40, 40), (1, 1), (500, 20), (SIDE, SIDE)])
def test_an_image_that_tiles_bring_nothing_for_is_still_right(size_wh: tuple[int, int]) -> None:
    plain, image = colour_model(), scene((2, 2, size_wh[0] - 2, size_wh[1] - 2), size_wh=size_wh)
    assert near(TiledModel(plain, GRID)(image), *[tuple(round(v) for v in row) for row in boxes(plain(image))])  # type: ignore[arg-type]


def test_what_is_no_image_is_refused_as_by_any_model() -> None:
    with pytest.raises(SpecMismatch, match="An image must be"):
        TiledModel(colour_model(), GRID)(np.zeros((3, 4), np.uint8))


def test_outputs_of_another_model_are_refused() -> None:
    plain, tiled = colour_model(), TiledModel(colour_model(), GRID)
    feeds, transform = plain.prepare(scene())
    with pytest.raises(ConfigError, match="not those of tiles"):
        tiled.decode(plain.infer(feeds), transform)


def test_closing_it_closes_the_model_that_it_is_made_of() -> None:
    session = ColourSession()
    with TiledModel(colour_model(session), "2x2"):
        assert not session.closed
    assert session.closed


def test_masks_and_keypoints_lie_in_the_image() -> None:
    def view(window: tuple[int, int, int, int], xyxy: list[float], point: list[float], sure: float) -> Detections:
        mask = np.zeros((1, window[3] - window[1], window[2] - window[0]), np.bool_)
        mask[0, int(xyxy[1]) : int(xyxy[3]), int(xyxy[0]) : int(xyxy[2])] = True
        return Detections(
            xyxy=np.array([xyxy], np.float32),
            confidence=np.array([sure], np.float32),
            class_id=np.zeros(1, np.int64),
            mask=mask,
            keypoints=np.array([[point, [1, 1, 0.0]]], np.float32),
        )

    views = [
        view(LEFT, [60, 50, 128, 70], [70, 60, 0.3], 0.6),
        view(RIGHT, [0, 50, 100, 70], [90, 60, 0.8], 0.5),
    ]
    empty = Detections(
        xyxy=np.zeros((0, 4), np.float32),
        confidence=np.zeros(0, np.float32),
        class_id=np.zeros(0, np.int64),
        mask=np.zeros((0, 224, 224), np.bool_),
        keypoints=np.zeros((0, 2, 3), np.float32),
    )
    found = put_together([empty, *views], (WHOLE, LEFT, RIGHT), 0.7, 300)
    assert boxes(found) == [[60, 50, 196, 70]]
    assert found.mask is not None
    assert found.mask[0, 50:70, 60:196].all()
    assert found.mask.sum() == 20 * 136
    assert found.keypoints is not None
    assert found.keypoints[0, 0].tolist() == pytest.approx([186, 60, 0.8])
    nothing = put_together([empty, empty[:0], empty[:0]], (WHOLE, LEFT, RIGHT), 0.7, 300)
    assert nothing.mask is not None
    assert nothing.mask.shape == (0, 224, 224)


@given(st.integers(1, 8), st.integers(1, 8), st.floats(0, 0.5), st.integers(64, 4000), st.integers(64, 4000))
def test_tiles_cover_the_image_and_overlap(columns: int, rows: int, overlap: float, width: int, height: int) -> None:
    tiles = Tiles(columns=columns, rows=rows, overlap=overlap)
    windows = tiles.windows((width, height))
    tile_w, tile_h = tiles.tile_wh((width, height))
    if not windows:
        assert min(tile_w, tile_h) < 32
        return
    assert len(windows) == columns * rows
    assert {(right - left, bottom - top) for left, top, right, bottom in windows} == {(tile_w, tile_h)}
    for axis, side, length, count in ((0, tile_w, width, columns), (1, tile_h, height, rows)):
        starts = sorted({window[axis] for window in windows})
        assert len(starts) == count
        assert (starts[0], starts[-1]) == (0, length - side)
        assert all(after - before <= side - overlap * side + 1 for before, after in itertools.pairwise(starts))


@pytest.mark.parametrize(
    "text", ["0x2", "2x0", "20x20", "9x1", "5x4", "2", "2x", "x2", "-1x2", "2x2x2", "2.5x2", "two", ""]
)
def test_grids_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="tiles"):
        Tiles.read(text)


def test_one_tile_is_refused() -> None:
    with pytest.raises(ConfigError, match="One tile is the whole image"):
        Tiles.read("1x1")


@pytest.mark.parametrize("overlap", [-0.1, 0.51, math.nan, math.inf, "0.2", True])
def test_overlaps_that_make_no_sense_are_refused(overlap: float) -> None:
    with pytest.raises(ConfigError, match="tile_overlap"):
        Tiles.read("2x2", overlap)


def test_grids_are_read_as_people_write_them() -> None:
    assert Tiles.read(" 3X2 ") == Tiles(columns=3, rows=2)
    assert str(Tiles.read("02x1")) == "2x1"
    assert read_tiles(None) is None
    with pytest.raises(ConfigError, match="there are none"):
        read_tiles("", 0.3)


@pytest.mark.parametrize(
    "table", [{"tiles": "0x2"}, {"tiles": "2x2", "tile_overlap": 0.9}, {"tile_overlap": 0.1}, {"tiles": "1x1"}]
)
def test_app_toml_is_refused_before_anything_opens(table: dict[str, object]) -> None:
    file = AppFile(model=ModelTable(bundle="missing.ecv", **table))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="tile"):
        check_app(file, "app.toml")


def test_a_model_that_finds_no_boxes_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny.ecv")
    text = (bundle.path / "bundle.json").read_text()
    (bundle.path / "bundle.json").write_text(
        text.replace('"task": "detect"', '"task": "classify"').replace('"task":"detect"', '"task":"classify"')
    )
    for model in bundle.path.rglob("model.onnx"):
        model.unlink()  # whoever would load it fails otherwise
    with pytest.raises(ConfigError, match="'classify' model, and tiles are for detect, segment and pose"):
        load_fitting(bundle.path, GRID)
    image = tmp_path / "image.png"
    for words in (
        ["predict", bundle.path, image, "--tiles", "2x2"],
        ["run", bundle.path, "--source", image, "--tiles", "2x2"],
    ):
        done = run_here(*words)
        assert done.returncode == 2, done.stderr
        assert "tiles are for" in done.stderr


def test_a_pipeline_takes_it(tmp_path: Path) -> None:
    frames = [scene((150, 30, 164, 44)), scene((10, 10, 40, 40))]

    class Frames:
        source_id, live, fps = "door", False, 0.0

        def read(self) -> Frame | None:
            return Frame(image=frames.pop(0), source_id="door") if frames else None

        def close(self) -> None: ...

    results = list(edgecv.Pipeline(Frames(), TiledModel(colour_model(), GRID)))
    assert [
        near(result.detections, box)
        for result, box in zip(results, ((150, 30, 164, 44), (10, 10, 40, 40)), strict=True)
    ] == [True, True]  # type: ignore[arg-type]
    assert all(result.timings_ms["inference"] > 0 for result in results)


def test_of_several_input_shapes_the_one_that_fits_a_tile_is_taken(tmp_path: Path) -> None:
    bundle = write_shapes(tmp_path / "shapes.ecv", (SQUARE, WIDE))
    with load_fitting(bundle.path, Tiles(columns=1, rows=2)) as model:
        assert isinstance(model, FittingModel)
        seen_by_door = Frame(image=np.zeros((180, 200, 3), np.uint8), source_id="door")
        chosen = model.model_for(seen_by_door)
        assert isinstance(chosen, TiledModel)
        assert chosen.variant is not None
        assert chosen.variant.size_wh == WIDE
    with load_fitting(bundle.path, GRID, variant="onnx-fp32") as named:
        assert isinstance(named, TiledModel)


def test_a_real_session_computes_tiles(tmp_path: Path) -> None:
    """Cells of 16 pixels, of which the whole image of 112 shows less than one."""
    image = np.zeros((112, 112, 3), np.uint8)
    image[:64, :64] = bright_cell(1, 2)
    with edgecv.Model.load(write_bundle(tmp_path / "tiny.ecv").path, threads=1) as plain:
        assert len(plain(image, confidence=0.9)) == 0
        found = TiledModel(plain, "2x2", 0.25)(image, confidence=0.9)
        assert boxes(found) == [[32, 16, 48, 32]]


def test_thousands_of_boxes_are_merged_in_bounded_time_and_the_surest_stay() -> None:
    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 900, (5000, 2)).astype(np.float32)
    seen = Seen(
        xyxy=np.hstack([corners, corners + 20]),
        confidence=rng.uniform(0.01, 1, 5000).astype(np.float32),
        class_id=np.zeros(5000, np.int64),
        view=np.zeros(5000, np.int64),
        windows=[(0, 0, 1000, 1000)],
    )
    tracemalloc.start()
    kept = merge(seen, 0.7, 300)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(kept) == 300
    assert max(one.surest for one in kept) < 5000
    assert int(np.argmax(seen.confidence)) == kept[0].surest
    assert peak < 300_000_000  # of all 5,000 at once it would be more than 600 MB

"""Each source gets the input shape that fits its frames; two shapes at most are loaded."""

from __future__ import annotations

import gc
import itertools
import logging
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import edgecv
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.manifest import MANIFEST
from edgecv.errors import BundleError, ConfigError
from edgecv.model import Model
from edgecv.pipelines.fitting_model import FittingModel, load_fitting
from edgecv.pipelines.sources.frames import FrameStamper
from edgecv.results import Frame
from tests.models import write_bundle
from tests.shapes import MIDDLE, SQUARE, TALL, WIDE, frame, write_shapes


class Camera:
    """Some black frames of one size with a white rectangle."""

    live, fps = False, 0.0

    def __init__(self, name: str, size_wh: tuple[int, int], count: int = 3) -> None:
        self.source_id, self._left = name, count
        self._image, self._stamper = frame(size_wh, (32, 32, 64, 64)), FrameStamper(name)

    def read(self) -> Frame | None:
        self._left -= 1
        return self._stamper.stamp(self._image.copy()) if self._left >= 0 else None

    def close(self) -> None:
        pass


def seen(source: str, size_wh: tuple[int, int]) -> Frame:
    return Frame(image=frame(size_wh), source_id=source)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_shapes(tmp_path / "shapes.ecv", (SQUARE, WIDE, MIDDLE, TALL))


@pytest.fixture
def model(bundle: Bundle) -> Iterator[FittingModel]:
    loaded = load_fitting(bundle.path)
    assert isinstance(loaded, FittingModel)
    with loaded:
        yield loaded


def loaded_shapes(model: FittingModel) -> set[tuple[int, int]]:
    return set(model._models)


def test_a_bundle_of_one_shape_is_loaded_as_ever(tmp_path: Path, bundle: Bundle) -> None:
    with load_fitting(write_bundle(tmp_path / "one.ecv").path, precision="fp32") as one:
        assert isinstance(one, Model)
    with load_fitting(bundle.path, variant="onnx-fp32-64x32") as named:
        assert isinstance(named, Model)
    assert edgecv.load(bundle.path).variant.size_wh == SQUARE


def test_one_camera_needs_one_session(model: FittingModel) -> None:
    assert (model.name, loaded_shapes(model)) == ("tiny", set())
    fitted = model.model_for(seen("door", (1280, 640)))
    assert fitted.variant is not None
    assert fitted.variant.size_wh == WIDE == model.variant.size_wh
    assert (model.name, loaded_shapes(model)) == ("tiny/onnx-fp32-64x32", {WIDE})
    assert model.model_for(seen("door", (500, 500))) is fitted  # its first frame decides


def test_a_pipeline_gives_each_source_its_shape(model: FittingModel, caplog: pytest.LogCaptureFixture) -> None:
    cameras = [Camera("wide", (128, 64)), Camera("other", (128, 64)), Camera("square", (128, 128))]
    with caplog.at_level(logging.INFO, "edgecv.choosing"):
        results = list(edgecv.Pipeline(cameras, model, confidence=0.9))
    assert len(results) == 9
    for result in results:
        wanted = "tiny/onnx-fp32" if result.frame.source_id == "square" else "tiny/onnx-fp32-64x32"
        assert result.model == wanted
        assert result.detections is not None
        assert np.allclose(result.detections.xyxy, [[32, 32, 64, 64]], atol=0.5)
    assert loaded_shapes(model) == {SQUARE, WIDE}
    said = [record.getMessage() for record in caplog.records if "second session" in record.getMessage()]
    assert len(said) == 1
    assert "more memory" in said[0]


def test_a_third_shape_is_not_loaded_beside_two(model: FittingModel) -> None:
    for source, size_wh in (("wide", (1280, 640)), ("photo", (640, 480)), ("upright", (480, 960))):
        model.model_for(seen(source, size_wh))
    assert loaded_shapes(model) == {MIDDLE, TALL}  # of all pairs this one wastes least on the three
    chosen = {name: model.model_for(seen(name, (1, 1))).variant for name in ("wide", "photo", "upright")}
    assert {name: variant and variant.size_wh for name, variant in chosen.items()} == {
        "wide": MIDDLE,
        "photo": MIDDLE,
        "upright": TALL,
    }


def test_a_shape_that_is_given_up_is_freed_when_its_last_frame_is_done(model: FittingModel) -> None:
    computing = model.model_for(seen("wide", (1280, 640)))
    session = weakref.ref(computing.session)
    for source, size_wh in (("photo", (640, 480)), ("upright", (480, 960))):
        model.model_for(seen(source, size_wh))
    assert computing(frame((64, 32))) is not None  # a frame in flight still ends with it
    del computing
    gc.collect()
    assert session() is None


def test_a_source_that_is_gone_is_forgotten_and_so_is_the_shape_that_it_alone_had(model: FittingModel) -> None:
    model.model_for(seen("door", (640, 640)))
    session = weakref.ref(model.model_for(seen("yard", (1280, 640))).session)
    model.forget("yard")
    model.forget("yard")
    gc.collect()
    assert session() is None
    assert loaded_shapes(model) == {SQUARE}
    turned = model.model_for(seen("yard", (640, 1280)))
    assert turned.variant is not None
    assert turned.variant.size_wh == TALL, "another camera of the same name has another shape"


def test_a_pipeline_tells_it_that_a_source_is_removed(model: FittingModel) -> None:
    with edgecv.Pipeline(
        {"wide": Camera("wide", (128, 64), 10_000), "door": Camera("door", (128, 128), 40)}, model
    ) as run:
        came: set[str] = set()
        for result in run:
            came.add(result.frame.source_id)
            if came == {"wide", "door"}:
                assert loaded_shapes(model) == {WIDE, SQUARE}
                run.remove_source("wide")
                came.add("removed")
        assert result.frame.source_id == "door"
        assert loaded_shapes(model) == {SQUARE}


def test_many_cameras_may_ask_at_once(bundle: Bundle) -> None:
    sizes = [(1280, 640), (640, 480), (480, 960), (640, 640)]
    frames = [seen(f"camera {number}", sizes[number % 4]) for number in range(16)]
    with load_fitting(bundle.path) as model, ThreadPoolExecutor(16) as pool:
        assert isinstance(model, FittingModel)
        for found in pool.map(model.model_for, frames):
            assert found(frame((64, 64))) is not None
        assert len(loaded_shapes(model)) == 2
        assert {model.model_for(one).variant.size_wh for one in frames} == loaded_shapes(model)  # type: ignore[union-attr]


def test_a_damaged_shape_ends_the_run_with_its_error(bundle: Bundle) -> None:
    (bundle.path / "onnx-fp32-64x32/model.onnx").write_bytes(b"damaged")
    with load_fitting(bundle.path) as model, pytest.raises(BundleError, match="64x32"):
        edgecv.Pipeline(Camera("wide", (128, 64)), model).run()


def test_what_no_variant_fits_is_said_before_a_frame(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="int8"):
        load_fitting(bundle.path, precision="int8")


def test_a_closed_one_gives_no_model(bundle: Bundle) -> None:
    model = load_fitting(bundle.path)
    assert isinstance(model, FittingModel)
    model.model_for(seen("door", (640, 480)))
    model.close()
    model.close()
    for source in ("yard", "door"):
        with pytest.raises(ConfigError, match="closed"):
            model.model_for(seen(source, (640, 480)))


def test_it_may_replace_a_model_and_be_replaced(model: FittingModel, bundle: Bundle) -> None:
    with edgecv.load(bundle.path) as square, edgecv.Pipeline(Camera("wide", (128, 64), 30), square) as pipeline:
        names: list[str] = []
        for result in pipeline:
            names.append(result.model)
            if len(names) in (1, 15):
                pipeline.replace_model(model if len(names) == 1 else square)
    changes = [name for before, name in itertools.pairwise(names) if name != before]
    assert changes == ["tiny/onnx-fp32-64x32", "tiny/onnx-fp32"]


def test_a_bundle_json_that_is_none_is_damage(bundle: Bundle) -> None:
    (bundle.path / MANIFEST).write_text("{")
    with pytest.raises(BundleError):
        load_fitting(bundle.path)

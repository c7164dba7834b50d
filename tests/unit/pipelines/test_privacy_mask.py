"""A mask covers every pixel that its polygons touch, in every size, and refuses what would cover less than was meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from edgecv.errors import ConfigError
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.privacy.mask import PrivacyMask, mask_polygons
from edgecv.pipelines.privacy.raster import touched
from edgecv.pipelines.source_config import SourceConfig
from edgecv.pipelines.sources.frames import FrameStamper
from edgecv.results import Frame, Result
from tests.unit.pipelines.blob import BlobModel
from tests.unit.pipelines.masked_scenes import below, fuzzed_mask, is_hidden_exactly, scene

SQUARE = [(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)]


@pytest.mark.parametrize("seed", range(60))
def test_no_pixel_below_a_polygon_is_left_uncovered(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size_wh = (int(rng.integers(1, 90)), int(rng.integers(1, 70)))
    mask = fuzzed_mask(rng)
    covered, wanted = touched(mask_polygons(mask), size_wh), below(mask, size_wh)
    assert not (wanted & ~covered).any(), (size_wh, mask)
    assert covered.any(), "a polygon below a pixel covers that pixel"
    grown = np.pad(wanted, 1)
    near = sum(np.roll(grown, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1))[1:-1, 1:-1] > 0
    slivers = covered & ~near
    assert min(size_wh) < 30 or slivers.mean() < 0.1, "it does not cover half of the image to be safe"


def test_corners_in_either_order_cover_the_same() -> None:
    for size_wh in ((64, 48), (63, 47), (1, 1), (1920, 1080)):
        forth, back = (touched(mask_polygons([corners]), size_wh) for corners in (SQUARE, SQUARE[::-1]))
        assert (forth == back).all()


def test_a_rectangle_covers_its_pixels_and_those_that_it_brushes() -> None:
    covered = touched(mask_polygons([SQUARE]), (8, 8))
    rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, 6, 1, 6)
    assert covered[1:7, 1:7].all()


def test_the_whole_image_can_be_covered() -> None:
    assert touched(mask_polygons([[(0, 0), (1, 0), (1, 1), (0, 1)]]), (37, 21)).all()


@pytest.mark.parametrize(
    "corners",
    [
        pytest.param([(0.2, 0.2), (0.8, 0.8), (0.8, 0.2), (0.2, 0.8)], id="crosses itself"),
        pytest.param([(0.1, 0.1), (0.5, 0.5)], id="two corners"),
        pytest.param([(0.1, 0.1), (0.5, 0.5), (0.9, 0.9)], id="no area"),
        pytest.param([(0.1, 0.1), (0.1, 0.1), (0.5, 0.9)], id="the same corner twice"),
        pytest.param([(-0.1, 0.1), (0.5, 0.1), (0.5, 0.9)], id="leaves the image"),
        pytest.param([(0, 0), (640, 0), (640, 480)], id="pixels"),
        pytest.param([(float("nan"), 0.1), (0.5, 0.1), (0.5, 0.9)], id="no number"),
        pytest.param([], id="nothing"),
        pytest.param([0.1, 0.2, 0.3], id="no points"),
        pytest.param([(0.1, 0.1, 0.1), (0.5, 0.1, 0.2), (0.5, 0.9, 0.2)], id="three numbers"),
        pytest.param("door", id="text"),
    ],
)
def test_a_polygon_that_would_cover_less_than_was_meant_is_refused(corners: object) -> None:
    with pytest.raises(ConfigError, match="polygon 2"):
        SourceConfig("synthetic://", mask=[SQUARE, corners])  # type: ignore[list-item]


def test_the_share_is_that_of_the_area() -> None:
    assert PrivacyMask(mask_polygons([SQUARE])).share == pytest.approx(0.25, abs=0.003)


class Scenes:
    """Frames of several sizes with a secret below the mask, from an app that goes on using its own images."""

    live: ClassVar[bool] = False
    fps: ClassVar[float] = 10.0
    source_id = "scenes"

    def __init__(self, mask: list[list[tuple[float, float]]], sizes: list[tuple[int, int]]) -> None:
        self.images = [scene(below(mask, size)) for size in sizes]
        self._left = list(self.images)
        self._stamper = FrameStamper(self.source_id)

    def read(self) -> Frame | None:
        return self._stamper.stamp(self._left.pop(0)) if self._left else None

    def close(self) -> None:
        """Nothing to release."""


def test_gates_steps_and_the_app_see_masked_images_of_every_size_and_the_apps_own_are_left_alone() -> None:
    seen: list[np.ndarray] = []
    mask = fuzzed_mask(np.random.default_rng(7), least=3)
    sizes = [(64, 48), (64, 48), (48, 64), (7, 5), (64, 48)]
    source = Scenes(mask, sizes)

    def gate(frame: Frame) -> bool:
        seen.append(frame.image)
        return True

    def step(result: Result) -> Result:
        seen.append(result.frame.image)
        return result

    pipeline = Pipeline(SourceConfig(source, mask=mask), BlobModel(), gates=[gate], steps=[step])
    for result in pipeline:
        seen.append(result.frame.image)
    assert len(seen) == 3 * len(sizes)
    assert all(is_hidden_exactly(image, below(mask, image.shape[1::-1])) for image in seen)
    assert all((image == scene(below(mask, size))).all() for image, size in zip(source.images, sizes, strict=True))


def test_a_frame_that_cannot_be_masked_is_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    mask = [SQUARE]
    source = Scenes(mask, [(16, 16), (16, 16)])
    # A view of one pixel: to copy or to cover it takes more memory than any machine has.
    source._left.insert(1, np.broadcast_to(np.full(1, 9, np.uint8), (1 << 24, 1 << 24, 3)))
    source._left.insert(1, source._left[1])
    pipeline = Pipeline(SourceConfig(source, mask=mask), BlobModel())
    assert [result.frame.index for result in pipeline] == [0, 3]
    assert pipeline.summary.dropped == {"mask_failed": 2}
    assert len([line for line in caplog.messages if "cannot be masked" in line]) == 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WithPacket(Frame):
    """What a plug-in may make: the image as the camera encoded it comes along."""

    packet: bytes = b"original"


def test_what_a_plugin_carries_beside_the_image_does_not_come_along() -> None:
    class Packets(Scenes):
        def read(self) -> Frame | None:
            frame = super().read()
            return None if frame is None else WithPacket(image=frame.image, index=frame.index, source_id="scenes")

    results = list(Pipeline(SourceConfig(Packets([SQUARE], [(16, 16)]), mask=[SQUARE]), BlobModel()))
    assert [type(result.frame) for result in results] == [Frame]
    unmasked = list(Pipeline(Packets([SQUARE], [(16, 16)]), BlobModel()))
    assert [type(result.frame) for result in unmasked] == [WithPacket]


def test_a_frame_has_one_image_and_no_other_bytes() -> None:
    # A field for encoded packets would have to be emptied in `Frame.with_image`, or masks would not hide them.
    assert set(Frame.__dataclass_fields__) == {
        "image",
        "index",
        "source_id",
        "captured_ns",
        "monotonic_ns",
        "position_ns",
        "path",
        "is_damaged",
        "scene_time_ns",
    }


@pytest.mark.parametrize("text", ["72", "h", "0h", "-3d", "1.5h", "3 d", "72H", "99999999d", "3w"])
def test_a_retention_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no retention"):
        SourceConfig("synthetic://", retention=text)


def test_hours_and_days() -> None:
    assert SourceConfig("synthetic://", retention="72h").retention_s == 72 * 3600
    assert SourceConfig("synthetic://", retention="30d").retention_s == 30 * 24 * 3600
    assert SourceConfig("synthetic://").retention_s is None

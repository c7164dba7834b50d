"""The demo's world and its embedded detector."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from itertools import pairwise
from math import hypot
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgecv
from edgecv.benchmarks.demo import MODEL_PATH
from edgecv.benchmarks.demo.data import SIZE_WH, labelled_frames, write_clip, write_dataset, write_images
from edgecv.benchmarks.demo.scene import (
    LABELS,
    LabelledFrame,
    Scene,
    Shape,
    clip,
    draw,
    outline,
    render_scene,
)
from edgecv.benchmarks.demo.surface import Light, Texture
from edgecv.errors import SinkError
from edgecv.results import Detections, FloatArray, Image
from edgecv.vision.letterbox import letterbox
from edgecv.vision.nms import iou_matrix, nms

cv2 = pytest.importorskip("cv2")

PLAIN = Texture(pattern="plain", fill=(200, 40, 40), second=(0, 0, 0), period_px=10.0, edge=None)
CLEAR = Light(gain=1.0, corners=(1.0, 1.0, 1.0, 1.0), blur_px=0.0, noise=0.0)
GREY = 90


def shape(
    class_id: int = 0, center: tuple[float, float] = (80.0, 60.0), radius: float = 20.0, angle: float = 0.3
) -> Shape:
    return Shape(class_id=class_id, center_xy=center, radius_px=radius, angle=angle, aspect=1.0, texture=PLAIN)


def drawn(*shapes: Shape, size_wh: tuple[int, int] = (160, 120)) -> LabelledFrame:
    scenery = np.full((size_wh[1], size_wh[0], 3), GREY, np.uint8)
    return draw(Scene(size_wh=size_wh, shapes=shapes, light=CLEAR), scenery, np.random.default_rng(0))


def bounds(mask: Any) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def same(first: LabelledFrame, second: LabelledFrame) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_the_same_seed_renders_the_same_image_and_another_seed_another() -> None:
    assert same(render_scene(3, (160, 120)), render_scene(3, (160, 120)))
    assert same(render_scene(3, (160, 120)), render_scene(np.random.default_rng(3), (160, 120)))
    assert not np.array_equal(render_scene(3, (160, 120)).image, render_scene(4, (160, 120)).image)


@pytest.mark.parametrize("size_wh", [(320, 320), (333, 201), (64, 96)])
def test_boxes_lie_inside_the_frame_and_have_an_area(size_wh: tuple[int, int]) -> None:
    for seed in range(12):
        frame = render_scene(seed, size_wh)
        assert frame.image.shape == (size_wh[1], size_wh[0], 3)
        assert frame.image.dtype == np.uint8
        assert frame.xyxy.dtype == np.float32
        assert frame.xyxy.shape == (len(frame.class_id), 4)
        assert (frame.xyxy[:, :2] >= 0).all()
        assert (frame.xyxy[:, 2:] <= size_wh).all()
        assert (frame.xyxy[:, 2:] - frame.xyxy[:, :2] >= 5).all()


@pytest.mark.parametrize("class_id", range(len(LABELS)), ids=LABELS)
def test_a_box_is_tight_around_the_pixels_that_the_shape_changed(class_id: int) -> None:
    lone = shape(class_id, center=(80.3, 59.8), angle=0.7)
    frame = drawn(lone)
    changed = np.abs(frame.image.astype(int) - GREY).max(axis=2) > 55  # half of the way to the fill colour
    assert frame.class_id.tolist() == [class_id]
    assert frame.xyxy[0].tolist() == bounds(changed)
    corners = outline(lone)
    assert frame.xyxy[0] == pytest.approx([*corners.min(axis=0), *corners.max(axis=0)], abs=2.0)


def test_a_shape_that_leaves_the_frame_has_a_box_clipped_to_it_and_then_none() -> None:
    assert drawn(shape(1, center=(0.0, 60.0), angle=0.0)).xyxy[0][0] == 0
    assert len(drawn(shape(1, center=(-15.0, 60.0))).class_id) == 0
    assert len(drawn(shape(1, center=(-500.0, 60.0))).class_id) == 0


def test_a_partly_covered_shape_keeps_the_box_of_what_is_seen() -> None:
    behind = shape(0, center=(60.0, 60.0), radius=20)
    frame = drawn(behind, shape(0, center=(80.0, 60.0), radius=20))
    assert frame.class_id.tolist() == [0, 0]
    assert frame.xyxy[0][2] < frame.xyxy[1][2]
    assert frame.xyxy[0][[0, 1, 3]].tolist() == drawn(behind).xyxy[0][[0, 1, 3]].tolist()


def test_a_hidden_shape_is_not_labelled() -> None:
    assert drawn(shape(4, radius=15), shape(1, radius=30)).class_id.tolist() == [1]


def test_every_class_occurs() -> None:
    counts = np.bincount(np.concatenate([frame.class_id for frame in labelled_frames(40, seed=1, size_wh=(160, 120))]))
    assert len(counts) == len(LABELS)
    assert counts.min() >= 15


def test_images_without_labels_keep_the_shapes_of_their_arrays() -> None:
    empty = drawn()
    assert empty.xyxy.shape == (0, 4)
    assert empty.class_id.shape == (0,)


def test_a_clip_is_deterministic_and_a_longer_one_begins_like_a_shorter_one() -> None:
    short, long = list(clip(3, (160, 120), seed=5)), list(clip(5, (160, 120), seed=5))
    assert all(same(one, other) for one, other in zip(short, long, strict=False))
    assert not same(long[3], long[4])


def test_things_in_a_clip_move_a_little_from_frame_to_frame() -> None:
    frames = list(clip(50, (320, 240), seed=2, fps=25))
    steps = [step for before, after in pairwise(frames) for step in _steps(before, after)]
    assert len(steps) > 200
    assert np.percentile(steps, 95) < 5.0  # pixels; the sway of 0.22 x 320 in 5 s gives 3.5 at most, a cover more
    assert np.median(steps) > 0.0
    first, last = frames[0], frames[-1]
    assert np.median(_steps(first, last)) > 2.0


def _steps(before: LabelledFrame, after: LabelledFrame) -> list[float]:
    """How far the centre of each box lies from the nearest one of its class in the other frame, pixels."""
    middle_before, middle_after = ((f.xyxy[:, :2] + f.xyxy[:, 2:]) / 2 for f in (before, after))
    return [
        min(hypot(*(at - other)) for other in middle_before[before.class_id == class_id])
        for at, class_id in zip(middle_after, after.class_id, strict=True)
        if (before.class_id == class_id).any()
    ]


def test_calibration_images_are_written_and_differ(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "calibration", 4, seed=3, size_wh=(96, 64))
    images = [cv2.imread(str(path)) for path in paths]
    assert [image.shape for image in images] == [(64, 96, 3)] * 4
    assert len({image.tobytes() for image in images}) == 4


def test_a_dataset_holds_the_truth_in_yolo_form(tmp_path: Path) -> None:
    description = write_dataset(tmp_path / "set", 3, seed=8, size_wh=(200, 120))
    assert "val: images" in description.read_text()
    assert f"  5: {LABELS[5]}" in description.read_text()
    for index, frame in enumerate(labelled_frames(3, seed=8, size_wh=(200, 120))):
        rows = np.loadtxt(tmp_path / f"set/labels/{index:05d}.txt", ndmin=2).reshape(-1, 5)
        center, size = rows[:, 1:3] * (200, 120), rows[:, 3:] * (200, 120)
        assert rows[:, 0].astype(int).tolist() == frame.class_id.tolist()
        assert np.concatenate([center - size / 2, center + size / 2], axis=1) == pytest.approx(frame.xyxy, abs=1e-3)
        assert (tmp_path / f"set/images/{index:05d}.jpg").is_file()


@pytest.mark.parametrize("name", ["clip.mp4", "clip.avi"])
def test_a_clip_on_disk_holds_the_frames_of_the_scene(tmp_path: Path, name: str) -> None:
    write_clip(tmp_path / "video" / name, 6, seed=4, size_wh=(160, 128), fps=10)
    assert [path.name for path in (tmp_path / "video").iterdir()] == [name]
    capture = cv2.VideoCapture(str(tmp_path / "video" / name))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    for frame in clip(6, (160, 128), seed=4, fps=10):
        there, image = capture.read()
        assert there
        assert np.abs(image.astype(int) - frame.image).mean() < 20
    assert not capture.read()[0]


def test_a_folder_that_cannot_be_made_is_a_sink_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="cannot be written"):
        write_images(tmp_path / "file", 1, seed=0)
    with pytest.raises(SinkError, match="cannot be written"):
        write_clip(tmp_path / "file" / "clip.mp4", 1, seed=0)


@pytest.fixture(scope="module")
def session() -> Any:
    return pytest.importorskip("onnxruntime").InferenceSession(str(MODEL_PATH), providers=["CPUExecutionProvider"])


def test_the_embedded_model_describes_itself(session: Any) -> None:
    metadata = session.get_modelmeta().custom_metadata_map
    assert ast.literal_eval(metadata["names"]) == dict(enumerate(LABELS))
    assert ast.literal_eval(metadata["imgsz"]) == [320, 320]
    assert (metadata["stride"], metadata["task"]) == ("32", "detect")
    assert (metadata["license"], metadata["author"]) == ("Apache-2.0", "EdgeCV")
    assert [(i.name, i.shape, i.type) for i in session.get_inputs()] == [("images", [1, 3, 320, 320], "tensor(float)")]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("output0", [1, 4 + len(LABELS), 2100])]
    assert MODEL_PATH.stat().st_size <= 4_000_000


def test_the_embedded_model_loads_like_any_model() -> None:
    pytest.importorskip("onnxruntime")
    with edgecv.load(MODEL_PATH) as model:
        assert (model.labels, model.task) == (LABELS, "detect")


def test_the_embedded_model_finds_the_shapes_of_images_it_never_saw(session: Any) -> None:
    pytest.importorskip("pycocotools")
    from edgecv.quantize.labels.coco import Truth
    from tests.pycoco import coco_map

    frames = list(labelled_frames(24, seed=123, size_wh=SIZE_WH))
    pairs = [(Truth(xyxy=frame.xyxy, class_id=frame.class_id), detect(session, frame.image)) for frame in frames]
    result = coco_map(pairs, len(LABELS))
    assert result.map50_95 > 0.70
    assert result.map50 > 0.85


def detect(session: Any, image: Image) -> Detections:
    """Every box above 0.001, decoded without the SDK's decoders."""
    fitted, transform = letterbox(image, (320, 320))
    real = np.ascontiguousarray(fitted[..., ::-1].transpose(2, 0, 1)[None]).astype(np.float32) / 255
    rows = session.run(None, {"images": real})[0][0].T
    cells, class_id = np.nonzero(rows[:, 4:] > 0.001)
    xyxy, confidence = _corners(rows[cells, :4]), rows[cells, 4 + class_id]
    kept = nms(xyxy, confidence, class_id, 0.7, 300)
    return Detections(
        xyxy=transform.boxes_to_frame(xyxy[kept]), confidence=confidence[kept], class_id=class_id[kept].astype(np.int64)
    )


def _corners(xywh: FloatArray) -> FloatArray:
    return np.concatenate([xywh[:, :2] - xywh[:, 2:] / 2, xywh[:, :2] + xywh[:, 2:] / 2], axis=1)


def test_the_embedded_model_tells_shapes_that_stand_alone(session: Any) -> None:
    places: Sequence[tuple[float, float]] = [(60 + 100 * (i % 3), 100 + 120 * (i // 3)) for i in range(len(LABELS))]
    shapes = [shape(class_id, center=place, radius=34) for class_id, place in enumerate(places)]
    frame = drawn(*shapes, size_wh=(320, 320))
    found = detect(session, frame.image)
    sure = found.confidence > 0.5
    overlap = iou_matrix(frame.xyxy, found.xyxy[sure])
    assert overlap.max(axis=1).min() > 0.85
    assert found.class_id[sure][overlap.argmax(axis=1)].tolist() == list(range(len(LABELS)))

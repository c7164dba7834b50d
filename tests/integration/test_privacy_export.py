"""``edgecv privacy export``: what was found is hidden in every image of the copy, or there is no copy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import av
import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgecv.bundles.bundle import describe_file
from edgecv.bundles.manifest import MANIFEST, ModelFiles, Variant, dump_manifest
from edgecv.errors import ConfigError, SessionError, SourceError
from edgecv.media.images import write_image
from edgecv.media.video_reader import VideoReader
from edgecv.media.video_writer import VideoWriter
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.privacy.export import Exported, export
from edgecv.pipelines.privacy.finder import BoxFinder
from edgecv.pipelines.recording.recording import Recording
from edgecv.results import Image
from edgecv.specs import TensorSpec
from tests.conftest import names_in
from tests.integration.test_privacy_sinks import edgecv
from tests.models import CELL, METADATA, SIDE, detector, manifest, write_bundle
from tests.unit.pipelines.blob import BlobModel
from tests.unit.pipelines.test_cascades import SPEC as COLOURS, colour_graph

ROW, COLUMN = 1, 2
PLACE = np.s_[ROW * CELL : (ROW + 1) * CELL, COLUMN * CELL : (COLUMN + 1) * CELL]


def person(brightness: int = 255) -> Image:
    """A black image with a chequered cell: the detector finds it when it is bright. The pattern is what must not be seen."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    pattern = (np.indices((CELL, CELL)).sum(axis=0) % 2 * brightness).astype(np.uint8)
    image[PLACE] = pattern[..., None]
    return image


def pattern_left(image: Image) -> float:
    """How far neighbours in the cell differ: about 0 in a mosaic."""
    cell = image[PLACE].astype(int)
    return float(np.abs(np.diff(cell, axis=1)).mean())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "tiny.ecv").path


@pytest.fixture
def finder(bundle: Path) -> Iterator[BoxFinder]:
    made = BoxFinder()
    made.add(bundle, ["bright"])
    yield made
    made.close()


def folder_of(folder: Path, images: list[Image], suffix: str = ".png") -> Path:
    folder.mkdir()
    for number, image in enumerate(images):
        write_image(folder / f"{number}{suffix}", image)
    return folder


def video_of(path: Path, images: list[Image]) -> Path:
    writer = VideoWriter(path, 10)
    for number, image in enumerate(images):
        writer.write(image, number / 10)
    writer.close()
    return path


def test_a_folder_of_images(tmp_path: Path, finder: BoxFinder) -> None:
    source = folder_of(tmp_path / "in", [person(), np.zeros((SIDE, SIDE, 3), np.uint8), person()])
    (source / "notes.txt").write_text("who it was")
    done = export(source, tmp_path / "out", finder)
    assert done == Exported(frames=3, boxes=2, hidden=2, covered=0)
    assert names_in(tmp_path / "out") == ["0.png", "1.png", "2.png"]
    copies = [cv2.imread(str(tmp_path / "out" / f"{number}.png")) for number in range(3)]
    assert pattern_left(person()) > 200
    assert [pattern_left(copy) < 1 for copy in copies] == [True] * 3
    assert not copies[1].any()


def test_a_video_hides_a_box_also_where_the_model_misses_it(tmp_path: Path, finder: BoxFinder) -> None:
    # In the frames 6 and 7 the cell is too dim to be found; 20 stands alone, far from any that was.
    images = [person(24 if number in (6, 7, 20) else 0 if number > 12 else 255) for number in range(26)]
    source = video_of(tmp_path / "in.mp4", images)
    done = export(source, tmp_path / "out.mkv", finder)
    with av.open(str(tmp_path / "out.mkv")) as container:
        frames = [(frame.time, frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)]
    assert len(frames) == done.frames == 26
    assert done.hidden == 18, "13 frames, and 5 after them"
    assert [time_s for time_s, _ in frames] == pytest.approx([number / 10 for number in range(26)], abs=0.002)
    assert max(pattern_left(image) for _, image in frames[:18]) < 2
    assert names_in(tmp_path) == ["in.mp4", "out.mkv"]
    export(source, tmp_path / "unheld.mkv", finder, hold=0)
    with av.open(str(tmp_path / "unheld.mkv")) as container:
        unheld = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    assert pattern_left(unheld[6]) > 2, "without it the pattern shows: the test can fail"


def test_a_recording_stays_one_with_its_times_and_results(tmp_path: Path, finder: BoxFinder) -> None:
    for name, images in (("a", [person()] * 3), ("b", [person(6), person(), person(6)])):
        folder_of(tmp_path / name, images)
    sources = {"door": str(tmp_path / "a"), "yard": str(tmp_path / "b")}
    Pipeline(sources, BlobModel(), sinks=[f"record:{tmp_path}/in.rec?frames=png"]).run()
    export(tmp_path / "in.rec", tmp_path / "out.rec", finder)
    before, after = Recording.open(tmp_path / "in.rec"), Recording.open(tmp_path / "out.rec")
    assert after.header.frames == 6
    assert [source.name for source in after.header.sources] == [source.name for source in before.header.sources]
    for place, (old, new) in enumerate(zip(before.records(), after.records(), strict=True)):
        assert (new.captured_ns, new.monotonic_ns, new.index) == (old.captured_ns, old.monotonic_ns, old.index)
        assert new.arrays == old.arrays
        assert pattern_left(after.frame(new, place).image) < 1, "held over the frames of one source"


def test_every_box_of_a_second_model_and_a_class_of_the_first(tmp_path: Path, bundle: Path) -> None:
    folder_of(tmp_path / "in", [person()])
    plates = detector(tmp_path / "plates.onnx", METADATA)
    done = edgecv(
        tmp_path,
        *("privacy", "export", "in", "out", "--bundle", str(bundle), "--blur", "never", "--blur-model", str(plates)),
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"target": "out", "frames": 1, "boxes": 1, "hidden": 1, "covered": 0}
    assert pattern_left(cv2.imread(str(tmp_path / "out/0.png"))) < 1
    again = edgecv(tmp_path, "privacy", "export", "in", "out", "--blur-model", str(plates))
    assert again.returncode == 2, "nothing is replaced"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--bundle", "BUNDLE", "--blur", "persn"], "no class 'persn'"),
        (["--bundle", "BUNDLE"], "go together"),
        pytest.param(["--blur", "bright"], "go together", marks=pytest.mark.slow),
        pytest.param([], "Nothing is named", marks=pytest.mark.slow),
    ],
)
def test_what_is_not_said_right_writes_nothing(tmp_path: Path, bundle: Path, options: list[str], said: str) -> None:
    folder_of(tmp_path / "in", [person()])
    given = [str(bundle) if option == "BUNDLE" else option for option in options]
    done = edgecv(tmp_path, "privacy", "export", "in", "out", *given)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert names_in(tmp_path) == ["in"]


def failing_on_white(path: Path) -> Path:
    """A detector whose scores are no numbers once a cell is brighter than 0.9, as sums that overflow make them."""
    made = onnx.load(str(detector(path, METADATA)))
    made.graph.initializer.append(helper.make_tensor("limit", TensorProto.FLOAT, [], [0.9]))
    concat = made.graph.node[-1]
    concat.input[1] = "root"
    made.graph.node.insert(len(made.graph.node) - 1, helper.make_node("Sub", ["limit", "score"], ["room"]))
    made.graph.node.insert(len(made.graph.node) - 1, helper.make_node("Sqrt", ["room"], ["root"]))
    onnx.checker.check_model(made)
    onnx.save(made, str(path))
    return path


def test_a_model_that_fails_on_one_frame_leaves_no_copy(tmp_path: Path) -> None:
    finder = BoxFinder()
    finder.add(failing_on_white(tmp_path / "bad.onnx"), None)
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    source = video_of(tmp_path / "in.mp4", [person()] * 5 + [white] + [person()] * 5)
    with pytest.raises(SessionError, match="no numbers"):
        export(source, tmp_path / "out.mp4", finder)
    finder.close()
    assert names_in(tmp_path) == ["bad.onnx", "in.mp4"]


def test_a_model_without_boxes_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "colours.ecv"
    (folder / "onnx-fp32").mkdir(parents=True)
    entry = describe_file(folder, colour_graph(folder / "onnx-fp32/model.onnx"))
    image = TensorSpec(name="image", role="image", shape=(1, 8, 8, 3), dtype="uint8", layout="NHWC")
    logits = TensorSpec(name="logits", role="logits", shape=(1, 3), dtype="float32")
    variant = Variant(
        name="onnx-fp32",
        format="onnx",
        precision="fp32",
        size_wh=(8, 8),
        latency_ms=1.0,
        models={"main": ModelFiles(files=(entry,), inputs=(image,), outputs=(logits,))},
    )
    made = manifest([variant], preprocess=COLOURS.preprocess.rule, decode=COLOURS.decode)
    (folder / MANIFEST).write_bytes(dump_manifest(made))
    with pytest.raises(ConfigError, match="finds no boxes"):
        BoxFinder().add(folder, None)


def test_an_image_that_cannot_be_read_leaves_no_copy(tmp_path: Path, finder: BoxFinder) -> None:
    source = folder_of(tmp_path / "in", [person()] * 3, ".jpg")
    data = (source / "1.jpg").read_bytes()
    (source / "1.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError):
        export(source, tmp_path / "out", finder)
    assert names_in(tmp_path) == ["in"]


def damage_of(path: Path) -> list[bool]:
    """Of each frame, whether the decoder says that it made up a part."""
    damaged = []
    with closing(VideoReader(path, repeatable=True)) as reader, suppress(SourceError):
        while reader.read() is not None:
            damaged.append(reader.is_damaged)
    return damaged


def test_frames_that_the_decoder_made_up_are_a_mosaic_as_a_whole(tmp_path: Path, finder: BoxFinder) -> None:
    noise = [np.random.default_rng(n).integers(0, 255, (SIDE, SIDE, 3), np.uint8) for n in range(40)]
    source = video_of(tmp_path / "in.mp4", noise)
    whole = source.read_bytes()
    damaged: list[bool] = []
    for part in range(10, 40):  # which bytes the decoder misses differs between encoders
        at = len(whole) * part // 100
        source.write_bytes(whole[:at] + bytes(byte ^ 0x5A for byte in whole[at : at + 64]) + whole[at + 64 :])
        damaged = damage_of(source)
        if any(damaged):
            break
    assert any(damaged)
    nothing = BoxFinder(1.0)
    done = export(source, tmp_path / "out.mp4", nothing)
    assert done == Exported(frames=len(damaged), boxes=0, hidden=0, covered=sum(damaged))
    with closing(VideoReader(tmp_path / "out.mp4")) as reader:
        rough = [float(np.abs(np.diff(reader.read().astype(int), axis=1)).mean()) for _ in damaged]
    covered = [value for value, is_damaged in zip(rough, damaged, strict=True) if is_damaged]
    assert max(covered) < min(value for value, is_damaged in zip(rough, damaged, strict=True) if not is_damaged) / 3


def test_an_input_that_changes_while_it_is_read_leaves_no_copy(tmp_path: Path, finder: BoxFinder) -> None:
    source = folder_of(tmp_path / "in", [person()] * 3)

    def swap(step: str, done: int, _total: int) -> None:
        if step == "write" and done == 0:
            write_image(source / "2.png", person()[::-1].copy())

    with pytest.raises(SourceError, match="changed"):
        export(source, tmp_path / "out", finder, progress=swap)
    assert names_in(tmp_path) == ["in"]


@pytest.mark.parametrize("target", ["out.avi", "out", "in.mp4"])
def test_a_target_that_cannot_be_is_refused_before_anything_is_read(
    tmp_path: Path, finder: BoxFinder, target: str
) -> None:
    source = video_of(tmp_path / "in.mp4", [person()])
    with pytest.raises(ConfigError):
        export(source, tmp_path / target, finder)
    assert names_in(tmp_path) == ["in.mp4"]

"""Exports of Ultralytics without a bundle: what their metadata say, in each format, and what happens when they say nothing."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import ClassVar

import pytest

import edgecv
from edgecv.bundles.ultralytics_metadata import spec_of
from edgecv.errors import SpecMismatch
from edgecv.media.images import read_image
from edgecv.quantize.gate.boxes import agreement
from edgecv.results import Detections
from tests.conftest import SHARED

OPENVINO = "ultralytics-openvino-int8/yolov8n.xml"
TFLITE = "ultralytics-tflite-dynamic-int8.tflite"
INTEGER = "ultralytics-tflite-full-integer.tflite"


def peer(name: str) -> Path:
    path = SHARED / "peers" / name
    if not path.exists():
        pytest.skip(f"../shared/peers/{name} is not on this machine")
    return path.resolve()


def found_by(path: Path, images: list[Path], **options: object) -> list[Detections]:
    with edgecv.load(path, threads=2, **options) as model:  # type: ignore[arg-type]
        assert len(model.labels) == 80
        assert (model.labels[0], model.labels[79], model.labels[9]) == ("person", "toothbrush", "traffic light")
        assert model.spec.preprocess.size_wh == (640, 640)
        found = [model(read_image(path), confidence=0.3) for path in images]
    return [boxes for boxes in found if isinstance(boxes, Detections)]


@pytest.fixture(scope="module")
def photographs(coco_images: list[Path]) -> list[Path]:
    return coco_images[:10]


@pytest.fixture(scope="module")
def wanted(yolov8n: Path, photographs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Detections]:
    made = edgecv.convert(yolov8n, precision="fp32", out=tmp_path_factory.mktemp("float") / "y.ecv")
    return found_by(made.path, photographs)


@pytest.mark.parametrize(("name", "least"), [(OPENVINO, 0.85), (TFLITE, 0.85), (INTEGER, 0.6)])
def test_peers_load_and_find_what_the_float_model_finds(
    name: str, least: float, wanted: list[Detections], photographs: list[Path]
) -> None:
    found = agreement(zip(wanted, found_by(peer(name), photographs), strict=True))
    assert found.teacher_boxes > 20
    assert found.f1_50 > least


def test_without_its_sidecar_the_runtime_info_of_openvino_is_read(tmp_path: Path) -> None:
    for suffix in (".xml", ".bin"):
        shutil.copy(peer(OPENVINO).with_suffix(suffix), tmp_path)
    with edgecv.load(tmp_path / "yolov8n.xml") as model:
        assert model.labels[9] == "traffic light"
        assert model.spec.preprocess.size_wh == (640, 640)


def test_openvino_that_says_nothing_names_the_next_step(tmp_path: Path) -> None:
    shutil.copy(peer(OPENVINO).with_suffix(".bin"), tmp_path)
    text = peer(OPENVINO).read_text()
    (tmp_path / "yolov8n.xml").write_text(text.replace("<model_info>", "<other>").replace("</model_info>", "</other>"))
    with pytest.raises(SpecMismatch, match="says nothing") as caught:
        edgecv.load(tmp_path / "yolov8n.xml")
    assert "metadata.yaml" in caught.value.hint and "spec=" in caught.value.hint
    (tmp_path / "metadata.yaml").write_text("task: detect\nimgsz:\n- 640\n- 640\nnames: [")
    with pytest.raises(SpecMismatch, match="says nothing"):
        edgecv.load(tmp_path / "yolov8n.xml")


def without_zip(path: Path) -> bytes:
    content = path.read_bytes()
    return content[: content.index(b"PK\x03\x04")]


def test_tflite_with_json_metadata_loads(tmp_path: Path) -> None:
    path = tmp_path / "newer.tflite"
    path.write_bytes(without_zip(peer(TFLITE)))
    names = {str(index): f"class {index}" for index in range(80)}
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("metadata.json", json.dumps({"task": "detect", "imgsz": [640, 640], "names": names}))
    with edgecv.load(path) as model:
        assert model.labels[79] == "class 79"


def test_tflite_without_metadata_names_the_next_step(tmp_path: Path) -> None:
    path = tmp_path / "bare.tflite"
    path.write_bytes(without_zip(peer(TFLITE)))
    with pytest.raises(SpecMismatch, match="says nothing") as caught:
        edgecv.load(path)
    assert "checkpoint" in caught.value.hint
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "person\ncar\n")
    with pytest.raises(SpecMismatch, match="says nothing"):
        edgecv.load(path)


def test_other_tasks_are_named(tmp_path: Path) -> None:
    path = tmp_path / "pose.tflite"
    path.write_bytes(without_zip(peer(TFLITE)))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("metadata.json", json.dumps({"task": "pose", "imgsz": [640, 640], "names": {"0": "person"}}))
    with pytest.raises(SpecMismatch, match="'pose'"):
        edgecv.load(path)


class NoSession:
    """What is beside the model says it all."""

    inputs = outputs = providers = ()
    metadata: ClassVar[dict[str, str]] = {}

    def run(self, feeds: object) -> dict[str, object]:
        raise AssertionError("nothing is run")

    def close(self) -> None:
        pass


CASES = {
    "metadata_wrapped.yaml": {0: "defect " * 15 + "end", 1: "plain"},
    "metadata_long_name.yaml": {
        6: "train, railway train, also trams and light rail vehicles of every kind seen from the side or from the front",
        79: "toothbrush",
    },
    "metadata_emoji.yaml": {0: "car \N{AUTOMOBILE}"},
}


@pytest.mark.parametrize("name", CASES)
def test_names_are_read_as_ultralytics_writes_them(name: str, tmp_path: Path) -> None:
    case = SHARED / "cases/convert" / name
    if not case.exists():
        pytest.skip("../shared/cases is not on this machine")
    shutil.copy(case, tmp_path / "metadata.yaml")
    spec = spec_of(tmp_path / "any.xml", NoSession())
    assert {number: spec.decode.labels[number] for number in CASES[name]} == CASES[name]
    assert spec.preprocess.size_wh == (320, 320)


def test_metadata_that_cannot_be_used_says_why_and_not_to_put_it_there(tmp_path: Path) -> None:
    for suffix in (".xml", ".bin"):
        shutil.copy(peer(OPENVINO).with_suffix(suffix), tmp_path)
    (tmp_path / "metadata.yaml").write_text("task: detect\nimgsz: [64, 64]\nnames:\n  0: 'a\n")
    with pytest.raises(SpecMismatch, match=r"metadata.yaml cannot be used: .* in line") as caught:
        edgecv.load(tmp_path / "yolov8n.xml")
    assert caught.value.hint.startswith("Correct metadata.yaml")

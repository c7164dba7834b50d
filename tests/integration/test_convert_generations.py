"""Other generations of Ultralytics: those with YOLOv8's raw head convert, others are refused by the name of their head."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgecv
from edgecv.bundles.golden import verify
from edgecv.errors import UnsupportedSource
from tests.conftest import names_in

SIDE = 64


_SLOW = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("yolov5n", "yolov9t", "yolo12n", "yolo11n-seg", "yolov8n-p2")
]


@pytest.mark.parametrize("name", ["yolo11n", *_SLOW])
def test_a_network_with_the_same_raw_head_converts(name: str, tmp_path: Path) -> None:
    made = edgecv.convert(
        f"{name}.yaml",
        formats=("onnx",),
        precision="fp32",
        imgsz=SIDE,
        out=tmp_path / "a.ecv",
        options=edgecv.SourceOptions(random_weights=True),
    )
    assert [verdict.status for verdict in verify(made)] == ["ok"]
    roles = {spec.role.split("/")[0] for spec in made.variants[0].models["main"].outputs}
    assert roles >= {"box", "class"}


@pytest.mark.slow
def test_yolo11_converts_to_openvino_and_tflite(tmp_path: Path) -> None:
    made = edgecv.convert(
        "yolo11n.yaml",
        formats=("openvino", "tflite"),
        precision="fp32",
        imgsz=SIDE,
        out=tmp_path / "a.ecv",
        options=edgecv.SourceOptions(random_weights=True),
    )
    assert [verdict.status for verdict in verify(made)] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("yolov10n.yaml", "v10Detect"),
        ("yolo26n.yaml", "end-to-end Detect head"),
        ("rtdetr-l.yaml", "RTDETRDecoder"),
        ("yolov8s-world.yaml", "WorldDetect"),
        ("yolov8q.yaml", "names no architecture"),
        ("../v8/yolov8.yaml", "names no architecture"),
    ],
)
def test_another_head_is_refused_by_name(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedSource, match=words) as caught:
        edgecv.convert(
            name,
            formats=("onnx",),
            precision="fp32",
            out=tmp_path / "a.ecv",
            options=edgecv.SourceOptions(random_weights=True),
        )
    assert caught.value.hint
    assert names_in(tmp_path) == []

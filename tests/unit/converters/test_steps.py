"""``--explain`` tells what would be done, and refuses what would be refused."""

from __future__ import annotations

from typing import Any

import pytest

from edgecv.converters.explain import steps
from edgecv.converters.families.sam.parts import ARCHITECTURE
from edgecv.converters.request import Int8Options, request_of
from edgecv.converters.source import SourceOptions
from edgecv.errors import ConfigError, UnknownPlugin, UnsupportedSource
from edgecv.quantize.recipes import first_recipes

FORMATS = ("onnx", "openvino", "tflite")


@pytest.mark.parametrize(
    ("source", "architecture"), [("mobile_sam", ARCHITECTURE), ("sam2.1_t", ARCHITECTURE), ("resnet18", "conv")]
)
def test_the_recipes_are_those_of_the_family(source: str, architecture: str) -> None:
    told = steps(request_of(source, FORMATS, "int8"))
    for name in FORMATS:
        line = next(line for line in told if line.startswith(f"Quantize {name}"))
        assert f"({' -> '.join(recipe.name for recipe in first_recipes(name, architecture))}" in line


def test_every_document_is_named() -> None:
    told = "\n".join(steps(request_of("yolov8n.yaml", ("onnx",), ("fp16", "int8"))))
    assert "round the weights" in told
    for words in ("compare every output", "fp16", "confidence", "edgecv verify", "model card", "bundle.json"):
        assert words in told


@pytest.mark.parametrize(
    ("int8", "rounds"),
    [
        ({"effort": "quick"}, False),
        ({"effort": "quick", "cpu_class": "x86"}, False),
        ({"recipes": ("ort-u8s8",)}, False),
        ({"recipes": ("ort-u8s8-gptq",)}, True),
    ],
)
def test_rounding_is_told_where_a_recipe_asks_for_it(int8: dict[str, Any], rounds: bool) -> None:
    told = "\n".join(steps(request_of("resnet18", ("onnx",), "int8", int8=Int8Options(**int8))))
    assert ("round the weights" in told) is rounds


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"source": "nothing.xyz"}, UnsupportedSource),
        ({"source": "missing.pt"}, UnsupportedSource),
        ({"formats": ("onnx", "foo")}, UnknownPlugin),
        ({"formats": ()}, ConfigError),
        ({"options": {"size_wh": (33, 33)}}, ConfigError),
        ({"options": {"batch": 65}}, ConfigError),
        ({"precision": "int4"}, ConfigError),
        ({"int8": {"recipes": ("nothing",)}}, ConfigError),
    ],
    ids=str,
)
def test_what_would_be_refused_is_refused(changes: dict[str, Any], error: type[Exception]) -> None:
    asked: dict[str, Any] = {"source": "resnet18", "formats": ("onnx",), "precision": "int8", **changes}
    with pytest.raises(error):
        options, int8 = SourceOptions(**asked.pop("options", {})), Int8Options(**asked.pop("int8", {}))
        request_of(**asked, options=options, int8=int8)

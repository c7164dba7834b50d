"""``edgecv convert`` tells what it would try, for every recipe and CPU class."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess

import pytest

from edgecv.quantize.recipe_files import dump_recipe
from edgecv.quantize.recipes import RECIPES
from tests.command_line import run_here


def command(*arguments: str) -> CompletedProcess[str]:
    return run_here("convert", "resnet18", "--int8", "--explain", *arguments)


def test_the_search_is_told_for_every_cpu_class() -> None:
    told = command("--target", "all").stdout
    for words in (
        "for x86-vnni",
        "for x86,",
        "for arm64",
        "ort-u8s8-gptq ->",
        "ort-s8s8-arm64-gptq ->",
        "-> ort-weights-gptq -> ort-weights -> fp16",
    ):
        assert words in told


def test_a_named_recipe_is_told_alone(tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    file.write_bytes(dump_recipe(RECIPES["litert-static"]))
    told = command("--to", "onnx", "--to", "tflite", "--recipe", "ort-u8s8", "--recipe", str(file)).stdout
    assert "Quantize onnx for x86-vnni by ort-u8s8" in told
    assert "Quantize tflite by litert-static" in told
    assert "recipe by recipe" not in told


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--recipe", "ort-u8s9"), "Did you mean 'ort-u8s8'"),
        (("--recipe", "ov-mixed"), "--to openvino"),
        (("--target", "x86_64"), "x86-vnni"),
    ],
)
def test_what_there_is_not_ends_with_exit_code_2_and_a_hint(arguments: tuple[str, ...], named: str) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert named in done.stderr.replace("\n", " ")

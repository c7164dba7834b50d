"""Several precisions in one command: what fails leaves the rest, and nothing of what failed stays in the bundle."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

import edgecv
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.golden import verify
from edgecv.bundles.manifest import MANIFEST
from edgecv.errors import AccuracyGateError, ConfigError, ParityError
from edgecv.quantize.recipe_files import dump_recipe
from edgecv.quantize.recipes import GateLimits, QuantizeRecipe
from edgecv.quantize.record import QUANTIZATION, parse_record
from tests.command_line import run_here
from tests.conftest import SHARED, names_in

pytest.importorskip("openvino")

CALIBRATION = SHARED / "data/cifar10-jpeg/calibration"
PROOFS = [MANIFEST, "MODEL_CARD.md", "golden.npz"]


@pytest.fixture
def unreachable(tmp_path: Path) -> Path:
    """A recipe that no model passes."""
    return written(tmp_path / "unreachable.json", cpu_class="arm64", limits=GateLimits(top1_lower=1.1))


def written(path: Path, **recipe: Any) -> Path:
    path.write_bytes(dump_recipe(QuantizeRecipe(name=path.stem, **recipe)))
    return path


def converted(source: Path, out: Path, told: list[str], **asked: Any) -> Bundle:
    return edgecv.convert(
        source, calibration=CALIBRATION, keep_going=True, out=out, progress=lambda step, *_: told.append(step), **asked
    )


def variants(bundle: Bundle) -> list[str]:
    return [variant.name for variant in bundle.variants]


def check_float_alone(made: Bundle) -> None:
    assert variants(made) == ["onnx-fp32"]
    assert names_in(made.path) == sorted(["onnx-fp32", *PROOFS])
    assert "INT8 was judged" not in (made.path / "MODEL_CARD.md").read_text()


def test_fp16_that_fails_leaves_fp32(large: Path, tmp_path: Path) -> None:
    told: list[str] = []
    made = converted(large, tmp_path / "l.ecv", told, precision=("fp32", "fp16"))
    check_float_alone(made)
    assert any(step.startswith("onnx fp16 failed: ") for step in told)
    (failure,) = made.failures
    assert (failure.format, failure.precision, failure.exit_code) == ("onnx", "fp16", 1)
    assert "differs from its source" in failure.message
    assert Bundle.open(made.path).failures == ()


def test_int8_that_fails_leaves_fp32(resnet20: Path, unreachable: Path, tmp_path: Path) -> None:
    told: list[str] = []
    made = converted(
        resnet20, tmp_path / "r.ecv", told, precision=("fp32", "int8"), int8=edgecv.Int8Options(recipes=[unreachable])
    )
    check_float_alone(made)
    (line,) = [step for step in told if step.startswith("onnx int8 failed: ")]
    assert "Nothing was written" not in line


def test_what_one_search_made_goes_when_another_fails(resnet20: Path, unreachable: Path, tmp_path: Path) -> None:
    half = written(tmp_path / "half.json", kind="fp16", cpu_class="")
    made = converted(
        resnet20,
        tmp_path / "r.ecv",
        [],
        precision=("fp32", "int8"),
        int8=edgecv.Int8Options(recipes=[half, unreachable]),
    )
    check_float_alone(made)


def test_fp32_goes_where_nothing_that_was_asked_for_came_of_it(large: Path, tmp_path: Path) -> None:
    """OpenVINO leaves in fp32 what fp16 cannot hold."""
    made = converted(large, tmp_path / "l.ecv", [], precision="fp16", formats=("onnx", "openvino"))
    assert variants(made) == ["openvino-fp32", "openvino-fp16"]
    assert not list(made.path.glob("onnx*"))


def test_the_gate_is_what_is_told_when_everything_failed(large: Path, unreachable: Path, tmp_path: Path) -> None:
    with pytest.raises(ParityError):
        converted(large, tmp_path / "l.ecv", [], precision="fp16")
    with pytest.raises(AccuracyGateError):
        converted(
            large, tmp_path / "l.ecv", [], precision=("fp16", "int8"), int8=edgecv.Int8Options(recipes=[unreachable])
        )
    assert not (tmp_path / "l.ecv").exists()


def test_a_search_that_ends_in_fp16_and_fp16_are_one_variant(resnet20: Path, tmp_path: Path) -> None:
    recipes = [written(tmp_path / f"half{cpu}.json", kind="fp16", cpu_class=cpu) for cpu in ("", "x86")]
    made = converted(
        resnet20, tmp_path / "h.ecv", [], precision=("fp16", "int8"), int8=edgecv.Int8Options(recipes=recipes)
    )
    assert variants(made) == ["onnx-fp32", "onnx-fp16"]
    half = made.variants[1]
    assert half.recipe
    assert {"source_cosine", "top1_agreement"} <= set(half.metrics)
    extras = [entry.path for entry in made.manifest.extras]
    assert len(extras) == len(set(extras))
    record = parse_record(made.read_extra(QUANTIZATION), made.path)
    assert [one.chosen for one in record.formats] == ["half", "halfx86"]
    assert {verdict.status for verdict in verify(made)} == {"ok"}


@pytest.mark.parametrize("precision", [(), ("fp32", "int4"), "int4"])
def test_a_precision_must_exist(precision: Any, resnet20: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="precision"):
        edgecv.convert(resnet20, precision=precision, out=tmp_path / "p.ecv")


def command(*arguments: object) -> CompletedProcess[str]:
    return run_here("convert", *arguments)


def test_the_command_takes_several_and_names_what_failed(resnet20: Path, unreachable: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.ecv"
    asked = ("--fp16", "--int8", "--recipe", unreachable, "--calib", CALIBRATION, "--analyze", "--keep-going")
    done = command(resnet20, *asked, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "onnx int8 failed: No INT8 recipe keeps the accuracy" in done.stderr
    assert variants(Bundle.open(out)) == ["onnx-fp32", "onnx-fp16"]
    summary = json.loads(command(resnet20, *asked, "--out", out, "--force", "--json").stdout)
    (failure,) = summary["failures"]
    assert (failure["format"], failure["precision"], failure["exit_code"]) == ("onnx", "int8", 3)
    assert failure["message"].startswith("No INT8 recipe keeps the accuracy")
    assert failure["hint"]


def test_the_steps_of_several_are_explained(resnet20: Path) -> None:
    told = command(resnet20, "--fp16", "--int8", "--explain").stdout
    assert told.index("Store the weights of onnx as fp16") < told.index("Quantize onnx")

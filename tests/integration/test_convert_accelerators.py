"""Variants for TensorRT and for the Edge TPU: beside the others in a bundle, proven on the CPU, and not said to be more."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

import edgecv
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.cpu_classes import suits_this_machine
from edgecv.bundles.manifest import MANIFEST, dump_manifest
from edgecv.choosing import choose, runtime_options
from edgecv.cli.bundle_view import accelerator_lines
from edgecv.converters.request import request_of
from edgecv.errors import ConfigError
from edgecv.media.images import read_image
from edgecv.quantize.lint.lint import lint_file, lint_model
from edgecv.quantize.ort.graph import op_counts
from edgecv.quantize.ort.opset import opset_of
from edgecv.quantize.ort.quantizer import OrtStaticQuantizer
from edgecv.quantize.recipes import CPU_CLASSES, DEFAULT_CPU_CLASS, RECIPES
from edgecv.quantize.record import QUANTIZATION, parse_record
from edgecv.vision.letterbox import fit
from tests.command_line import run_here
from tests.conftest import SHARED
from tests.integration.trained import Data
from tests.once import made_once

OWN = next(name for name in CPU_CLASSES if suits_this_machine(name))
INT8 = "onnx-int8" if OWN == DEFAULT_CPU_CLASS else f"onnx-int8-{OWN}"
CALIBRATION = SHARED / "data/cifar10-jpeg/calibration"


@pytest.fixture(scope="session")
def made(resnet20: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A trained classifier for this processor and for TensorRT."""

    def make(folder: Path) -> None:
        edgecv.convert(
            resnet20,
            calibration=CALIBRATION,
            out=folder / "resnet20.ecv",
            int8=edgecv.Int8Options(cpu_class=(OWN, "tensorrt")),
        )

    return Bundle.open(made_once(tmp_path_factory, "tensorrt", make) / "resnet20.ecv")


def test_int8_for_tensorrt_stands_beside_the_others_and_fp16_comes_with_it(made: Bundle) -> None:
    variants = {variant.name: variant for variant in made.variants}
    assert list(variants) == ["onnx-fp32", "onnx-fp16", INT8, "onnx-int8-tensorrt"]
    own, other = variants["onnx-int8-tensorrt"], variants[INT8]
    assert (own.cpu_class, own.recipe, own.timed) == ("tensorrt", "tensorrt-gptq", False)
    assert own.metrics["top1_agreement"] >= other.metrics["top1_agreement"] - 0.05


def test_its_files_keep_the_rules_and_can_be_read_by_tensorrt_8(made: Bundle) -> None:
    done = run_here("info", "--lint", "tensorrt", made.path)
    assert done.returncode == 0, done.stdout
    assert "3 files checked for tensorrt: 1 finding." in done.stdout  # what is for a CPU is not checked
    assert "pixels            onnx-fp32" in done.stdout  # as kernels of CPUs want it; what is for TensorRT casts first
    models = {
        name: onnx.load(made.path / name / "model.onnx") for name in ("onnx-fp32", "onnx-fp16", "onnx-int8-tensorrt")
    }
    assert all(opset_of(model) <= 17 for model in models.values())
    counts = op_counts(models["onnx-int8-tensorrt"])
    assert counts["QuantizeLinear"] >= 18
    assert lint_model(onnx.load(made.path / INT8 / "model.onnx"))  # that one is of no use there


def test_a_bundle_without_a_variant_for_it_is_checked_as_it_would_run(made: Bundle, tmp_path: Path) -> None:
    done = run_here("info", "--lint", "tensorrt", made.path / INT8 / "model.onnx")
    assert done.returncode == 1
    assert "zero-point" in done.stdout
    copy = shutil.copytree(made.path, tmp_path / "other.ecv")
    others = [msgspec.structs.replace(variant, format="openvino") for variant in made.variants]
    (copy / MANIFEST).write_bytes(dump_manifest(msgspec.structs.replace(made.manifest, variants=tuple(others))))
    done = run_here("info", "--lint", "tensorrt", copy)
    assert done.returncode == 2
    assert "Convert the model with --to onnx" in " ".join(done.stderr.split())


def test_report_card_and_info_say_that_nothing_ran_on_tensorrt(made: Bundle) -> None:
    record = parse_record(made.read_extra(QUANTIZATION), made.path)
    notes = {form.format: form.notes for form in record.formats}
    (others,) = (found for name, found in notes.items() if name != "onnx-tensorrt")
    assert others == ("Ranges are chosen by values alone: The source is a graph, not a torch module.",)
    assert any("Not run on TensorRT" in note for note in notes["onnx-tensorrt"])
    assert "ONNX opset 17." in notes["onnx-tensorrt"]
    for text in ((made.path / "report.html").read_text(), (made.path / "MODEL_CARD.md").read_text()):
        assert "Not run on TensorRT" in text
    assert "onnx-int8-tensorrt: Not run on TensorRT" in " ".join(run_here("info", made.path).stdout.split())
    told = msgspec.json.decode(run_here("info", made.path, "--json").stdout)["variants"]
    assert [one["name"] for one in told if any("Not run on TensorRT" in said for said in one["notes"])] == [
        "onnx-int8-tensorrt"
    ]
    assert accelerator_lines(made)[0].startswith("onnx-int8-tensorrt: Not run on TensorRT")


@pytest.mark.parametrize(
    ("device", "precision", "wanted"),
    [
        ("cpu", "auto", INT8),
        ("cpu", "int8", INT8),
        ("tensorrt", "int8", "onnx-int8-tensorrt"),
        ("tensorrt", "fp16", "onnx-fp16"),
    ],
)
def test_each_device_gets_the_variant_that_was_built_for_it(
    made: Bundle, device: str, precision: str, wanted: str
) -> None:
    chosen = choose(made.path, runtime_options(runtime="onnxruntime", device=device, precision=precision))
    assert chosen.variant.name == wanted


def test_an_accelerator_needs_its_format(resnet20: Path) -> None:
    for name, given, wanted in (("tensorrt", "tflite", "onnx"), ("edgetpu", "onnx", "tflite")):
        with pytest.raises(ConfigError, match=f"{name} takes {wanted}") as caught:
            request_of(resnet20, [given], "int8", int8=edgecv.Int8Options(cpu_class=name))
        assert f"--to {wanted}" in caught.value.hint


def test_a_target_that_no_named_recipe_is_for_is_wrong_usage(resnet20: Path) -> None:
    for target, recipes in (("tensorrt", ["ort-u8s8"]), (("arm64", "tensorrt"), ["tensorrt"])):
        with pytest.raises(ConfigError, match="Nothing would be built for"):
            request_of(resnet20, ["onnx"], "int8", int8=edgecv.Int8Options(cpu_class=target, recipes=recipes))
    both = edgecv.Int8Options(cpu_class=("arm64", "tensorrt"), recipes=["tensorrt", "ort-s8s8-arm64"])
    assert request_of(resnet20, ["onnx"], "int8", int8=both).precisions_of("onnx") == ("fp16", "int8")
    alone = edgecv.Int8Options(recipes=["tensorrt"])
    assert request_of(resnet20, ["onnx"], "int8", int8=alone).precisions_of("onnx") == ("fp16", "int8")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_yolov8n_for_tensorrt_keeps_the_rules(trained: Bundle, data: Data, tmp_path: Path) -> None:
    assert lint_file(trained.path / "onnx-fp16/model.onnx") == ()
    assert [one.rule for one in lint_file(trained.path / "onnx-fp32/model.onnx")] == ["pixels"]  # its pixels suit CPUs
    (main,) = trained.variants[0].models.values()
    quantizer = OrtStaticQuantizer((trained.path / main.files[0].path,), main.outputs, tmp_path)
    images = [read_image(path) for path in sorted(data.calibration.iterdir())[:8]]
    quantizer.calibrate([fit(image, trained.spec.preprocess)[0][None] for image in images])
    for name in ("tensorrt", "tensorrt-float-head"):
        (path,), outputs = quantizer.quantize(RECIPES[name], tmp_path)
        assert lint_file(path) == ()
        assert outputs == main.outputs
        model = onnx.load(path)
        additions = [node for node in model.graph.node if node.op_type == "Add"]
        assert len(additions) == 6
        assert all(any(name.endswith("_DequantizeLinear_Output") for name in node.input) for node in additions)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("source", ["mobile_sam", "resnet18"])
def test_other_families_for_tensorrt_keep_the_rules(source: str, tmp_path: Path) -> None:
    bundle = edgecv.convert(
        source, precision="fp32", imgsz=128, out=tmp_path / "b.ecv", options=edgecv.SourceOptions(random_weights=True)
    )
    part = "encoder" if source == "mobile_sam" else "main"
    main = bundle.variants[0].models[part]
    (tmp_path / "work").mkdir()
    quantizer = OrtStaticQuantizer((bundle.path / main.files[0].path,), main.outputs, tmp_path / "work")
    rng = np.random.default_rng(0)
    quantizer.calibrate([rng.integers(0, 256, (1, 128, 128, 3), np.uint8) for _ in range(4)])
    (path,), _ = quantizer.quantize(RECIPES["tensorrt"], tmp_path)
    assert lint_file(path) == ()
    assert op_counts(onnx.load(path))["QuantizeLinear"] > 10


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_yolov8n_for_the_edge_tpu_is_full_integer_and_its_compiler_is_named(
    yolov8n: Path, data: Data, tmp_path: Path
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    out = tmp_path / "coral.ecv"
    done = run_here(
        "convert", yolov8n, "--int8", "--for", "coral", "--calib", data.calibration, "--imgsz", "320", "--out", out
    )
    assert done.returncode == 0, done.stderr
    assert "Not run on an Edge TPU" in " ".join(done.stdout.split())
    bundle = Bundle.open(out)
    assert [variant.name for variant in bundle.variants] == ["tflite-fp32", "tflite-int8", "tflite-int8-edgetpu"]
    static, own = bundle.variants[1:]
    assert (own.cpu_class, own.recipe) == ("edgetpu", "litert-edgetpu")
    assert own.metrics["f1_50"] == static.metrics["f1_50"]  # the same integers
    found = Interpreter(model_path=str(out / "tflite-int8-edgetpu/model.tflite"))
    names = {op["op_name"] for op in found._get_ops_details()} - {"DELEGATE"}
    assert not names & {"CAST", "DEQUANTIZE"}
    for text in ((out / "report.html").read_text(), (out / "MODEL_CARD.md").read_text(), run_here("info", out).stdout):
        assert "edgetpu_compiler -s tflite-int8-edgetpu/model.tflite" in " ".join(text.split())

"""What the machine that converts measures is reported, and decides nothing: not a recipe, not a byte of a model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import edgecv
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.cpu_classes import suits_this_machine
from edgecv.converters import float_variants
from edgecv.quantize.recipes import CPU_CLASSES
from edgecv.quantize.record import QuantizationRecord, parse_record
from edgecv.quantize.report.report import report_html
from edgecv.runtimes.measure import Request
from tests.conftest import CHECKOUT, SHARED

OWN = next(name for name in CPU_CLASSES if suits_this_machine(name))  # what is for another class is not timed
FLOAT_MS = 10.0
SLOWER_MS, FASTER_MS = 40.0, 2.5
WITH_LATENCY = {"bundle.json", "quantization.json", "report.html", "MODEL_CARD.md"}
MACHINES = (("slower", SLOWER_MS), ("faster", FASTER_MS))
# A process of its own, as on the command line.
SCRIPT = f"""
import sys, edgecv
from edgecv.converters import float_variants
float_variants.median_latency_ms = lambda request: {FLOAT_MS} if "-fp32/" in request.path else float(sys.argv[4])
edgecv.convert(
    sys.argv[1], calibration=sys.argv[2], out=sys.argv[3], formats=("onnx", "openvino"),
    precision=("fp16", "int8"), int8=edgecv.Int8Options(cpu_class="all"),
)
"""


def in_a_process_of_its_own(source: Path, folder: Path, int8_ms: float) -> Bundle:
    folder.mkdir()
    out = folder / "a.ecv"
    given = (source, SHARED / "data/cifar10-jpeg/calibration", out, int8_ms)
    command = [sys.executable, "-c", SCRIPT, *map(str, given)]
    subprocess.run(command, cwd=CHECKOUT, check=True, timeout=280)
    return Bundle.open(out)


def converted(
    source: Path, images: Path, out: Path, int8_ms: float, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> Bundle:
    """Convert on a machine on which float takes ``FLOAT_MS`` and every other model ``int8_ms``."""

    def timed(request: Request) -> float:
        return FLOAT_MS if "-fp32/" in request.path else int8_ms

    monkeypatch.setattr(float_variants, "median_latency_ms", timed)
    out.mkdir()
    return edgecv.convert(source, calibration=images, out=out / "a.ecv", **options)


def without_latency(value: Any) -> Any:
    """JSON without measured milliseconds, and without the hashes of the documents that say them."""
    if isinstance(value, list):
        return [without_latency(one) for one in value]
    if not isinstance(value, dict):
        return value
    dropped = {"latency_ms", "float_latency_ms"}
    if value.get("path") in WITH_LATENCY:
        dropped |= {"sha256", "bytes"}
    return {key: without_latency(one) for key, one in value.items() if key not in dropped}


def record_of(bundle: Bundle) -> QuantizationRecord:
    return parse_record(bundle.read_extra("quantization.json"), bundle.path)


def files_of(bundle: Bundle) -> dict[str, bytes]:
    return {str(path.relative_to(bundle.path)): path.read_bytes() for path in bundle.path.rglob("*") if path.is_file()}


def check_alike(bundles: Sequence[Bundle]) -> None:
    slow, fast = (files_of(bundle) for bundle in bundles)
    assert slow.keys() == fast.keys()
    assert {name for name in slow if slow[name] != fast[name]} == WITH_LATENCY
    for name in ("bundle.json", "quantization.json"):
        assert without_latency(json.loads(slow[name])) == without_latency(json.loads(fast[name]))
    cards = [re.sub(r"\d+\.\d ms", "", files["MODEL_CARD.md"].decode()) for files in (slow, fast)]
    assert cards[0] == cards[1]
    for files, bundle in zip((slow, fast), bundles, strict=True):
        assert files["report.html"].decode() == report_html(record_of(bundle))  # which differs in latency alone


def both(
    source: Path, images: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[Bundle, Bundle]:
    slower = converted(source, images, folder / "slower", SLOWER_MS, monkeypatch, **options)
    return slower, converted(source, images, folder / "faster", FASTER_MS, monkeypatch, **options)


def test_a_slow_and_a_fast_machine_write_the_same_model(
    resnet20: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = SHARED / "data/cifar10-jpeg/calibration"
    bundles = both(resnet20, images, tmp_path, monkeypatch, int8=edgecv.Int8Options(cpu_class=OWN))
    check_alike(bundles)
    assert [variant.recipe for variant in bundles[0].variants] == ["", f"{CPU_CLASSES[OWN].recipe}-gptq"]
    assert [bundle.variants[1].latency_ms for bundle in bundles] == [SLOWER_MS, FASTER_MS]
    assert "not faster than float. Your device may differ" in bundles[0].read_extra("report.html").decode()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_so_they_do_for_openvino_and_for_every_cpu_class(resnet20: Path, tmp_path: Path) -> None:
    bundles = [in_a_process_of_its_own(resnet20, tmp_path / name, ms) for name, ms in MACHINES]
    check_alike(bundles)
    recipes = {variant.name: variant.recipe for variant in bundles[0].variants if variant.precision == "int8"}
    assert recipes == {
        "onnx-int8": "ort-u8s8-gptq",
        "onnx-int8-x86": "ort-u8s7-x86-gptq",
        "onnx-int8-arm64": "ort-s8s8-arm64-gptq",
        "openvino-int8": "ov-mixed-gptq",
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_so_do_three_formats_of_a_detector_in_one_process_and_its_confidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgecv.benchmarks.demo.data import write_images
    from edgecv.benchmarks.demo.run import MODEL_PATH

    write_images(tmp_path / "images", 80, 0)
    formats = ("onnx", "openvino", "tflite")
    int8 = edgecv.Int8Options(cpu_class=OWN)
    bundles = both(MODEL_PATH, tmp_path / "images", tmp_path, monkeypatch, formats=formats, int8=int8)
    check_alike(bundles)
    threshold = record_of(bundles[0]).threshold
    assert threshold is not None
    assert bundles[0].manifest.decode.confidence == threshold.after


@pytest.mark.slow
def test_on_the_device_itself_measured_speed_counts(
    resnet20: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slower, faster = both(
        resnet20,
        SHARED / "data/cifar10-jpeg/calibration",
        tmp_path,
        monkeypatch,
        int8=edgecv.Int8Options(by_speed=True, cpu_class=OWN),
    )
    assert [attempt.recipe for attempt in record_of(faster).formats[0].attempts] == [f"{CPU_CLASSES[OWN].recipe}-gptq"]
    tried = record_of(slower).formats[0].attempts
    assert [attempt.recipe for attempt in tried] == [f"{CPU_CLASSES[OWN].recipe}-gptq", "ort-weights-gptq"]
    assert all("not faster than float on this machine" in attempt.reason for attempt in tried)

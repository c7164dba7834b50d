"""Scenarios and tools of the benchmarks room, each on a real model and in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edgecv.benchmarks.images import rendered_images
from edgecv.benchmarks.lab.around_session import around_session
from edgecv.benchmarks.lab.run_vs_loop import run_versus_loop
from edgecv.benchmarks.lab.session_ratio import session_ratio
from edgecv.benchmarks.options import BenchOptions
from edgecv.benchmarks.run import run_scenario, run_scenarios
from edgecv.errors import ConfigError, ModelError, SourceError, UnknownPlugin
from edgecv.media.video_writer import VideoWriter
from edgecv.model import load
from tests.unit.benchmarks.tiny_bundle import write_bundle, write_model

_QUICK = BenchOptions(threads=1, runs=5, warmup=1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bench") / "tiny.ecv")


@pytest.mark.parametrize(
    ("scenario", "stages"),
    [
        ("single_stream", ["preprocess", "inference", "postprocess", "total"]),
        ("pipeline", ["wait", "preprocess", "inference", "postprocess", "age"]),
        ("multi_stream", ["query"]),
        ("offline", ["preprocess", "inference", "postprocess", "total"]),
        ("sustained", ["preprocess", "inference", "postprocess", "total"]),
    ],
)
def test_a_scenario_reports_every_stage(bundle, scenario, stages):
    report = run_scenario(scenario, bundle, _QUICK)
    assert (report.scenario, report.bundle, report.variant, report.runtime) == (
        scenario,
        "tiny",
        "onnx-int8",
        "onnxruntime",
    )
    assert (report.warmup, report.runs, list(report.stages)) == (1, 5, stages)
    assert all(0 <= s.p50_ms <= s.p90_ms <= s.max_ms for s in report.stages.values())
    assert (report.init_ms > 0, report.first_ms > 0, len(report.times_ms), report.quality.verdict) == (
        True,
        True,
        5,
        "noisy",  # five runs of a tiny model are over too soon to tell
    )
    assert report.comparability.device
    assert report.comparability.runtimes.startswith("onnxruntime ")
    assert report.headline_ms > 0 < report.fps
    assert 0 < report.pss_bytes <= report.rss_bytes <= report.peak_rss_bytes
    assert report.float_precision == "float32"
    assert report.device["cpu"]["cores"] >= 1
    assert report.started.endswith("+00:00")


def test_the_precision_asked_for_is_the_one_measured(bundle):
    reports = run_scenarios(["single_stream"], bundle, BenchOptions(precision="fp32", runs=2, warmup=0))
    assert [report.variant for report in reports] == ["onnx-fp32"]


def test_images_come_from_a_source_and_its_password_stays_out_of_the_report(bundle):
    options = BenchOptions(runs=3, warmup=0, source="synthetic://?frames=2&width=320&height=240")
    report = run_scenario("single_stream", bundle, options)
    assert (report.source, report.runs) == ("synthetic://", 3)
    assert "source" not in report.options


@pytest.mark.parametrize(
    ("scenario", "target", "options", "error", "said"),
    [
        ("single_stream", "missing.ecv", _QUICK, ModelError, "does not exist"),
        ("pipeline", "", BenchOptions(source="missing.mp4"), SourceError, "missing.mp4"),
        ("pipeline", "", BenchOptions(warmup=9, runs=1, source="synthetic://?frames=5"), ConfigError, "5 frames"),
        ("pipeline", "", BenchOptions(precision="fp16"), ConfigError, "no fp16 variant"),
        ("single_straem", "", _QUICK, UnknownPlugin, "single_straem"),
    ],
)
def test_what_cannot_be_measured_raises_as_it_would_without_a_process(
    bundle, tmp_path, scenario, target, options, error, said
):
    with pytest.raises(error, match=said) as caught:
        run_scenario(scenario, tmp_path / target if target else bundle, options)
    assert caught.value.hint


@pytest.mark.parametrize("wrong", [{"runs": 0}, {"warmup": -1}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        BenchOptions(**wrong)


def test_session_ratio_times_both_in_rounds(bundle, tmp_path):
    reference = write_model(tmp_path / "reference.onnx")
    found = session_ratio(bundle, reference, runs=5, rounds=2)
    assert len(found.rounds_ms) == 2
    assert found.ratio == found.bundle_ms / found.reference_ms > 0
    assert found.round_ratio > 0
    assert found.size_ratio > 0
    with pytest.raises(ConfigError, match="no variant 'tflite-int8'"):
        session_ratio(bundle, tmp_path / "reference.onnx", variant="tflite-int8")
    with pytest.raises(ConfigError, match="does not exist"):
        session_ratio(bundle, tmp_path / "missing.onnx")


def test_session_ratio_of_two_variants_has_an_interval(bundle):
    found = session_ratio(f"{bundle}:onnx-int8", f"{bundle}:onnx-fp32", runs=3, rounds=6)
    low, high = found.interval
    assert 0 < low <= found.round_ratio <= high
    assert found.as_dict()["round_ratio_interval"] == [round(low, 4), round(high, 4)]
    with pytest.raises(ConfigError, match="no variant 'onnx-int4'"):
        session_ratio(f"{bundle}:onnx-int8", f"{bundle}:onnx-int4", runs=3, rounds=6)


def test_around_session_takes_a_call_apart(bundle):
    with load(bundle, threads=1) as model:
        found = around_session(model, rendered_images(1, (320, 240))[0], runs=5)
    assert (found.frame, found.found) == ("320x240", 1)
    assert min(found.call_ms, found.session_ms, found.preprocess_ms, found.postprocess_ms) > 0


def test_run_and_loop_are_compared_on_a_video(bundle, tmp_path):
    writer = VideoWriter(tmp_path / "clip.mp4", fps=25.0)
    for number, image in enumerate(rendered_images(6, (320, 240))):
        writer.write(image, number / 25)
    writer.close()
    found = run_versus_loop(bundle, tmp_path / "clip.mp4", threads=1, frames=5, rounds=1)
    assert min(found.run_fps, found.loop_fps, found.spinning_loop_fps, found.ratio) > 0
    assert min(found.run_peak_rss_mb, found.loop_peak_rss_mb) > 10


def test_rendered_images_are_the_same_in_every_run():
    first, second = rendered_images(2, (320, 240)), rendered_images(2, (320, 240))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert first[0].shape == (240, 320, 3)


def test_the_whole_room_runs_as_a_program(bundle):
    command = [sys.executable, "-m", "edgecv.benchmarks", str(bundle), "--runs", "2", "--threads", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    measured = [(report["scenario"], report["variant"]) for report in json.loads(done.stdout)]
    assert measured == [
        (scenario, variant) for variant in ("onnx-fp32", "onnx-int8") for scenario in ("single_stream", "pipeline")
    ]


def test_a_program_says_what_is_wrong_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "edgecv.benchmarks", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "is not a bundle" in done.stderr
    assert "Traceback" not in done.stderr

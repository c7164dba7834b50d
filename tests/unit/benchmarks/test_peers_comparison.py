from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgecv.benchmarks.lab.peers.comparison import (
    ONNX_PEER,
    OPENVINO_PEER,
    Ratio,
    Side,
    Turn,
    compare,
    compared,
    our_sides,
    peer_side,
)
from edgecv.benchmarks.lab.process_tree import run_measured
from edgecv.errors import EdgeCVError
from edgecv.media.video_writer import VideoWriter
from tests.unit.benchmarks.tiny_bundle import write_bundle


def _turn(fps: float, pss_mb: float = 100.0) -> Turn:
    return Turn(fps=fps, peak_pss_mb=pss_mb, peak_rss_mb=pss_mb + 20, wall_s=2.0)


def _says(name: str, text: str, code: int = 0) -> Side:
    return Side(name=name, command=(sys.executable, "-c", f"import sys; print({text!r}); sys.exit({code})"))


def test_the_fastest_of_ours_is_what_the_peers_are_measured_against():
    found = compared(
        {
            "edgecv/slow": [_turn(30), _turn(30), _turn(30)],
            "edgecv/fast": [_turn(60), _turn(40), _turn(50)],
            OPENVINO_PEER: [_turn(40), _turn(20), _turn(30)],
            ONNX_PEER: [_turn(5), _turn(5), _turn(5)],
        }
    )
    ratio = found.against[OPENVINO_PEER]
    assert (ratio.ours, ratio.ratio, ratio.round_ratio) == ("edgecv/fast", pytest.approx(50 / 30, abs=1e-4), 1.6667)
    assert (ratio.met, found.against[ONNX_PEER].met) == (True, True)
    assert found.sides["edgecv/fast"].rounds_fps == (60, 40, 50)


@pytest.mark.parametrize(("ratio", "of_rounds", "met"), [(1.4, 1.4, True), (1.4, 1.3, False), (1.3, 1.4, False)])
def test_a_target_is_met_only_when_medians_and_rounds_agree(ratio, of_rounds, met):
    assert Ratio(ours="edgecv/x", ratio=ratio, round_ratio=of_rounds, target=1.35).met is met


def test_without_a_side_of_ours_there_is_no_ratio():
    assert compared({OPENVINO_PEER: [_turn(30)]}).against == {}


def test_sides_take_turns_and_the_last_document_on_stdout_counts():
    sides = [
        _says("edgecv/a", '{\n "frames": 3,\n "fps": 12.5\n}'),
        _says(OPENVINO_PEER, 'noise {\n{"frames": 3, "fps": 6.25}'),
    ]
    found = compare(sides, rounds=2)
    assert found.sides["edgecv/a"].rounds_fps == (12.5, 12.5)
    assert found.against[OPENVINO_PEER].ratio == 2.0


@pytest.mark.parametrize(
    ("side", "said"),
    [
        (_says("edgecv/a", '{"fps": 1}', code=1), "ended with code 1"),
        (_says("edgecv/a", '{"frames": 1}'), "gave no figures"),
        (_says("edgecv/a", "nothing"), "gave no figures"),
    ],
)
def test_a_side_that_fails_is_named(side, said):
    with pytest.raises(EdgeCVError, match=f"edgecv/a {said}"):
        compare([side], rounds=1)


def test_edgecv_run_is_a_side_for_every_runtime_of_the_bundle(tmp_path: Path):
    bundle = write_bundle(tmp_path / "tiny.ecv")
    video = tmp_path / "clip.mp4"
    writer = VideoWriter(video, 25.0)
    for number in range(12):
        writer.write(np.full((48, 64, 3), number * 10, np.uint8), number / 25)
    writer.close()
    (side,) = our_sides(bundle, video, frames=10, threads=1)
    assert side.name == "edgecv/onnxruntime"
    figures = compare([side], rounds=1).sides[side.name]
    assert figures.fps > 0
    assert figures.peak_pss_mb > 20


def test_only_the_runtimes_asked_for_are_sides(tmp_path: Path):
    bundle = write_bundle(tmp_path / "tiny.ecv")
    assert our_sides(bundle, tmp_path / "clip.mp4", frames=1, threads=1, runtimes=["openvino"]) == []


def test_a_peer_is_told_its_export_and_how_many_frames(tmp_path: Path):
    command = peer_side(ONNX_PEER, tmp_path / "m.onnx", tmp_path / "v.avi", frames=7, threads=2).command
    assert command[1:] == (
        *("-m", "edgecv.benchmarks.lab", "peer_predict"),
        *(str(tmp_path / "m.onnx"), str(tmp_path / "v.avi"), "--frames", "7", "--threads", "2"),
        *("--torch-threads", "0"),
    )


def test_proportional_memory_holds_the_children_too():
    hold = "held = b'x' * 60_000_000; import time; time.sleep(1.5)"
    parent = f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {hold!r}]); {hold}; child.wait()"
    done = run_measured([sys.executable, "-c", parent], timeout_s=60, pss=True)
    assert done.code == 0
    assert done.peak_pss_bytes > 120_000_000
    assert run_measured([sys.executable, "-c", "pass"], timeout_s=60).peak_pss_bytes == 0

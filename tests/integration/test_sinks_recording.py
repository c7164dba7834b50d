"""Recordings when things go wrong: a kill, a power cut, a full disk. Real processes, real files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import av
import cv2
import pytest

from edgecv.errors import SinkError
from edgecv.pipelines.sinks.video.segments import SegmentsOptions, SegmentsSink
from tests.conftest import CHECKOUT
from tests.unit.pipelines.made_results import made_result

DEADLINE_S = 60


def run_program(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        cwd=CHECKOUT,
    )


def read_with_cv2(path: Path) -> tuple[int, float]:
    """Frames, and the time of the last one in seconds."""
    capture, count, last_s = cv2.VideoCapture(str(path)), 0, 0.0
    while capture.read()[0]:
        count, last_s = count + 1, capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
    return count, last_s


def read_with_av(path: Path) -> int:
    count = 0
    try:
        with av.open(str(path)) as container:
            for _ in container.decode(video=0):
                count += 1
    except (OSError, ValueError):  # the last image is torn
        pass
    return count


_RECORD_AND_DIE = """
import os, signal, sys
from edgecv.pipelines.sinks import open_sink
from tests.unit.pipelines.made_results import made_result
uri, gap_s = sys.argv[1], float(sys.argv[2])
sink = open_sink(uri)
for step in range(1 + round(5.5 / gap_s)):
    for source in ("left", "right"):
        sink.emit(made_result(step * gap_s, source_id=source))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
@pytest.mark.parametrize("gap_s", [0.04, 0.5])
def test_kill_9_leaves_all_but_the_last_second_of_every_source(tmp_path: Path, kind: str, gap_s: float) -> None:
    died = run_program(_RECORD_AND_DIE, f"segments:{tmp_path}?seconds=3&format={kind}", str(gap_s))
    assert died.returncode == -9, died.stderr
    for source in ("left", "right"):
        first, second = sorted(tmp_path.glob(f"*_{source}.{kind}"))
        # Of 5.5 s the first 3 are a segment of their own; of the second may be missing what the last second brought.
        assert read_with_cv2(first)[0] == read_with_av(first) == round(3 / gap_s)
        frames, last_s = read_with_cv2(second)
        assert last_s >= 2.5 - 1.0 - 2 * gap_s
        assert frames == read_with_av(second) > 0
    sink = SegmentsSink(tmp_path)
    assert len(sink.leftovers) == 4, "nothing is lost or called broken at the next start"
    assert not [path for path in sink.leftovers if path.suffix == ".broken"]
    sink.emit(made_result(100.0))
    sink.close()


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_a_file_that_a_power_cut_tore_plays_up_to_there(tmp_path: Path, kind: str) -> None:
    sink = SegmentsSink(tmp_path, options=SegmentsOptions(format=kind))
    for step in range(50):
        sink.emit(made_result(step / 10))
    sink.close()
    (path,) = tmp_path.glob(f"*.{kind}")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    assert 20 <= read_with_cv2(path)[0] < 50
    sink = SegmentsSink(tmp_path)
    assert sink.leftovers == (path,)
    sink.close()


_FILL_THE_DISK = """
import json, resource, sys
from edgecv.errors import SinkError
from edgecv.pipelines.sinks import open_sink
from tests.unit.pipelines.made_results import made_result
sink = open_sink(sys.argv[1])
taken = []
for step in range(200):
    # What a full disk does, a limit on the size of files does too: the write fails, here from the 5th second to the 10th.
    limit = 2_000 if 50 <= step < 100 else resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        sink.emit(made_result(step / 10))
        taken.append(step)
    except SinkError as error:
        assert error.hint
sink.close()
print(json.dumps(taken))
"""


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_a_full_disk_refuses_frames_and_recording_resumes_when_there_is_space(tmp_path: Path, kind: str) -> None:
    done = run_program(_FILL_THE_DISK, f"segments:{tmp_path}?format={kind}")
    assert done.returncode == 0, done.stderr
    taken = json.loads(done.stdout)
    assert taken[:50] == list(range(50))
    assert len([step for step in taken if 50 <= step < 100]) < 25
    assert taken[-60:] == list(range(140, 200)), "back within seconds"
    paths = sorted(tmp_path.glob(f"*.{kind}"))
    assert read_with_cv2(paths[0])[0] >= 40
    assert read_with_cv2(paths[-1])[0] >= 60
    assert all(path.stat().st_size for path in paths)


_TWO_AT_ONCE = """
import sys
from edgecv.pipelines.sinks import open_sink
print("ready", flush=True)
sink = open_sink(sys.argv[1])
"""


def test_a_folder_that_another_process_records_to_is_refused(tmp_path: Path) -> None:
    sink = SegmentsSink(tmp_path)
    sink.emit(made_result(0.0))
    other = run_program(_TWO_AT_ONCE, f"segments:{tmp_path}")
    assert "Another sink writes to" in other.stderr
    sink.emit(made_result(0.1))
    sink.close()
    (path,) = tmp_path.glob("*.mp4")
    assert read_with_cv2(path)[0] == 2


def test_a_slow_source_loses_a_second_at_a_kill_in_a_single_video_too(tmp_path: Path) -> None:
    program = _RECORD_AND_DIE.replace('("left", "right")', '("left",)')
    assert run_program(program, f"video:{tmp_path / 'out.mp4'}", "0.5").returncode == -9
    assert read_with_cv2(tmp_path / "out.mp4")[1] >= 3.5


def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SinkError) as caught:
        SegmentsSink("/proc/edgecv")
    assert caught.value.hint

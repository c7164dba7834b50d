"""Recordings in segments: where one ends, what they are called, how many stay."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import av
import cv2
import pytest
from hypothesis import given, strategies as st

from edgecv.errors import SinkError
from edgecv.pipelines.sinks.video.file_ring import FileRing, source_slug
from edgecv.pipelines.sinks.video.ring_order import Clocks
from edgecv.pipelines.sinks.video.segments import SegmentsOptions, SegmentsSink
from tests.conftest import names_in
from tests.unit.pipelines.made_results import START_NS, made_result

HOUR_NS = 3600 * 10**9


def count_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def videos(folder: Path) -> dict[str, int]:
    return {path.name: count_frames(path) for path in sorted(folder.iterdir()) if path.suffix in (".mp4", ".mkv")}


def record(folder: Path, times_s: list[float], *, fps: float = 0.0, **options: object) -> dict[str, int]:
    sink = SegmentsSink(folder, fps=fps, options=SegmentsOptions(**options))
    for at_s in times_s:
        sink.emit(made_result(at_s))
    sink.close()
    return videos(folder)


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_a_segment_ends_after_its_seconds(tmp_path: Path, kind: str) -> None:
    found = record(tmp_path, [step / 2 for step in range(12)], seconds=2, format=kind)
    assert found == {
        f"20261121T154418.123Z_cam.{kind}": 4,
        f"20261121T154420.123Z_cam.{kind}": 4,
        f"20261121T154422.123Z_cam.{kind}": 4,
    }


def test_the_rate_of_a_file_counts_where_it_is_known(tmp_path: Path) -> None:
    # Frames 0 to 39 of a file with 10 per second, read much faster than that.
    assert list(record(tmp_path, [step / 10 for step in range(40)], fps=10, seconds=2).values()) == [20, 20]


def test_another_size_begins_a_new_segment(tmp_path: Path) -> None:
    sink = SegmentsSink(tmp_path)
    for at_s, size_wh in [(0.0, (64, 48)), (0.1, (64, 48)), (0.2, (32, 24))]:
        sink.emit(made_result(at_s, size_wh=size_wh))
    sink.close()
    sizes = []
    for name in videos(tmp_path):
        capture = cv2.VideoCapture(str(tmp_path / name))
        sizes.append((capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
    assert sizes == [(64, 48), (32, 24)]


def test_a_gap_begins_a_new_segment_so_that_the_name_tells_the_time(tmp_path: Path) -> None:
    assert record(tmp_path, [0.0, 1.0, 30.0]) == {
        "20261121T154418.123Z_cam.mp4": 2,
        "20261121T154448.123Z_cam.mp4": 1,
    }


def test_every_source_has_files_of_its_own(tmp_path: Path) -> None:
    sink = SegmentsSink(tmp_path)
    for step in range(6):
        sink.emit(made_result(step / 10, source_id="rtsp://host/a" if step % 3 else "rtsp://host/b"))
    sink.close()
    assert sorted(videos(tmp_path).values()) == [2, 4]


def test_a_source_that_went_away_leaves_no_open_file(tmp_path: Path) -> None:
    sink = SegmentsSink(tmp_path)
    sink.emit(made_result(0.0, source_id="gone"))
    gone = next(tmp_path.glob("*.mp4"))
    begun = gone.stat().st_size
    for step in range(20):
        sink.emit(made_result(float(step), source_id="stays"))
    assert gone.stat().st_size > begun, "finished"
    assert count_frames(gone) == 1
    sink.close()


def test_what_was_found_is_drawn_unless_told_otherwise(tmp_path: Path) -> None:
    shown = []
    for draw in (True, False):
        folder = tmp_path / str(draw)
        record(folder, [0.0], draw=draw)
        with av.open(str(next(folder.glob("*.mp4")))) as container:
            shown.append(next(container.decode(video=0)).to_ndarray(format="bgr24"))
    assert abs(shown[0].astype(int) - shown[1]).max() > 60


def test_the_oldest_go_when_there_is_too_much(tmp_path: Path) -> None:
    seconds = [float(second) for second in range(20)]
    everything = record(tmp_path / "all", seconds, seconds=2)
    sizes = [(tmp_path / "all" / name).stat().st_size for name in everything]
    budget_gb = sum(sizes[-4:]) / 1e9
    kept = record(tmp_path / "some", seconds, seconds=2, keep_gb=budget_gb)
    assert list(kept) == list(everything)[-len(kept) :]
    assert 3 <= len(kept) <= 4


class Times:
    """A wall clock that can be set, and a steady one that goes on by itself."""

    def __init__(self, wall_ns: int = START_NS) -> None:
        self.wall_ns, self.steady_ns, self.is_synced = wall_ns, 5 * HOUR_NS, False

    def go_on(self, hours: float) -> None:
        self.wall_ns += round(hours * HOUR_NS)
        self.steady_ns += round(hours * HOUR_NS)

    def clocks(self) -> Clocks:
        return Clocks(wall=lambda: self.wall_ns, steady=lambda: self.steady_ns, is_synced=lambda: self.is_synced)


def segment(sink: SegmentsSink, times: Times, *, hours: float = 0.0, captured_ns: int | None = None) -> None:
    """Let hours pass, then record one frame that makes a segment of its own."""
    times.go_on(hours)
    result = made_result((times.steady_ns - 5 * HOUR_NS) / 1e9)
    at_ns = times.wall_ns if captured_ns is None else captured_ns
    sink.emit(replace(result, frame=replace(result.frame, captured_ns=at_ns)))


def keeper(folder: Path, times: Times, **options: object) -> SegmentsSink:
    return SegmentsSink(folder, options=SegmentsOptions(**{"keep_hours": 24, **options}), clocks=times.clocks())


def test_the_old_go(tmp_path: Path) -> None:
    times = Times()
    sink = keeper(tmp_path, times, keep_hours=1.5)
    for _ in range(3):
        segment(sink, times, hours=1)
    sink.close()
    assert list(videos(tmp_path)) == ["20261121T174418.123Z_cam.mp4", "20261121T184418.123Z_cam.mp4"]


@pytest.mark.parametrize("days", [30, -30, -20_000])
def test_a_frame_with_a_wrong_time_deletes_nothing(tmp_path: Path, days: int) -> None:
    times = Times()
    sink = keeper(tmp_path, times)
    for number in range(6):
        segment(sink, times, hours=1, captured_ns=times.wall_ns + days * 24 * HOUR_NS if number == 2 else None)
    sink.close()
    assert len(videos(tmp_path)) == 6


@pytest.mark.parametrize("days", [30, -30, 20_000])
def test_a_clock_that_jumps_deletes_nothing(tmp_path: Path, days: int) -> None:
    times = Times()
    for _ in range(2):  # and not after a restart either
        sink = keeper(tmp_path, times)
        for number in range(3):
            segment(sink, times, hours=1)
            times.wall_ns += days * 24 * HOUR_NS * (number == 1)
        sink.close()
        days = -days
    assert len(videos(tmp_path)) == 6
    sink = keeper(tmp_path, times)
    segment(sink, times, hours=23.5)
    sink.close()
    assert len(videos(tmp_path)) == 2, "the hours that passed count all the same"


def test_after_a_start_without_a_clock_the_first_written_go_first(tmp_path: Path) -> None:
    times = Times()
    sink = keeper(tmp_path, times)
    for _ in range(3):
        segment(sink, times, hours=1)
    sink.close()
    size_bytes = max(path.stat().st_size for path in tmp_path.glob("*.mp4"))
    times.wall_ns = 60 * 10**9  # a minute after 1970 began
    sink = keeper(tmp_path, times, keep_gb=2.5 * size_bytes / 1e9)
    segment(sink, times, hours=1)
    segment(sink, times, hours=1)
    sink.close()
    assert list(videos(tmp_path)) == ["19700101T010100.000Z_cam.mp4", "19700101T020100.000Z_cam.mp4"]
    times.wall_ns = START_NS + 10 * HOUR_NS
    sink = keeper(tmp_path, times)
    segment(sink, times, hours=1)
    segment(sink, times, hours=1)
    sink.close()
    assert len(videos(tmp_path)) == 4, "what was written in 1970 is hours old, not 56 years"


def test_a_long_absence_counts_once_the_clock_is_believed(tmp_path: Path) -> None:
    times = Times()
    for _ in range(2):
        sink = keeper(tmp_path / "a", times)
        segment(sink, times, hours=1)
        sink.close()
        times.wall_ns += 22 * HOUR_NS  # switched off
    assert len(videos(tmp_path / "a")) == 2
    sink = keeper(tmp_path / "a", times)
    segment(sink, times)
    sink.close()
    assert len(videos(tmp_path / "a")) == 2, "the first is 45 hours old"

    for is_synced in (False, True):
        folder, times = tmp_path / f"b{is_synced}", Times()
        sink = keeper(folder, times)
        segment(sink, times, hours=1)
        sink.close()
        times.wall_ns += 30 * 24 * HOUR_NS
        times.is_synced = is_synced
        sink = keeper(folder, times)
        segment(sink, times)
        assert len(videos(folder)) == (1 if is_synced else 2), "as yet it may be a wrong clock"
        times.go_on(0.1)
        segment(sink, times, hours=0.1)
        assert "20261121T164418.123Z_cam.mp4" not in videos(folder)
        sink.close()


def test_a_folder_of_an_older_edgecv_is_carried_on(tmp_path: Path) -> None:
    names = ["20261121T154418.123Z_cam.mp4", "19700101T000100.000Z_cam.mp4", "20261220T154418.123Z_cam.mp4"]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(b"x" * 1000)
        os.utime(tmp_path / name, ns=(0, START_NS + number * HOUR_NS))
    ring = FileRing(
        tmp_path, (".mp4",), keep_bytes=10**6, keep_s=24 * 3600, clocks=Times(START_NS + 4 * HOUR_NS).clocks()
    )
    assert [file.path.name for file in ring.files()] == names
    assert ring.prune() == 0
    ring.close()
    ring = FileRing(tmp_path, (".mp4",), keep_bytes=2000, clocks=Times().clocks())
    assert ring.prune() == 1
    assert [file.path.name for file in ring.files()] == names[1:]
    ring.close()


@pytest.mark.parametrize("damage", [b"", b"\0" * 4000, b"12 34 x\n56", b"\xff\xfe", b"9" * 9000 + b" 1 a\n"])
def test_a_damaged_list_of_the_order_does_no_harm(tmp_path: Path, damage: bytes) -> None:
    times = Times()
    sink = keeper(tmp_path, times)
    segment(sink, times, hours=1)
    segment(sink, times, hours=1)
    sink.close()
    for path in tmp_path.glob("*.mp4"):
        os.utime(path, ns=(0, times.wall_ns))
    lock = tmp_path / ".edgecv.mp4.lock"
    lock.write_bytes(damage + lock.read_bytes()[: len(damage)])
    sink = keeper(tmp_path, times)
    segment(sink, times, hours=1)
    sink.close()
    assert len(videos(tmp_path)) == 3


def test_a_file_in_work_is_never_deleted(tmp_path: Path) -> None:
    assert list(record(tmp_path, [float(second) for second in range(30)], keep_gb=1e-9, seconds=60).values()) == []
    sink = SegmentsSink(tmp_path, options=SegmentsOptions(keep_gb=1e-9))
    for second in range(12):
        sink.emit(made_result(float(second)))
        assert len(list(tmp_path.glob("*.mp4"))) == 1
    sink.close()


def test_leftovers_of_a_crash_are_kept_and_listed_and_damaged_ones_marked(tmp_path: Path) -> None:
    (good,) = record(tmp_path, [0.0, 1.0])
    (tmp_path / "20261121T154500.000Z_cam.mp4").write_bytes(b"\0" * 5000)
    (tmp_path / "20261121T154501.000Z_other.mp4").write_bytes(b"")
    (tmp_path / "mine.mp4").write_bytes(b"")
    sink = SegmentsSink(tmp_path)
    assert [path.name for path in sink.leftovers] == [good, "20261121T154500.000Z_cam.mp4.broken"]
    sink.close()
    assert (tmp_path / "mine.mp4").exists(), "not ours"
    assert names_in(tmp_path) == [".edgecv.mp4.lock", good, "20261121T154500.000Z_cam.mp4.broken", "mine.mp4"]
    assert SegmentsSink(tmp_path, options=SegmentsOptions(keep_gb=1e-9)).close() is None
    assert names_in(tmp_path) == [".edgecv.mp4.lock", "mine.mp4"], "what is broken counts for the budget too"


def test_a_clock_that_stands_still_overwrites_nothing(tmp_path: Path) -> None:
    ring = FileRing(tmp_path, (".mp4",), keep_bytes=1)
    names = []
    for _ in range(3):
        names.append(ring.new_stem(START_NS, "cam", ".mp4"))
        (tmp_path / f"{names[-1]}.mp4").write_bytes(b"x")
    assert names == [f"20261121T154418.{ms}Z_cam" for ms in (123, 124, 125)]
    ring.close()


@pytest.mark.parametrize(("free_bytes", "left"), [(0, 3), (2**62, 1)])
def test_recordings_give_way_on_a_disk_that_runs_full(tmp_path: Path, free_bytes: int, left: int) -> None:
    ring = FileRing(tmp_path, (".mp4",), keep_bytes=10**9, free_bytes=free_bytes)
    paths = [tmp_path / f"20261121T15441{second}.000Z_cam.mp4" for second in range(3)]
    for path in paths:
        path.write_bytes(b"x" * 100)
    ring.prune(START_NS, in_use=[paths[1]])
    assert len(ring.files()) == left
    assert paths[1].exists()
    ring.close()


def test_a_name_that_only_looks_like_ours_is_left_alone(tmp_path: Path) -> None:
    for name in ("99999999T999999.999Z_x.mp4", "20261121T154418.123Z_.mp4", "20261121T154418.123Z_x.mp4.bak"):
        (tmp_path / name).write_bytes(b"x" * 100)
    ring = FileRing(tmp_path, (".mp4",), keep_bytes=1)
    assert ring.files() == []
    assert ring.prune(START_NS + HOUR_NS) == 0
    ring.close()


@given(st.text(max_size=80))
def test_every_source_gives_a_safe_name(source_id: str) -> None:
    slug = source_slug(source_id)
    assert 1 <= len(slug) <= 60 or not source_id
    assert not set(slug) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    assert not slug.startswith("..")


def test_sources_that_differ_only_in_odd_characters_stay_apart() -> None:
    assert source_slug("rtsp://a/1") != source_slug("rtsp://a.1") != source_slug("rtsp:/a/1")
    assert source_slug("cam-1") == "cam-1"


def test_the_end_of_one_segment_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    sink = SegmentsSink(tmp_path / "dir")
    sink.emit(made_result(0.0))
    for path in (tmp_path / "dir").iterdir():
        path.unlink()
    (tmp_path / "dir").rmdir()  # the stick was pulled
    with pytest.raises(SinkError, match="dir"):
        sink.close()

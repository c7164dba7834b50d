"""The sink of clips, fed with frames on the clock of a file, and with packets of a camera."""

from __future__ import annotations

import json
import logging
import stat
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from edgecv.errors import ConfigError, SinkError
from edgecv.events import Event, EventMedia
from edgecv.media.annex_b import nal_units
from edgecv.media.packets import Packet
from edgecv.pipelines.sinks import check_sink, open_sink
from edgecv.pipelines.sinks.clips.folder import ClipFolder
from edgecv.pipelines.sinks.clips.options import ClipsOptions
from edgecv.pipelines.sinks.clips.sink import ClipsSink
from edgecv.results import Frame, Result
from tests.cameras.world import wait_until
from tests.conftest import names_in
from tests.unit.pipelines.made_packets import FPS, h264_packets
from tests.unit.pipelines.test_clip_files import units

START_NS = 1_795_275_858_123_000_000
SECOND = 10**9


def result(at_s: float, *kinds: str, source_id: str = "door", level: int | None = None, **data: Any) -> Result:
    """A frame of a file whose brightness is its second, with events."""
    image = np.full((48, 64, 3), round(at_s) * 4 % 256 if level is None else level, np.uint8)
    frame = Frame(
        image=image,
        source_id=source_id,
        captured_ns=START_NS + round(at_s * SECOND),
        position_ns=round(at_s * SECOND),
    )
    made = Result(frame=frame)
    for kind in kinds:
        made = made.with_event(kind, **data)
    return made


def film(sink: ClipsSink, seconds: float, events: dict[float, str], *, source_id: str = "door", fps: int = 10) -> None:
    for number in range(round(seconds * fps)):
        at_s = number / fps
        sink.emit(result(at_s, *([events[at_s]] if at_s in events else []), source_id=source_id))


def clips(folder: Path) -> list[tuple[list[float], dict[str, Any]]]:
    """Times of the images of each clip, and its document."""
    found = []
    for path in sorted(folder.glob("*.mp4")):
        with av.open(str(path)) as container:
            times = [frame.time for frame in container.decode(video=0)]
        found.append((times, json.loads(path.with_suffix(".json").read_text())))
    return found


def opened(folder: Path, **options: Any) -> tuple[ClipsSink, list[EventMedia]]:
    sink = ClipsSink(folder, options=ClipsOptions(**{"free_mb": 0, **options}))
    told: list[EventMedia] = []
    sink.on_media = told.append
    return sink, told


def test_a_clip_shows_the_time_before_and_after_its_event(tmp_path: Path) -> None:
    sink, told = opened(tmp_path, pre_s=3, post_s=2)
    film(sink, 30.0, {12.0: "line.crossed"})
    sink.close()
    ((times, document),) = clips(tmp_path)
    assert times[-1] == pytest.approx(5.0, abs=0.11)
    assert len(times) == pytest.approx(51, abs=1)
    assert document["began_ns"] == pytest.approx(START_NS + 9 * SECOND, abs=0.11 * SECOND)
    assert document["events"][0]["offset_s"] == pytest.approx(3.0, abs=0.11)
    assert document["events"][0]["kind"] == "line.crossed"
    assert (document["codec"], document["original"], document["whole"]) == ("h264", False, True)
    (media,) = told
    assert (media.kind, media.source_id, media.path.parent) == ("clip", "door", tmp_path)
    assert media.keys == (document["events"][0]["key"],)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_events_that_come_before_its_end_prolong_a_clip(tmp_path: Path) -> None:
    sink, told = opened(tmp_path, pre_s=1, post_s=2)
    film(sink, 30.0, {10.0: "line.crossed", 11.5: "zone.entered", 13.0: "zone.left", 20.0: "line.crossed"})
    sink.close()
    (times, first), (_, second) = clips(tmp_path)
    assert times[-1] == pytest.approx(6.0, abs=0.11), "from 9 s to 15 s"
    assert [event["kind"] for event in first["events"]] == ["line.crossed", "zone.entered", "zone.left"]
    assert [event["offset_s"] for event in first["events"]] == pytest.approx([1.0, 2.5, 4.0], abs=0.11)
    assert [event["kind"] for event in second["events"]] == ["line.crossed"]
    assert [len(media.keys) for media in told] == [3, 1]


def test_a_clip_that_is_prolonged_again_and_again_is_cut(tmp_path: Path) -> None:
    sink, _ = opened(tmp_path, pre_s=1, post_s=2, longest_s=6)
    film(sink, 20.0, {float(at): "line.crossed" for at in range(3, 14)})
    sink.close()
    made = clips(tmp_path)
    assert len(made) > 1
    assert max(times[-1] for times, _ in made) <= 6.11
    assert sum(len(document["events"]) for _, document in made) == 11


def test_sources_have_clips_of_their_own(tmp_path: Path) -> None:
    sink, told = opened(tmp_path, pre_s=1, post_s=1)
    for number in range(100):
        for name in ("door", "yard"):
            sink.emit(result(number / 10, *(["line.crossed"] if number == 50 else []), source_id=name))
    sink.close()
    assert {document["source_id"] for _, document in clips(tmp_path)} == {"door", "yard"}
    assert {media.source_id for media in told} == {"door", "yard"}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, {"line.crossed", "zone.left", "crowd.began"}),
        ({"on": "zone.*, crowd.began"}, {"zone.left", "crowd.began"}),
        ({"on": "source.*"}, {"source.stale"}),
        ({"classes": "person"}, {"zone.left"}),
    ],
    ids=["steps", "kinds", "sources", "classes"],
)
def test_which_events_get_a_clip(tmp_path: Path, options: dict[str, Any], wanted: set[str]) -> None:
    sink, _ = opened(tmp_path, pre_s=0, post_s=0, **options)
    labels = {"line.crossed": "car", "zone.left": "person"}
    for number, kind in enumerate(["line.crossed", "zone.left", "crowd.began"]):
        sink.emit(result(number, kind, **({"label": labels[kind]} if kind in labels else {})))
    sink.emit_event(Event(kind="source.stale", time_ns=START_NS + 2 * SECOND, source_id="door"))
    sink.close()
    assert {event["kind"] for _, document in clips(tmp_path) for event in document["events"]} == wanted


def test_an_event_whose_frame_a_step_dropped_has_its_place_too(tmp_path: Path) -> None:
    sink, _ = opened(tmp_path, pre_s=2, post_s=1)
    film(sink, 10.0, {})
    sink.emit_event(Event(kind="line.crossed", time_ns=START_NS + 9 * SECOND, source_id="door"))
    film_on = [result(10 + number / 10) for number in range(20)]
    for one in film_on:
        sink.emit(one)
    sink.close()
    ((times, document),) = clips(tmp_path)
    assert document["events"][0]["offset_s"] == pytest.approx(2.0, abs=0.11)
    assert times[-1] == pytest.approx(3.0, abs=0.11)


def test_at_most_so_many_images_a_second_are_encoded(tmp_path: Path) -> None:
    sink, _ = opened(tmp_path, pre_s=2, post_s=2, fps=5)
    film(sink, 10.0, {5.0: "line.crossed"}, fps=50)
    sink.close()
    ((times, _),) = clips(tmp_path)
    assert 18 <= len(times) <= 23


def test_frames_of_another_size_end_a_clip_and_odd_sides_are_no_fault(tmp_path: Path) -> None:
    sink, _ = opened(tmp_path, pre_s=2, post_s=4)
    film(sink, 6.0, {5.0: "line.crossed"})
    for number in range(40):
        odd = Frame(
            image=np.zeros((33, 47, 3), np.uint8),
            source_id="door",
            captured_ns=START_NS,
            position_ns=round((6 + number / 10) * SECOND),
        )
        sink.emit(Result(frame=odd).with_event("zone.left") if number == 35 else Result(frame=odd))
    sink.close()
    sizes = []
    for path in sorted(tmp_path.glob("*.mp4"), key=lambda path: path.stat().st_mtime_ns):
        with av.open(str(path)) as container:
            sizes.append((container.streams.video[0].width, container.streams.video[0].height))
    assert sizes == [(64, 48), (48, 34)]


def test_what_a_camera_encoded_is_copied_byte_by_byte(tmp_path: Path) -> None:
    sink, _ = opened(tmp_path, pre_s=2, post_s=1)
    packets = h264_packets(10.0, b_frames=2, start_s=time.monotonic_ns() / 1e9 - 10.0)
    for packet in packets[: 8 * FPS]:
        sink.take_packet("door", packet)
    event_ns = packets[7 * FPS].scene_ns
    frame = Frame(image=np.zeros((48, 64, 3), np.uint8), source_id="door", monotonic_ns=event_ns)
    sink.emit(Result(frame=frame).with_event("line.crossed"))
    for packet in packets[8 * FPS :]:
        sink.take_packet("door", packet)
    wait_until(lambda: bool(list(tmp_path.glob("*.mp4"))), "a clip, once packets of after its end came")
    sink.close()
    ((times, document),) = clips(tmp_path)
    assert (document["original"], document["width"]) == (True, 160)
    assert document["events"][0]["offset_s"] == pytest.approx(2.0, abs=0.06)
    (path,) = tmp_path.glob("*.mp4")
    kept = packets[5 * FPS : 8 * FPS + 1]
    assert units(path) == [unit for packet in kept for unit in nal_units(packet.data)]
    assert len(times) == pytest.approx(len(kept), abs=1)


def test_once_a_camera_gives_packets_its_frames_are_not_encoded(tmp_path: Path) -> None:
    sink, _ = opened(tmp_path)
    packets = h264_packets(2.0)
    sink.take_packet("door", packets[0])
    ring = sink._rolls["door"].ring
    before = ring.size_bytes
    sink.emit(result(1.0))
    assert ring.size_bytes == before
    sink.close()


def test_frames_are_kept_again_when_packets_come_no_more(tmp_path: Path) -> None:
    sink, _ = opened(tmp_path, pre_s=1, post_s=1)
    for packet in h264_packets(2.0):
        sink.take_packet("door", packet)
    film(sink, 20.0, {15.0: "line.crossed"})
    sink.close()
    ((times, document),) = clips(tmp_path)
    assert (document["original"], sink.lost) == (False, 0)
    assert times[-1] == pytest.approx(2.0, abs=0.11)


def test_a_camera_that_sends_one_key_frame_for_ever_has_clips_of_its_frames(tmp_path: Path) -> None:
    sink, _ = opened(tmp_path, pre_s=1, post_s=1, ring_mb=1)
    (key, one, *_) = h264_packets(0.2)
    sink.take_packet("door", key)
    for number in range(200):
        sink.take_packet("door", replace(one, data=bytes(10_000), scene_ns=number * SECOND // 10))
        sink.emit(result(number / 10, *(["line.crossed"] if number == 150 else [])))
    sink.close()
    ((times, document),) = clips(tmp_path)
    assert (document["original"], sink.lost) == (False, 0)
    assert times[-1] == pytest.approx(2.0, abs=0.11)


def test_many_very_small_packets_do_not_fill_the_memory(tmp_path: Path) -> None:
    sink, _ = opened(tmp_path, ring_mb=1)
    (key, one, *_) = h264_packets(0.2)
    sink.take_packet("door", key)
    most = 0
    for number in range(20_000):
        sink.take_packet("door", replace(one, data=b"\0\0\1\x01", scene_ns=number))
        most = max(most, sum(len(group.packets) for group in sink._rolls["door"].ring._groups))
    sink.close()
    assert most < 4_000


def test_a_packet_that_comes_while_packets_are_forbidden_is_not_kept(tmp_path: Path) -> None:
    sink, _ = opened(tmp_path)
    (packet, *_) = h264_packets(0.1)
    forbidding = threading.Thread(target=sink.drop_packets, args=("door",))

    class Late(Packet):
        """It is looked at in the very moment in which packets are forbidden."""

        @property
        def is_key(self) -> bool:  # type: ignore[override]
            if forbidding.ident is None:
                forbidding.start()
                forbidding.join(0.3)
            return True

    late = object.__new__(Late)
    for name in ("stream", "data", "pts", "dts", "captured_ns", "scene_ns"):
        object.__setattr__(late, name, getattr(packet, name))
    sink.take_packet("door", late)
    forbidding.join(5.0)
    roll = sink._roll("door")
    assert (roll.gives_packets, roll.ring.size_bytes) == (False, 0)
    sink.close()


@pytest.mark.parametrize("longest_s", [1, 3])
def test_a_clip_shows_all_of_one_event_however_short_the_longest_is(tmp_path: Path, longest_s: float) -> None:
    sink, _ = opened(tmp_path, pre_s=3, post_s=2, longest_s=longest_s)
    film(sink, 20.0, {10.0: "line.crossed"})
    sink.close()
    ((times, document),) = clips(tmp_path)
    assert document["events"][0]["offset_s"] == pytest.approx(3.0, abs=0.11)
    assert times[-1] == pytest.approx(5.0, abs=0.11)


def test_a_storm_of_events_is_written_down_now_and_then_and_never_beyond_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    describe = ClipFolder.describe

    def counted(self: ClipFolder, stem: str, document: Any) -> None:
        written.append(len(document["events"]))
        describe(self, stem, document)

    monkeypatch.setattr(ClipFolder, "describe", counted)
    sink, told = opened(tmp_path, pre_s=0, post_s=60)
    frame = Frame(image=np.zeros((48, 64, 3), np.uint8), source_id="door")
    for number in range(3000):
        event = Event(kind="line.crossed", time_ns=START_NS + number, source_id="door", data={"number": number})
        sink.emit(Result(frame=replace(frame, monotonic_ns=time.monotonic_ns()), events=(event,)))
    sink.close()
    ((_, document),) = clips(tmp_path)
    assert len(document["events"]) == 1000
    assert document["events_left_out"] == 2000
    assert len(told[0].keys) == 3000, "the events view shows the clip with each"
    assert len(written) < 20


def test_a_clip_of_a_camera_that_just_began_is_not_torn_when_its_packets_come(tmp_path: Path) -> None:
    sink, told = opened(tmp_path, pre_s=1, post_s=1)
    film(sink, 3.0, {2.5: "line.crossed"})
    for packet in h264_packets(2.0):
        sink.take_packet("door", packet)
    for number in range(30, 40):
        sink.emit(result(number / 10))
    wait_until(lambda: bool(told), "the clip")
    sink.close()
    ((times, document),) = clips(tmp_path)
    assert document["original"] is False
    assert times[-1] == pytest.approx(2.0, abs=0.11)


def test_originals_that_are_not_wanted_are_not_kept(tmp_path: Path) -> None:
    sink, _ = opened(tmp_path, pre_s=1, post_s=0, originals=False)
    for packet in h264_packets(2.0):
        sink.take_packet("door", packet)
    film(sink, 3.0, {2.0: "line.crossed"})
    sink.close()
    ((_, document),) = clips(tmp_path)
    assert (document["original"], document["width"]) == (False, 64)


def test_packets_that_must_not_be_seen_are_forgotten_also_in_the_clip_that_is_written(tmp_path: Path) -> None:
    sink, told = opened(tmp_path, pre_s=2, post_s=3600)
    packets = h264_packets(6.0, start_s=time.monotonic_ns() / 1e9 - 6.0)
    for packet in packets:
        sink.take_packet("door", packet)
    frame = Frame(image=np.zeros((48, 64, 3), np.uint8), source_id="door", monotonic_ns=packets[-1].scene_ns)
    sink.emit(Result(frame=frame).with_event("line.crossed"))
    wait_until(lambda: bool(list(tmp_path.glob("*.part"))), "a clip that is being written")
    sink.drop_packets("door")
    wait_until(lambda: not list(tmp_path.glob("2*.mp4*")) and not list(tmp_path.glob("*.json")), "nothing left of it")
    for packet in packets:
        sink.take_packet("door", packet)
    assert sink.lost == 1
    sink.close()
    assert not told
    assert not list(tmp_path.glob("2*.mp4*"))


@pytest.mark.slow
def test_a_camera_that_is_gone_does_not_keep_its_clip_from_being_whole(tmp_path: Path) -> None:
    sink, told = opened(tmp_path, pre_s=1, post_s=0.2)
    packets = h264_packets(3.0, start_s=time.monotonic_ns() / 1e9 - 3.0)
    for packet in packets:
        sink.take_packet("door", packet)
    frame = Frame(image=np.zeros((48, 64, 3), np.uint8), source_id="door", monotonic_ns=packets[-1].scene_ns)
    sink.emit(Result(frame=frame).with_event("line.crossed"))
    wait_until(lambda: bool(told), "a clip of what there is")
    sink.close()


def test_a_full_disk_costs_clips_is_said_once_and_leaves_nothing_half(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink, told = opened(tmp_path, pre_s=1, post_s=1, free_mb=1e12)
    with caplog.at_level(logging.WARNING):
        film(sink, 30.0, {5.0: "line.crossed", 15.0: "line.crossed"})
        sink.close()
    assert sink.lost == 2
    assert not told
    assert [name for name in names_in(tmp_path) if not name.endswith(".lock")] == []
    assert len([one for one in caplog.records if "was not written" in one.getMessage()]) == 1
    assert "free_mb=" in caplog.text


def test_the_oldest_clips_go_with_their_documents(tmp_path: Path) -> None:
    sink, told = opened(tmp_path, pre_s=1, post_s=1, keep_gb=400e-6)
    noise = np.random.default_rng(0)
    for number in range(900):
        image = noise.integers(0, 255, (48, 64, 3), np.uint8)
        frame = Frame(image=image, source_id="door", captured_ns=START_NS, position_ns=number * SECOND // 10)
        made = Result(frame=frame)
        sink.emit(made.with_event("line.crossed") if number % 100 == 50 else made)
    sink.close()
    assert len(told) == 9
    kept = clips(tmp_path)
    assert 0 < len(kept) < 9
    assert told[-1].path.exists()
    assert sum(path.stat().st_size for path in tmp_path.glob("2*")) <= 400_000
    assert {path.stem for path in tmp_path.glob("*.json")} == {path.stem for path in tmp_path.glob("*.mp4")}


def test_after_a_kill_the_clip_gets_its_name_and_is_told_of(tmp_path: Path) -> None:
    sink, _ = opened(tmp_path, pre_s=3, post_s=600)
    film(sink, 20.0, {10.0: "line.crossed"})
    wait_until(lambda: any(path.stat().st_size > 5000 for path in tmp_path.glob("*.part")), "some seconds on the disk")
    wait_until(lambda: any(tmp_path.glob("*.json")), "its document")
    (part,) = tmp_path.glob("*.part")
    folder = tmp_path / "after"
    folder.mkdir()
    (folder / part.name).write_bytes(part.read_bytes())
    document = part.name.removesuffix(".mp4.part") + ".json"
    (folder / document).write_bytes((tmp_path / document).read_bytes())
    (folder / "20261121T154418.123Z_yard.mp4.part").write_bytes(b"nothing")
    (folder / "notes.mp4.part").write_bytes(b"not ours")
    sink.close()
    again, told = opened(folder)
    again.expire()
    again.close()
    assert sorted(path.name for path in folder.glob("*.mp4")) == [part.name.removesuffix(".part")]
    assert [path.name for path in folder.glob("*.part")] == ["notes.mp4.part"]
    ((times, read),) = clips(folder)
    assert len(times) > 20
    assert [media.keys for media in told] == [(read["events"][0]["key"],)]
    assert read["whole"] is False


def test_it_is_a_sink_by_name_with_strict_options(tmp_path: Path) -> None:
    check_sink(f"clips:{tmp_path}?pre_s=3&on=line.crossed&keep_hours=72", 4)
    with pytest.raises(ConfigError, match="no option 'pre'"):
        check_sink(f"clips:{tmp_path}?pre=3", 1)
    with pytest.raises(ConfigError):
        check_sink(f"clips:{tmp_path}?ring_mb=0", 1)
    sink = open_sink(f"clips:{tmp_path}")
    with pytest.raises(ConfigError, match="Another sink writes"):
        open_sink(f"clips:{tmp_path}")
    sink.close()
    sink.close()
    with pytest.raises(SinkError, match="closed"):
        sink.emit(result(0.0))


def test_without_events_there_is_no_thread(tmp_path: Path) -> None:
    sink, _ = opened(tmp_path)
    film(sink, 3.0, {})
    assert "edgecv-clips" not in [thread.name for thread in threading.enumerate()]
    sink.close()


def test_a_video_that_begins_anew_is_another_scene(tmp_path: Path) -> None:
    sink, _ = opened(tmp_path, pre_s=2, post_s=5)
    film(sink, 10.0, {9.0: "line.crossed"})
    film(sink, 10.0, {8.0: "line.crossed"})
    sink.close()
    made = clips(tmp_path)
    assert len(made) == 2
    assert all(times == sorted(times) for times, _ in made)

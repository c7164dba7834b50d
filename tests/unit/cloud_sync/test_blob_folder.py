"""Pictures on the disk of a device, and how events get their names."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.cloud_sync.blobs.folder import Blob, BlobFolder
from edgecv.cloud_sync.blobs.options import SnapshotOptions
from edgecv.cloud_sync.blobs.taker import SnapshotTaker
from edgecv.events import Event
from edgecv.results import Frame, Result
from tests.unit.cloud_sync.support import until


def named(data: bytes) -> tuple[str, bytes]:
    return hashlib.sha256(data).hexdigest(), data


def open_folder(path: Path, quota_bytes: int = 1000, floor_bytes: int = 0) -> BlobFolder:
    return BlobFolder(path / "blobs", quota_bytes=quota_bytes, floor_bytes=floor_bytes)


def test_a_file_is_private_whole_and_there_once(tmp_path: Path) -> None:
    folder = open_folder(tmp_path)
    sha256, data = named(b"x" * 100)
    assert folder.put(sha256, data)
    assert folder.put(sha256, data)
    (path,) = (tmp_path / "blobs").iterdir()
    assert (path.name, path.read_bytes()) == (f"{sha256}.jpg", data)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert folder.stats().snapshots_waiting == 1


def test_the_oldest_goes_first_and_what_is_under_way_stays(tmp_path: Path) -> None:
    folder = open_folder(tmp_path, quota_bytes=250)
    names = [named(bytes([n]) * 100) for n in range(4)]
    folder.put(*names[0])
    held = folder.hold()
    assert held == Blob(sha256=names[0][0], size_bytes=100)
    for one in names[1:]:
        assert folder.put(*one)
    assert sorted(path.stem for path in (tmp_path / "blobs").iterdir()) == sorted([names[0][0], names[3][0]])
    assert folder.stats().snapshots_dropped == 2
    assert not folder.put(*named(b"y" * 300))
    assert folder.stats().snapshots_dropped == 4  # the newest went for it, and it does not fit beside what is under way
    folder.remove(held)
    assert folder.hold() is None


def test_a_full_disk_refuses_and_counts(tmp_path: Path) -> None:
    folder = open_folder(tmp_path, floor_bytes=2**62)
    assert not folder.put(*named(b"x"))
    stats = folder.stats()
    assert (stats.snapshots_waiting, stats.snapshots_dropped) == (0, 1)
    assert "almost full" in stats.last_error


def test_a_restart_finds_what_waits_and_nothing_else(tmp_path: Path) -> None:
    folder = open_folder(tmp_path)
    older, newer = named(b"older"), named(b"newer")
    folder.put(*newer)
    folder.put(*older)
    os.utime(tmp_path / "blobs" / f"{older[0]}.jpg", ns=(1, 1))
    half = tmp_path / "blobs" / f".{'0' * 64}.jpg.tmp"
    half.write_bytes(b"half")
    (tmp_path / "blobs" / "notes.txt").write_text("mine")
    (tmp_path / "blobs" / f"{'1' * 64}.jpg").symlink_to("/etc/passwd")
    again = open_folder(tmp_path)
    assert again.stats().snapshots_waiting == 2
    assert again.hold() == Blob(sha256=older[0], size_bytes=5)
    assert not half.exists()
    assert (tmp_path / "blobs" / "notes.txt").exists()


def test_a_damaged_picture_is_dropped_and_counted(tmp_path: Path) -> None:
    folder = open_folder(tmp_path)
    sha256, data = named(b"x" * 100)
    folder.put(sha256, data)
    (tmp_path / "blobs" / f"{sha256}.jpg").write_bytes(b"y" + data[1:])
    held = folder.hold()
    assert held is not None
    assert folder.read(held) is None
    assert folder.stats().snapshots_dropped == 1
    assert folder.hold() is None


class Desk:
    """What a taker passes on."""

    def __init__(self, *, has_room: bool = True, **options: Any) -> None:
        self.events: list[Event] = []
        self.pictures: dict[str, bytes] = {}
        self.gate = threading.Event()
        self.gate.set()
        self._has_room = has_room
        self.taker = SnapshotTaker(
            SnapshotOptions(**{"events": ["line.*"], **options}),
            put=lambda event, _: self.events.append(event),
            keep=self._keep,
        )

    def _keep(self, sha256: str, data: bytes) -> bool:
        self.gate.wait(10.0)
        self.pictures[sha256] = data
        return self._has_room


@pytest.fixture
def desks() -> Iterator[list[Desk]]:
    made: list[Desk] = []
    yield made
    for desk in made:
        desk.gate.set()
        assert desk.taker.close(5.0)


def result(*kinds: str, image: Any = None, source_id: str = "cam") -> Result:
    pixels = np.full((90, 160, 3), 100, np.uint8) if image is None else image
    return Result(frame=Frame(image=pixels, source_id=source_id), events=tuple(Event(kind=k, time_ns=1) for k in kinds))


def test_chosen_events_share_one_small_picture_and_the_others_go_at_once(desks: list[Desk]) -> None:
    import cv2

    desks.append(desk := Desk(max_side=80))
    plain = desk.taker.take(result("line.crossed", "zone.entered", "line.left"))
    assert [event.kind for event in plain] == ["zone.entered"]
    until(lambda: len(desk.events) == 2, "both have their picture")
    ((sha256, data),) = desk.pictures.items()
    assert cv2.imdecode(np.frombuffer(data, np.uint8), 1).shape == (45, 80, 3)
    assert [event.data["snapshot"]["sha256"] for event in desk.events] == [sha256, sha256]


@pytest.mark.parametrize("what", ["no room", "no image"])
def test_an_event_whose_picture_fails_goes_without(desks: list[Desk], what: str) -> None:
    desks.append(desk := Desk(has_room=what != "no room"))
    assert (
        desk.taker.take(result("line.crossed", image=np.zeros((4, 4, 7), np.uint8) if what == "no image" else None))
        == ()
    )
    until(lambda: desk.events, "the event goes on")
    assert "snapshot" not in desk.events[0].data
    assert (desk.taker.stats().snapshots, desk.taker.stats().snapshots_skipped) == (0, 1)


def test_an_encoder_that_hangs_holds_up_four_frames_and_never_the_caller(desks: list[Desk]) -> None:
    desks.append(desk := Desk(max_per_minute=6000))
    desk.gate.clear()
    start_s = time.perf_counter()
    plain = [event for _ in range(200) for event in desk.taker.take(result("line.crossed"))]
    assert time.perf_counter() - start_s < 1.0
    assert 195 <= len(plain) <= 196  # four wait, and one may be in the encoder
    assert desk.taker.stats().queued + len(plain) == 200
    desk.gate.set()
    until(lambda: len(desk.events) + len(plain) == 200, "those go on, too")


def test_there_are_only_so_many_pictures_a_minute(desks: list[Desk]) -> None:
    desks.append(desk := Desk(max_per_minute=2))
    for count in range(1, 3):
        desk.taker.take(result("line.crossed"))
        until(lambda count=count: len(desk.events) == count, "a picture")
    assert len(desk.taker.take(result("line.crossed"))) == 1
    assert desk.taker.take(result("line.crossed", source_id="other")) == ()

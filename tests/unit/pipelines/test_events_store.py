"""The sink ``events:``: what is in its file after each thing that may happen to it."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from edgecv.errors import ConfigError, SinkError
from edgecv.events import Event, EventMedia
from edgecv.pipelines.sinks.events.ages import AgeClock
from edgecv.pipelines.sinks.events.rows import row_of
from edgecv.pipelines.sinks.events.sink import EventsOptions, EventsSink
from edgecv.pipelines.sinks.events.store import EventStore, Limits
from edgecv.pipelines.sinks.video.ring_order import Clocks
from tests.conftest import CHECKOUT
from tests.faults.preload import DiskControl, build, environment

DEADLINE_S = 20.0
T0_NS = 1_795_860_930_123_456_789  # 2026-11-28T10:15:30.123Z
DAY_NS = 24 * 3600 * 10**9


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.01)


def crossing(number: int = 0, source: str = "door", **data: Any) -> Event:
    said = {"counter": "entrance", "direction": "in", "label": "person", "tracker_id": number, "position_s": 1.5}
    return Event(kind="line.crossed", time_ns=T0_NS + number * 10**9, source_id=source, data={**said, **data})


def rows(path: Path, columns: str = "*", where: str = "1") -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(f"SELECT {columns} FROM events WHERE {where} ORDER BY id").fetchall()


def count(path: Path) -> int:
    return int(rows(path, "COUNT(*)")[0][0])


def has_table(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT 1 FROM sqlite_master WHERE name='events'").fetchone() is not None


@contextmanager
def opened(path: Path, clocks: Clocks | None = None, **options: Any) -> Iterator[EventsSink]:
    sink = EventsSink(path, options=EventsOptions(**options), clocks=clocks)
    yield sink
    sink.close()


def store(path: Path, *events: Event, **options: Any) -> None:
    with opened(path, **options) as sink:
        for event in events:
            sink.emit_event(event)


def test_an_event_stands_in_the_columns_that_the_page_documents(tmp_path: Path) -> None:
    event = crossing(7)
    store(tmp_path / "e.db", event)
    columns = "key, time, time_ns, kind, source, rule, direction, label, tracker_id, position_s, priority, data"
    ((*found, data),) = rows(tmp_path / "e.db", columns)
    assert found == [
        event.key,
        "2026-11-28T10:15:37.123Z",
        event.time_ns,
        "line.crossed",
        "door",
        "entrance",
        "in",
        "person",
        7,
        1.5,
        "event",
    ]
    assert json.loads(data) == dict(event.data)


def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with opened(tmp_path / "e.db") as sink:
            sink.emit_event(crossing())
            until(lambda: count(tmp_path / "e.db") == 1, "it is written")
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert {"e.db", "e.db-wal", "e.db.lock"} <= set(modes)
    assert set(modes.values()) == {0o600}


def test_the_same_event_is_stored_once_over_restarts(tmp_path: Path) -> None:
    for _ in range(2):
        store(tmp_path / "e.db", crossing(1), crossing(1), crossing(2))
    assert count(tmp_path / "e.db") == 2


def test_of_a_state_only_the_newest_stays(tmp_path: Path) -> None:
    tries = [
        Event(kind="source.reconnecting", time_ns=T0_NS + at, source_id="door", coalesce_key="source/door")
        for at in range(5)
    ]
    store(tmp_path / "e.db", crossing(), *tries)
    store(tmp_path / "e.db", tries[3])
    assert rows(tmp_path / "e.db", "kind, time_ns") == [("line.crossed", T0_NS), ("source.reconnecting", T0_NS + 4)]


def test_the_oldest_go_when_there_are_too_many(tmp_path: Path) -> None:
    store(tmp_path / "e.db", *(crossing(number) for number in range(30)), keep=20)
    store(tmp_path / "e.db", *(crossing(number) for number in range(30, 35)), keep=20)
    assert rows(tmp_path / "e.db", "tracker_id") == [(number,) for number in range(15, 35)]


@pytest.mark.parametrize("first", ["event", "file"])
@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("kind", ["snapshot", "clip"])
def test_a_file_finds_its_event_in_both_orders_and_over_a_restart(
    tmp_path: Path, first: str, restart: bool, kind: Any
) -> None:
    event, path = crossing(), tmp_path / "shots" / "a.jpg"
    path.parent.mkdir()
    media = EventMedia(keys=(event.key, "0" * 32), kind=kind, path=path, source_id="door")
    steps = [lambda sink: sink.emit_event(event), lambda sink: sink.take_media(media)]
    if first == "file":
        steps.reverse()
    if restart:
        for step in steps:
            with opened(tmp_path / "e.db") as sink:
                step(sink)
    else:
        with opened(tmp_path / "e.db") as sink:
            for step in steps:
                step(sink)
    assert rows(tmp_path / "e.db", kind) == [(str(path),)]
    with closing(sqlite3.connect(tmp_path / "e.db")) as db:
        assert db.execute("SELECT path FROM folders").fetchall() == [(str(path.parent),)]
        assert db.execute("SELECT key FROM waiting_media").fetchall() == [("0" * 32,)], "it waits for its event"


class Time:
    """Clocks that a test moves: the wall, and the steady one."""

    def __init__(self, wall_ns: int = T0_NS) -> None:
        self.wall_ns, self.steady_ns, self.is_synced = wall_ns, 0, False

    def pass_s(self, seconds: float) -> None:
        self.wall_ns += round(seconds * 1e9)
        self.steady_ns += round(seconds * 1e9)

    @property
    def clocks(self) -> Clocks:
        return Clocks(wall=lambda: self.wall_ns, steady=lambda: self.steady_ns, is_synced=lambda: self.is_synced)


def expired(sink: EventsSink, path: Path, left: int) -> None:
    sink.expire()
    until(lambda: count(path) == left, f"{left} events are left")


def test_events_of_a_source_with_a_retention_go_with_their_paths(tmp_path: Path) -> None:
    path, clock = tmp_path / "e.db", Time()
    private = EventMedia(keys=("1" * 32,), kind="snapshot", path=tmp_path / "private.jpg", source_id="door")
    with opened(path, clock.clocks) as sink:
        sink.retain("door", 3600.0)
        sink.emit_event(crossing(1, "door", note="who-was-there"))
        sink.emit_event(crossing(2, "yard"))
        sink.take_media(private)
        until(lambda: path.exists() and count(path) == 2, "both are stored")
        clock.pass_s(3500)
        expired(sink, path, 2)
        clock.pass_s(200)
        expired(sink, path, 1)
        assert rows(path, "source") == [("yard",)]

        def remains() -> bool:
            sink.expire()
            data = b"".join(file.read_bytes() for file in tmp_path.glob("e.db*"))
            return b"who-was-there" in data or b"private.jpg" in data

        until(lambda: not remains(), "nothing of it is left in free pages or in the log")


def test_events_go_after_keep_days(tmp_path: Path) -> None:
    path, clock = tmp_path / "e.db", Time()
    with opened(path, clock.clocks, keep_days=2) as sink:
        sink.emit_event(crossing())
        until(lambda: count(path) == 1, "it is stored")
        clock.pass_s(1.9 * 86_400)
        expired(sink, path, 1)
        clock.pass_s(0.2 * 86_400)
        expired(sink, path, 0)


def test_a_clock_that_jumps_makes_no_event_older(tmp_path: Path) -> None:
    path, clock = tmp_path / "e.db", Time(wall_ns=1000)  # 1970: a device without a battery
    with opened(path, clock.clocks, keep_days=2) as sink:
        sink.emit_event(crossing())
        until(lambda: count(path) == 1, "it is stored")
        clock.wall_ns = T0_NS  # the time server answers
        clock.is_synced = True
        clock.pass_s(3600)
        sink.expire()
        sink.emit_event(crossing(1))
        until(lambda: count(path) == 2, "nothing was deleted")


def test_the_time_while_nothing_ran_counts_once_the_clock_is_believed() -> None:
    clock = Time(T0_NS + 5 * DAY_NS)
    ages = AgeClock(T0_NS, T0_NS, clock.clocks)
    assert ages.settle() == 0, "five days: more than is believed at once"
    assert ages.now_ns() == T0_NS
    clock.pass_s(10)
    clock.is_synced = True
    assert ages.settle() == 5 * DAY_NS
    assert ages.now_ns() == clock.wall_ns
    assert AgeClock(T0_NS, T0_NS, Time(T0_NS + DAY_NS // 2).clocks).settle() == DAY_NS // 2, "a short absence is"


def test_a_kill_leaves_what_was_written_and_the_next_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    program = (
        "import itertools, sys\n"
        "from pathlib import Path\n"
        "from tests.unit.pipelines.test_events_store import EventsSink, crossing\n"
        "sink = EventsSink(Path(sys.argv[1]))\n"
        "for number in itertools.count():\n"
        "    sink.emit_event(crossing(number))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], cwd=CHECKOUT)
    try:
        until(lambda: path.exists() and path.stat().st_size > 50_000, "it writes")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE_S)
    store(path, crossing(-1))
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    numbers = [number for (number,) in rows(path, "tracker_id")]
    assert len(numbers) > 100
    assert numbers == [*range(len(numbers) - 1), -1], "all up to the kill, none twice, and the new one"
    assert not list(tmp_path.glob("*.damaged*"))


def _garble(path: Path, start: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xa5" * length)


@pytest.mark.parametrize("how", ["pages", "header", "zeros", "cut"])
def test_a_damaged_file_is_put_aside_with_a_message_and_the_events_go_on(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "e.db"
    store(path, *(crossing(number) for number in range(500)))
    size = path.stat().st_size
    if how == "pages":
        _garble(path, 4096, size - 8192)
    elif how == "header":
        _garble(path, 16, 84)
    elif how == "zeros":
        path.write_bytes(bytes(size))
    else:
        os.truncate(path, size // 2)
    before = path.read_bytes()
    with caplog.at_level(logging.WARNING):
        store(path, crossing(1000))
    assert rows(path, "tracker_id") == [(1000,)]
    (aside,) = tmp_path.glob("e.db.damaged-*")
    assert aside.read_bytes() == before
    assert "is damaged" in caplog.text
    assert aside.name in caplog.text


def test_a_file_that_breaks_while_it_is_used_is_put_aside_and_no_event_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    store(path, *(crossing(number) for number in range(500)))
    used = EventStore(path, Limits(events=1000, seconds=0))
    _garble(path, 4096, path.stat().st_size - 8192)
    used._db.execute("PRAGMA shrink_memory")  # the pages are read from the disk again
    used.write([row_of(crossing(1000)), row_of(crossing(1001))], [])
    used.close()
    assert rows(path, "tracker_id") == [(1000,), (1001,)]
    assert len(list(tmp_path.glob("e.db.damaged-*"))) == 1


@pytest.mark.parametrize("what", ["text", "other program", "newer", "link", "folder"])
def test_a_file_of_another_kind_is_refused_and_stays(tmp_path: Path, what: str) -> None:
    path = tmp_path / "e.db"
    if what == "text":
        path.write_text("precious")
    elif what == "folder":
        path.mkdir()
    elif what == "link":
        path.symlink_to(tmp_path / "elsewhere.db")
    else:
        with closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE precious (x)")
            if what == "newer":
                db.execute("PRAGMA application_id=1162036566")
                db.execute("PRAGMA user_version=2")
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(ConfigError) as caught:
        EventsSink(path)
    assert caught.value.hint
    assert (path.read_bytes() if path.is_file() else b"") == before
    assert not (tmp_path / "elsewhere.db").exists()
    assert {one.name for one in tmp_path.iterdir()} <= {"e.db", "e.db.lock"}


def test_two_programs_do_not_write_the_same_file(tmp_path: Path) -> None:
    with opened(tmp_path / "e.db"), pytest.raises(ConfigError, match=rf"in use by the running EdgeCV {os.getpid()}"):
        EventsSink(tmp_path / "e.db")
    EventsSink(tmp_path / "e.db").close()


@pytest.mark.slow
def test_a_program_that_holds_the_file_for_a_while_costs_no_event(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "e.db"
    with opened(path) as sink:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            sink.emit_event(crossing(1))
            until(lambda: "database is locked" in caplog.text, "it is said")
            sink.emit_event(crossing(2))
            other.execute("ROLLBACK")
        until(lambda: count(path) == 2, "both are stored")


def test_a_file_that_was_deleted_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    with opened(path) as sink:
        sink.emit_event(crossing(1))
        until(lambda: count(path) == 1, "it is stored")
        for file in tmp_path.glob("e.db*"):
            file.unlink()
        sink.emit_event(crossing(2))
        until(lambda: path.exists() and has_table(path) and count(path) == 1, "it is made anew")
    assert rows(path, "tracker_id") == [(2,)]


def test_a_reader_that_stays_does_not_hold_up_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    with opened(path) as sink, closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT COUNT(*) FROM events").fetchone() == (0,)
        sink.emit_event(crossing())
        until(lambda: count(path) == 1, "it is written meanwhile")
        assert reader.execute("SELECT COUNT(*) FROM events").fetchone() == (0,), "the reader sees one moment"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 512 kB; the test skips for whoever may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    if done.returncode:
        pytest.skip(f"needs to mount a tmpfs: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], timeout=10, check=True)


def fill(path: Path) -> None:
    """Take all the space of a disk."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


def test_a_full_disk_is_said_and_gets_all_events_later(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, other = small_disk / "e.db", small_disk / "of-somebody-else"
    with opened(path) as sink:
        sink.emit_event(crossing(0))
        until(lambda: count(path) == 1, "it is stored")
        fill(other)
        for number in range(1, 200):
            sink.emit_event(crossing(number, note="x" * 500))
        until(lambda: "takes no events" in caplog.text, "it is said")
        other.unlink()
        until(lambda: "takes events again" in caplog.text, "it goes on")
    assert sink.lost == 0
    assert count(path) == 200


@pytest.mark.slow
def test_a_disk_that_became_read_only_is_said_and_gets_all_events_later(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    control = DiskControl(tmp_path / "control")
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.unit.pipelines.test_events_store import EventsSink, crossing\n"
        "sink = EventsSink(Path(sys.argv[1]))\n"
        "for line in sys.stdin:\n"
        "    sink.emit_event(crossing(int(line)))\n"
        "sink.close()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder / "e.db")],
        cwd=CHECKOUT,
        env=environment(build(tmp_path), folder, control=control),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write("0\n")
        process.stdin.flush()
        until(lambda: (folder / "e.db").exists() and has_table(folder / "e.db") and count(folder / "e.db"), "it writes")
        control.set(errno=errno.EROFS)
        process.stdin.write("1\n2\n")
        process.stdin.flush()
        assert "takes no events, the frames go on" in process.stderr.readline()
        control.set()
        assert "takes events again" in process.stderr.readline()
        process.stdin.close()
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait(DEADLINE_S)
    assert rows(folder / "e.db", "tracker_id") == [(0,), (1,), (2,)]


def test_what_cannot_be_written_at_the_end_is_counted_and_said(small_disk: Path) -> None:
    sink = EventsSink(small_disk / "e.db")
    fill(small_disk / "of-somebody-else")
    for number in range(300):
        sink.emit_event(crossing(number, note="x" * 500))
    with pytest.raises(SinkError, match=r"did not get 300 events: .*full"):
        sink.close()
    assert sink.lost == 300


@pytest.mark.slow
def test_while_nothing_is_taken_the_latest_events_wait_and_the_loss_is_said_once(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    with opened(path) as sink, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        sink.emit_event(crossing(-1))
        until(lambda: sink._problem, "the file is held")
        said = 0
        for number in range(9000):
            try:
                sink.emit_event(crossing(number))
            except SinkError:
                said += 1
        lost = sink.lost
        other.execute("ROLLBACK")
        until(lambda: count(path) == 9001 - lost, "the others are stored")
        sink.lost = 0  # for the end
    assert said == 1
    assert 800 <= lost <= 810
    assert rows(path, "MAX(tracker_id)") == [(8999,)]


HOSTILE = "'; DROP TABLE events; --\0\udcff<script>"


@pytest.mark.parametrize(
    "data",
    [
        {"counter": HOSTILE, "label": HOSTILE, "direction": HOSTILE, "tracker_id": 1 << 80, "position_s": float("nan")},
        {"counter": ["a"], "label": 7, "tracker_id": True, "position_s": "soon"},
        {"big": "x" * 100_000},
        {"what": object(), "inf": float("inf")},
        {3: "a number for a name"},
    ],
)
def test_whatever_a_step_puts_into_an_event_is_stored(tmp_path: Path, data: dict[Any, Any]) -> None:
    event = Event(kind=HOSTILE, time_ns=(1 << 70), source_id=HOSTILE, data=data)
    store(tmp_path / "e.db", event, crossing())
    (first, _) = rows(tmp_path / "e.db", "data, time_ns, tracker_id, position_s")
    assert isinstance(json.loads(first[0]), dict)
    assert len(first[0]) < 40_000
    assert first[2:] == (None, None)


def test_events_of_the_pipeline_arrive_and_the_frames_do_not_wait_for_the_disk(tmp_path: Path) -> None:
    sink = EventsSink(tmp_path / "e.db")
    begin = time.perf_counter()
    for number in range(1000):
        sink.emit_event(crossing(number))
    took_s = time.perf_counter() - begin
    sink.close()
    assert count(tmp_path / "e.db") == 1000
    assert took_s < 0.25, "a quarter of a millisecond each on a busy machine; 5 us on a quiet one"

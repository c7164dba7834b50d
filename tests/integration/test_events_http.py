"""The addresses of the events view over real sockets: what they answer, what they refuse, and that they hold up nobody."""

from __future__ import annotations

import http.client
import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode

import pytest

from edgecv.errors import SinkError
from edgecv.events import Event, EventMedia
from edgecv.model import Model
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.preview.history.media import part_of
from edgecv.pipelines.preview.history.reader import HistoryReader
from edgecv.pipelines.preview.sink import PreviewSink
from edgecv.pipelines.sinks import open_sink
from edgecv.results import Result
from tests.integration.events_history import crossing, spread, write_history, write_jpeg, write_mp4, writing
from tests.integration.preview_scene import DEADLINE_S, make_result, until
from tests.unit.pipelines.blob import BlobModel

T0_NS = 1_795_860_930_000_000_000
TOKEN = "correct-horse-battery"


@contextmanager
def serving(path: Path, **options: Any) -> Iterator[PreviewSink]:
    sink = PreviewSink(0, events=path, **options)
    try:
        yield sink
    finally:
        sink.close()


def get(
    sink: PreviewSink, path: str, headers: Mapping[str, str] | None = None, method: str = "GET"
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", sink.port, timeout=DEADLINE_S)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def ask(sink: PreviewSink, path: str, **query: Any) -> dict[str, Any]:
    status, _, body = get(sink, f"/api/{path}?{urlencode(query)}")
    assert status == 200, body
    document: dict[str, Any] = json.loads(body)
    return document


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("history") / "events.db"
    write_history(path, spread(10_000, T0_NS))
    return path


@pytest.fixture(scope="module")
def page(history: Path) -> Iterator[PreviewSink]:
    with serving(history) as sink:
        yield sink


def test_the_newest_come_first_in_pages_that_miss_and_repeat_nothing(page: PreviewSink) -> None:
    seen: list[int] = []
    query: dict[str, Any] = {"limit": 200}
    while True:
        answer = ask(page, "events", **query)
        seen += [event["tracker_id"] for event in answer["events"]]
        assert answer["total"] == (10_000 if "before" not in query else None)
        if answer["next"] is None:
            break
        query["before"] = answer["next"]
    assert seen == list(range(9_999, -1, -1))


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"source": "door"}, 2500),
        ({"label": "car"}, 3333),
        ({"rule": "crowd"}, 3333),
        ({"source": "door", "label": "person", "rule": "entrance"}, 834),
        ({"source": "nowhere"}, 0),
        ({"kind": "source.stale"}, 0),
        ({"to_ms": T0_NS // 10**6 - 3_600_000}, 9791),
        ({"from_ms": T0_NS // 10**6 - 3_600_000, "to_ms": T0_NS // 10**6}, 208),
        ({"source": "' OR 1=1 --"}, 0),
    ],
)
def test_filters_work(page: PreviewSink, query: dict[str, Any], count: int) -> None:
    answer = ask(page, "events", **query)
    assert answer["total"] == count
    names = {"source", "label", "rule"} & query.keys()
    assert all(event[name] == query[name] for event in answer["events"] for name in names)


@pytest.mark.parametrize("columns", ["source", "label", "rule"])
def test_filters_use_an_index(history: Path, columns: str) -> None:
    with closing(sqlite3.connect(history)) as db:
        query = f"SELECT * FROM events WHERE {columns} = 'x' ORDER BY time_ns DESC, id DESC LIMIT 50"
        plan = " ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {query}"))
    assert f"USING INDEX events_by_{columns}" in plan
    assert "TEMP B-TREE" not in plan, "nothing is sorted"


def test_the_lists_to_choose_from_and_the_day(page: PreviewSink) -> None:
    names = ask(page, "events/choices")
    assert names["sources"] == ["dock", "door", "gate", "yard"]
    assert names["labels"] == ["car", "dog", "person"]
    assert names["rules"] == ["crowd", "entrance", "exit"]
    assert names["kinds"] == []
    assert names["last_ms"] == T0_NS // 10**6
    for hours in (23, 24, 25):
        end_ms = T0_NS // 10**6 + 1
        answer = ask(page, "events/day", from_ms=end_ms - hours * 3_600_000, to_ms=end_ms)
        total = ask(page, "events", from_ms=end_ms - hours * 3_600_000, to_ms=end_ms)["total"]
        for group in ("sources", "rules", "hours"):
            cells = [cell for row in answer[group] for cell in row["cells"]]
            assert sum(count for _, count in cells) == total
            assert max(at for at, _ in cells) == (hours if group == "hours" else 6 * hours) - 1
        assert {(row["rule"], row["direction"]) for row in answer["hours"]} == {
            (rule, direction) for rule in names["rules"] for direction in ("in", "out")
        }
    only = ask(page, "events/day", from_ms=end_ms - 86_400_000, to_ms=end_ms, source="door")
    assert [row["source"] for row in only["sources"]] == ["door"]


@pytest.mark.parametrize(
    "query",
    ["before=x", "before=1", "from_ms=1e5", "to_ms=" + "9" * 30, "before=1-2-3", "from_ms=%00", "from_ms=٣"],
)
def test_a_number_that_is_none_is_refused(page: PreviewSink, query: str) -> None:
    status, _, body = get(page, f"/api/events?{quote(query, safe='=&%-')}")
    assert status == 400
    assert "problem" in json.loads(body)


@pytest.mark.parametrize("query", ["", "from_ms=0", "from_ms=0&to_ms=0", "from_ms=0&to_ms=99999999999"])
def test_a_day_has_a_beginning_and_an_end(page: PreviewSink, query: str) -> None:
    assert get(page, f"/api/events/day?{query}")[0] == 400


def test_without_an_events_file_there_is_no_such_address(tmp_path: Path) -> None:
    sink = PreviewSink(0)
    try:
        assert get(sink, "/api/events")[0] == 404
        assert get(sink, "/media/1/clip")[0] == 404
        assert not json.loads(get(sink, "/api/status")[2])["has_history"]
    finally:
        sink.close()


@pytest.mark.parametrize("what", ["missing", "empty", "text", "other program", "damaged"])
def test_a_file_that_cannot_answer_is_said_and_the_page_goes_on(tmp_path: Path, what: str) -> None:
    path = tmp_path / "events.db"
    if what == "empty":
        path.touch()
    elif what == "text":
        path.write_text("precious " * 100)
    elif what == "other program":
        with closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE events (key)")
    elif what == "damaged":
        write_history(path, spread(1000))
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * 100_000)
    with serving(path) as sink:
        status, _, body = get(sink, "/api/events")
        assert status == 503
        assert "events.db" in json.loads(body)["problem"]
        assert str(tmp_path) not in body.decode(), "where files lie is nobody's business"
        assert get(sink, "/")[0] == 200
        if what in ("missing", "empty"):
            with writing(path) as store:
                store.emit_event(crossing(1, T0_NS))
                until(lambda: get(sink, "/api/events")[0] == 200, "it is there now")


def test_the_token_is_asked_for_everywhere(history: Path) -> None:
    with serving(history, token=TOKEN) as sink:
        for path in ("/api/events", "/api/events/choices", "/api/events/day", "/media/1/clip", "/events.js"):
            assert get(sink, path)[0] == 401, path
            assert get(sink, path, {"Cookie": "edgecv_preview=x"})[0] == 401
        assert get(sink, "/api/events", {"Authorization": f"Bearer {TOKEN}"})[0] == 200
        assert get(sink, "/api/events", {"Host": "evil.example", "Authorization": f"Bearer {TOKEN}"})[0] == 421
        foreign = {"Origin": "http://evil.example", "Authorization": f"Bearer {TOKEN}"}
        assert get(sink, "/media/1/clip", foreign)[0] == 403


# --- files ---


class Files:
    """An events file whose one event has a snapshot and a clip, and a page that shows it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "events.db"
        self.event = crossing(1, T0_NS)
        self.snapshot = write_jpeg(folder / "shots" / "a.jpg", (1920, 1080))
        self.clip = write_mp4(folder / "clips" / "a.mp4")
        write_history(self.path, [self.event, crossing(2, T0_NS + 1)], [self.media("snapshot"), self.media("clip")])

    def media(self, kind: Any, path: Path | None = None) -> EventMedia:
        path = path or (self.snapshot if kind == "snapshot" else self.clip)
        return EventMedia(keys=(self.event.key,), kind=kind, path=path, source_id="yard")

    def point_to(self, kind: str, path: str, *, known: bool = True) -> None:
        """As whoever could write the database would."""
        with closing(sqlite3.connect(self.path)) as db:
            db.execute(f"UPDATE events SET {kind}=? WHERE id=1", (path,))
            if known:
                db.execute("INSERT OR IGNORE INTO folders VALUES (?)", (path.rpartition("/")[0],))
            db.commit()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_a_snapshot_a_thumbnail_and_a_clip_come_by_the_event(files: Files) -> None:
    with serving(files.path) as sink:
        (_, event) = ask(sink, "events")["events"]
        assert (event["snapshot"], event["clip"]) == (True, True)
        number = event["id"]
        for kind, path, content in (
            ("snapshot", files.snapshot, "image/jpeg"),
            ("clip", files.clip, "video/mp4"),
        ):
            status, headers, body = get(sink, f"/media/{number}/{kind}")
            assert (status, headers["Content-Type"], body) == (200, content, path.read_bytes())
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Content-Length"] == str(len(body))
            assert headers["Accept-Ranges"] == "bytes"
            assert get(sink, f"/media/{number}/{kind}", method="HEAD")[2] == b""
        for _ in range(2):
            status, headers, body = get(sink, f"/media/{number}/thumbnail")
            assert (status, headers["Content-Type"]) == (200, "image/jpeg")
            assert len(body) < 5000
        for path in (
            f"/media/{number + 1}/clip",
            "/media/99/clip",
            f"/media/{1 << 70}/clip",
            "/media/1/data",
            "/media/",
        ):
            assert get(sink, path)[0] == 404, path


def test_a_player_can_seek(files: Files) -> None:
    data = files.clip.read_bytes()
    with serving(files.path) as sink:
        for asked, (begin, end) in {
            "bytes=0-": (0, len(data)),
            "bytes=100-199": (100, 200),
            f"bytes={len(data) - 5}-{len(data) + 100}": (len(data) - 5, len(data)),
            "bytes=-10": (len(data) - 10, len(data)),
        }.items():
            status, headers, body = get(sink, "/media/1/clip", {"Range": asked})
            assert status == 206, asked
            assert body == data[begin:end]
            assert headers["Content-Range"] == f"bytes {begin}-{end - 1}/{len(data)}"
        tag = headers["ETag"]
        assert get(sink, "/media/1/clip", {"Range": "bytes=5-9", "If-Range": tag})[0] == 206
        assert get(sink, "/media/1/clip", {"Range": "bytes=5-9", "If-Range": '"another"'})[0] == 200
        status, headers, _ = get(sink, "/media/1/clip", {"Range": f"bytes={len(data)}-"})
        assert (status, headers["Content-Range"]) == (416, f"bytes */{len(data)}")


@pytest.mark.parametrize(
    "header", ["", "bytes", "bytes=-", "bytes=5-2", "bytes=0-1,5-6", "items=0-5", "bytes=a-b", f"bytes=0-{'9' * 40}"]
)
def test_a_range_that_is_none_stands_for_the_whole(header: str) -> None:
    part = part_of(header, 100)
    assert part is not None
    assert (part.begin, part.end, part.is_whole) == (0, 100, True)


@pytest.mark.parametrize(
    "kind", ["link", "folder link", "passwd", "parent", "relative", "pipe", "folder", "renamed", "unknown"]
)
def test_nothing_is_served_but_pictures_and_films_of_known_folders(files: Files, kind: str) -> None:
    secret = write_jpeg(files.folder / "secret" / "s.jpg")
    place = files.folder / "shots"
    path = {
        "link": str(place / "link.jpg"),
        "folder link": str(files.folder / "by-link" / "s.jpg"),
        "passwd": "/etc/passwd",
        "parent": f"{place}/../secret/s.jpg",
        "relative": "secret/s.jpg",
        "pipe": str(place / "pipe.jpg"),
        "folder": str(place),
        "renamed": str(place / "shell.jpg"),
        "unknown": str(secret),
    }[kind]
    (place / "link.jpg").symlink_to(secret)
    (files.folder / "by-link").symlink_to(secret.parent)
    os.mkfifo(place / "pipe.jpg")
    (place / "shell.jpg").write_text("<script>alert(1)</script>")
    files.point_to("snapshot", path, known=kind != "unknown")
    with serving(files.path) as sink:
        for what in ("snapshot", "thumbnail"):
            assert get(sink, f"/media/1/{what}")[0] == 404, what
        assert get(sink, "/media/1/clip")[0] == 200


def test_a_file_that_was_deleted_is_missing_and_not_an_error(files: Files) -> None:
    files.clip.unlink()
    with serving(files.path) as sink:
        assert get(sink, "/media/1/clip")[0] == 404


@pytest.mark.slow
def test_who_takes_nothing_is_let_go_and_others_are_served(files: Files) -> None:
    big = files.folder / "clips" / "big.mp4"
    big.write_bytes(files.clip.read_bytes() + bytes(30 << 20))
    files.point_to("clip", str(big))
    with serving(files.path) as sink:
        assert sink._history is not None
        sink._history._takers.stalled_s = 0.5
        slow = [socket.create_connection(("127.0.0.1", sink.port), DEADLINE_S) for _ in range(8)]
        try:
            for one in slow:
                one.sendall(b"GET /media/1/clip HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert one.recv(12) == b"HTTP/1.1 200"
            until(lambda: get(sink, "/media/1/snapshot")[0] == 200, "there is a place again")
        finally:
            for one in slow:
                one.close()
        status, _, body = get(sink, "/media/1/clip")
        assert (status, len(body)) == (200, big.stat().st_size)


# --- time ---


def test_a_question_that_takes_too_long_is_ended(history: Path) -> None:
    reader = HistoryReader(history, limit_s=0.2)
    begin = time.monotonic()
    with pytest.raises(SinkError, match="took too long"):
        reader.answer(lambda db: db.execute("SELECT COUNT(*) FROM events a, events b, events c").fetchone())
    assert time.monotonic() - begin < 2.0
    reader.close()


@pytest.mark.slow
def test_reading_does_not_hold_up_writing(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    write_history(path, spread(5000))
    stop = threading.Event()
    asked = []

    def read(sink: PreviewSink) -> None:
        while not stop.is_set():
            asked.append(
                ask(sink, "events/day", from_ms=time.time_ns() // 10**6 - 86_400_000, to_ms=time.time_ns() // 10**6)
            )

    with serving(path) as sink, writing(path) as store:
        threads = [threading.Thread(target=read, args=(sink,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for number in range(200):
                store.emit_event(crossing(number, T0_NS - number))
                time.sleep(0.005)
        finally:
            stop.set()
            for thread in threads:
                thread.join(DEADLINE_S)
        until(lambda: ask(sink, "events")["total"] == 5200, "all are written")
        assert len(asked) > 2
        assert store._reason == "", "no write had to wait"


def test_it_is_opened_by_its_uri(history: Path) -> None:
    sink = open_sink(f"preview:0?events={history}")
    try:
        assert isinstance(sink, PreviewSink)
        assert ask(sink, "events")["total"] == 10_000
        sink.emit_event(Event(kind="source.stale", time_ns=1))
    finally:
        sink.close()


def test_events_of_a_run_get_their_pictures_and_films(tmp_path: Path) -> None:
    def alarm(result: Result) -> Result:
        is_due = result.frame.index in (20, 75)  # the second film is whole only at the end
        return result.with_event("gate.open", rule="gate", label="person") if is_due else result

    names = ["events:events.db", "snapshots:shots?on=events&every_s=0", "clips:clips?pre_s=1&post_s=1"]
    sinks = [name.replace(":", f":{tmp_path}/", 1) for name in names]
    pipeline = Pipeline(
        "synthetic://?frames=80&fps=10&width=320&height=240", cast(Model, BlobModel()), steps=[alarm], sinks=sinks
    )
    summary = pipeline.run()
    assert all(sink.failed == sink.dropped == 0 for sink in summary.sinks)
    with serving(tmp_path / "events.db") as sink:
        events = ask(sink, "events", rule="gate")["events"]
        assert [(event["kind"], event["snapshot"], event["clip"]) for event in events] == [
            ("gate.open", True, True)
        ] * 2
        for event in events:
            assert get(sink, f"/media/{event['id']}/snapshot")[1]["Content-Type"] == "image/jpeg"
            assert get(sink, f"/media/{event['id']}/clip", {"Range": "bytes=0-11"})[2][4:8] == b"ftyp"


def test_names_that_utf8_cannot_hold_do_not_end_the_answers(tmp_path: Path) -> None:
    odd = Event(kind="file.read", time_ns=T0_NS, source_id="door", data={"file": "caf\udce9.jpg"})
    write_history(tmp_path / "events.db", [odd])
    with serving(tmp_path / "events.db") as sink:
        sink.emit(make_result(1, "caf\udce9", labels=("half\ud800",)))
        sink.emit_event(odd)
        assert [one["details"] for one in ask(sink, "events")["events"]] == ["file caf?.jpg"]
        assert ask(sink, "shapes")["labels"] == ["half?"]
        status = ask(sink, "status")
        assert (status["sources"][0]["name"], status["events"][0]["details"]) == ("caf?", "file caf?.jpg")


def test_the_address_of_a_file_with_a_number_of_five_thousand_digits_is_missing(page: PreviewSink) -> None:
    for number in ("1" * 5000, "9" * 19, "0x1", "%D9%A1"):
        assert get(page, f"/media/{number}/snapshot")[0] == 404


def test_events_before_the_epoch_are_turned_over_too(tmp_path: Path) -> None:
    write_history(tmp_path / "events.db", [crossing(number, -number * 10**9) for number in range(3)])
    with serving(tmp_path / "events.db") as sink:
        seen, before = [], ""
        while before is not None:
            answer = ask(sink, "events", limit=1, before=before)
            seen += [one["tracker_id"] for one in answer["events"]]
            before = answer["next"]
    assert seen == [0, 1, 2]

"""What people are told of events, at a real HTTP server: templates, pictures, limits, and a flood."""

from __future__ import annotations

import base64
import email.header
import email.parser
import email.policy
import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgecv.errors import ConfigError, SinkError
from edgecv.events import Event, EventMedia, Priority
from edgecv.overlays import Overlay
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.sinks import open_sink
from edgecv.pipelines.sinks.webhook.sink import WebhookOptions, WebhookSink
from edgecv.results import Result
from tests.command_line import run_here
from tests.models import write_bundle
from tests.unit.pipelines.blob import BlobModel, assert_no_threads
from tests.unit.pipelines.made_results import START_NS, made_result
from tests.unit.pipelines.receiver import Receiver, keep, refuse, write_secret

QUICK: dict[str, Any] = {"linger_s": 0.01, "retry_s": 0.01}


def made(
    kind: str = "line.crossed", source: str = "door", at_s: float = 0.0, priority: Priority = "event", **data: Any
) -> Event:
    said = {"counter": "entrance", "label": "person", "direction": "in", "total": 7, **data}
    return Event(kind=kind, time_ns=START_NS + round(at_s * 1e9), source_id=source, data=said, priority=priority)


def crossed(at_s: float, *events: Event, size_wh: tuple[int, int] = (64, 48)) -> Result:
    return made_result(at_s, events=events or (made(at_s=at_s),), size_wh=size_wh)


def notifying(url: str, **options: Any) -> WebhookSink:
    return WebhookSink(url, options=WebhookOptions(**{**QUICK, "events": "events", **options}))


def jpeg(body: bytes) -> Any:
    image = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert_no_threads()


def test_ntfy_gets_a_text_with_title_and_priority(tmp_path: Path) -> None:
    write_secret(tmp_path / "ntfy.token", "tk_secret")
    with Receiver(then=keep) as receiver:
        sink = notifying(
            receiver.url, template="ntfy", token_file=str(tmp_path / "ntfy.token"), time_zone="Europe/Berlin"
        )
        sink.emit(crossed(0.0, made(), made("zone.alarm", counter="Köln\r\nX-Evil: 1", priority="alarm")))
        sink.close()
    assert [body.decode() for _, body in receiver.bodies] == [
        "line.crossed: person, in\n2026-11-21 16:44:18 CET",
        "zone.alarm: person, in\n2026-11-21 16:44:18 CET",
    ]
    plain, alarm = receiver.headers
    assert (plain["X-Title"], plain["X-Priority"], plain["X-Tags"]) == ("door, entrance", "default", "line.crossed")
    assert plain["Authorization"] == "Bearer tk_secret"
    assert plain["Content-Type"] == "text/plain; charset=utf-8"
    assert "X-Attach" not in plain, "an empty header is left out"
    assert alarm["X-Priority"] == "urgent"
    assert "X-Evil" not in alarm
    title = str(email.header.make_header(email.header.decode_header(alarm["X-Title"])))
    assert title == "door, Köln X-Evil: 1", "a name makes no header, and letters of every script arrive (RFC 2047)"


def test_a_picture_is_the_body_for_ntfy_small_and_clean_or_painted() -> None:
    result = replace(
        crossed(0.0, size_wh=(640, 480)),
        overlays=(Overlay(name="entrance", shape="line", points=((0.0, 240.0), (640.0, 240.0))),),
    )
    with Receiver(then=keep) as receiver:
        for draw in (False, True):
            sink = notifying(receiver.url, template="ntfy", snapshot="attach", max_side=320, quality=95, draw=draw)
            sink.emit(result)
            sink.emit_event(made("source.stale", error="No frame for 5 s."))
            sink.close()
    pictures = [jpeg(body) for _, body in (receiver.bodies[0], receiver.bodies[2])]
    assert [picture.shape for picture in pictures] == [(240, 320, 3)] * 2
    clean = cv2.resize(result.frame.image, (320, 240), interpolation=cv2.INTER_AREA)
    differences = [float(np.abs(picture.astype(int) - clean).mean()) for picture in pictures]
    assert differences[0] < differences[1], "draw paints what was found"
    first = receiver.headers[0]
    assert (first["Content-Type"], first["X-Filename"]) == ("image/jpeg", f"{made().key}.jpg")
    assert first["X-Message"].startswith("line.crossed: person, in, 2026-11-21 ")
    assert receiver.bodies[1][1].startswith(b"source.stale: person, in, No frame for 5 s\n"), "no frame, no picture"


def test_no_picture_leaves_the_device_unless_asked() -> None:
    with Receiver() as receiver:
        sink = notifying(receiver.url)
        sink.emit(crossed(0.0))
        sink.close()
    assert set(receiver.documents[0]) == {"event"}
    assert b"\xff\xd8\xff" not in receiver.bodies[0][1]


def test_a_plain_webhook_names_keys_and_attaches_pictures_by_hash() -> None:
    with Receiver() as receiver:
        sink = notifying(receiver.url, snapshot="attach")
        sink.emit(crossed(0.0))
        sink.close()
        frames = WebhookSink(receiver.url, options=WebhookOptions(**QUICK))
        frames.emit(crossed(0.1))
        frames.close()
    (event, frame) = receiver.documents
    assert event["event"]["key"] == made().key
    assert frame["events"][0]["key"] == made(at_s=0.1).key
    data = base64.b64decode(event["snapshot"]["data"])
    assert event["snapshot"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert event["snapshot"]["bytes"] == len(data)
    assert jpeg(data).shape == (48, 64, 3)


def test_slack_gets_blocks_and_an_image_only_where_it_has_a_url() -> None:
    evil = made(label="<!channel> & co", counter="*bold*")
    with Receiver(then=keep) as receiver:
        sink = notifying(receiver.url, template="slack", snapshot="name", snapshot_url="https://pics.example/R&D")
        media = EventMedia(keys=(evil.key,), kind="snapshot", path=Path("/shots/a b.jpg"), source_id="door")
        sink.take_media(media)
        sink.emit(crossed(0.0, evil, made()))
        sink.close()
    named, plain = (json.loads(body) for _, body in receiver.bodies)
    assert [block["type"] for block in named["blocks"]] == ["section", "context", "image"]
    assert [block["type"] for block in plain["blocks"]] == ["section", "context"]
    assert named["blocks"][2]["image_url"] == "https://pics.example/R&D/a%20b.jpg"
    assert "only_with" not in named["blocks"][2]
    assert "&lt;!channel&gt; &amp; co" in named["blocks"][0]["text"]["text"]
    assert "<" not in named["text"]


def test_home_assistant_gets_values_with_their_types() -> None:
    with Receiver(then=keep) as receiver:
        sink = notifying(receiver.url, template="homeassistant", cooldown_s=3600.0)
        for at_s in (0.0, 0.1):
            sink.emit(crossed(at_s))
        sink.emit_event(made("source.failed", priority="alarm", total=None))
        sink.close()
    first, second = (json.loads(body) for _, body in receiver.bodies)
    assert (first["count"], first["held_back"], first["held_back_kinds"]) == (7, 0, {})
    assert first["time"] == "2026-11-21T15:44:18.123Z"
    assert first["data"]["counter"] == "entrance"
    assert second["held_back_kinds"] == {"line.crossed": 1}
    assert second["message"] == "source.failed: person, in, and 1 more: 1 line.crossed"
    assert second["count"] is None


def test_a_template_of_ones_own_may_send_a_form_by_put(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        """
        title = "Mine"
        method = "PUT"
        text = "{data.direction} at {rule}, {{not a field}} {count}"
        [picture]
        as_the = "part"
        document = "payload"
        name = "file1"
        """
    )
    with Receiver(then=keep) as receiver:
        sink = notifying(receiver.url, template=str(tmp_path / "mine.toml"), snapshot="attach")
        sink.emit(crossed(0.0))
        sink.close()
    ((method, body),) = receiver.bodies
    assert method == "PUT"
    head = f"Content-Type: {receiver.headers[0]['Content-Type']}\r\n\r\n".encode()
    form = email.parser.BytesParser(policy=email.policy.default).parsebytes(head + body)
    document, picture = form.iter_parts()
    assert document.get_param("name", header="content-disposition") == "payload"
    assert document.get_content().strip() == "in at entrance, {{not a field}} 7"
    assert picture.get_filename() == f"{made().key}.jpg"
    assert jpeg(picture.get_content()).shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("title='x'\ntext='{rul}'", "has {rul}", "Did you mean 'rule'?"),
        ("title='x'\n[json]\na=[{b='{labl}'}]", "has {labl}", "label"),
        ("title='x'\n[json]\na=[{only_with='url'}]", "has {url}", "snapshot_url"),
        ("title='x'\ntext='a'\nheaders={'a b'='c'}", "a header 'a b'", ""),
        ("title='x'", "either text or", "notifications.md"),
        ("title='x'\ntext='a'\n[json]\nb='c'", "either text or", "notifications.md"),
        ("title='x'\ntext='a'\ntexts='b'", "no option 'texts'", "Did you mean 'text'?"),
        ("title='x'\ntext='a'\n[picture]\nas_the='field'", "no .json. for it", "part"),
        ("title=", "is no TOML", "notifications.md"),
        (None, "cannot be read", "path"),
    ],
)
def test_a_template_with_a_mistake_is_refused_at_the_start(
    tmp_path: Path, text: str | None, message: str, hint: str
) -> None:
    if text is not None:
        (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        open_sink(f"webhook:http://127.0.0.1:9/?template={tmp_path / 'mine.toml'}")
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("query", "message", "hint"),
    [
        ("template=ntfi", "no template 'ntfi'", "Did you mean 'ntfy'?"),
        ("template=slack&snapshot=attach", "Slack takes no attached pictures", "snapshot_url"),
        ("template=homeassistant&snapshot=attach", "takes no attached pictures", "snapshot=name"),
        ("template=ntfy&events=detections", "sends frames, too", "events=events"),
        ("at_most=10/h&events=all", "at_most of a webhook is for events", "events=events"),
        ("at_most=ten", "is no rate", "10/h"),
        ("cooldown_s=-1", "cooldown_s", ""),
        ("events=event", "is no choice", "Did you mean 'events'?"),
        ("template=ntfy&time_zone=Mars/Base", "no time zone 'Mars/Base'", "Europe/Berlin"),
        ("snapshot_url=https://x/", "goes with snapshot=name", "snapshot=name"),
        ("snapshot=name&snapshot_url=ftp://x/", "snapshot_url of a webhook is no", "https"),
        ("snapshot=name&snapshot_url=https://u:hunter2%40x/", "snapshot_url of a webhook is no", "password"),
        ("snapshot=name&snapshot_url=https://x/?y=1", "snapshot_url of a webhook is no", "query"),
        ("max_side=5", "wrong", ""),
    ],
)
def test_options_that_do_not_fit_are_refused_at_the_start(query: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        open_sink(f"webhook:http://127.0.0.1:9/secret-path?{query}")
    assert hint in caught.value.hint
    assert not {"secret-path", "hunter2"} & set(f"{caught.value} {caught.value.hint}".replace("/", " ").split())


def test_only_the_chosen_kinds_are_sent() -> None:
    with Receiver() as receiver:
        sink = WebhookSink(receiver.url, options=WebhookOptions(**QUICK, events="line.crossed,zone.*"))
        sink.emit(crossed(0.0, made(), made("zone.left"), made("crowd.began")))
        sink.emit_event(made("source.stale"))
        sink.close()
    assert [one["event"]["kind"] for one in receiver.documents] == ["line.crossed", "zone.left"]


def test_a_flood_of_ten_thousand_events_rings_ten_times_and_all_are_told() -> None:
    with Receiver(then=keep) as receiver:
        sink = notifying(receiver.url, template="homeassistant", at_most="10/h")
        start = time.monotonic()
        frame = crossed(0.0)
        for number in range(10_000):
            sink.emit(replace(frame, events=(made(at_s=number / 100, tracker_id=number),)))
        took_s = time.monotonic() - start
        sink.emit_event(made("source.failed", priority="alarm"))
        sink.close()
    told = [json.loads(body) for _, body in receiver.bodies]
    assert len(told) == 11
    assert sum(one["held_back"] for one in told) == sink.held_back == 9990
    assert told[-1]["message"].endswith("and 9990 more: 9990 line.crossed")
    assert (sink.delivered, sink.lost) == (11, 0)
    assert took_s < 20.0


def test_what_is_held_back_at_the_end_is_said_then_or_counted(caplog: pytest.LogCaptureFixture) -> None:
    with Receiver() as receiver:
        sink = notifying(receiver.url, cooldown_s=3600.0)
        for at_s in (0.0, 0.1, 0.2):
            sink.emit(crossed(at_s))
        sink.close()
        assert receiver.documents[-1]["event"]["kind"] == "events.held_back"
        assert receiver.documents[-1]["event"]["data"] == {"count": 2, "kinds": {"line.crossed": 2}}
        full = notifying(receiver.url, at_most="1/h")
        for at_s in (0.0, 0.1, 0.2):
            full.emit(crossed(at_s))
        with caplog.at_level(logging.WARNING):
            full.close()
    assert len(receiver.documents) == 3
    assert full.held_back == 2
    assert "was not told of 2 events that were held back" in caplog.text


def test_counts_of_a_notification_that_was_refused_are_told_with_the_next() -> None:
    with Receiver(keep, refuse(400), then=keep) as receiver:
        sink = notifying(receiver.url, template="homeassistant", cooldown_s=0.2)
        sink.emit(crossed(0.0))
        sink.emit(crossed(0.1))
        for number in (2, 3):
            time.sleep(0.25)  # the cooldown is real time
            sink.emit(crossed(number / 10))
            receiver.wait_for(lambda number=number: sink.delivered + sink.lost == number)
        with pytest.raises(SinkError, match="did not get 1 of 3"):
            sink.close()
    counts = [json.loads(body)["held_back"] for _, body in receiver.bodies]
    assert counts == [0, 1, 1]


def test_a_restart_begins_with_limits_that_nothing_has_used() -> None:
    with Receiver() as receiver:
        for _ in range(2):
            sink = notifying(receiver.url, at_most="1/d")
            sink.emit(crossed(0.0))
            sink.close()
    assert len(receiver.documents) == 2


def test_the_count_of_a_sink_says_what_it_held_back() -> None:
    def seven(result: Result) -> Result:
        return result.with_event("crowd.began", rule="hall", n=result.frame.index)

    with Receiver() as receiver:
        sink = notifying(receiver.url, at_most="3/h")
        pipeline = Pipeline("synthetic://?frames=20&width=64&height=48", BlobModel(), steps=[seven], sinks=[sink])
        for _ in pipeline:
            pass
    count: Counter[str] = Counter(one["event"]["kind"] for one in receiver.documents)
    assert count["crowd.began"] <= 3
    assert pipeline.summary.sinks[0].held_back == sink.held_back >= 17


APP = """
sinks = ["webhook:{url}?events=line.crosed,zone.*&template=ntfy&snapshot=name&linger_s=0"]
[model]
bundle = "{bundle}"
[[sources]]
uri = "synthetic://?frames=3"
[[steps]]
type = "track"
[[steps]]
type = "line"
name = "door"
points = [[0.1, 0.5], [0.9, 0.5]]
units = "relative"
"""


def test_a_run_says_what_will_never_be_sent(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny.ecv").path
    with Receiver(then=keep) as receiver:
        (tmp_path / "app.toml").write_text(APP.format(url=receiver.url, bundle=bundle))
        done = run_here("run", "--config", tmp_path / "app.toml")
    assert done.returncode == 0, done.stderr
    assert "No step or source gives events of the kind 'line.crosed'. Did you mean 'line.crossed'?" in done.stderr
    assert "No step or source gives events of the kind 'zone.*'." in done.stderr
    assert "snapshot=name names the pictures of the sink snapshots:, and there is none." in done.stderr


def test_a_notification_names_the_file_that_the_sink_of_snapshots_wrote(tmp_path: Path) -> None:
    def said_once(result: Result) -> Result:
        return result.with_event("crowd.began", rule="hall") if result.frame.index == 2 else result

    with Receiver() as receiver:
        sink = notifying(receiver.url, snapshot="name", linger_s=20.0, events="crowd.*")
        pipeline = Pipeline(
            "synthetic://?frames=6&width=64&height=48",
            BlobModel(),
            steps=[said_once],
            sinks=[f"snapshots:{tmp_path / 'shots'}?on=events&every_s=0", sink],
        )
        for _ in pipeline:
            pass
    (document,) = receiver.documents
    (written,) = (tmp_path / "shots").glob("*.jpg")
    assert Path(document["snapshot"]["path"]).resolve() == written.resolve()
    assert jpeg(written.read_bytes()).shape == (48, 64, 3)


@pytest.mark.parametrize("template", ["ntfy", "slack", "homeassistant"])
def test_an_event_of_a_time_that_no_calendar_holds_keeps_no_later_alarm(template: str) -> None:
    with Receiver(then=keep) as receiver:
        sink = notifying(receiver.url, template=template, time_zone="Pacific/Kiritimati")
        for time_ns in (10**21, -(10**21), 10**18 * 253):
            sink.emit_event(replace(made(), time_ns=time_ns))
        sink.emit_event(made("source.failed", priority="alarm"))
        sink.close()
    assert (sink.delivered, sink.lost) == (4, 0)


def test_what_is_wrong_with_one_event_of_a_frame_keeps_no_alarm_behind_it() -> None:
    with Receiver(then=keep) as receiver:
        sink = notifying(receiver.url, template="homeassistant", cooldown_s=3600.0)
        odd = made("odd", of="half\udcff of a character")
        sink.emit(crossed(0.0, made(), made()))
        with pytest.raises(SinkError, match="no JSON"):
            sink.emit(crossed(0.1, odd, made("source.failed", priority="alarm")))
        sink.close()
    told = [json.loads(body) for _, body in receiver.bodies]
    assert [one["kind"] for one in told] == ["line.crossed", "source.failed"]
    assert told[-1]["held_back"] == 1

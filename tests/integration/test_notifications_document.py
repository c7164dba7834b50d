"""The examples of docs/notifications.md work as they stand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from edgecv._internal.strict import read_struct
from edgecv.cli.app_config import AppFile, check_app
from edgecv.events import EventMedia
from edgecv.pipelines.sinks import open_sink
from edgecv.pipelines.sinks.webhook.templates.fields import FIELDS, PICTURE_FIELDS
from edgecv.pipelines.sinks.webhook.templates.template import template_names
from tests.conftest import CHECKOUT
from tests.integration.test_notifications import crossed, made
from tests.unit.pipelines.receiver import Receiver, keep, write_secret

PAGE = (CHECKOUT / "docs/notifications.md").read_text(encoding="utf-8")
BLOCKS: list[str] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
APPS = [block for block in BLOCKS if not block.startswith("title")]
SOURCE = '[[sources]]\nuri = "synthetic://"\n'


@pytest.mark.parametrize("block", APPS, ids=range(len(APPS)))
def test_an_example_is_an_application(block: str) -> None:
    app = check_app(read_struct(msgspec.toml.decode(block + SOURCE), AppFile, "app.toml"), "app.toml")
    assert app.sinks or app.file.mqtt


WEBHOOKS = [uri for block in APPS for uri in msgspec.toml.decode(block).get("sinks", []) if uri.startswith("webhook:")]


def test_each_template_has_an_example() -> None:
    assert len(WEBHOOKS) == 3
    assert all(any(f"template={name}&" in uri for uri in WEBHOOKS) for name in template_names())


@pytest.mark.parametrize("uri", WEBHOOKS)
def test_a_webhook_of_the_page_tells_of_an_event(uri: str, tmp_path: Path) -> None:
    event = made(next(kind for kind in ("crowd.began", "line.crossed", "zone.left") if kind[:4] in uri))
    with Receiver(then=keep) as receiver:
        write_secret(tmp_path / "url", receiver.url)
        sink = open_sink(f"webhook:{tmp_path / 'url'}?{uri.partition('?')[2]}&linger_s=0")
        sink.take_media(EventMedia(keys=(event.key,), kind="snapshot", path=Path("shots/1.jpg")))
        sink.emit(crossed(0.0, event, made("other.kind")))
        sink.close()
    assert len(receiver.bodies) == 1
    assert receiver.headers[0]["Content-Type"] == ("image/jpeg" if "ntfy" in uri else "application/json")


def test_the_template_of_the_page_can_be_used(tmp_path: Path) -> None:
    (block,) = (block for block in BLOCKS if block.startswith("title"))
    (tmp_path / "mine.toml").write_text(block)
    with Receiver(then=keep) as receiver:
        sink = open_sink(f"webhook:{receiver.url}?template={tmp_path / 'mine.toml'}&snapshot=attach&linger_s=0")
        sink.emit(crossed(0.0, made(speed=3.5)))
        sink.close()
    ((method, body),) = receiver.bodies
    document = json.loads(body.split(b"\r\n\r\n")[1].split(b"\r\n")[0])
    assert (method, document["count"], document["speed"], document["images"]) == ("POST", 7, 3.5, [])
    assert receiver.headers[0]["X-Door"] == "door"


def test_every_field_stands_on_the_page() -> None:
    table = PAGE.split("| field | is |")[1]
    assert [name for name in (*FIELDS, *PICTURE_FIELDS) if f"`{name}`" not in table] == []

from __future__ import annotations

import pytest

from edgecv.cloud_sync.mqtt.topics import Address, parse_events_topic
from edgecv.errors import ConfigError, SyncError

BAD_NAMES = ["", "a/b", "a+b", "#", "$SYS", "..", ".hidden", "a b", "a\n", "a\0", "x" * 65, "käse"]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", ["tenant", "device"])
def test_names_that_would_break_a_topic_are_refused(kind: str, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Address(**{"tenant": "t", "device": "d", kind: name})
    assert kind in caught.value.message
    assert caught.value.hint


def test_an_address_names_its_topics() -> None:
    address = Address(tenant="acme", device="cam-1.front_door")
    assert address.source == "edgecv/acme/cam-1.front_door"
    assert address.topic("ack") == "edgecv/acme/cam-1.front_door/ack"
    assert parse_events_topic(address.topic("ev")) == address


@pytest.mark.parametrize(
    "topic", ["", "edgecv/t/d", "edgecv/t/d/ack", "other/t/d/ev", "edgecv//d/ev", "edgecv/t/d/ev/x"]
)
def test_other_topics_are_no_event_topics(topic: str) -> None:
    with pytest.raises(SyncError):
        parse_events_topic(topic)

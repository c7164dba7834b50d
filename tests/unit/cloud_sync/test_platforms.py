"""Topics and limits of platforms, read from files: what does not fit is said before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgecv.cloud_sync.delivery.options import AckMode, SendOptions
from edgecv.cloud_sync.mqtt.broker_url import parse_broker_url
from edgecv.cloud_sync.mqtt.events import Received
from edgecv.cloud_sync.mqtt.topics import Address
from edgecv.cloud_sync.platforms.platform import FOLDER, platform_names, read_platform
from edgecv.cloud_sync.platforms.route import Route, plan_route
from edgecv.cloud_sync.wire.payloads import Wire
from edgecv.errors import ConfigError
from tests.unit.cloud_sync.support import ADDRESS

PLAIN = (FOLDER / "edgecv.toml").read_text()


def route(
    platform: str | None = None,
    ack: AckMode = "broker",
    wire: Wire | None = None,
    url: str = "mqtts://hub.example",
    address: Address = ADDRESS,
) -> Route:
    return plan_route(parse_broker_url(url), address, ack=ack, wire=wire, platform=platform)


def answer(topic: str, payload: bytes = b"{}") -> Received:
    return Received(epoch=1, mid=1, topic=topic, payload=payload)


def test_every_platform_has_a_file_that_is_right() -> None:
    assert platform_names() == ("aws", "aws-basic-ingest", "azure", "azure-eventgrid", "edgecv", "thingsboard")
    for name in platform_names():
        found = route(name)
        assert found.status("online") is not None
        assert found.platform.source.startswith("https://") or name == "edgecv"


def test_without_a_platform_everything_is_as_it_was() -> None:
    found = route(ack="ingest")
    assert (found.client_id, found.events_topic) == ("edgecv-acme-cam-1", "edgecv/acme/cam-1/ev")
    assert found.subscriptions == ("edgecv/acme/cam-1/ack",)
    assert found.status("online") == ("edgecv/acme/cam-1/status", b'{"state":"online"}', True)
    assert found.will is not None
    assert (found.will.payload, found.will.retain) == (b'{"state":"lost"}', True)
    assert not found.promise


@pytest.mark.parametrize("platform", ["aws-basic-ingest", "azure", "thingsboard"])
def test_without_a_topic_for_acknowledgements_the_weaker_promise_is_asked_for_and_said(platform: str) -> None:
    with pytest.raises(ConfigError, match="no topic for the acknowledgement") as caught:
        route(platform, ack="ingest")
    assert "--ack broker" in caught.value.hint
    assert "nobody says whether it is stored" in route(platform).promise


@pytest.mark.parametrize("platform", [None, "aws", "azure-eventgrid"])
def test_json_goes_with_ack_broker_alone(platform: str | None) -> None:
    with pytest.raises(ConfigError, match="--wire json has no place"):
        route(platform, ack="ingest", wire="json")
    assert route(platform, ack="ingest").acks_topic == "edgecv/acme/cam-1/ack"
    assert route(platform, ack="broker").acks_topic is None
    assert route(platform, wire="zlib").pack([b"{}"], "0" * 32)[0][:1] == b"\x78"


@pytest.mark.parametrize("platform", ["aws-basic-ingest", "azure", "thingsboard"])
def test_a_platform_that_reads_json_takes_nothing_else(platform: str) -> None:
    with pytest.raises(ConfigError, match="does not go with --wire zlib"):
        route(platform, wire="zlib")


def test_topics_stay_within_the_limits_of_aws() -> None:
    longest = Address(tenant="t" * 64, device="d" * 64)
    for platform in ("aws", "aws-basic-ingest", "azure-eventgrid"):
        found = route(platform, address=longest)
        status = found.status("online")
        assert found.will is not None
        assert status is not None
        for topic in (found.events_topic, *found.subscriptions, found.will.topic, status[0]):
            assert topic.count("/") <= 7
            assert len(topic) <= 256


def test_names_that_a_platform_does_not_know_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"does not take the device name 'cam\.1'"):
        route("aws", address=Address(tenant="acme", device="cam.1"))
    assert route("azure", address=Address(tenant="acme", device="cam.1")).client_id == "cam.1"


def test_a_user_of_the_url_comes_before_that_of_the_platform() -> None:
    assert route("azure").broker.username == "hub.example/cam-1/?api-version=2021-04-12"
    assert route("azure", url="mqtts://me@hub.example").broker.username == "me"
    assert route("azure").broker.protocol == "3.1.1"
    assert route("azure-eventgrid").broker.protocol == "5"
    assert route("azure-eventgrid", url="mqtts://hub.example?protocol=3.1.1").broker.protocol == "3.1.1"


def test_requests_of_a_twin_have_numbers_of_their_own() -> None:
    found = route("azure")
    topics = {status[0] for _ in range(3) if (status := found.status("online"))}
    assert len(topics) == 3
    assert all(topic.startswith("$iothub/twin/PATCH/properties/reported/?$rid=") for topic in topics)


def test_limits_of_a_platform_bound_how_much_is_sent() -> None:
    wide = SendOptions(window=5000, batch_events=500, batch_bytes=10**6, window_bytes=10**7)
    grid = route("azure-eventgrid").bounded(wide)
    assert (grid.window, grid.window_bytes, grid.batch_events) == (1000, 61_440, 500)
    assert (grid.drain_events_s, route("aws").bounded(SendOptions(drain_events_s=20.0)).drain_events_s) == (500, 20.0)
    things = route("thingsboard").bounded(wide)
    assert (things.window, things.window_bytes) == (100, 10**7)
    assert 60_000 < things.batch_bytes < 65_536
    assert route().bounded(wide) == SendOptions(**{**_fields(wide), "ack": "broker"})


def _fields(options: SendOptions) -> dict[str, object]:
    return {name: getattr(options, name) for name in options.__slots__}


def test_what_a_platform_never_takes_is_said_with_its_limit() -> None:
    found = route("aws")
    assert not found.too_large(b"x" * 131_072)
    assert found.too_large(b"x" * 131_073) == (
        "AWS IoT Core takes messages of 131072 bytes, and the event is 131073 bytes"
    )
    assert not route().too_large(b"x" * 10**7)


def test_answers_of_a_platform_to_the_status_are_understood() -> None:
    aws, azure = route("aws"), route("azure")
    assert aws.refusal(answer("edgecv/acme/cam-1/ack")) is None
    refused = aws.refusal(answer("$aws/things/cam-1/shadow/name/edgecv/update/rejected", b'{"code":413}\x1b'))
    assert refused is not None
    assert '{"code":413}' in refused
    assert refused.isprintable()
    assert azure.refusal(answer("$iothub/twin/res/204/?$rid=1&$version=2")) == ""
    assert "res/429" in (azure.refusal(answer("$iothub/twin/res/429/?$rid=1")) or "")
    assert route().refusal(answer("anything")) is None


def test_a_file_of_ones_own_is_a_platform(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        PLAIN.replace("edgecv/{tenant}/{device}/ev", "factory/{device}/events") + "\n[limits]\nwindow = 4\n"
    )
    found = route(str(mine), ack="ingest")
    assert found.events_topic == "factory/cam-1/events"
    assert found.bounded(SendOptions()).window == 4


WRONG: dict[str, tuple[Callable[[str], str], str]] = {
    "no TOML": (lambda text: text + "[", "is no TOML"),
    "a table that does not exist": (lambda text: text + "[limit]\nwindow = 4\n", "has no option 'limit'"),
    "a name that does not exist": (
        lambda text: text.replace("retain = true", "retian = true", 1),
        "no option 'retian'",
    ),
    "a placeholder that does not exist": (lambda text: text.replace("{device}/ev", "{thing}/ev"), "{thing}"),
    "a payload that is no JSON": (lambda text: text.replace('"{state}"}', '"{state}"', 1), "is no JSON"),
    "a wire that does not exist": (lambda text: text.replace('/ev"', '/ev"\nwires = ["xml"]'), "wrong"),
    "a window of nothing": (lambda text: text + "[limits]\nwindow = 0\n", "wrong"),
    "a text for a number": (lambda text: text + '[limits]\nwindow = "4"\n', "wrong"),
    "no topic": (lambda text: text.replace('topic = "edgecv/{tenant}/{device}/ev"', ""), "topic"),
    "no pattern": (lambda text: text.replace("[events]", 'device_names = "("\n[events]'), "no regular expression"),
    "too long": (lambda text: text + "#" * 70_000, "larger than"),
    "no text": (lambda text: text + "\udcff", "is no TOML"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_file_that_is_wrong_is_refused_with_what_is_wrong(tmp_path: Path, kind: str) -> None:
    change, said = WRONG[kind]
    mine = tmp_path / "mine.toml"
    mine.write_bytes(change(PLAIN).encode(errors="surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        route(str(mine))
    assert said in caught.value.message


@pytest.mark.parametrize("name", ["asw", "../edgecv", "", "AWS", "missing.toml"])
def test_a_platform_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        read_platform(name)


def test_a_name_that_is_almost_right_is_suggested() -> None:
    with pytest.raises(ConfigError) as caught:
        read_platform("thingboard")
    assert "thingsboard" in caught.value.hint


def test_a_topic_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(PLAIN.replace("{device}/ev", "{device}/a/b/c/d/e/ev") + "[limits]\ntopic_slashes = 7\n")
    with pytest.raises(ConfigError, match="does not take the topic"):
        route(str(mine))

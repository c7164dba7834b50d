"""What Home Assistant is told of a pipeline, without a broker: keys, announcements, values, pictures."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from edgecv.cli.app_config import AppFile, HomeAssistantTable, MqttTable
from edgecv.cli.home_assistant import home_assistant_sink
from edgecv.cloud_sync.home_assistant.announcer import Announcer
from edgecv.cloud_sync.home_assistant.components import MAX_CONFIG_BYTES, Catalogue
from edgecv.cloud_sync.home_assistant.inventory import Inventory, InventoryFile, SourceParts
from edgecv.cloud_sync.home_assistant.names import Topics, key_of
from edgecv.cloud_sync.home_assistant.options import HomeAssistantOptions
from edgecv.cloud_sync.home_assistant.sightings import Sightings
from edgecv.cloud_sync.home_assistant.sink import HomeAssistantSink
from edgecv.cloud_sync.home_assistant.snapshots import MAX_IMAGE_BYTES, Snapshots
from edgecv.cloud_sync.home_assistant.state import Freshness
from edgecv.cloud_sync.mqtt.topics import Address
from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.results import Frame, Result
from tests.unit.cloud_sync.home_assistant import CONFIG, Camera, check_announcement, status_of

TOPICS = Topics(address=Address(tenant="acme", device="door-1"), prefix="homeassistant")
PARTS = st.lists(st.text(max_size=60), min_size=1, max_size=3)


@settings(max_examples=50)
@given(PARTS, PARTS)
def test_every_name_has_a_key_of_its_own_that_a_template_and_a_topic_take(one: list[str], other: list[str]) -> None:
    keys = [key_of("count", *parts) for parts in (one, other)]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", key) for key in keys)
    assert (keys[0] == keys[1]) == (one == other)


def test_names_that_home_assistant_does_not_take_are_refused() -> None:
    for tenant, device in (("acme.com", "door"), ("acme", "door.1")):
        with pytest.raises(ConfigError, match="Home Assistant does not take"):
            Topics(address=Address(tenant=tenant, device=device), prefix="homeassistant")


@pytest.mark.parametrize(
    "wrong",
    [{"prefix": "a/b"}, {"prefix": "#"}, {"expire_after_s": 3}, {"expire_after_s": 60.5}, {"snapshot_every_s": 0.1}],
    ids=str,
)
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        HomeAssistantOptions(**wrong)  # type: ignore[arg-type]


def test_what_a_source_is_called_is_never_a_template() -> None:
    name = "{{ states }}'] }}\n\x1b[31m"
    inventory = Inventory(sources={name: SourceParts(counters=("a.inside",), classes=(name,))})
    catalogue = Catalogue(TOPICS, HomeAssistantOptions(snapshots=True, name=name))
    entities = check_announcement(CONFIG, catalogue.payload(catalogue.entities(inventory), inventory))
    templates = [entity["val_tpl"] for entity in entities.values() if "val_tpl" in entity]
    assert all(re.fullmatch(r"\{\{ value_json\['[A-Za-z0-9_-]+'\] \}\}", template) for template in templates)
    assert not any("\x1b" in entity["name"] or "\n" in entity["name"] for entity in entities.values())


def test_an_announcement_stays_small_and_says_what_it_leaves_out() -> None:
    counters = tuple(
        f"zone-{zone}.{count}.class {at}" for zone in range(5) for count in ("inside", "left") for at in range(80)
    )
    inventory = Inventory(sources={f"camera {at}": SourceParts(counters=counters) for at in range(4)}, gauges=("x_c",))
    catalogue = Catalogue(TOPICS, HomeAssistantOptions())
    entities, left_out = catalogue.fitting(inventory)
    assert left_out + len(entities) == len(catalogue.entities(inventory))
    payload = catalogue.payload(entities, inventory)
    assert MAX_CONFIG_BYTES * 0.95 < len(payload) <= MAX_CONFIG_BYTES
    check_announcement(CONFIG, payload)
    few = Inventory(sources={"door": SourceParts(counters=counters[:3])}, removed={"fps__old": "sensor"})
    assert catalogue.fitting(few)[1] == 0


def test_counts_of_a_class_are_kept_over_a_restart_until_their_counter_is_gone() -> None:
    before = Inventory(sources={"door": SourceParts(counters=("lobby.left", "lobby.left.person", "gate.in"))})
    camera, sightings = Camera("door", lobby__left=0), Sightings()
    sightings.see(camera.result(), 0.0)
    now = before.with_sources([camera.status()], sightings.look(["door"]), None)
    assert now.sources["door"].counters == ("lobby.left", "lobby.left.person")


def test_classes_are_those_of_the_model_and_those_that_were_asked_for() -> None:
    before = Inventory(sources={"door": SourceParts(classes=("car", "zebra"))})
    camera, sightings = Camera("door"), Sightings()
    sightings.see(camera.result(0), 0.0)
    seen = sightings.look(["door"])
    assert before.with_sources([camera.status()], seen, None).sources["door"].classes == ("car", "person")
    assert before.with_sources([camera.status()], seen, ("cat",)).sources["door"].classes == ("cat",)
    assert before.with_sources([camera.status()], {}, None) == before, "nothing is known before the first result"


def test_what_came_back_is_not_removed_any_more(tmp_path: Path) -> None:
    inventory = Inventory(source="me").with_told({"a": "sensor", "b": "image"}).with_told({"a": "sensor"})
    assert inventory.removed == {"b": "image"}
    file = InventoryFile(tmp_path / "new", "me")
    assert file.write(inventory) == ""
    assert InventoryFile(tmp_path / "new", "me").read().with_told({"b": "image"}).removed == {"a": "sensor"}
    assert InventoryFile(tmp_path / "new", "other").read() == Inventory(source="other")


def test_detections_that_flicker_are_one_presence() -> None:
    camera, sightings = Camera("door"), Sightings()
    assert sightings.see(camera.result(0), 10.0), "a person came"
    assert not sightings.see(camera.result(), 10.1)
    assert not sightings.see(camera.result(0), 12.9), "the same person"
    assert sightings.look(["door"])["door"].is_present("person", 15.0)
    sightings.see(camera.result(), 15.1)
    assert not sightings.look(["door"])["door"].is_present("person", 15.95)
    assert sightings.look([]) == {}
    assert sightings.look(["door"]) == {}, "sources that are gone are forgotten"


def test_a_source_is_fresh_while_frames_go_through() -> None:
    camera, freshness = Camera("door"), Freshness(10.0)
    assert freshness.of([camera.status()], 0.0) == set(), "no frame yet"
    camera.frames = 1
    assert freshness.of([camera.status()], 100.0) == {"door"}
    assert freshness.of([camera.status()], 109.0) == {"door"}
    assert freshness.of([camera.status()], 111.0) == set(), "the loop hangs"
    camera.frames = 2
    assert freshness.of([camera.status()], 112.0) == {"door"}
    camera.state = "stale"
    assert freshness.of([camera.status()], 113.0) == set()


def test_pictures_are_small_seldom_and_of_the_newest_frame() -> None:
    snapshots = Snapshots(10.0)
    noise = np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), np.uint8)
    for image in (np.zeros((20, 30, 3), np.uint8), noise):
        snapshots.offer(Result(frame=Frame(image=image, source_id="door")))
    pictures = snapshots.due(0.0)
    assert 10_000 < len(pictures["door"]) <= MAX_IMAGE_BYTES
    snapshots.offer(Result(frame=Frame(image=noise, source_id="door")))
    assert snapshots.due(9.9) == {}
    snapshots.forget(["yard"])
    assert snapshots.due(10.1) == {}


def announcer_of(folder: Path, sightings: Sightings, **options: object) -> Announcer:
    return Announcer(
        TOPICS,
        HomeAssistantOptions(**options),  # type: ignore[arg-type]
        file=InventoryFile(folder, TOPICS.address.source),
        sightings=sightings,
        snapshots=None,
        gauges=(),
    )


def states_at(announcer: Announcer, camera: Camera, now_s: float) -> list[dict[str, object]]:
    """The states that are told at one moment."""
    due = list(announcer.due(lambda: status_of(camera), now_s))
    return [json.loads(message.payload) for message in due if message.topic == TOPICS.state]


def test_the_state_is_told_on_change_and_at_most_once_a_second(tmp_path: Path) -> None:
    camera, sightings = Camera("door", lobby__inside=0, lobby__entered=0), Sightings()
    announcer = announcer_of(tmp_path, sightings)
    told: dict[float, dict[str, object]] = {}
    for tick in range(450):  # ten looks a second
        now_s = tick / 10
        camera.counts["lobby.entered"] += tick < 100
        sightings.see(camera.result(), now_s)
        for state in states_at(announcer, camera, now_s):
            told[now_s] = state
    times = list(told)
    assert all(later - sooner >= 1.0 for sooner, later in pairwise(times))
    changing = [now_s for now_s in times if now_s < 10]
    assert 8 <= len(changing) <= 10
    (renewed,) = (now_s for now_s in times if now_s >= 11.5)
    assert 29.0 <= renewed <= 32.0, "three times within the minute after which it expires"
    assert told[times[-1]]["count__door__lobby__entered"] == 100


def test_a_stay_between_two_looks_is_told(tmp_path: Path) -> None:
    camera, sightings = Camera("door", lobby__inside=0, lobby__inside__person=0), Sightings()
    announcer = announcer_of(tmp_path, sightings)
    sightings.see(camera.result(), 0.0)
    assert states_at(announcer, camera, 0.0)[0]["occupancy__door__lobby__inside__person"] == "OFF"
    stay = Event(kind="zone.entered", time_ns=0, data={"counter": "lobby", "label": "person"})
    sightings.see(camera.result(events=(stay,)), 0.5)
    assert states_at(announcer, camera, 0.6) == []
    (state,) = states_at(announcer, camera, 1.0)
    assert state["occupancy__door__lobby__inside"] == state["occupancy__door__lobby__inside__person"] == "ON"
    sightings.see(camera.result(), 1.5)
    assert states_at(announcer, camera, 2.1)[0]["occupancy__door__lobby__inside__person"] == "OFF"


def test_a_camera_that_is_away_is_not_an_empty_room(tmp_path: Path) -> None:
    camera, sightings = Camera("door", lobby__inside=0, lobby__entered=3), Sightings()
    announcer = announcer_of(tmp_path, sightings, classes=("person",))
    sightings.see(camera.result(), 0.0)
    (state,) = states_at(announcer, camera, 0.0)
    assert (state["occupancy__door__lobby__inside"], state["presence__door__person"]) == ("OFF", "OFF")
    camera.state = "reconnecting"
    (state,) = states_at(announcer, camera, 2.0)
    assert (state["occupancy__door__lobby__inside"], state["presence__door__person"]) == (None, None)
    assert state["count__door__lobby__inside"] is None
    assert (state["state__door"], state["count__door__lobby__entered"]) == ("reconnecting", 3)


def test_what_is_gone_is_announced_once_more_when_home_assistant_starts_and_then_forgotten(tmp_path: Path) -> None:
    file = InventoryFile(tmp_path, TOPICS.address.source)
    gone = {"fps__yard": "sensor", "snapshot__yard": "image", "occupancy__yard__a": "binary_sensor"}
    file.write(Inventory(source=TOPICS.address.source, told=gone))
    camera, sightings = Camera("door"), Sightings()
    announcer = announcer_of(tmp_path, sightings)
    sightings.see(camera.result(), 0.0)

    def announced(now_s: float) -> dict[str, object]:
        due = [message for message in announcer.due(lambda: status_of(camera), now_s) if message.topic == TOPICS.config]
        assert len(due) <= 1
        return json.loads(due[0].payload)["cmps"] if due else {}

    only = {key: {"p": platform} for key, platform in gone.items()}
    assert only.items() <= announced(0.0).items()
    assert announced(10.0) == {}
    announcer.start_again()
    again = announced(20.0)
    assert {again[key]["uniq_id"] for key in gone} == {f"edgecv/acme/door-1/{key}" for key in gone}  # type: ignore[index]
    assert announced(24.0) == {}, "Home Assistant needs the time"
    assert only.items() <= announced(26.0).items()
    announcer.start_again()
    assert announced(40.0).keys().isdisjoint(gone)
    assert file.read().removed == {}


def test_what_is_left_out_is_that_of_mqtt(tmp_path: Path) -> None:
    mqtt = MqttTable(url="mqtt://127.0.0.1:9", tenant="acme", device="door-1", outbox=str(tmp_path / "box"))
    sink = home_assistant_sink(AppFile(mqtt=mqtt, home_assistant=HomeAssistantTable()), [])
    assert sink is not None
    sink.close()
    assert (tmp_path / "box").is_dir()
    assert home_assistant_sink(AppFile(mqtt=mqtt), []) is None
    with pytest.raises(ConfigError, match="needs a broker, a tenant and a device"):
        home_assistant_sink(AppFile(home_assistant=HomeAssistantTable(url="mqtt://127.0.0.1:9")), [])


def test_emit_waits_for_nothing_and_nothing_grows(tmp_path: Path) -> None:
    camera = Camera("door")
    sink = HomeAssistantSink("mqtt://127.0.0.1:9", tenant="acme", device="door-1", folder=tmp_path / "ha")
    result = camera.result(0, 1, 2)
    for _ in range(2000):
        sink.emit(result)
    sink.close()
    sink.close()
    assert "127.0.0.1:9" in sink.trouble
    assert not (tmp_path / "ha/home_assistant.json").exists()


def test_the_inventory_on_disk_holds_names_only(tmp_path: Path) -> None:
    file = InventoryFile(tmp_path, "me")
    file.write(Inventory(source="me", sources={"door": SourceParts(classes=("person",))}, told={"a": "sensor"}))
    assert set(json.loads((tmp_path / "home_assistant.json").read_text())) == {
        "version",
        "source",
        "sources",
        "gauges",
        "told",
        "removed",
    }

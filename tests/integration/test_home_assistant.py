"""A pipeline in Home Assistant: what it is told over a real broker, and when."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.events import Event
from tests.conftest import CHECKOUT
from tests.models import write_bundle
from tests.unit.cloud_sync.home_assistant import (
    AVAILABILITY,
    BIRTH,
    CONFIG,
    STATE,
    Camera,
    Listener,
    check_announcement,
    listening,
    running_sink,
    temperature,
)
from tests.unit.cloud_sync.support import Child, Mosquitto, running_mosquitto, until

OCCUPIED, PERSON_IN = "occupancy__door__lobby__inside", "occupancy__door__lobby__inside__person"


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path) as broker:
        yield broker


@pytest.fixture
def heard(mosquitto: Mosquitto) -> Iterator[Listener]:
    with listening(mosquitto.port) as listener:
        yield listener


def door() -> Camera:
    return Camera("door", lobby__inside=0, lobby__entered=3, lobby__left=3, lobby__inside__person=0)


def test_a_pipeline_shows_its_sources_zones_counts_and_temperature(
    mosquitto: Mosquitto, heard: Listener, tmp_path: Path
) -> None:
    camera = door()
    with running_sink(mosquitto.url, tmp_path / "ha", camera, gauges=[temperature()]) as sink:
        sink.emit(camera.result(0))
        until(lambda: heard.last(STATE).get("presence__door__person") == "ON", "the person is told")
        entities = check_announcement(CONFIG, heard.of(CONFIG)[-1])
        assert set(heard.last(STATE)) == set(entities), "every entity has its value, and there are no others"
        assert heard.last(STATE) == {
            "presence__door__person": "ON",
            OCCUPIED: "OFF",
            PERSON_IN: "OFF",
            "state__door": "live",
            "fps__door": 12.3,
            "age__door": 57,
            "count__door__lobby__entered": 3,
            "count__door__lobby__inside": 0,
            "count__door__lobby__inside__person": 0,
            "count__door__lobby__left": 3,
            "gauge__device_temperature_c": 51.3,
        }
        assert entities["gauge__device_temperature_c"]["unit_of_meas"] == "°C"
        assert entities[OCCUPIED]["exp_aft"] == 60
        assert "exp_aft" not in entities["count__door__lobby__entered"], "a total stays true"
        assert heard.of(AVAILABILITY) == [b"online"]
    until(lambda: heard.of(AVAILABILITY)[-1] == b"offline", "the device says goodbye")
    with listening(mosquitto.port) as late:  # a Home Assistant that starts later
        until(lambda: late.of(STATE) and late.of(CONFIG), "configuration and state are retained")
        assert late.of(AVAILABILITY) == [b"offline"]


def test_a_start_of_home_assistant_has_everything_told_again(
    mosquitto: Mosquitto, heard: Listener, tmp_path: Path
) -> None:
    camera = door()
    with running_sink(mosquitto.url, tmp_path / "ha", camera, birth_delay_s=0.3) as sink:
        sink.emit(camera.result())
        until(lambda: heard.last(STATE).get(OCCUPIED) == "OFF", "it is told")
        before = [len(heard.of(topic)) for topic in (CONFIG, AVAILABILITY, STATE)]
        mosquitto.publish(BIRTH, b"offline")
        time.sleep(0.4)
        assert [len(heard.of(topic)) for topic in (CONFIG, AVAILABILITY, STATE)] == before
        mosquitto.publish(BIRTH, b"online")
        until(
            lambda: (
                [len(heard.of(topic)) for topic in (CONFIG, AVAILABILITY, STATE)] == [count + 1 for count in before]
            ),
            "everything is told once more",
        )


def test_a_broker_that_forgot_everything_is_told_again(tmp_path: Path) -> None:
    camera = door()
    with running_mosquitto(tmp_path) as broker, running_sink(broker.url, tmp_path / "ha", camera) as sink:
        sink.emit(camera.result())
        until(lambda: sink.connected, "it is connected")
        broker.kill()
        until(lambda: not sink.connected, "the end is noticed")
        for _ in range(100):
            sink.emit(camera.result())  # nobody waits, nothing grows
        broker.start()
        with listening(broker.port) as heard:
            until(lambda: heard.last(STATE).get(OCCUPIED) == "OFF", "the state is told")
            check_announcement(CONFIG, heard.of(CONFIG)[-1])
            assert heard.of(AVAILABILITY)[-1] == b"online"


def test_what_vanishes_is_removed_also_over_a_restart(mosquitto: Mosquitto, heard: Listener, tmp_path: Path) -> None:
    camera, yard = door(), Camera("yard", lawn__inside=1)
    with running_sink(mosquitto.url, tmp_path / "ha", camera, yard) as sink:
        sink.emit(camera.result())
        sink.emit(yard.result())
        until(lambda: heard.last(STATE).get("occupancy__yard__lawn__inside") == "ON", "both are told")
    fewer = Camera("door", porch__inside=0)
    with running_sink(mosquitto.url, tmp_path / "ha", fewer) as sink:
        until(lambda: heard.last(CONFIG)["cmps"]["fps__yard"] == {"p": "sensor"}, "the source that is gone is removed")
        assert OCCUPIED in check_announcement(CONFIG, heard.of(CONFIG)[-1]), "not known before its first frame"
        sink.emit(fewer.result())
        until(
            lambda: heard.last(CONFIG)["cmps"][OCCUPIED] == {"p": "binary_sensor"}, "the zone that is gone is removed"
        )
        assert "occupancy__door__porch__inside" in check_announcement(CONFIG, heard.of(CONFIG)[-1])
        assert not {OCCUPIED, "fps__yard"} & set(heard.last(STATE))


def test_a_device_that_is_killed_becomes_unavailable(mosquitto: Mosquitto, heard: Listener, tmp_path: Path) -> None:
    with Child("home_assistant", mosquitto.url, tmp_path / "ha") as child:
        until(lambda: heard.of(AVAILABILITY) == [b"online"], "it is there")
        child.kill()
        until(lambda: heard.of(AVAILABILITY)[-1] == b"offline", "the broker publishes its will")


def test_pictures_leave_the_device_only_when_asked_for(mosquitto: Mosquitto, heard: Listener, tmp_path: Path) -> None:
    topic = "edgecv/acme/door-1/ha/image/door"
    event = Event(kind="line.crossed", time_ns=0, source_id="door")
    camera = door()
    with running_sink(mosquitto.url, tmp_path / "ha", camera) as sink:
        sink.emit(camera.result(0, events=(event,)))
        until(lambda: heard.last(STATE).get("presence__door__person") == "ON", "it is told")
        assert not heard.of(topic)
        assert "snapshot__door" not in heard.last(CONFIG)["cmps"]
    with running_sink(mosquitto.url, tmp_path / "ha", camera, snapshots=True, snapshot_every_s=1.0) as sink:
        for _ in range(30):
            sink.emit(camera.result(0, events=(event,), size=1200))
        until(lambda: heard.of(topic), "a picture comes")
        image = cv2.imdecode(np.frombuffer(heard.of(topic)[0], np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (960, 960, 3)
        entity = check_announcement(CONFIG, heard.of(CONFIG)[-1])["snapshot__door"]
        assert (entity["p"], entity["img_t"], entity["cont_type"]) == ("image", topic, "image/jpeg")
        assert len(heard.of(topic)) == 1
    with running_sink(mosquitto.url, tmp_path / "ha", camera):
        until(lambda: heard.of(topic)[-1] == b"", "the broker keeps no picture of a device that sends none")
        assert heard.last(CONFIG)["cmps"]["snapshot__door"] == {"p": "image"}


def test_a_broker_that_refuses_says_so(tmp_path: Path) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic read #\ntopic write edgecv/#\n")
    camera = door()
    config = ["allow_anonymous true", f"acl_file {rules}"]
    with running_mosquitto(tmp_path, config) as broker, running_sink(broker.url, tmp_path / "ha", camera) as sink:
        sink.emit(camera.result())
        until(lambda: CONFIG in sink.trouble, "it says what may not be written")
        assert "docs/home-assistant.md" in sink.trouble


def test_the_file_of_another_device_and_a_damaged_one_are_as_good_as_none(
    mosquitto: Mosquitto, heard: Listener, tmp_path: Path
) -> None:
    kept = tmp_path / "ha/home_assistant.json"
    kept.parent.mkdir()
    for text in ('{"source": "edgecv/acme/other", "told": {"fps__x": "sensor"}}', "{", "null"):
        kept.write_text(text)
        camera = door()
        with running_sink(mosquitto.url, kept.parent, camera) as sink:
            sink.emit(camera.result())
            until(lambda text=text: kept.read_text() != text, "it is written anew")
            assert "fps__x" not in heard.last(CONFIG).get("cmps", {})
        assert json.loads(kept.read_text())["source"] == "edgecv/acme/door-1"
        assert kept.stat().st_mode & 0o077 == 0


TOML = re.findall(r"```toml\n(.*?)```", (CHECKOUT / "docs/home-assistant.md").read_text(), re.DOTALL)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgecv", "run", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_the_five_lines_of_the_document_run_with_its_zone(
    mosquitto: Mosquitto, heard: Listener, tmp_path: Path
) -> None:
    text, zone = TOML
    assert len(text.splitlines()) == 5
    for written, ours in (
        (r'"yolov8n.ecv"', f'"{write_bundle(tmp_path / "tiny.ecv").path}"'),
        (r'"usb://0"', '"synthetic://?frames=45&live=1&fps=30"'),
        (r'"mqtt://.*?"', f'"{mosquitto.url}"'),
    ):
        text, replaced = re.subn(written, ours, text)
        assert replaced == 1, written
    (tmp_path / "app.toml").write_text(text + zone)
    done = run(tmp_path, "--config", "app.toml")
    assert done.returncode == 0, done.stderr
    until(lambda: heard.of("edgecv/home/door-1/ha/availability")[-1:] == [b"offline"], "it said goodbye")
    config = "homeassistant/device/home/door-1/config"
    assert {"fps__door", OCCUPIED} <= set(check_announcement(config, heard.of(config)[-1]))
    assert {"count__door__lobby__entered", OCCUPIED} <= set(heard.last("edgecv/home/door-1/ha/state"))
    assert not (tmp_path / "outbox/outbox.db").exists(), "nothing of it goes through an outbox"

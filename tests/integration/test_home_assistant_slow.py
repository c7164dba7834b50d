"""Home Assistant itself reads what we announce: its schemas, and its core with the MQTT integration on a real broker."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgecv.events import Event
from tests.conftest import CHECKOUT
from tests.unit.cloud_sync.home_assistant import (
    CONFIG,
    LABELS,
    STATE,
    Camera,
    check_announcement,
    listening,
    running_sink,
    temperature,
)
from tests.unit.cloud_sync.support import Child, Mosquitto, running_mosquitto, until

PYTHON = Path(os.environ.get("EDGECV_HOME_ASSISTANT", CHECKOUT / ".cache/homeassistant/bin/python"))
PROGRAM = Path(__file__).with_name("home_assistant_core.py")
WHO = "edgecv/acme/door-1/"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON.exists(), reason=f"Home Assistant is not in {PYTHON.parent} (make test-home-assistant)"
    ),
]


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path) as broker:
        yield broker


def check(*announcements: object) -> list[list[str]]:
    """What Home Assistant has against each of these."""
    text = json.dumps(announcements)
    command = [str(PYTHON), str(PROGRAM), "check"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    problems: list[list[str]] = json.loads(done.stdout)
    return problems


class HomeAssistant:
    """A process with the core and its MQTT integration; ``seen`` is what it knows, by the end of the unique id."""

    def __init__(self, port: int, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._log = (folder / "stderr").open("a+")
        self._process = subprocess.Popen(
            [str(PYTHON), str(PROGRAM), "run", str(port), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)

    @property
    def seen(self) -> dict[str, dict[str, Any]]:
        known = json.loads(self._lines[-1]) if self._lines else {}
        return {name.removeprefix(WHO): entity for name, entity in known.items()}

    def state(self, key: str) -> str | None:
        return self.seen.get(key, {}).get("state")

    def problems(self) -> list[str]:
        """What it logged of our messages."""
        self._log.flush()
        self._log.seek(0)
        words = ("mqtt", "edgecv", "template")
        return [
            line for line in self._log if line.startswith(("WARNING", "ERROR")) and any(word in line for word in words)
        ]

    def stop(self) -> None:
        """Let it end in order: it remembers its entities."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20.0)
        finally:
            self._process.kill()
            self._process.wait(10.0)
        self._log.close()


@contextmanager
def running(broker: Mosquitto, folder: Path) -> Iterator[HomeAssistant]:
    home = HomeAssistant(broker.port, folder)
    try:
        yield home
    finally:
        home.stop()


def test_its_schemas_take_every_entity_and_refuse_what_our_rules_refuse(mosquitto: Mosquitto, tmp_path: Path) -> None:
    camera = Camera("rtsp://10.0.0.7/live 1", lobby__inside=0, lobby__entered__person=1, gate__in=2)
    gauges = [temperature()]
    with (
        listening(mosquitto.port) as heard,
        running_sink(mosquitto.url, tmp_path / "ha", camera, gauges=gauges, snapshots=True, classes=LABELS) as sink,
    ):
        sink.emit(camera.result(0, 2))
        until(lambda: len(heard.last(CONFIG).get("cmps", {})) >= 12, "everything is announced")
        payload = heard.of(CONFIG)[-1]
    wrong = [json.loads(payload) for _ in range(4)]
    for document, (kind, setting, value) in zip(
        wrong, (("age", "unit_of_meas", "fps"), ("age", "dev_cla", "none"), ("state", "val_tmpl", "x")), strict=False
    ):
        key = next(key for key in document["cmps"] if key.startswith(f"{kind}__"))
        document["cmps"][key][setting] = value
    del wrong[3]["o"]
    right, *found = check(json.loads(payload), *wrong)
    assert right == []
    assert all(found), found
    for document in wrong:
        with pytest.raises((AssertionError, KeyError)):
            check_announcement(CONFIG, json.dumps(document).encode())


def test_home_assistant_shows_the_pipeline_and_forgets_what_is_gone(mosquitto: Mosquitto, tmp_path: Path) -> None:
    camera, yard = Camera("door", lobby__inside=2, lobby__entered=5), Camera("yard", lawn__inside=0)
    event = Event(kind="line.crossed", time_ns=0, source_id="door")
    with running(mosquitto, tmp_path / "hass") as home:
        gauges = [temperature(48.0)]
        with running_sink(mosquitto.url, tmp_path / "ha", camera, yard, gauges=gauges, snapshots=True) as sink:
            sink.emit(camera.result(0, events=(event,)))
            sink.emit(yard.result())
            until(lambda: home.state("occupancy__door__lobby__inside") == "on", "it shows the occupancy", 60.0)
            until(lambda: home.seen["snapshot__door"]["picture_bytes"] > 100, "and the picture")
            assert home.seen["gauge__device_temperature_c"]["state"] == "48.0"
            assert home.seen["gauge__device_temperature_c"]["unit"] == "°C"
            assert home.state("state__door") == "live"
            assert home.state("count__door__lobby__entered") == "5"
            assert home.state("fps__door") == "12.3"
            assert home.state("occupancy__yard__lawn__inside") == "off"
            yard.state = "reconnecting"
            until(lambda: home.state("occupancy__yard__lawn__inside") == "unknown", "nobody knows about the yard")
        until(lambda: home.state("state__door") == "unavailable", "the device said goodbye")
        with running_sink(mosquitto.url, tmp_path / "ha", camera, announce_every_s=5.0) as sink:
            sink.emit(camera.result(0))
            until(lambda: home.state("state__door") == "live", "it is back")
            until(lambda: not any("yard" in key or "snapshot" in key for key in home.seen), "what is gone is removed")
        assert home.problems() == []


def test_a_restart_of_home_assistant_and_the_death_of_the_device(mosquitto: Mosquitto, tmp_path: Path) -> None:
    camera = Camera("door", lobby__inside=2)
    with running_sink(mosquitto.url, tmp_path / "ha", camera) as sink:
        sink.emit(camera.result(0))
        for _ in range(2):  # it starts while the device has nothing new to say
            with running(mosquitto, tmp_path / "hass") as home:
                until(lambda home=home: home.state("occupancy__door__lobby__inside") == "on", "it is shown", 60.0)
                assert home.problems() == []
    with running(mosquitto, tmp_path / "hass") as home, listening(mosquitto.port) as heard:
        with Child("home_assistant", mosquitto.url, tmp_path / "ha") as child:
            until(lambda: home.state("state__door") == "live", "the device is there", 60.0)
            child.kill()
            until(lambda: home.state("state__door") == "unavailable", "its death is noticed")
        assert heard.last(STATE), "its last state stays, unavailable"


def test_what_vanished_while_home_assistant_was_off_is_removed_when_it_is_back(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    camera, yard = Camera("door", lobby__inside=2), Camera("yard", lawn__inside=0)
    with (
        running(mosquitto, tmp_path / "hass") as home,
        running_sink(mosquitto.url, tmp_path / "ha", camera, yard, snapshots=True) as sink,
    ):
        sink.emit(camera.result(0))
        sink.emit(yard.result(0))
        until(lambda: home.state("occupancy__yard__lawn__inside") == "off", "it is shown", 60.0)
        until(lambda: "snapshot__yard" in home.seen, "with its picture")
    with (
        running_sink(mosquitto.url, tmp_path / "ha", camera, announce_every_s=3.0) as sink,
        listening(mosquitto.port) as heard,
    ):
        sink.emit(camera.result(0))
        until(
            lambda: heard.last(CONFIG).get("cmps", {}).get("fps__yard") == {"p": "sensor"}, "it is announced to nobody"
        )
        with running(mosquitto, tmp_path / "hass") as home:
            until(lambda: home.state("state__door") == "live", "it is back", 60.0)
            until(
                lambda: not any("yard" in key or "snapshot" in key for key in home.seen),
                "what is gone is removed",
                30.0,
            )
            assert home.problems() == []
            assert json.loads((tmp_path / "ha/home_assistant.json").read_text())["removed"] == {}


def test_values_that_are_not_renewed_expire(mosquitto: Mosquitto, tmp_path: Path) -> None:
    camera = Camera("door", lobby__inside=2)
    with (
        running(mosquitto, tmp_path / "hass") as home,
        listening(mosquitto.port) as heard,
        running_sink(mosquitto.url, tmp_path / "ha", camera, expire_after_s=10) as sink,
    ):

        def is_shown() -> bool:
            sink.emit(camera.result(0))
            return home.state("occupancy__door__lobby__inside") == "on"

        until(is_shown, "it is shown", 60.0, pause_s=0.2)
        told = len(heard.of(STATE))
        until(lambda: len(heard.of(STATE)) >= told + 2, "the same is told again before it expires", 20.0)
        # The loop hangs: the camera is live and no frame comes through. Nobody knows who is there.
        until(lambda: home.state("occupancy__door__lobby__inside") == "unknown", "no frame for ten seconds", 20.0)

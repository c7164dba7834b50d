"""A pipeline's status by hand, a listener to every topic, and what Home Assistant allows in an announcement."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho

from edgecv.cloud_sync.home_assistant.options import HomeAssistantOptions
from edgecv.cloud_sync.home_assistant.sink import HomeAssistantSink
from edgecv.events import Event
from edgecv.results import Detections, Frame, Result
from edgecv.status import Gauge, PipelineStatus, SourceHealth, SourceState, SourceStatus
from tests.unit.cloud_sync.support import FAST

CONFIG = "homeassistant/device/acme/door-1/config"
BIRTH = "homeassistant/status"
STATE = "edgecv/acme/door-1/ha/state"
AVAILABILITY = "edgecv/acme/door-1/ha/availability"
LABELS = ("person", "car", "traffic light")


class Camera:
    """One source whose numbers a test sets."""

    def __init__(self, name: str, **counts: int) -> None:
        self.name, self.counts = name, {key.replace("__", "."): count for key, count in counts.items()}
        self.state: SourceState = "live"
        self.frames = 0

    def status(self) -> SourceStatus:
        return SourceStatus(
            source_id=self.name,
            health=SourceHealth(state=self.state, since_ns=0),
            frames=self.frames,
            fps=12.34,
            age_ms=56.7,
            counts=dict(self.counts) if self.frames else {},
        )

    def result(self, *class_ids: int, events: tuple[Event, ...] = (), size: int = 64) -> Result:
        """One more frame in which these classes were found."""
        self.frames += 1
        found = Detections(
            xyxy=np.tile(np.array([[10, 5, 50, 25]], np.float32), (len(class_ids), 1)),
            confidence=np.full(len(class_ids), 0.5, np.float32),
            class_id=np.array(class_ids, np.int64),
        )
        frame = Frame(image=np.full((size, size, 3), 128, np.uint8), index=self.frames, source_id=self.name)
        return Result(frame=frame, labels=LABELS, detections=found, events=events)


def status_of(*cameras: Camera) -> PipelineStatus:
    return PipelineStatus(
        running=True,
        model="demo",
        elapsed_s=1.0,
        frames=1,
        fps=1.0,
        age_p50_ms=1.0,
        age_p99_ms=1.0,
        stage_p50_ms={},
        sources=tuple(camera.status() for camera in cameras),
        sinks=(),
    )


def temperature(value: float | None = 51.26) -> Gauge:
    return Gauge(name="device_temperature_c", help="Temperature of the processor.", read=lambda: value)


@contextmanager
def running_sink(url: str, folder: Path, *cameras: Camera, **more: Any) -> Iterator[HomeAssistantSink]:
    """A sink that shows these cameras; options that are not the sink's are those of ``HomeAssistantOptions``."""
    own = {name: more.pop(name) for name in ("gauges", "device") if name in more}
    options = HomeAssistantOptions(**{"birth_delay_s": 0.2, "announce_every_s": 0.2, **more})
    settings = {"tenant": "acme", "device": "door-1", "reconnect": FAST, "options": options, **own}
    sink = HomeAssistantSink(url, folder=folder, **settings)
    try:
        sink.attach(lambda: status_of(*cameras))
        yield sink
    finally:
        sink.close()


class Listener:
    """Hears every topic of a broker, in order: topic, payload, and whether it was kept by the broker before."""

    def __init__(self, port: int) -> None:
        self._lock = threading.Lock()
        self._heard: list[tuple[str, bytes, bool]] = []
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_message = self._hear
        ready = threading.Event()
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe("#", qos=1)
        assert ready.wait(10.0)

    def _hear(self, _client: object, _data: object, message: Any) -> None:
        with self._lock:
            self._heard.append((message.topic, bytes(message.payload), bool(message.retain)))

    def of(self, topic: str) -> list[bytes]:
        with self._lock:
            return [payload for heard, payload, _ in self._heard if heard == topic]

    def last(self, topic: str) -> Any:
        """The last message of a topic as JSON; an empty object before there is one."""
        payloads = self.of(topic)
        return json.loads(payloads[-1]) if payloads and payloads[-1] else {}

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def listening(port: int) -> Iterator[Listener]:
    listener = Listener(port)
    try:
        yield listener
    finally:
        listener.close()


# What Home Assistant's schemas allow (the package `homeassistant` 2025.4.4: components/mqtt/schemas.py, sensor.py,
# binary_sensor.py, image.py and components/sensor/const.py), by the abbreviations of components/mqtt/abbreviations.py.
# tests/integration/test_home_assistant_slow.py holds the same payloads against the schemas themselves.
_ROOT = {"dev", "o", "cmps", "stat_t", "avty_t", "qos"}
_DEVICE = {"ids", "name", "mf", "mdl", "sw"}
_ENTITY = {"p", "uniq_id", "name", "ent_cat"}
_RULES: Mapping[str, tuple[set[str], set[str]]] = {  # platform: must have, may have
    "sensor": (
        {"uniq_id", "val_tpl"},
        _ENTITY | {"val_tpl", "dev_cla", "unit_of_meas", "stat_cla", "exp_aft", "ops", "sug_dsp_prc"},
    ),
    "binary_sensor": ({"uniq_id", "val_tpl"}, _ENTITY | {"val_tpl", "dev_cla", "exp_aft"}),
    "image": ({"uniq_id", "img_t"}, _ENTITY | {"img_t", "cont_type"}),
}
_UNITS = {
    None: {None, "fps"},
    "temperature": {"°C", "°F", "K"},
    "duration": {"d", "h", "min", "s", "ms"},
    "power": {"mW", "W", "kW", "MW", "GW", "TW"},
    "frequency": {"Hz", "kHz", "MHz", "GHz"},
    "enum": {None},
}


def check_announcement(topic: str, payload: bytes) -> dict[str, dict[str, Any]]:
    """The entities of an announcement, after every rule; components that are only to be removed are left out."""
    levels = topic.split("/")
    assert levels[1] == "device"
    assert levels[-1] == "config"
    assert all(level and level.replace("-", "").replace("_", "").isalnum() and level.isascii() for level in levels)
    assert len(levels) in (4, 5)
    document = json.loads(payload)
    assert set(document) == _ROOT
    assert set(document["dev"]) <= _DEVICE
    assert document["dev"]["ids"]
    assert set(document["o"]) <= {"name", "sw", "url"}
    assert document["o"]["name"], "Home Assistant takes no device without an origin"
    assert document["qos"] in (0, 1, 2)
    assert all(" " not in key for key in document["cmps"])
    entities = {key: entity for key, entity in document["cmps"].items() if set(entity) != {"p"}}
    for key, entity in entities.items():
        _check_entity(key, entity)
    ids = [entity["uniq_id"] for entity in entities.values()]
    assert len(set(ids)) == len(ids)
    return entities


def _check_entity(key: str, entity: Mapping[str, Any]) -> None:
    must, may = _RULES[entity["p"]]
    assert must <= set(entity) <= may | must, key
    assert 0 < len(entity["name"]) <= 200
    assert entity.get("ent_cat") in (None, "diagnostic"), "a sensor cannot be a setting"
    assert isinstance(entity.get("exp_aft", 0), int)
    if entity["p"] == "binary_sensor":
        assert entity["dev_cla"] == "occupancy"
    if entity["p"] == "sensor":
        assert entity.get("unit_of_meas") in _UNITS[entity.get("dev_cla")], key
        assert entity.get("stat_cla") in (None, "measurement", "total_increasing")
        if "ops" in entity:
            assert entity["ops"]
            assert entity["dev_cla"] == "enum"
            assert not {"stat_cla", "unit_of_meas"} & set(entity)

"""Home Assistant itself; started by its own Python (``make test-home-assistant``), never imported by ours.

python home_assistant_core.py check                 reads announcements from stdin; says what its schemas have against each
python home_assistant_core.py run PORT FOLDER       runs with its MQTT integration; prints all states twice a second, as JSON,
                                                    until stdin ends
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from homeassistant import bootstrap, config_entries, core, loader
from homeassistant.components.mqtt import binary_sensor, discovery, image, sensor
from homeassistant.components.mqtt.schemas import DEVICE_DISCOVERY_SCHEMA
from homeassistant.helpers import entity, entity_registry, frame, template, translation

PLATFORMS = {"binary_sensor": binary_sensor, "image": image, "sensor": sensor}


async def check(announcements: list[Any]) -> list[list[str]]:
    """What is wrong with each, by the schema of devices and by that of each platform, which here take no unknown key."""
    frame.async_setup(core.HomeAssistant(tempfile.gettempdir()))  # for its check of templates
    problems: list[str] = []
    warnings = logging.Handler(logging.WARNING)  # of a unit that does not fit, 2025.4 warns and later ones refuse it
    warnings.emit = lambda record: problems.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("homeassistant.components.mqtt").addHandler(warnings)
    found = []
    for announcement in announcements:
        problems += _checked(discovery.MQTTDiscoveryPayload(announcement))
        found.append(problems.copy())
        problems.clear()
    return found


def _checked(payload: discovery.MQTTDiscoveryPayload) -> Iterator[str]:
    discovery._replace_all_abbreviations(payload)
    yield from _refused(DEVICE_DISCOVERY_SCHEMA, payload)
    for key, component in payload["components"].items():
        platform = component.pop("platform")
        if component:  # else it is to be removed
            common = {} if platform == "image" else {"state_topic": payload["state_topic"]}
            yield from _refused(PLATFORMS[platform].PLATFORM_SCHEMA_MODERN, {**common, **component}, f"{key}: ")


def _refused(schema: Callable[[Any], Any], settings: Any, where: str = "") -> Iterator[str]:
    try:
        schema(settings)
    except Exception as error:  # noqa: BLE001 - whatever is wrong is printed
        yield f"{where}{error}"


async def run(port: int, folder: str) -> None:
    """As ``bootstrap`` does it, without a web server, which the MQTT integration depends on for certificates alone."""
    Path(folder, "configuration.yaml").touch()
    hass = core.HomeAssistant(folder)
    hass.config.skip_pip = True
    loader.async_setup(hass)
    for helper in (entity, template, translation):
        helper.async_setup(hass)
    hass.config_entries = config_entries.ConfigEntries(hass, {})
    await hass.config_entries.async_initialize()
    await bootstrap.async_load_base_functionality(hass)
    hass.config.components |= {"http", "file_upload"}
    hass.http = SimpleNamespace(register_view=lambda _view: None)
    entry = config_entries.ConfigEntry(
        version=1,
        minor_version=2,
        domain="mqtt",
        title="mqtt",
        data={"broker": "127.0.0.1", "port": port, "protocol": "5"},
        options={},
        source="user",
        unique_id=None,
        discovery_keys={},
        subentries_data=None,
    )
    if hass.config_entries.async_entries("mqtt"):  # of its last start
        await hass.config_entries.async_setup(hass.config_entries.async_entries("mqtt")[0].entry_id)
    else:
        await hass.config_entries.async_add(entry)
    await hass.async_start()
    asked_to_stop = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    while not asked_to_stop.done():
        print(json.dumps(await _seen(hass)), flush=True)
        await asyncio.sleep(0.5)
    await hass.async_stop(force=True)


async def _seen(hass: core.HomeAssistant) -> dict[str, Any]:
    registry = entity_registry.async_get(hass)
    seen = {}
    for one in registry.entities.values():
        state = hass.states.get(one.entity_id)
        seen[one.unique_id] = {
            "id": one.entity_id,
            "state": None if state is None else state.state,
            "unit": None if state is None else state.attributes.get("unit_of_measurement"),
            "picture_bytes": await _picture_bytes(hass, one.entity_id),
        }
    return seen


async def _picture_bytes(hass: core.HomeAssistant, entity_id: str) -> int:
    if not entity_id.startswith("image."):
        return 0
    picture = hass.data["image"].get_entity(entity_id) if "image" in hass.data else None
    return len(await picture.async_image() or b"") if picture is not None else 0


if __name__ == "__main__":
    if sys.argv[1] == "check":
        print(json.dumps(asyncio.run(check(json.load(sys.stdin)))))
    else:
        asyncio.run(run(int(sys.argv[2]), sys.argv[3]))

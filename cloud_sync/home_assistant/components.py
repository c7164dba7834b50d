"""The entities of a device, as Home Assistant's device discovery describes them.

Source: https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload and the schemas of the package
``homeassistant`` (2025.4.4 and 2026.11.0), against which the tests hold every payload. Keys are abbreviated as in
``components/mqtt/abbreviations.py`` there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import msgspec

from edgecv._internal.printable import printable
from edgecv.cloud_sync.home_assistant.inventory import Inventory, SourceParts
from edgecv.cloud_sync.home_assistant.names import Topics, key_of
from edgecv.cloud_sync.home_assistant.options import HomeAssistantOptions
from edgecv.status import SourceState
from edgecv.version import __version__

MAX_CONFIG_BYTES = 60 * 1024  # what every broker takes, with room for its headers
SNAPSHOT = "snapshot"
_MOST_CHARACTERS = 80  # of a name
_STATES = list(get_args(SourceState))
# Device class and unit of a gauge, by the end of its name.
_UNITS = {
    "_c": ("temperature", "°C"),
    "_w": ("power", "W"),
    "_mhz": ("frequency", "MHz"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """One entity: where its value stands in the state, and what Home Assistant is told of it."""

    key: str
    platform: str
    settings: Mapping[str, Any]  # as in the discovery payload, without `p` and `uniq_id`

    def document(self, topics: Topics) -> dict[str, Any]:
        """Its part of the discovery payload."""
        has_value = self.platform != "image"
        template = {"val_tpl": f"{{{{ value_json['{self.key}'] }}}}"} if has_value else {}
        return {
            "p": self.platform,
            "uniq_id": topics.unique_id(self.key),
            **template,
            **{key: value for key, value in self.settings.items() if value is not None},
        }


class Catalogue:
    """Makes entities of what a device has.

    A new kind of entity is one more method here, and its value one more line in ``state.py``.
    """

    def __init__(self, topics: Topics, options: HomeAssistantOptions) -> None:
        self._topics, self._options = topics, options

    def entities(self, inventory: Inventory) -> list[Entity]:
        """Every entity; the first ones matter most."""
        found = [entity for name, parts in inventory.sources.items() for entity in self._of_source(name, parts)]
        return [*found, *(self._gauge(name) for name in inventory.gauges)]

    def fitting(self, inventory: Inventory) -> tuple[list[Entity], int]:
        """The entities that one message can announce, and how many are left out."""
        entities = self.entities(inventory)
        room = MAX_CONFIG_BYTES - len(self.payload([], inventory, revived=True))
        for at, entity in enumerate(entities):
            room -= len(entity.key) + 4 + len(msgspec.json.encode(entity.document(self._topics)))
            if room < 0:
                return entities[:at], len(entities) - at
        return entities, 0

    def payload(self, entities: list[Entity], inventory: Inventory, *, revived: bool = False) -> bytes:
        """The retained message that announces the device; a component with nothing but its platform is removed.

        With ``revived`` those that are gone stand there with what is needed to find them: a Home Assistant that was off
        when they vanished removes only what it has found since it started.
        """
        address, name = self._topics.address, self._options.name
        gone = {
            key: self._revived(key, platform) if revived else {"p": platform}
            for key, platform in inventory.removed.items()
        }
        return msgspec.json.encode(
            {
                "dev": {
                    "ids": [address.source],
                    "name": _name(name or address.device),
                    "mf": "EdgeCV",
                    "mdl": "camera pipeline",
                    "sw": __version__,
                },
                "o": {"name": "EdgeCV", "sw": __version__},
                "stat_t": self._topics.state,
                "avty_t": self._topics.availability,
                "qos": 1,
                "cmps": {**gone, **{entity.key: entity.document(self._topics) for entity in entities}},
            }
        )

    def _revived(self, key: str, platform: str) -> dict[str, Any]:
        """An entity without a value: nobody ever writes to its topic."""
        topic = {"img_t" if platform == "image" else "stat_t": self._topics.gone}
        return {"p": platform, "uniq_id": self._topics.unique_id(key), "name": "removed", **topic}

    def _of_source(self, source: str, parts: SourceParts) -> Iterator[Entity]:
        for label in parts.classes:
            yield self._occupancy(key_of("presence", source, label), f"{source} {label} occupancy")
        for counter in parts.counters:
            pieces = counter.split(".", 2)
            if pieces[1:2] == ["inside"]:
                words = " ".join(piece for piece in (*pieces[:1], *pieces[2:]))
                yield self._occupancy(key_of("occupancy", source, *pieces), f"{source} {words} occupancy")
        yield from self._health(source)
        if self._options.snapshots:
            settings = {"name": _name(f"{source} last snapshot"), "img_t": self._topics.image(source)}
            yield Entity(
                key=key_of(SNAPSHOT, source), platform="image", settings={**settings, "cont_type": "image/jpeg"}
            )
        for counter in parts.counters:
            yield self._count(source, counter)

    def _health(self, source: str) -> Iterator[Entity]:
        yield self._sensor(key_of("state", source), f"{source} source", dev_cla="enum", ops=_STATES)
        yield self._sensor(
            key_of("fps", source), f"{source} frame rate", unit_of_meas="fps", stat_cla="measurement", sug_dsp_prc=1
        )
        yield self._sensor(
            key_of("age", source),
            f"{source} result age",
            dev_cla="duration",
            unit_of_meas="ms",
            stat_cla="measurement",
            sug_dsp_prc=0,
        )

    def _occupancy(self, key: str, name: str) -> Entity:
        settings = {"name": _name(name), "dev_cla": "occupancy", "exp_aft": self._options.expire_after_s}
        return Entity(key=key, platform="binary_sensor", settings=settings)

    def _count(self, source: str, counter: str) -> Entity:
        is_now = counter.split(".")[1:2] == ["inside"]
        settings = {
            "name": _name(f"{source} {counter.replace('.', ' ')}"),
            "stat_cla": "measurement" if is_now else "total_increasing",
            "exp_aft": self._options.expire_after_s if is_now else None,  # a total stays true
        }
        return Entity(key=key_of("count", source, *counter.split(".", 2)), platform="sensor", settings=settings)

    def _gauge(self, name: str) -> Entity:
        end = next((end for end in _UNITS if name.endswith(end)), "")
        kind, unit = _UNITS.get(end, (None, None))
        words = name.removesuffix(end).removeprefix("device_").replace("_", " ").capitalize()
        return self._sensor(key_of("gauge", name), words, dev_cla=kind, unit_of_meas=unit, stat_cla="measurement")

    def _sensor(self, key: str, name: str, **settings: Any) -> Entity:
        """A sensor about the device itself."""
        more = {"name": _name(name), "ent_cat": "diagnostic", "exp_aft": self._options.expire_after_s}
        return Entity(key=key, platform="sensor", settings={**more, **settings})


def _name(text: str) -> str:
    return printable(text, _MOST_CHARACTERS)

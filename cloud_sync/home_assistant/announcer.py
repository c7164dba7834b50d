"""What Home Assistant was told, and what it has to be told next: messages only, no connection and no thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from edgecv.cloud_sync.home_assistant.components import SNAPSHOT, Catalogue, Entity
from edgecv.cloud_sync.home_assistant.inventory import Inventory, InventoryFile
from edgecv.cloud_sync.home_assistant.names import Topics, key_of
from edgecv.cloud_sync.home_assistant.options import HomeAssistantOptions
from edgecv.cloud_sync.home_assistant.sightings import Seen, Sightings
from edgecv.cloud_sync.home_assistant.snapshots import Snapshots
from edgecv.cloud_sync.home_assistant.state import Freshness, Measured, Value, values_measured, values_now
from edgecv.cloud_sync.notices import Notice
from edgecv.status import Gauge, PipelineStatus, SourceStatus

_log = logging.getLogger(__name__)

_STATE_S = 1.0  # least time between two states
_LOOK_S = 0.25  # least time between two looks at the pipeline
_RENEWALS = 3  # how often a state is renewed within the time after which it expires


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message that the broker keeps."""

    topic: str
    payload: bytes = field(repr=False)


class Announcer:
    """Makes the messages that are due: the announcement when it changed, the state on change, and pictures."""

    def __init__(
        self,
        topics: Topics,
        options: HomeAssistantOptions,
        *,
        file: InventoryFile,
        sightings: Sightings,
        snapshots: Snapshots | None,
        gauges: Sequence[Gauge],
    ) -> None:
        self._topics, self._options, self._file = topics, options, file
        self._sightings, self._snapshots, self._gauges = sightings, snapshots, gauges
        self._catalogue = Catalogue(topics, options)
        self._inventory = file.read()
        self._freshness = Freshness(options.expire_after_s)
        self._measured = Measured()
        self._notice = Notice(_log)
        self._pictures: dict[str, bytes] = {}
        self._looked_s = float("-inf")
        self._asked_s: float | None = None  # when the pipeline was asked first
        self._announced: tuple[object, object] = (None, None)  # the sources and gauges of the last announcement
        self.repeat()

    def start_again(self) -> None:
        """Home Assistant has started: tell it everything, and have it remove what vanished while it was off."""
        self.repeat()
        self._revive = bool(self._inventory.removed)

    def repeat(self) -> None:
        """Tell everything again: the broker may be another one."""
        self._revive = self._has_revived = False
        self._config, self._state = b"", b""
        self._config_s = self._state_s = float("-inf")
        self._untold = set(self._pictures)

    def availability(self, is_online: bool) -> Message:
        """Whether the values mean anything."""
        return Message(topic=self._topics.availability, payload=b"online" if is_online else b"offline")

    def due(self, ask: Callable[[], PipelineStatus | None], now_s: float) -> Iterator[Message]:
        """The messages to send now; ``ask`` says how the pipeline does."""
        if now_s - self._state_s < _STATE_S or now_s - self._looked_s < _LOOK_S:
            return
        self._looked_s = now_s
        status = ask()
        if status is None or not status.sources:
            return
        self._asked_s = now_s if self._asked_s is None else self._asked_s
        seen = self._sightings.look(one.source_id for one in status.sources)
        values = self._values(status.sources, seen, now_s)
        # What a source has is known with its first frame; one announcement of all is better than two.
        if len(seen) == len(status.sources) or now_s - self._asked_s >= self._options.announce_every_s:
            yield from self._announce(values, now_s)
        yield from self._tell(values, now_s)
        yield from self._show(now_s)

    def _values(self, statuses: Sequence[SourceStatus], seen: Mapping[str, Seen], now_s: float) -> dict[str, Value]:
        fresh = self._freshness.of(statuses, now_s)
        self._inventory = self._inventory.with_sources(statuses, seen, self._options.classes)
        measured = self._measured(now_s, lambda: values_measured(statuses, fresh, self._gauges))
        return {**values_now(self._inventory, statuses, seen, fresh, now_s), **measured}

    def _announce(self, values: dict[str, Value], now_s: float) -> Iterator[Message]:
        if now_s - self._config_s < self._options.announce_every_s:
            return
        names = [gauge.name for gauge in self._gauges]
        gauges = tuple(name for name in names if key_of("gauge", name) in values or name in self._inventory.gauges)
        self._inventory = msgspec.structs.replace(self._inventory, gauges=gauges)
        if not self._config or (self._inventory.sources, gauges) != self._announced:
            self._announced, self._config_s = (self._inventory.sources, gauges), now_s
            yield from self._announcement()

    def _announcement(self) -> Iterator[Message]:
        before, entities = self._inventory, self._fitting()
        self._keep(before.with_told({entity.key: entity.platform for entity in entities}))
        self._config = self._catalogue.payload(entities, self._inventory, revived=self._revive)
        yield Message(topic=self._topics.config, payload=self._config)
        yield from self._erase(before)
        if self._has_revived:  # and removed now: it need not be said again
            self._keep(msgspec.structs.replace(self._inventory, removed={}))
        if self._revive:
            self._announced = (None, None)  # once more, without what is gone
        self._revive, self._has_revived = False, self._revive

    def _keep(self, inventory: Inventory) -> None:
        self._inventory = inventory
        if problem := self._file.write(inventory):
            self._notice(problem)

    def _fitting(self) -> list[Entity]:
        entities, left_out = self._catalogue.fitting(self._inventory)
        if left_out:
            self._notice(
                f"Home Assistant is told of {len(entities)} entities; {left_out} more do not fit into one message. Count fewer "
                "classes, or name those that matter: classes in [home_assistant]."
            )
        return entities

    def _erase(self, before: Inventory) -> Iterator[Message]:
        """The pictures of sources that are gone, or were to leave the device no more, shall not stay at the broker."""
        for key in self._inventory.removed.keys() - before.removed.keys():
            if before.removed.get(key, before.told.get(key)) == "image":
                level = key.removeprefix(f"{SNAPSHOT}__")
                yield Message(topic=self._topics.image_at(level), payload=b"")

    def _tell(self, values: dict[str, Value], now_s: float) -> Iterator[Message]:
        # Every entity finds its key in the state: Home Assistant would log the ones that are missing.
        told = {key: values.get(key) for key, platform in self._inventory.told.items() if platform != "image"}
        payload = msgspec.json.encode(told)
        is_old = now_s - self._state_s >= self._options.expire_after_s / _RENEWALS
        if told and (payload != self._state or is_old):
            self._state, self._state_s = payload, now_s
            yield Message(topic=self._topics.state, payload=payload)

    def _show(self, now_s: float) -> Iterator[Message]:
        if self._snapshots is None:
            return
        self._snapshots.forget(self._inventory.sources)
        new = self._snapshots.due(now_s)
        pictures = {**self._pictures, **new}
        self._pictures = {name: data for name, data in pictures.items() if name in self._inventory.sources}
        for name in (self._untold | new.keys()) & self._pictures.keys():
            yield Message(topic=self._topics.image(name), payload=self._pictures[name])
        self._untold = set()

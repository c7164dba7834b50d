"""The topics of a device for Home Assistant, and the keys of its entities."""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass

from edgecv.cloud_sync.mqtt.topics import Address
from edgecv.errors import ConfigError

# Home Assistant takes no other characters in a discovery topic (TOPIC_MATCHER in its components/mqtt/discovery.py).
_LEVEL = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN = re.compile(r"[A-Za-z0-9-](?:[A-Za-z0-9_-]{0,38}[A-Za-z0-9-])?")
_OTHERS = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """Where one device writes for Home Assistant, and where it listens.

    Raises:
        ConfigError: Home Assistant does not take the name of the tenant or the device.
    """

    address: Address  # the device
    prefix: str  # of discovery

    def __post_init__(self) -> None:
        for kind, name in (("tenant", self.address.tenant), ("device", self.address.device)):
            if not _LEVEL.fullmatch(name):
                raise ConfigError(
                    f"Home Assistant does not take the {kind} name {name[:80]!r}.",
                    "It allows letters, digits, '_' and '-', but no dot.",
                )

    @property
    def config(self) -> str:
        """Where the device describes itself; tenant and device are levels, so that access rules can name them."""
        return f"{self.prefix}/device/{self.address.tenant}/{self.address.device}/config"

    @property
    def birth(self) -> str:
        """Where Home Assistant says that it has started."""
        return f"{self.prefix}/status"

    @property
    def state(self) -> str:
        """All values, in one flat JSON object."""
        return f"{self.address.source}/ha/state"

    @property
    def availability(self) -> str:
        """``online``, or ``offline``, which the broker says when the device vanishes."""
        return f"{self.address.source}/ha/availability"

    @property
    def gone(self) -> str:
        """The state of entities that are to be removed; nothing is written there."""
        return f"{self.address.source}/ha/gone"

    def unique_id(self, key: str) -> str:
        """By which Home Assistant knows an entity for good."""
        return f"{self.address.source}/{key}"

    def image(self, source_id: str) -> str:
        """The last snapshot of a source, as JPEG."""
        return self.image_at(_level(source_id))

    def image_at(self, level: str) -> str:
        """The same, by what stands for the source in a topic and in a key."""
        return f"{self.address.source}/ha/image/{level}"


def key_of(kind: str, *parts: str) -> str:
    """The key of an entity, the same in every run: ``occupancy__door__lobby__person``.

    A part that has other characters than letters, digits, ``_`` and ``-`` gets a hash, so that no two parts share a key.
    """
    return "__".join((kind, *(_level(part) for part in parts)))


@functools.lru_cache(maxsize=4096)
def _level(part: str) -> str:
    if _PLAIN.fullmatch(part) and "__" not in part:
        return part
    digest = hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{_OTHERS.sub('-', part)[:30].strip('-')}-{digest}"

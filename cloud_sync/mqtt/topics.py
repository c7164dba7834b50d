"""Builds and reads the topics ``edgecv/<tenant>/<device>/{ev,ack,status,blob,…}`` and checks the names in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from edgecv.errors import ConfigError, SyncError

ROOT = "edgecv"
EVENTS_FILTER = f"{ROOT}/+/+/ev"

Leaf = Literal["ev", "ack", "status", "blob", "blob-part", "blob-reply"]

# Narrower than MQTT allows: the names also become folders at ingest, so no dot may lead.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_NAMES = "Use 1 to 64 letters, digits, '.', '_' or '-', not starting with a dot."


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where one device lives.

    Raises:
        ConfigError: a name is empty, too long or holds other characters.
    """

    tenant: str  # owner of the device, 1 to 64 letters, digits, `.`, `_` or `-`
    device: str  # the device, unique within its tenant, same letters

    def __post_init__(self) -> None:
        for kind, name in (("tenant", self.tenant), ("device", self.device)):
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"The {kind} name {name[:80]!r} cannot be used in a topic.",
                    _NAMES,
                )

    @property
    def source(self) -> str:
        """The CloudEvents ``source`` of everything this device says."""
        return f"{ROOT}/{self.tenant}/{self.device}"

    def topic(self, leaf: Leaf) -> str:
        """One of the topics of this device."""
        return f"{self.source}/{leaf}"


def group_filter(group: str | None, topics: str) -> str:
    """``topics`` as a member of a group subscribes to it: the members share the messages between them (MQTT 5, 4.8.2).

    Raises:
        ConfigError: the name of the group is empty, too long or holds other characters.
    """
    if group is None:
        return topics
    if not _NAME.fullmatch(group):
        raise ConfigError(f"The group name {group[:80]!r} cannot be used in a topic.", _NAMES)
    return f"$share/{group}/{topics}"


def parse_events_topic(topic: str) -> Address:
    """The device an event topic belongs to.

    Raises:
        SyncError: it is no event topic, or its names are not allowed.
    """
    address, leaf = parse_topic(topic)
    if leaf != "ev":
        raise SyncError(f"{topic[:80]!r} is not an event topic.", f"Publish to {EVENTS_FILTER}.")
    return address


def parse_topic(topic: str) -> tuple[Address, str]:
    """The device that a topic belongs to, and its leaf.

    Raises:
        SyncError: it is no topic of a device, or its names are not allowed.
    """
    parts = topic.split("/")
    if len(parts) != 4 or parts[0] != ROOT:
        raise SyncError(f"{topic[:80]!r} is no topic of a device.", f"Publish to {EVENTS_FILTER}.")
    try:
        return Address(tenant=parts[1], device=parts[2]), parts[3]
    except ConfigError as error:
        raise SyncError(error.message, error.hint) from error

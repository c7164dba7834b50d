"""What may be chosen about Home Assistant."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgecv._internal.strict import check_number
from edgecv.errors import ConfigError

_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeAssistantOptions:
    """How a device shows itself in Home Assistant."""

    name: str = ""  # what Home Assistant calls the device; its own name by default
    prefix: str = "homeassistant"  # of the discovery topics, as set in Home Assistant
    # Classes that get an occupancy of the whole frame; `None`: each class from the first time that it is found
    classes: tuple[str, ...] | None = None
    expire_after_s: int = 60  # values that are not renewed for so long become unavailable
    snapshots: bool = False  # whether pictures leave the device
    snapshot_every_s: float = 10.0  # least time between two pictures of a source
    birth_delay_s: float = (
        5.0  # longest random wait after a start of Home Assistant, so that devices do not come together
    )
    # Least time between two announcements: Home Assistant drops one that comes while it still sets up the entities of the last
    announce_every_s: float = 5.0

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise ConfigError(
                f"The discovery prefix {self.prefix[:80]!r} cannot be used in a topic.",
                "Use that of Home Assistant, which is 'homeassistant' unless somebody changed it.",
            )
        check_number("expire_after_s", self.expire_after_s, 10, 86_400, whole=True)
        check_number("snapshot_every_s", self.snapshot_every_s, 1.0, 86_400.0)
        check_number("birth_delay_s", self.birth_delay_s, 0.0, 600.0)
        check_number("announce_every_s", self.announce_every_s, 0.0, 600.0)

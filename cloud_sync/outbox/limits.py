"""How much an outbox may hold, and how its lanes share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from edgecv._internal.strict import check_number
from edgecv.cloud_sync.envelope import PRIORITIES
from edgecv.errors import ConfigError
from edgecv.events import Priority

QUOTA_BYTES = 256 * 1024 * 1024

WhenFull = Literal["drop_oldest", "refuse"]

_LONGEST_TTL_S = 100 * 365 * 86_400.0
# What is kept for a lane, as one part of so many of the whole outbox.
_KEPT: dict[Priority, int] = {"alarm": 16, "event": 8, "telemetry": 8, "blob": 32}
_DEAD_KEPT = 32
_WHEN_FULL: dict[Priority, WhenFull] = {
    "alarm": "refuse",
    "event": "refuse",
    "telemetry": "drop_oldest",
    "blob": "refuse",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLimits:
    """How much one lane may hold, and what happens when it is full. ``None`` leaves it to the outbox.

    Attributes:
        reserved_bytes: Kept for this lane, whatever comes in the others. By default 1/16 of the outbox for alarms, 1/8 each for
            events and telemetry, 1/32 for blobs.
        quota_bytes: The most it may hold. By default all that is not kept for the other lanes.
        ttl_s: What was not delivered for so long is deleted. By default nothing is.
        when_full: ``drop_oldest`` (default of telemetry) gives up its own oldest unsent events, ``refuse`` the new one.
    """

    reserved_bytes: int | None = None
    quota_bytes: int | None = None
    ttl_s: float | None = None
    when_full: WhenFull | None = None

    def __post_init__(self) -> None:
        for name, value in (("reserved_bytes", self.reserved_bytes), ("quota_bytes", self.quota_bytes)):
            if value is not None:
                check_number(f"{name} of a lane", value, 0, whole=True)
        if self.ttl_s is not None:
            check_number("ttl_s of a lane", self.ttl_s, 0.0, _LONGEST_TTL_S)
        if self.when_full is not None and self.when_full not in get_args(WhenFull):
            raise ConfigError(f"A lane cannot do {self.when_full!r} when it is full.", "Use 'drop_oldest' or 'refuse'.")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxLimits:
    """How much an outbox may hold, on disk and in memory."""

    quota_bytes: int = QUOTA_BYTES  # events on disk, with their index entries
    queue_rows: int = 10_000  # events in memory that wait for their commit
    queue_bytes: int = 16 * 1024 * 1024  # the same, in bytes
    group_rows: int = 256  # a commit starts at this many events ...
    group_s: float = 0.010  # ... or this long after the first one
    floor_bytes: int = 32 * 1024 * 1024  # free disk space below which nothing new is taken
    ballast_bytes: int = 4 * 1024 * 1024  # a file kept so that a full disk can be survived by deleting it
    lanes: Mapping[Priority, LaneLimits] = field(default_factory=dict)  # of lanes with limits of their own
    dead_bytes: int | None = (
        None  # dead letters beyond this are deleted, the oldest first; 1/32 of the quota by default
    )

    def __post_init__(self) -> None:
        for name in self.lanes:
            if name not in PRIORITIES:
                raise ConfigError(f"There is no lane {name!r}.", f"Use one of {', '.join(PRIORITIES)}.")
        kept = sum(self.reserved_bytes(name) for name in PRIORITIES) + self.most_dead_bytes
        if kept > self.quota_bytes:
            raise ConfigError(
                f"The lanes of the outbox keep {kept} bytes for themselves, and it holds {self.quota_bytes}.",
                "Reserve less, or give the outbox more.",
            )

    @property
    def most_dead_bytes(self) -> int:
        """How much the dead letters may take."""
        return self.quota_bytes // _DEAD_KEPT if self.dead_bytes is None else self.dead_bytes

    def reserved_bytes(self, name: Priority) -> int:
        """What is kept for a lane."""
        lane = self.lanes.get(name, _NO_LIMITS)
        reserved = self.quota_bytes // _KEPT[name] if lane.reserved_bytes is None else lane.reserved_bytes
        return reserved if lane.quota_bytes is None else min(reserved, lane.quota_bytes)

    def lane_bytes(self, name: Priority) -> int:
        """The most that a lane may hold, if the others leave it so much."""
        quota = self.lanes.get(name, _NO_LIMITS).quota_bytes
        return self.quota_bytes if quota is None else quota

    def ttl_s(self, name: Priority) -> float | None:
        """How long what comes in a lane is worth keeping; ``None``: for ever."""
        return self.lanes.get(name, _NO_LIMITS).ttl_s

    def drops_oldest(self, name: Priority) -> bool:
        """Whether a full lane gives up its own oldest events."""
        return (self.lanes.get(name, _NO_LIMITS).when_full or _WHEN_FULL[name]) == "drop_oldest"


_NO_LIMITS = LaneLimits()

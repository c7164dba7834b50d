"""What the query of ``webhook:`` may say."""

from __future__ import annotations

from datetime import tzinfo
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from edgecv._internal.printable import printable
from edgecv.errors import ConfigError
from edgecv.notifications.choice import EventChoice, read_choice
from edgecv.notifications.rates import RateLimits
from edgecv.pipelines.sinks.webhook.client import check_url
from edgecv.pipelines.sinks.webhook.templates.template import Template, read_template


class WebhookOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the query of ``webhook:`` may say.

    Attributes:
        events: ``detections``: frames in which something was found or that steps had something to say about. ``all``: every
            frame. ``events``: only events, each as a document of its own. Kinds with commas between them, such as
            ``line.crossed,zone.*``: only these events. By default ``events`` where a template, a picture or a limit is asked
            for, else ``detections``.
        masks: Send masks too.
        template: ``ntfy``, ``slack``, ``homeassistant``, or a file of one's own (``./mine.toml``): each event is a request of its
            own in that form. Without one, requests are JSON arrays.
        cooldown_s: Least time between two events of one kind, rule and source; what comes sooner is held back and told in
            number with the next one.
        at_most: Most events in any period, such as ``10/h``; the others are held back likewise.
        limit_alarms: Hold back alarms, too.
        snapshot: ``attach``: a JPEG of the frame goes along with each event. ``name``: the file that ``snapshots:`` wrote for
            the event is named. ``none``: no picture leaves the device, and none is named.
        snapshot_url: With ``name``, where the folder of ``snapshots:`` is served.
        draw: Paint what was found, lines and zones onto the attached picture.
        max_side: The longer side of the attached picture in pixels; a larger frame is made smaller.
        quality: Of its JPEG, 1 to 100.
        time_zone: Of the times in templates, such as ``Europe/Berlin``; by default that of this device.
        token_file: A file with the secret to send; it never stands in the URL.
        auth: ``bearer`` sends it as a token, ``basic`` takes it for ``user:password``.
        ca_file: Certificates to trust instead of the system's.
        batch: Most documents in a request.
        linger_s: How long a document waits for others, and an event for the name of its picture.
        timeout_s: For one request with its answer.
        retry_s: First pause after a failure; doubled up to 30 s.
        max_age_s: A batch that is tried in vain for so long is given up, lest one that the receiver chokes on stops all others.
        queue: Documents that may wait; then the oldest are given up.
        queue_mb: The same in megabytes.
        drain_s: How long ``close`` goes on delivering.
    """

    events: str = ""
    masks: bool = False
    template: str = ""
    cooldown_s: float = 0.0
    at_most: str = ""
    limit_alarms: bool = False
    snapshot: Literal["none", "attach", "name"] = "none"
    snapshot_url: str = ""
    draw: bool = False
    max_side: Annotated[int, msgspec.Meta(ge=32, le=8192)] = 1280
    quality: Annotated[int, msgspec.Meta(ge=1, le=100)] = 80
    time_zone: str = ""
    token_file: str = ""
    auth: Literal["bearer", "basic"] = "bearer"
    ca_file: str = ""
    batch: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 50
    linger_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 1.0
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=120)] = 10.0
    retry_s: Annotated[float, msgspec.Meta(gt=0, le=30)] = 0.5
    max_age_s: Annotated[float, msgspec.Meta(gt=0)] = 300.0
    queue: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1000
    queue_mb: Annotated[float, msgspec.Meta(gt=0, le=256)] = 8.0
    drain_s: Annotated[float, msgspec.Meta(ge=0, le=20)] = 5.0

    def __post_init__(self) -> None:
        if self.choice.frames != "none" and self._of_events:
            raise ConfigError(
                f"{self._of_events[0]} of a webhook is for events, and events={self.events} sends frames, too.",
                "Use events=events, or name kinds: events=line.crossed,zone.*",
            )
        if self.snapshot == "attach" and self.template and self.form.picture is None:
            raise ConfigError(
                f"{self.form.title} takes no attached pictures from a webhook.",
                "Name one by its URL: snapshot=name&snapshot_url=https://HOST/FOLDER, or leave snapshot out.",
            )
        if self.snapshot_url:
            self._check_snapshot_url()
        _ = self.limits, self.zone

    @property
    def choice(self) -> EventChoice:
        """Which events and frames are sent."""
        default = "events" if self._of_events else "detections"
        return read_choice(self.events or default, "events of a webhook")

    @property
    def limits(self) -> RateLimits:
        """How often people are told."""
        if not 0 <= self.cooldown_s <= 86_400 * 366:
            raise ConfigError("cooldown_s of a webhook must be 0 or more seconds, at most a year.")
        return RateLimits(cooldown_s=self.cooldown_s, at_most=self.at_most, limit_alarms=self.limit_alarms)

    @property
    def form(self) -> Template:
        """The template. Raises ``ConfigError`` as ``read_template``."""
        return read_template(self.template)

    @property
    def zone(self) -> tzinfo | None:
        """The time zone; ``None``: that of this device."""
        if not self.time_zone:
            return None
        try:
            return ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigError(
                f"There is no time zone '{printable(self.time_zone, 60)}' on this device.",
                "Write it as Europe/Berlin; the package tzdata of the system holds them.",
            ) from error

    @property
    def _of_events(self) -> tuple[str, ...]:
        """The options here that have a meaning for events alone."""
        given = {
            "template": self.template,
            "cooldown_s": self.cooldown_s,
            "at_most": self.at_most,
            "snapshot": self.snapshot != "none",
        }
        return tuple(name for name, value in given.items() if value)

    def _check_snapshot_url(self) -> None:
        if self.snapshot != "name":
            raise ConfigError("snapshot_url of a webhook goes with snapshot=name.", "Add snapshot=name.")
        hint = "Write https://HOST/FOLDER, without a password and without a query: the name of the file is added."
        try:
            check_url(self.snapshot_url)
        except ConfigError as error:
            raise ConfigError("snapshot_url of a webhook is no http or https URL.", hint) from error
        if {"?", "#"} & set(self.snapshot_url):
            raise ConfigError("snapshot_url of a webhook is no URL of a folder.", hint)

"""``HomeAssistantSink``: sources, zones and counts as entities of Home Assistant."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from edgecv._internal.timing import Backoff
from edgecv.cloud_sync.home_assistant.announcer import Announcer
from edgecv.cloud_sync.home_assistant.connection import Connection
from edgecv.cloud_sync.home_assistant.inventory import InventoryFile
from edgecv.cloud_sync.home_assistant.names import Topics
from edgecv.cloud_sync.home_assistant.options import HomeAssistantOptions
from edgecv.cloud_sync.home_assistant.sightings import Sightings
from edgecv.cloud_sync.home_assistant.snapshots import Snapshots
from edgecv.cloud_sync.mqtt.broker_url import parse_broker_url
from edgecv.cloud_sync.mqtt.topics import Address
from edgecv.errors import SinkError
from edgecv.results import Result
from edgecv.status import Gauge, PipelineStatus


class HomeAssistantSink:
    """A sink that shows a pipeline in Home Assistant, over a connection of its own; ``emit`` never waits.

    It tells what is true now: nothing is kept for later, and nothing of it goes through the outbox of ``MqttSink``.

    Args:
        url: The broker of Home Assistant, such as ``mqtts://user@host?password_file=FILE``. It need not be reachable.
        tenant: Owner of this device.
        device: Its name, unique within the tenant.
        folder: Where it is remembered which entities there were, so that those that vanish are removed.
        gauges: Numbers of the device to show, such as its temperature.
        options: How it shows itself; by default no picture leaves the device.
        reconnect: Delays between connections.

    Raises:
        ConfigError: the URL, a name or an option cannot be used.
        SyncError: the folder cannot be made.
        MissingDependency: paho-mqtt, or for snapshots OpenCV, is not installed.
    """

    name: ClassVar[str] = "home_assistant"
    non_blocking: ClassVar[bool] = True

    def __init__(
        self,
        url: str,
        *,
        tenant: str,
        device: str,
        folder: Path | str,
        gauges: Sequence[Gauge] = (),
        options: HomeAssistantOptions | None = None,
        reconnect: Backoff | None = None,
    ) -> None:
        options = options or HomeAssistantOptions()
        broker = parse_broker_url(url)
        topics = Topics(address=Address(tenant=tenant, device=device), prefix=options.prefix)
        self._status: Callable[[], PipelineStatus] | None = None
        self._sightings = Sightings()
        self._snapshots = Snapshots(options.snapshot_every_s) if options.snapshots else None
        self._closing = threading.Lock()
        self._closed = False
        announcer = Announcer(
            topics,
            options,
            file=InventoryFile(Path(folder), topics.address.source),
            sightings=self._sightings,
            snapshots=self._snapshots,
            gauges=gauges,
        )
        self._connection = Connection(
            broker, topics, announcer, self._ask, birth_delay_s=options.birth_delay_s, reconnect=reconnect
        )
        self._connection.start()

    @property
    def connected(self) -> bool:
        """Whether the broker is reached."""
        return self._connection.connected

    @property
    def trouble(self) -> str:
        """What went wrong last; empty when all is well."""
        return self._connection.trouble

    def attach(self, status: Callable[[], PipelineStatus]) -> None:
        """Tell what ``status`` says from now on."""
        self._status = status

    def emit(self, result: Result) -> None:
        """Take note of a result. Raises ``SinkError``: the sink is closed."""
        if self._closed:
            raise SinkError("The sink for Home Assistant is closed.")
        if self._sightings.see(result, time.monotonic()):
            if self._snapshots is not None:
                self._snapshots.offer(result)
            self._connection.hurry()

    def close(self) -> None:
        """Let Home Assistant show the device as unavailable, and disconnect; a second call does nothing."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._connection.close()

    def _ask(self) -> PipelineStatus | None:
        return None if self._status is None else self._status()

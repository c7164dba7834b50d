"""The sink for Home Assistant that ``[home_assistant]`` or ``--ha`` asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgecv.errors import ConfigError
from edgecv.status import Gauge

if TYPE_CHECKING:
    from edgecv.cli.app_config import AppFile
    from edgecv.cloud_sync.home_assistant.sink import HomeAssistantSink


def home_assistant_sink(file: AppFile, gauges: Sequence[Gauge]) -> HomeAssistantSink | None:
    """The sink, or ``None`` where nobody asked for it.

    Raises ``ConfigError`` when the broker or the names are missing, and what ``HomeAssistantSink`` raises.
    """
    table, mqtt = file.home_assistant, file.mqtt
    if table is None:
        return None
    from edgecv.cloud_sync.home_assistant.options import HomeAssistantOptions
    from edgecv.cloud_sync.home_assistant.sink import HomeAssistantSink

    url = table.url or (mqtt.url if mqtt else "")
    tenant = table.tenant or (mqtt.tenant if mqtt else "")
    device = table.device or (mqtt.device if mqtt else "")
    if not (url and tenant and device):
        raise ConfigError(
            "Home Assistant needs a broker, a tenant and a device.",
            "Name them: --mqtt URL --tenant NAME --device NAME, or url, tenant and device in [home_assistant].",
        )
    return HomeAssistantSink(
        url,
        tenant=tenant,
        device=device,
        folder=Path(table.folder or (mqtt.outbox if mqtt else "outbox")),
        gauges=gauges,
        options=HomeAssistantOptions(
            name=table.name,
            prefix=table.prefix,
            classes=None if table.classes is None else tuple(table.classes),
            expire_after_s=table.expire_after_s,
            snapshots=table.snapshots,
            snapshot_every_s=table.snapshot_every_s,
        ),
    )

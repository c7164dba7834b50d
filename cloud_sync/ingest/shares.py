"""Says when a broker may not share messages between the members of a group."""

from __future__ import annotations

import logging

from edgecv.cloud_sync.mqtt.events import Connected

_log = logging.getLogger(__name__)


def note_connected(event: Connected, *, is_member: bool) -> None:
    """Log a connection; with MQTT 3.1.1 nobody knows whether the broker shares, or sends a member nothing at all."""
    _log.info("connected to the broker")
    if is_member and event.protocol != "5":
        _log.warning(
            "This broker speaks MQTT %s, which has no shared subscriptions. Some brokers have them all the same; from others "
            "a member of a --group gets nothing, and devices keep their events. Use a broker with MQTT 5, or one ingest.",
            event.protocol,
        )

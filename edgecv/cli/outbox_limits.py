"""The limits of an outbox as ``app.toml`` states them, in megabytes."""

from __future__ import annotations

from edgecv.cli.app_config import LaneTable, MqttTable
from edgecv.cloud_sync.outbox.limits import QUOTA_BYTES, LaneLimits, OutboxLimits


def outbox_limits(table: MqttTable) -> OutboxLimits:
    """The limits that ``[mqtt]`` and its lanes ask for; raises ``ConfigError`` when they do not fit together."""

    def lane(own: LaneTable) -> LaneLimits:
        return LaneLimits(
            reserved_bytes=None if own.reserved_mb is None else int(own.reserved_mb * 1e6),
            quota_bytes=None if own.quota_mb is None else int(own.quota_mb * 1e6),
            ttl_s=own.ttl_s,
            when_full=own.when_full,
        )

    lanes = table.lanes
    return OutboxLimits(
        quota_bytes=QUOTA_BYTES if table.outbox_mb is None else int(table.outbox_mb * 1e6),
        lanes={
            "alarm": lane(lanes.alarm),
            "event": lane(lanes.event),
            "telemetry": lane(lanes.telemetry),
            "blob": lane(lanes.blob),
        },
    )

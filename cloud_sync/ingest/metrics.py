"""The counts of an ingest as Prometheus metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from edgecv._internal.extras import require
from edgecv.cloud_sync.ingest.seen import DeviceSeen
from edgecv.cloud_sync.ingest.stats import IngestStats

MAX_LABELLED = 2_000
"""Devices with series of their own. Prometheus keeps each series in memory; beyond this the sums have to do."""

_ACTIVE_S = 300.0

Rows = Sequence[tuple[tuple[str, ...], float]]


class IngestCollector:
    """Asks an ingest when it is asked; what ``prometheus_client`` calls a custom collector.

    Raises:
        MissingDependency: prometheus-client is not installed.
    """

    def __init__(self, stats: Callable[[], IngestStats], devices: Callable[[], Sequence[DeviceSeen]]) -> None:
        self._stats = stats
        self._devices = devices
        self._core = require("prometheus_client.core", "cloud")

    def collect(self) -> Iterator[Any]:
        """Every metric of this moment."""
        yield from self._totals(self._stats())
        yield from self._of_devices(self._devices())

    def _totals(self, stats: IngestStats) -> Iterator[Any]:
        yield self._gauge("connected", "Whether a broker is there.", [((), float(stats.connected))])
        yield self._counter("messages", "Batches received.", [((), stats.messages)])
        outcomes = {
            "stored": stats.stored,
            "duplicate": stats.duplicates,
            "renamed": stats.renamed,
            "erased": stats.erased,
            "rejected": stats.rejected,
        }
        yield self._counter("events", "What became of events.", [((k,), v) for k, v in outcomes.items()], "outcome")
        yield self._counter("dropped_messages", "Left unread, because too many waited.", [((), stats.dropped)])
        yield self._counter("commits", "Durable commits.", [((), stats.commits)])
        yield self._counter("commit_seconds", "Time in commits, failed ones included.", [((), stats.commit_s)])
        yield self._gauge("waiting_messages", "Received, and not committed yet.", [((), stats.waiting)])
        yield self._gauge("waiting_bytes", "Their size in memory.", [((), stats.waiting_bytes)])
        yield self._counter("blobs", "Snapshots that arrived.", [((), stats.blobs)])
        yield self._counter(
            "blobs_refused", "Messages about snapshots that were kept out.", [((), stats.blobs_refused)]
        )

    def _of_devices(self, devices: Sequence[DeviceSeen]) -> Iterator[Any]:
        now_s = time.time()
        active = sum(now_s - one.received_ns / 1e9 <= _ACTIVE_S for one in devices)
        yield self._gauge("devices", "Devices heard of since the start.", [((), len(devices))])
        yield self._gauge("devices_active", "Of them, those heard of within 5 minutes.", [((), active)])
        newest = sorted(devices, key=lambda one: one.received_ns)[-MAX_LABELLED:]
        labels = [(one.address.tenant, one.address.device) for one in newest]
        names = ("tenant", "device")
        events = [(label, float(one.events)) for label, one in zip(labels, newest, strict=True)]
        yield self._counter("device_events", "Events committed, repetitions included.", events, *names)
        seen = [(label, one.received_ns / 1e9) for label, one in zip(labels, newest, strict=True)]
        yield self._gauge("device_seen_timestamp_seconds", "When its last event came.", seen, *names)
        lags = [(label, one.lag_s) for label, one in zip(labels, newest, strict=True)]
        yield self._gauge("device_lag_seconds", "Age of its last event when it came.", lags, *names)

    def _gauge(self, name: str, text: str, rows: Rows, *labels: str) -> Any:
        return _filled(self._core.GaugeMetricFamily(f"edgecv_ingest_{name}", text, labels=labels), rows)

    def _counter(self, name: str, text: str, rows: Rows, *labels: str) -> Any:
        """Make a counter; the library appends ``_total`` to its name."""
        return _filled(self._core.CounterMetricFamily(f"edgecv_ingest_{name}", text, labels=labels), rows)


def _filled(family: Any, rows: Rows) -> Any:
    for labels, value in rows:
        family.add_metric(labels, value)
    return family

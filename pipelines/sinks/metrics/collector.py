"""The status of a pipeline as Prometheus metrics."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

from edgecv._internal.extras import require
from edgecv.errors import ConfigError
from edgecv.status import Gauge, PipelineStatus, SourceState, resident_bytes

log = logging.getLogger("edgecv.pipelines")

_OWN = "running|model_info|frames|fps|result_age_seconds|stage_seconds|source_.*|sink_.*"
_NAME = re.compile(rf"(?!(?:{_OWN})$)[a-z_][a-z0-9_]*")
_STATES: tuple[str, ...] = get_args(SourceState)

Rows = Sequence[tuple[tuple[str, ...], float]]


def check_gauges(gauges: Sequence[Gauge]) -> None:
    """Raise ``ConfigError`` for a name that Prometheus does not take, or that stands twice or is one of the pipeline's own."""
    names = [gauge.name for gauge in gauges]
    for name in names:
        if not _NAME.fullmatch(name) or names.count(name) > 1:
            raise ConfigError(
                f"'{name}' cannot name a gauge.", "Use snake case with a unit, each name once: device_temperature_c."
            )


class StatusCollector:
    """Asks for the status when it is asked; what ``prometheus_client`` calls a custom collector."""

    def __init__(self, ask: Callable[[], PipelineStatus | None], gauges: tuple[Gauge, ...]) -> None:
        self._ask = ask
        self._gauges = gauges
        self._core = require("prometheus_client.core", "metrics")
        self._told: set[str] = set()

    def collect(self) -> Iterator[Any]:
        """Every metric of this moment."""
        status = self._ask()
        if status is not None:
            yield from self._pipeline(status)
            yield from self._sources(status)
            yield from self._sinks(status)
        yield self._gauge("process_resident_memory_bytes", "Memory of this process.", [((), resident_bytes())])
        for gauge in self._gauges:
            value = self._read(gauge)
            if value is not None:
                yield self._gauge(f"edgecv_{gauge.name}", gauge.help, [((), value)])

    def _pipeline(self, status: PipelineStatus) -> Iterator[Any]:
        yield self._gauge("edgecv_running", "Whether the loop is at work.", [((), float(status.running))])
        yield self._gauge("edgecv_model_info", "The model.", [((status.model,), 1.0)], "model")
        yield self._counter("edgecv_frames", "Frames through the model.", [((), status.frames)])
        yield self._gauge("edgecv_fps", "Frames per second over the last seconds.", [((), status.fps)])
        ages = [(("0.5",), status.age_p50_ms / 1e3), (("0.99",), status.age_p99_ms / 1e3)]
        yield self._gauge("edgecv_result_age_seconds", "From capture to result.", ages, "quantile")
        stages = [((stage,), ms / 1e3) for stage, ms in status.stage_p50_ms.items()]
        yield self._gauge("edgecv_stage_seconds", "Median per stage.", stages, "stage")

    def _sources(self, status: PipelineStatus) -> Iterator[Any]:
        by_id = {source.source_id: source for source in status.sources}.items()
        frames = [((name,), source.frames) for name, source in by_id]
        yield self._counter("edgecv_source_frames", "Frames through the model.", frames, "source")
        fps = [((name,), source.fps) for name, source in by_id]
        yield self._gauge("edgecv_source_fps", "Results per second over the last seconds.", fps, "source")
        ages = [((name,), source.age_ms / 1e3) for name, source in by_id]
        yield self._gauge("edgecv_source_age_seconds", "Age of the newest result when it was ready.", ages, "source")
        states = [((name, state), float(source.health.state == state)) for name, source in by_id for state in _STATES]
        yield self._gauge("edgecv_source_state", "1 for the state it is in.", states, "source", "state")
        reconnects = [((name,), source.health.reconnects) for name, source in by_id]
        yield self._counter("edgecv_source_reconnects", "How often it came back.", reconnects, "source")
        drops = [((name, reason), count) for name, source in by_id for reason, count in source.dropped.items()]
        yield self._counter("edgecv_source_dropped", "Frames that gave no result.", drops, "source", "reason")
        counts = [((name, counter), count) for name, source in by_id for counter, count in source.counts.items()]
        yield self._gauge("edgecv_source_count", "What steps counted.", counts, "source", "counter")

    def _sinks(self, status: PipelineStatus) -> Iterator[Any]:
        totals: dict[tuple[str, ...], float] = {}
        for sink in status.sinks:  # several functions may have one name
            for outcome, count in (("emitted", sink.emitted), ("failed", sink.failed), ("dropped", sink.dropped)):
                totals[sink.name, outcome] = totals.get((sink.name, outcome), 0) + count
        yield self._counter("edgecv_sink_results", "What became of results.", list(totals.items()), "sink", "outcome")

    def _gauge(self, name: str, text: str, rows: Rows, *labels: str) -> Any:
        return _filled(self._core.GaugeMetricFamily(name, text, labels=labels), rows)

    def _counter(self, name: str, text: str, rows: Rows, *labels: str) -> Any:
        """Make a counter; the library appends ``_total`` to its name."""
        return _filled(self._core.CounterMetricFamily(name, text, labels=labels), rows)

    def _read(self, gauge: Gauge) -> float | None:
        try:
            return gauge.read()
        except Exception as error:  # noqa: BLE001 - one broken sensor must not take all metrics away
            if gauge.name not in self._told:
                self._told.add(gauge.name)
                log.warning("The gauge %s cannot be read: %s", gauge.name, error)
            return None


def _filled(family: Any, rows: Rows) -> Any:
    for labels, value in rows:
        family.add_metric(labels, value)
    return family

"""What Prometheus and health checks are told."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgecv.errors import ConfigError
from edgecv.pipelines.sinks.metrics.health import health_document
from edgecv.pipelines.sinks.metrics.sink import MetricsSink
from edgecv.status import Gauge, PipelineStatus, SinkCount, SourceHealth, SourceState, SourceStatus

DEADLINE_S = 20.0
NASTY = 'a "b"\\\n} 1\nevil 1'


def make_source(name: str, state: SourceState = "live", error: str = "") -> SourceStatus:
    health = SourceHealth(state=state, since_ns=0, code="refused" if error else "", error=error, reconnects=2)
    return SourceStatus(
        source_id=name,
        health=health,
        frames=10,
        fps=5.0,
        age_ms=40.0,
        dropped={"latest": 3, "still": 4},
        counts={"door.in": 6},
    )


def make_status(*sources: SourceStatus, running: bool = True) -> PipelineStatus:
    return PipelineStatus(
        running=running,
        model="yolo/int8",
        elapsed_s=2.0,
        frames=20,
        fps=10.0,
        age_p50_ms=30.0,
        age_p99_ms=90.0,
        stage_p50_ms={"inference": 25.0},
        sources=sources,
        sinks=(
            SinkCount(name="print", emitted=7, failed=1, dropped=2, error="x"),
            SinkCount(name="print", emitted=3, failed=0, dropped=0, error=""),
        ),
    )


@pytest.fixture
def sink() -> Iterator[MetricsSink]:
    sink = MetricsSink(0)
    yield sink
    sink.close()


def ask(sink: MetricsSink, path: str, **more: object) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{sink.port}{path}", **more)
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(sample.labels[key] for key in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_everything_of_the_status_is_told(sink: MetricsSink) -> None:
    sink.attach(lambda: make_status(make_source("cam"), make_source("gate", "stale")))
    status, text = ask(sink, "/metrics")
    found = samples(text)
    assert status == 200
    expected = {
        ("edgecv_running",): 1.0,
        ("edgecv_model_info", "yolo/int8"): 1.0,
        ("edgecv_frames_total",): 20.0,
        ("edgecv_fps",): 10.0,
        ("edgecv_result_age_seconds", "0.5"): 0.03,
        ("edgecv_result_age_seconds", "0.99"): 0.09,
        ("edgecv_stage_seconds", "inference"): 0.025,
        ("edgecv_source_frames_total", "cam"): 10.0,
        ("edgecv_source_fps", "cam"): 5.0,
        ("edgecv_source_age_seconds", "cam"): 0.04,
        ("edgecv_source_state", "cam", "live"): 1.0,
        ("edgecv_source_state", "cam", "stale"): 0.0,
        ("edgecv_source_state", "gate", "live"): 0.0,
        ("edgecv_source_state", "gate", "stale"): 1.0,
        ("edgecv_source_reconnects_total", "gate"): 2.0,
        ("edgecv_source_dropped_total", "latest", "cam"): 3.0,
        ("edgecv_source_dropped_total", "still", "cam"): 4.0,
        ("edgecv_source_count", "door.in", "cam"): 6.0,
        ("edgecv_sink_results_total", "emitted", "print"): 10.0,
        ("edgecv_sink_results_total", "failed", "print"): 1.0,
        ("edgecv_sink_results_total", "dropped", "print"): 2.0,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert found["process_resident_memory_bytes",] > 1e6
    assert sum(value for key, value in found.items() if key[:2] == ("edgecv_source_state", "cam")) == 1.0


def test_names_cannot_forge_metrics(sink: MetricsSink) -> None:
    sink.attach(lambda: make_status(make_source(NASTY)))
    found = samples(ask(sink, "/metrics")[1])
    assert found["edgecv_source_fps", NASTY] == 5.0
    assert ("evil",) not in found


def test_a_source_that_stands_there_twice_breaks_nothing(sink: MetricsSink) -> None:
    sink.attach(lambda: make_status(make_source("cam"), make_source("cam")))
    assert samples(ask(sink, "/metrics")[1])["edgecv_source_fps", "cam"] == 5.0


def test_gauges_of_others_are_shown_and_a_broken_one_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> float:
        raise OSError("no sensor")

    gauges = [
        Gauge(name="device_temperature_c", help="Of the chip.", read=lambda: 51.5),
        Gauge(name="sync_pending_events", help="Waiting.", read=lambda: None),
        Gauge(name="device_power_w", help="Now.", read=fail),
    ]
    sink = MetricsSink(0, gauges=gauges)
    sink.attach(lambda: make_status(make_source("cam")))
    with caplog.at_level(logging.WARNING):
        found = [samples(ask(sink, "/metrics")[1]) for _ in range(2)][1]
    sink.close()
    assert found["edgecv_device_temperature_c",] == 51.5
    assert not {("edgecv_sync_pending_events",), ("edgecv_device_power_w",)} & set(found)
    assert len([record for record in caplog.records if "no sensor" in record.getMessage()]) == 1


@pytest.mark.parametrize("names", [["Device Temp"], ["twice", "twice"], ["a-b"], [""], ["fps"], ["source_fps"]])
def test_a_gauge_that_prometheus_would_refuse_is_refused_at_once(names: list[str]) -> None:
    with pytest.raises(ConfigError, match="cannot name a gauge"):
        MetricsSink(0, gauges=[Gauge(name=name, help="x", read=lambda: 1.0) for name in names])


def test_the_registry_of_the_app_stays_its_own(sink: MetricsSink) -> None:
    sink.attach(lambda: make_status(make_source("cam")))
    assert "edgecv" not in prometheus_client.generate_latest().decode()
    second = MetricsSink(0)
    second.attach(lambda: make_status(make_source("other")))
    assert "other" not in ask(sink, "/metrics")[1]
    second.close()


@pytest.mark.parametrize(
    ("status", "healthy", "reasons"),
    [
        (None, False, ["The pipeline has not started."]),
        (make_status(make_source("a")), True, []),
        (make_status(make_source("a", "ended")), False, ["No source is live."]),
        (make_status(), False, ["No source is live."]),
        (make_status(make_source("a"), running=False), False, ["The pipeline is not running."]),
        (
            make_status(make_source("a"), make_source("b", "failed", "Wrong password.")),
            True,
            ["b is failed: Wrong password."],
        ),
        (
            make_status(make_source("a", "stale"), make_source("b", "reconnecting", "No route.")),
            False,
            ["No source is live.", "a is stale.", "b is reconnecting: No route."],
        ),
    ],
)
def test_when_a_pipeline_is_well(status: PipelineStatus | None, healthy: bool, reasons: list[str]) -> None:
    found, document = health_document(status)
    assert (found, document["ok"], document["reasons"]) == (healthy, healthy, reasons)


def test_health_is_answered_with_a_status_and_reasons(sink: MetricsSink) -> None:
    now = make_status(make_source("cam"))
    sink.attach(lambda: now)
    assert ask(sink, "/healthz")[0] == 200
    now = make_status(replace(now.sources[0], health=SourceHealth(state="stale", since_ns=0, code="stale", hint="Go.")))
    status, text = ask(sink, "/healthz")
    assert status == 503
    assert json.loads(text)["sources"]["cam"] == {"state": "stale", "code": "stale", "error": "", "hint": "Go."}


def test_other_paths_and_methods_are_refused(sink: MetricsSink) -> None:
    sink.attach(lambda: make_status(make_source("cam")))
    assert ask(sink, "/")[0] == 404
    assert ask(sink, "/metrics", method="POST", data=b"x")[0] == 405
    assert ask(sink, "/healthz", method="HEAD") == (200, "")


def test_it_listens_on_this_machine_only_unless_told_otherwise(sink: MetricsSink) -> None:
    sink.attach(make_status)
    addresses = {line.split()[1] for line in _listening() if line.split()[1].endswith(f":{sink.port:04X}")}
    assert addresses == {f"0100007F:{sink.port:04X}"}


def _listening() -> list[str]:
    lines = Path("/proc/net/tcp").read_text().splitlines()
    return [line for line in lines[1:] if line.split()[3] == "0A"]


def test_a_port_in_use_is_said_at_once(sink: MetricsSink) -> None:
    with pytest.raises(ConfigError, match=f"port {sink.port}") as caught:
        MetricsSink(sink.port)
    assert "free port" in caught.value.hint


def test_a_host_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        MetricsSink(0, "192.0.2.1")


def test_closing_leaves_no_thread_and_gives_the_port_back() -> None:
    before = set(threading.enumerate())
    sink = MetricsSink(0)
    sink.attach(make_status)
    hanging = [socket.create_connection(("127.0.0.1", sink.port), DEADLINE_S) for _ in range(3)]
    ask(sink, "/metrics")
    sink.close()
    deadline = time.monotonic() + DEADLINE_S
    while not set(threading.enumerate()) <= before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(threading.enumerate()) <= before
    MetricsSink(sink.port).close()
    for client in hanging:
        client.close()


def test_clients_that_say_nothing_keep_nobody_out(sink: MetricsSink) -> None:
    sink.attach(lambda: make_status(make_source("cam")))
    before = threading.active_count()
    silent = [socket.create_connection(("127.0.0.1", sink.port), DEADLINE_S) for _ in range(30)]
    assert ask(sink, "/healthz")[0] == 200
    assert threading.active_count() <= before + 1
    for client in silent:
        client.close()

"""The page, ``/metrics`` and ``/healthz`` at one address are one server; at two ports they are two."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgecv.cli.app_config import AppFile, MetricsTable, PreviewTable, check_app
from edgecv.cli.run_app import _sinks
from edgecv.errors import ConfigError
from edgecv.pipelines.preview.sink import PreviewSink
from edgecv.pipelines.sinks.metrics.sink import MetricsSink
from tests.integration.preview_scene import make_result
from tests.security.web import ask, connect, say, status, until

TOKEN = "correct-horse-battery"


@contextmanager
def both(**page_options: object) -> Iterator[tuple[PreviewSink, MetricsSink]]:
    page = PreviewSink(0, **page_options)  # type: ignore[arg-type]
    try:
        metrics = MetricsSink(page.port, allowed_hosts=["prometheus.example"])
        try:
            for sink in (page, metrics):
                sink.attach(status)
                sink.emit(make_result(1))
            yield page, metrics
        finally:
            metrics.close()
    finally:
        page.close()


def web_threads() -> int:
    return len([thread for thread in threading.enumerate() if thread.name == "edgecv-web"])


def test_one_port_is_one_server_with_all_answers() -> None:
    before = web_threads()
    with both() as (page, metrics):
        assert page.port == metrics.port
        assert web_threads() == before + 1
        for path in ("/", "/page.js", "/api/status", "/metrics", "/healthz"):
            assert ask(page, path)[0] == 200, path
        assert ask(page, "/nothing")[0] == 404
        assert ask(page, "/metrics/x")[0] == 404
    assert web_threads() == before
    with socket.create_server(("127.0.0.1", page.port)):
        pass


def test_two_ports_are_two_servers() -> None:
    before = web_threads()
    page, metrics = PreviewSink(0), MetricsSink(0)
    try:
        assert web_threads() == before + 2
        assert ask(page, "/metrics")[0] == 404
        assert ask(metrics, "/page.js")[0] == 404
    finally:
        metrics.close()
        page.close()


def test_the_page_keeps_its_token_and_each_part_its_names() -> None:
    with both(token=TOKEN, allowed_hosts=["page.example"]) as (page, _):
        assert ask(page, "/api/status")[0] == 401
        assert ask(page, "/api/status", Authorization=f"Bearer {TOKEN}")[0] == 200
        assert ask(page, "/metrics")[0] == 200
        assert ask(page, "/metrics", Host="prometheus.example")[0] == 200
        assert ask(page, "/metrics", Host="page.example")[0] == 421
        assert ask(page, "/login", Host="page.example")[0] == 200
        assert ask(page, "/login", Host="prometheus.example")[0] == 421
        for path in ("/%6detrics", "//metrics", "/metrics/../api/status", "/x/../metrics"):
            assert b"edgecv_preview" not in say(page, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert ask(page, path)[0] in (200, 401), "of a path that is no other part's the page asks for its token"


def test_one_part_goes_and_the_other_stays() -> None:
    with both() as (page, metrics):
        key = page._overview.document()["sources"][0]["key"]
        with connect(page) as watcher:
            watcher.sendall(f"GET /stream/{key} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            until(lambda: page.watchers == 1, "it watches")
            page.close()
            assert page.watchers == 0
        assert ask(metrics, "/healthz")[0] == 200
        assert ask(metrics, "/page.js")[0] == 404
        again = PreviewSink(metrics.port)
        assert ask(metrics, "/page.js")[0] == 200
        metrics.close()
        assert ask(again, "/healthz")[0] == 404
        again.close()


@pytest.mark.parametrize("second", [MetricsSink, PreviewSink])
def test_the_same_part_twice_is_refused(second: type[MetricsSink | PreviewSink]) -> None:
    with both() as (page, _), pytest.raises(Exception, match="in use"):
        second(page.port)


def test_metrics_do_not_slip_onto_a_wider_address() -> None:
    page = PreviewSink(0, "0.0.0.0", TOKEN)
    try:
        with pytest.raises(ConfigError, match="in use") as caught:
            MetricsSink(page.port)
        assert "same host" in caught.value.hint
        assert ask(page, "/metrics")[0] == 401
    finally:
        page.close()


def test_the_command_line_gives_both_one_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = AppFile(preview=PreviewTable(port=port), metrics=MetricsTable(port=port))
    page, metrics = _sinks(check_app(file, "app.toml"), (), None, is_service=False)
    try:
        assert isinstance(page, PreviewSink) and isinstance(metrics, MetricsSink)
        assert [ask(page, path)[0] for path in ("/", "/metrics")] == [200, 200]
    finally:
        metrics.close()  # type: ignore[union-attr]
        page.close()  # type: ignore[union-attr]

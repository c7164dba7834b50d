"""Cameras that never give a frame: each reason is told once, with its next step, and each is named at the end."""

from __future__ import annotations

import http.server
import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecv.pipelines.pipeline import Pipeline
from tests.cameras.world import PATIENCE_S, free_port, wait_until
from tests.conftest import CHECKOUT
from tests.models import METADATA, detector
from tests.unit.pipelines.blob import BlobModel


class Refusals(http.server.BaseHTTPRequestHandler):
    """``/401`` and ``/404`` answer so; everything else is a page to log in."""

    def do_GET(self) -> None:
        status = int(self.path[1:]) if self.path[1:].isdecimal() else 200
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html><form>user, password</form></html>")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def web() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusals)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_each_reason_is_told_once_with_its_next_step_and_each_camera_is_named_at_the_end(
    web: str, caplog: pytest.LogCaptureFixture
) -> None:
    cameras = {
        "unplugged": ("usb:///dev/video97", "no camera", "plugged in"),
        "refused": (f"rtsp://127.0.0.1:{free_port()}/1", "refused", "Nothing listens"),
        "login": (f"http://{web}/", "text/html", "the stream itself"),
        "wrong path": (f"http://{web}/404", "404", "check the path"),
        "wrong password": (f"http://me:secret99@{web}/401", "401", "user and password"),
    }
    listener = socket.create_server(("127.0.0.1", 0))  # accepts, and says nothing
    cameras["silent"] = (f"http://127.0.0.1:{listener.getsockname()[1]}/1?connect_s=2", "within 2 s", "connect_s=30")
    sources = {name: uri for name, (uri, _, _) in cameras.items()}

    def said(name: str) -> list[str]:
        return [text for text in caplog.messages if text.startswith(f"Source {name} is connecting")]

    pipeline = Pipeline(sources, BlobModel())
    with caplog.at_level(logging.WARNING, logger="edgecv.pipelines"):
        runner = threading.Thread(target=pipeline.run)
        runner.start()
        wait_until(lambda: all(map(said, cameras)), "a word about each camera", 3 * PATIENCE_S)
        time.sleep(1.5)  # more tries
        pipeline.stop()
        runner.join(PATIENCE_S)
    listener.close()
    for name, (_, reason, step) in cameras.items():
        assert len(said(name)) == 1, said(name)
        assert reason in said(name)[0]
        assert step in said(name)[0]
    assert pipeline.summary.never_live.keys() == cameras.keys()
    assert "404" in pipeline.summary.never_live["wrong path"]
    assert "secret99" not in caplog.text


def test_a_camera_that_came_and_a_file_are_not_named() -> None:
    uris = ["synthetic://?frames=0&live=1&fps=100", "synthetic://?frames=5"]
    pipeline = Pipeline(uris, BlobModel(), max_frames=20)
    pipeline.run()
    assert pipeline.summary.never_live == {}


def test_the_command_line_tells_at_once_and_reports_at_the_end(tmp_path: Path) -> None:
    model = detector(tmp_path / "model.onnx", METADATA, floats=True)
    command = [sys.executable, "-m", "edgecv", "run", str(model), "--source", "usb:///dev/video97", "--json"]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr is not None
        first = program.stderr.readline()
        program.send_signal(signal.SIGTERM)
        out, _ = program.communicate(timeout=PATIENCE_S)
    assert "There is no camera usb:///dev/video97" in first
    assert program.returncode == 0
    assert list(json.loads(out)["never_live"]) == ["usb:///dev/video97"]

"""``docs/examples``: each is run as its reader would run it."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import CHECKOUT
from tests.models import write_bundle

EXAMPLES = CHECKOUT / "docs/examples"
DEADLINE_S = 60
ENVIRONMENT = {"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def picture(width: int = 320, height: int = 240, suffix: str = ".jpg") -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return bytes(cv2.imencode(suffix, noise)[1])


class Service:
    """The example as a process, and requests to it."""

    def __init__(self, folder: Path, bundle: Path, changes: Sequence[tuple[str, str]] = ()) -> None:
        self.port = free_port()
        script = folder / "service.py"
        text = (EXAMPLES / "service.py").read_text()
        for before, after in changes:
            assert before in text
            text = text.replace(before, after)
        script.write_text(text)
        self.said = folder / "service.log"
        with self.said.open("w") as log:
            command = [sys.executable, str(script), str(bundle), str(self.port)]
            self.process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=log, stderr=log)
        deadline_s = time.monotonic() + DEADLINE_S
        while not self._is_up():
            assert self.process.poll() is None and time.monotonic() < deadline_s, self.said.read_text()
            time.sleep(0.05)

    def _is_up(self) -> bool:
        try:
            return self.ask("GET", "/health")[0] == 200
        except OSError:
            return False

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.headers["content-type"] or "", answer.read()
        finally:
            connection.close()

    def many(self, body: bytes, requests: int, at_once: int) -> tuple[Counter[int], list[float]]:
        """Statuses and seconds of so many requests, each client one after the other."""

        def one(_: int) -> tuple[int, float]:
            begun = time.perf_counter()
            try:
                status = self.ask("POST", "/detect", body)[0]
            except ConnectionError:  # an answer before the whole body was read
                status = -1
            return status, time.perf_counter() - begun

        with ThreadPoolExecutor(at_once) as clients:
            found = list(clients.map(one, range(requests)))
        return Counter(status for status, _ in found), [seconds for _, seconds in found]

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        finally:
            self.process.kill()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    write_bundle(folder / "tiny.ecv")
    running = Service(folder, folder / "tiny.ecv", [("UPLOAD_S = 8_000_000, 16, 10", "UPLOAD_S = 8_000_000, 16, 2")])
    yield running
    running.close()


def test_the_service_answers_with_json_and_with_a_picture(service: Service) -> None:
    status, kind, body = service.ask("POST", "/detect", picture())
    assert (status, kind) == (200, "application/json")
    rows = json.loads(body)["detections"]
    assert rows and {"xyxy", "label", "confidence"} <= set(rows[0])
    status, kind, body = service.ask("POST", "/plot", picture(suffix=".png"))
    assert (status, kind) == (200, "image/jpeg")
    painted = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    assert painted is not None and painted.shape == (240, 320, 3)


def _many_pixels() -> bytes:
    """A small file of 18 megapixels."""
    return bytes(cv2.imencode(".png", np.zeros((2000, 9000, 3), np.uint8))[1])


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "empty"),
        (b"no picture", 400, "header of an image"),
        (picture()[:2000], 400, "ends in the middle"),
        (_many_pixels(), 400, "megapixels"),
        (b"x" * 8_000_001, 413, "at most 8000000 bytes"),
    ],
    ids=["empty", "text", "cut", "bomb", "large"],
)
def test_the_service_refuses_what_is_no_picture_with_a_sentence(
    service: Service, body: bytes, status: int, said: str
) -> None:
    answered, _, text = service.ask("POST", "/detect", body)
    assert (answered, said in text.decode()) == (status, True), text


def test_the_service_takes_posts_alone_and_does_not_wait_for_ever(service: Service) -> None:
    assert service.ask("GET", "/detect")[0] == 405
    assert service.ask("POST", "/nothing", b"x")[0] == 404
    with socket.create_connection(("127.0.0.1", service.port), timeout=DEADLINE_S) as slow:
        slow.sendall(b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        assert b" 408 " in slow.recv(4096).split(b"\r\n")[0]
    with socket.create_connection(("127.0.0.1", service.port), timeout=DEADLINE_S) as gone:
        gone.sendall(b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
    assert service.ask("GET", "/health")[0] == 200


def test_the_service_under_load_and_in_a_flood_never_fails(service: Service) -> None:
    statuses, seconds = service.many(picture(640, 480), 200, 4)
    assert statuses == {200: 200}
    print(f"200 requests, 4 at a time: {200 / sum(seconds) * 4:.0f}/s, p50 {statistics.median(seconds) * 1e3:.0f} ms")
    at_first_kib = _resident_kib(service)
    healthy: list[int] = []
    asking = threading.Thread(target=lambda: healthy.extend(service.ask("GET", "/health")[0] for _ in range(5)))
    asking.start()
    flooded, _ = service.many(picture(800, 600, ".png"), 300, 100)
    asking.join(DEADLINE_S)
    assert set(flooded) <= {200, 503, -1}, flooded
    assert flooded[200] >= 30
    assert flooded[503] + flooded[-1] > 0, "a flood beyond the limits is turned away"
    assert healthy == [200] * 5
    assert _resident_kib(service) - at_first_kib < 600_000
    assert service.ask("POST", "/detect", picture())[0] == 200
    said = service.said.read_text()
    assert "Traceback" not in said, said


def _resident_kib(service: Service) -> int:
    text = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1])


def test_the_service_is_short() -> None:
    text = (EXAMPLES / "service.py").read_text()
    code = [
        line
        for line in text.split('"""', 2)[2].splitlines()
        if line.strip() and not line.startswith(("import", "from"))
    ]
    assert len(code) <= 52, len(code)

"""``docs/examples``: each is run as its reader would run it."""

from __future__ import annotations

import contextlib
import csv
import http.client
import json
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.bundles.bundle import describe_file
from edgecv.bundles.manifest import MANIFEST, ModelFiles, Variant, dump_manifest
from edgecv.specs import TensorSpec
from tests.conftest import CHECKOUT
from tests.models import manifest, spot_detector, write_bundle
from tests.unit.pipelines.receiver import Receiver
from tests.unit.pipelines.test_cascades import SPEC as COLOURS, colour_graph

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
    assert set(flooded) <= {200, 408, 503, -1}, flooded  # 408: a body that did not arrive within two seconds
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


def test_the_examples_are_short() -> None:
    toml = (EXAMPLES / "people_counter/app.toml").read_text().splitlines()
    assert len([line for line in toml if line.strip() and not line.startswith("#")]) <= 25
    for name, most in (("service.py", 60), ("cameras.py", 60)):
        code = (EXAMPLES / name).read_text().split('"""', 2)[2].splitlines()
        assert len([line for line in code if line.strip()]) <= most, name


def write_walk(path: Path, fps: int = 10) -> None:
    """A clip in which a spot walks down, waits, and walks up again."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (256, 256))
    down = np.linspace(40, 230, 30)
    for y in (*down, *[down[-1]] * 10, *down[::-1]):
        image = np.zeros((256, 256, 3), np.uint8)
        cv2.circle(image, (128, int(y)), 20, (255, 255, 255), -1)
        writer.write(image)
    writer.release()


def command(folder: Path, *arguments: str, deadline_s: float = DEADLINE_S) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *arguments]
    return subprocess.run(
        words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=deadline_s, check=False
    )


def test_the_people_counter_counts_per_minute_in_sql(tmp_path: Path) -> None:
    write_bundle(tmp_path / "yolov8n.ecv", make=spot_detector, labels=("person", "bicycle"))
    write_walk(tmp_path / "clip.mp4")
    text = (EXAMPLES / "people_counter/app.toml").read_text()
    for before, after in (("clip.mp4?speed=1", "clip.mp4?speed=2"), ("port = 8080", f"port = {free_port()}")):
        assert before in text
        text = text.replace(before, after)
    (tmp_path / "app.toml").write_text(text)
    done = command(tmp_path, "-m", "edgecv", "run", "--config", "app.toml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"] == {"door": {"entrance.in": 1, "entrance.out": 1}}, done.stderr
    with contextlib.closing(sqlite3.connect(tmp_path / "events.db")) as db:
        rows = db.execute((EXAMPLES / "people_counter/per_minute.sql").read_text()).fetchall()
    assert sum(people for *_, people in rows) == 2
    assert {(source, rule, direction) for _, source, rule, direction, _ in rows} == {
        ("door", "entrance", "in"),
        ("door", "entrance", "out"),
    }
    this_minute = datetime.now(timezone.utc)
    minutes = {f"{this_minute - timedelta(minutes=back):%Y-%m-%dT%H:%M}" for back in range(3)}
    assert {minute for minute, *_ in rows} <= minutes, "of now, not of when the clip was made"
    with (tmp_path / "counts.csv").open(newline="") as file:
        counted = Counter[str]()
        for row in csv.DictReader(file):
            counted[row["counter"]] += int(row["count"])
    assert counted == {"entrance.in": 1, "entrance.out": 1}


def test_cameras_come_and_go_and_a_webhook_is_told(tmp_path: Path) -> None:
    write_bundle(tmp_path / "detector.ecv", make=spot_detector, labels=("person", "bicycle"))
    write_colours(tmp_path / "kinds.ecv")
    for name, colour in (("door", (255, 220, 220)), ("yard", (220, 220, 255))):
        write_spot(tmp_path / f"{name}.mp4", colour)
    listed = tmp_path / "cameras.txt"
    listed.write_text("door door.mp4?speed=1&loop=1\n")
    with Receiver() as receiver:
        words = [sys.executable, str(EXAMPLES / "cameras.py"), "detector.ecv", "kinds.ecv", receiver.url, "cameras.txt"]
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(words, cwd=tmp_path, env=ENVIRONMENT, stdout=log, stderr=log)
        try:
            kinds = lambda: {  # noqa: E731
                (event["source_id"], event["data"]["kind"])
                for document in receiver.documents
                if (event := document.get("event", {})).get("kind") == "kind.new"
            }
            receiver.wait_for(lambda: ("door", "blue") in kinds())
            listed.write_text("door door.mp4?speed=1&loop=1\nyard yard.mp4?speed=1&loop=1\n")
            receiver.wait_for(lambda: ("yard", "red") in kinds())
            listed.write_text("yard yard.mp4?speed=1&loop=1\n")
            time.sleep(1.5)
            assert process.poll() is None, (tmp_path / "log").read_text()
            process.terminate()  # an interrupt would be ignored where a shell started the tests in its background
            process.wait(20)
        finally:
            process.kill()
    assert "Error" not in (tmp_path / "log").read_text().replace("KeyboardInterrupt", "")


def write_spot(path: Path, colour: tuple[int, int, int]) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (256, 256))
    for _ in range(20):
        image = np.zeros((256, 256, 3), np.uint8)
        cv2.rectangle(image, (90, 90), (166, 166), colour, -1)
        writer.write(image)
    writer.release()


def write_colours(folder: Path) -> None:
    (folder / "onnx-fp32").mkdir(parents=True)
    entry = describe_file(folder, colour_graph(folder / "onnx-fp32/model.onnx"))
    image = TensorSpec(name="image", role="image", shape=(1, 8, 8, 3), dtype="uint8", layout="NHWC")
    logits = TensorSpec(name="logits", role="logits", shape=(1, 3), dtype="float32")
    files = {"main": ModelFiles(files=(entry,), inputs=(image,), outputs=(logits,))}
    variant = Variant(name="onnx-fp32", format="onnx", precision="fp32", size_wh=(8, 8), latency_ms=1.0, models=files)
    described = manifest([variant], family="resnet", preprocess=COLOURS.preprocess.rule, decode=COLOURS.decode)
    (folder / MANIFEST).write_bytes(dump_manifest(described))


@pytest.mark.slow
def test_every_variant_is_compared_by_the_line_of_the_readme(tmp_path: Path) -> None:
    write_bundle(tmp_path / "yolov8n.ecv")
    text = (EXAMPLES / "README.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("edgecv bench")]
    done = command(tmp_path, "-m", *line.split(), "--runs", "20", "--warmup", "2")
    assert done.returncode == 0, done.stderr
    table = [row for row in done.stdout.splitlines() if row.startswith("|")]
    assert any("onnx-fp32" in row for row in table)
    assert any("onnx-int8" in row for row in table)


def test_the_application_of_the_guides_and_the_package_of_plugins_are_pointed_at() -> None:
    text = (EXAMPLES / "README.md").read_text()
    for name in ("app.toml", "edgecv.service", "../plugins.md", *(f"../guide-{one}.md" for one in BOARDS)):
        assert f"]({name})" in text
        assert (EXAMPLES / name).exists()
    listed = {path.name for path in EXAMPLES.glob("*.py")}
    assert all(f"({name})" in text for name in listed), "every example is listed"


BOARDS = ("raspberry-pi", "jetson", "x86")

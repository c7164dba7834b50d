"""The preview page as people see it: in headless Chromium, on a screen and on a phone.

``EDGECV_PREVIEW_SCREENSHOT=docs/preview.png pytest tests/integration/test_preview_page.py -k keeps_an_image`` makes the
image of the documentation anew.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

import edgecv
from edgecv.events import Event
from edgecv.model import Model
from edgecv.pipelines.preview.sink import PreviewSink
from edgecv.status import Gauge
from tests.integration.preview_scene import DEADLINE_S, Scene, make_result, until
from tests.unit.pipelines.blob import BlobModel

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE = {"width": 360, "height": 740}
TOKEN = "correct-horse-battery"
MOST_BYTES = 300_000  # of the image in the documentation
DEADLINE_MS = DEADLINE_S * 1000


def _browser_is_missing(reason: str) -> None:
    pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; without one the test is skipped, and fails in CI."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _browser_is_missing("needs playwright (pip install 'edgecv[dev]')")
    if not Path(CHROMIUM).exists():
        _browser_is_missing("needs chromium (make system-deps)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=60_000)
        yield started
        started.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@contextmanager
def opened(browser: Browser, sink: PreviewSink, *, phone: bool = False) -> Iterator[Page]:
    """A page in a profile of its own; a script error or a violated policy fails the test."""
    context = browser.new_context(
        viewport=PHONE if phone else {"width": 1200, "height": 900},
        has_touch=phone,
        color_scheme="light",
        locale="en-GB",
    )
    page = context.new_page()
    page.set_default_timeout(DEADLINE_MS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if "Content Security" in line.text else None)
    try:
        page.goto(sink.url, wait_until="domcontentloaded")
        yield page
        assert errors == []
    finally:
        context.close()


@contextmanager
def showing(scene: Scene, port: int = 0, **options: object) -> Iterator[PreviewSink]:
    sink = PreviewSink(port, **options)  # type: ignore[arg-type]
    try:
        sink.attach(scene.status)
        with scene.feeding(sink):
            yield sink
    finally:
        sink.close()


class Proxy:
    """A reverse proxy that serves one page under ``/site/door/``, as nginx does with ``location``; it streams what it gets."""

    def __init__(self, port: int, *, keeps_path: bool) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.forward()

            def do_POST(self) -> None:
                self.forward()

            def forward(self) -> None:
                if not self.path.startswith("/site/door/"):
                    self.send_error(404)  # the rest of the site is somebody else's
                    return
                path = self.path if keeps_path else self.path.removeprefix("/site/door")
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                try:
                    upstream.request(self.command, path, body, {**self.headers, "Connection": "close"})
                    answer = upstream.getresponse()
                    self.send_response(answer.status)
                    for name, value in answer.getheaders():
                        if name.lower() not in ("connection", "transfer-encoding"):
                            self.send_header(name, value)
                    self.send_header("Connection", "close")
                    self.end_headers()
                    while piece := answer.read1(65536):
                        self.wfile.write(piece)
                except OSError:
                    return  # one of the two left
                finally:
                    upstream.close()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://localhost:{self._server.server_port}/site/door/"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(10.0)
        self._server.server_close()


@pytest.mark.parametrize("keeps_path", [False, True])
def test_the_page_works_under_a_path_of_a_proxy(browser: Browser, keeps_path: bool) -> None:
    options = {"path": "/site/door/"} if keeps_path else {}
    with showing(Scene("door"), token="a-token-of-24-characters", **options) as sink:
        proxy = Proxy(sink.port, keeps_path=keeps_path)
        context = browser.new_context()
        try:
            page = context.new_page()
            page.set_default_timeout(DEADLINE_MS)
            missing: list[str] = []
            page.on("response", lambda answer: missing.append(answer.url) if answer.status == 404 else None)
            page.goto(proxy.url, wait_until="domcontentloaded")
            page.get_by_label("Token of this device").fill("a-token-of-24-characters")
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url(proxy.url)
            camera(page, "door").wait_for()
            page.wait_for_function("() => document.querySelector('article img').naturalWidth > 0")
            (cookie,) = context.cookies()
            assert cookie.get("path") == ("/site/door" if keeps_path else "/")
            assert missing == []
            if keeps_path:  # and on its own address it still is where it was
                assert context.request.get(f"{sink.url}page.css").status == 200
                moved = context.request.get(f"{sink.url}site/door", max_redirects=0)
                assert (moved.status, moved.headers["location"]) == (308, "door/")
        finally:
            context.close()
            proxy.close()


_PIXELS = """image => {
  if (!image.complete || !image.naturalWidth) return null;
  const canvas = new OffscreenCanvas(64, 48);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, 64, 48);
  return Array.from(context.getImageData(0, 0, 64, 48).data).join();
}"""


def camera(page: Page, name: str) -> Locator:
    return page.locator(f'article[data-source="{name}"]')


def moves(page: Page, name: str) -> None:
    """Wait until the image of a camera has changed."""
    image = camera(page, name).locator("img")
    seen: set[str] = set()

    def changed() -> bool:
        page.wait_for_timeout(50)
        pixels = image.evaluate(_PIXELS)
        if pixels is not None:
            seen.add(pixels)
        return len(seen) >= 2

    until(changed, f"the image of {name} moves")


def number(page: Page, name: str, row: str) -> int:
    return int(camera(page, name).locator(f'[data-name="{row}"] dd').inner_text())


def wait_for(page: Page, condition: Callable[[], object], what: str) -> None:
    """As ``until``, while the browser goes on."""

    def holds() -> object:
        page.wait_for_timeout(50)
        return condition()

    until(holds, what)


def test_the_page_opens_shows_moving_images_and_numbers_that_change(browser: Browser) -> None:
    scene = Scene("door", "yard")
    gauges = (Gauge(name="device_temperature_c", help="Of the processor.", read=lambda: 51.5),)
    with showing(scene, gauges=gauges, title="Shop") as sink, opened(browser, sink) as page:
        moves(page, "door")
        moves(page, "yard")
        assert page.title() == "Shop"
        first = number(page, "door", "frames")
        wait_for(page, lambda: number(page, "door", "frames") > first, "numbers change")
        text = page.locator("main").inner_text()
        for shown in (
            "19.6",
            "31 ms",
            "320 × 240",
            "door.in",
            "too old",
            "device temperature",
            "51.5 °C",
            "inference",
            "jsonl:out.jsonl",
            "No space left on device.",
        ):
            assert shown in text, shown
        assert "yolov8n/onnx-int8" in page.locator("#summary").inner_text()
        sink.emit_event(Event(kind="line.crossed", time_ns=0, source_id="door", data={"line": "entrance"}))
        page.locator("#events", has_text="line.crossed").wait_for()
        assert camera(page, "door").locator("img").get_attribute("alt") == "Live image of door"
        assert camera(page, "door").get_by_role("status").inner_text() == "live"


def test_a_lost_camera_is_said_and_greyed_and_comes_back(browser: Browser) -> None:
    scene = Scene("door", "yard")
    with showing(scene) as sink, opened(browser, sink) as page:
        moves(page, "door")
        scene.change("door", "reconnecting", "timeout", "No answer within 5 s.", "Is the camera switched on?")
        door = camera(page, "door")
        door.get_by_role("status").filter(has_text="reconnecting").wait_for()
        assert "timeout: No answer within 5 s. Is the camera switched on?" in door.inner_text()
        assert re.search(r"reconnecting · last image \d+ s ago", door.locator(".veil").inner_text())
        assert "grayscale" in door.locator("img").evaluate("image => getComputedStyle(image).filter")
        assert camera(page, "yard").get_by_role("status").inner_text() == "live"
        scene.change("door", "live")
        door.get_by_role("status").filter(has_text="live").wait_for()
        assert door.locator("img").evaluate("image => getComputedStyle(image).filter") == "none"
        assert not door.locator(".trouble").is_visible()
        moves(page, "door")


def test_a_page_that_is_opened_later_shows_the_last_image_of_a_lost_camera(browser: Browser) -> None:
    scene = Scene()
    scene.change("door", "failed")
    with showing(scene) as sink:
        sink.emit(make_result(5))
        with opened(browser, sink) as page:
            image = camera(page, "door").locator("img")
            wait_for(page, lambda: image.evaluate(_PIXELS) is not None, "there is an image")
            assert "255,255,255" in image.evaluate(_PIXELS)


def test_a_server_that_is_gone_is_said_and_the_page_comes_back_with_it(browser: Browser) -> None:
    scene = Scene()
    with showing(scene) as sink, opened(browser, sink) as page:
        moves(page, "door")
        sink.close()
        banner = page.get_by_role("alert")
        banner.filter(has_text="No connection to the device").wait_for()
        assert "grayscale" in camera(page, "door").locator("img").evaluate("image => getComputedStyle(image).filter")
        with showing(scene, sink.port):
            banner.wait_for(state="hidden")
            moves(page, "door")


def test_a_stream_that_broke_is_opened_again(browser: Browser) -> None:
    scene = Scene()
    with showing(scene) as sink, opened(browser, sink) as page:
        moves(page, "door")
        # As a proxy or a phone that slept would do it: the image's connection ends, the page does not notice.
        until(lambda: sink.watchers == 1, "it watches")
        camera(page, "door").locator("img").evaluate("image => { image.src = '/icon.svg'; }")
        wait_for(page, lambda: "stream/" in (camera(page, "door").locator("img").get_attribute("src") or ""), "again")
        moves(page, "door")


EVIL = "<img src=x onerror=\"document.title='owned'\">"


def test_names_labels_and_events_are_text_and_never_markup(browser: Browser) -> None:
    scene = Scene(EVIL)
    scene.change(EVIL, "failed", EVIL, EVIL, EVIL)
    gauges = (Gauge(name=EVIL, help=EVIL, read=lambda: 1.0),)
    with showing(scene, gauges=gauges, title=EVIL) as sink, opened(browser, sink) as page:
        sink.emit_event(Event(kind=EVIL, time_ns=0, source_id=EVIL, data={EVIL: EVIL}, priority="alarm"))
        page.locator("#events", has_text="onerror").wait_for()
        assert page.title() == EVIL
        assert page.locator("h1").inner_text() == EVIL
        assert page.locator("article h2 span").first.inner_text() == EVIL
        assert page.locator("img").count() == 1, "the image of the camera, and no other"
        assert page.locator('img[src="x"]').count() == 0


def test_watching_ends_when_the_page_is_closed_or_hidden(browser: Browser) -> None:
    scene = Scene()
    with showing(scene) as sink:
        with opened(browser, sink) as page:
            moves(page, "door")
            assert sink.watchers == 1
            page.evaluate(
                "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
                "document.dispatchEvent(new Event('visibilitychange'))"
            )
            until(lambda: sink.watchers == 0, "a hidden page does not watch")
            page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
            moves(page, "door")
        until(lambda: sink.watchers == 0, "a closed page does not watch")
        encoded, index = sink.encoded, scene.index
        until(lambda: scene.index > index + 10, "frames go on")
        assert sink.encoded == encoded


def test_many_cameras_leave_connections_for_the_numbers(browser: Browser) -> None:
    scene = Scene(*(f"camera {number}" for number in range(8)), size_wh=(64, 48))
    with showing(scene) as sink, opened(browser, sink) as page:
        page.set_viewport_size({"width": 1600, "height": 3000})
        moves(page, "camera 0")
        wait_for(page, lambda: sink.watchers == 4, "four are streams")
        moves(page, "camera 7")
        first = number(page, "camera 7", "frames")
        wait_for(page, lambda: number(page, "camera 7", "frames") > first, "numbers change")
        assert not page.locator("#banner").is_visible()


def test_a_phone_shows_everything_without_scrolling_sideways(browser: Browser) -> None:
    name = "rtsp://camera-with-a-very-long-name.building-7.example.org:8554/streams/main/high-resolution"
    scene = Scene(name, "yard")
    scene.change("yard", "failed", "auth", "The camera refuses the password.", "Check user and password.")
    with showing(scene) as sink, opened(browser, sink, phone=True) as page:
        sink.emit_event(Event(kind="line.crossed" * 9, time_ns=0, source_id=name, data={"line": "x" * 150}))
        page.locator("#events", has_text="line.crossed").wait_for()
        moves(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert page.evaluate(_LOWEST_CONTRAST) >= 4.5, "WCAG 2.1 AA for text"
        light = page.evaluate(_GROUND)
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(_GROUND) != light
        assert page.evaluate(_LOWEST_CONTRAST) >= 4.5


_GROUND = "getComputedStyle(document.body).backgroundColor"

# Of all text that is shown: relative luminance and contrast ratio as in WCAG 2.1.
_LOWEST_CONTRAST = """() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (part) => (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const color = parse(getComputedStyle(element).backgroundColor);
      if (color[3] !== 0) return color;
    }
    return [255, 255, 255];
  };
  let lowest = 21;
  for (const element of document.querySelectorAll("h1, h2, h3, p, span, dt, dd, li, li div, time, strong")) {
    if (!element.textContent || !element.checkVisibility() || element.closest(".frame")) continue;
    const pair = [luminance(parse(getComputedStyle(element).color)), luminance(ground(element))].sort((a, b) => b - a);
    lowest = Math.min(lowest, (pair[0] + 0.05) / (pair[1] + 0.05));
  }
  return lowest;
}"""


def test_the_token_opens_the_page_and_a_wrong_one_does_not(browser: Browser) -> None:
    scene = Scene()
    with showing(scene, token=TOKEN) as sink, opened(browser, sink, phone=True) as page:
        assert page.url == f"{sink.url}login"
        field = page.get_by_label("Token of this device")
        field.fill("not-the-right-token")
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("alert").filter(has_text="wrong").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        field.fill(TOKEN)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(sink.url, wait_until="domcontentloaded")
        moves(page, "door")
        assert TOKEN not in page.url
        assert page.evaluate("document.cookie") == "", "no script can read the session"
        sink.close()
        with showing(scene, sink.port, token=TOKEN):
            page.wait_for_url(f"{sink.url}login", wait_until="domcontentloaded")


def test_it_shows_a_real_pipeline(browser: Browser) -> None:
    sink = PreviewSink(0)
    pipeline = edgecv.Pipeline(
        "synthetic://?frames=0&live=1&fps=20&width=320&height=240", cast(Model, BlobModel()), sinks=[sink]
    )
    running = threading.Thread(target=pipeline.run)
    running.start()
    try:
        with opened(browser, sink) as page:
            moves(page, "synthetic://")
            first = number(page, "synthetic://", "frames")
            wait_for(page, lambda: number(page, "synthetic://", "frames") > first, "numbers change")
            assert camera(page, "synthetic://").get_by_role("status").inner_text() == "live"
            assert "blob/numpy" in page.locator("#summary").inner_text()
            assert "inference" in page.locator("#stages").inner_text()
            assert "preview" in page.locator("#sinks").inner_text()
            pipeline.stop()
            running.join(DEADLINE_S)
            page.get_by_role("alert").filter(has_text="No connection").wait_for()
    finally:
        pipeline.stop()
        running.join(DEADLINE_S)
    assert not running.is_alive()
    assert pipeline.summary.sinks[0].failed == pipeline.summary.sinks[0].dropped == 0


def test_the_documentation_keeps_an_image_of_it(browser: Browser, tmp_path: Path) -> None:
    scene = Scene("rtsp://cameras/entrance", "rtsp://cameras/loading-bay", size_wh=(640, 360))
    gauges = (
        Gauge(name="device_temperature_c", help="Of the processor.", read=lambda: 58.2),
        Gauge(name="sync_pending_events", help="Waiting for the cloud.", read=lambda: 12.0),
    )
    with showing(scene, gauges=gauges, title="EdgeCV") as sink, opened(browser, sink) as page:
        moves(page, "rtsp://cameras/loading-bay")
        lost = "No frame within 2.0 s."
        scene.change("rtsp://cameras/loading-bay", "reconnecting", "stale", lost, "Is the camera still powered?")
        now_ns = 1_700_000_000_000_000_000
        source_id = "rtsp://cameras/loading-bay"
        sink.emit_event(Event(kind="line.crossed", time_ns=now_ns, source_id="rtsp://cameras/entrance"))
        sink.emit_event(Event(kind="source.stale", time_ns=now_ns, source_id=source_id, priority="alarm"))
        camera(page, source_id).get_by_role("status").filter(has_text="reconnecting").wait_for()
        page.locator("#events", has_text="source.stale").wait_for()
        page.screenshot(path=tmp_path / "preview.png", full_page=True)
    assert 10_000 < (tmp_path / "preview.png").stat().st_size < MOST_BYTES
    if "EDGECV_PREVIEW_SCREENSHOT" in os.environ:
        shutil.copy(tmp_path / "preview.png", os.environ["EDGECV_PREVIEW_SCREENSHOT"])

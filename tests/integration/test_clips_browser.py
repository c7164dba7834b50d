"""Clips in a browser: Chromium loads them, knows how long they are, and seeks."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgecv.pipelines.sinks.clips.mp4 import Mp4Writer
from tests.integration.test_preview_page import browser  # noqa: F401 - the fixture
from tests.unit.pipelines.made_packets import h264_packets
from tests.unit.pipelines.test_clip_files import written
from tests.unit.pipelines.test_sink_clips import film, opened

DEADLINE_MS = 20_000
PLAY = """
(name) => new Promise((done) => {
  const video = document.createElement("video");
  video.muted = true;
  const said = [];
  const end = () => done({ said, duration: video.duration, at: video.currentTime, width: video.videoWidth });
  video.addEventListener("loadeddata", () => { said.push("loadeddata"); video.currentTime = video.duration / 2; });
  video.addEventListener("seeked", () => { said.push("seeked"); end(); });
  video.addEventListener("error", () => { said.push("error " + video.error.message); end(); });
  document.body.append(video);
  video.src = name;
})
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A folder over HTTP, in parts where the browser asks for such."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.endswith(".mp4"):
                return self._answer(200, "text/html", b"<body></body>")
            data = (tmp_path / self.path[1:]).read_bytes()
            asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if asked is None:
                return self._answer(200, "video/mp4", data)
            start, end = int(asked[1]), int(asked[2] or len(data) - 1)
            return self._answer(206, "video/mp4", data[start : end + 1], f"bytes {start}-{end}/{len(data)}")

        def _answer(self, status: int, kind: str, data: bytes, part: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(data)))
            if part:
                self.send_header("Content-Range", part)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", tmp_path
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["camera", "b-frames", "frames", "part"])
def test_chromium_plays_a_clip_and_seeks_in_it(
    browser: object,  # noqa: F811 - the fixture
    served: tuple[str, Path],
    kind: str,
) -> None:
    address, folder = served
    if kind == "frames":
        sink, told = opened(folder, pre_s=2, post_s=2)
        film(sink, 10.0, {5.0: "line.crossed"})
        sink.close()
        name, least_s = told[0].path.name, 3.5
    else:
        packets = h264_packets(4.0, b_frames=2 if kind == "b-frames" else 0)
        path, least_s = written(folder / "clip.mp4", packets), 3.5
        if kind == "part":  # as a kill leaves it
            path.unlink()
            writer = Mp4Writer(path, packets[0].stream)
            for packet in packets:
                writer.write(packet)
            writer.abandon()
            least_s = 2.5
        name = path.name
    context = browser.new_context()  # type: ignore[attr-defined]
    try:
        page = context.new_page()
        page.set_default_timeout(DEADLINE_MS)
        page.goto(address)
        found = page.evaluate(PLAY, name)
    finally:
        context.close()
    assert found["said"] == ["loadeddata", "seeked"], found
    assert found["duration"] >= least_s
    assert found["at"] == pytest.approx(found["duration"] / 2, abs=0.3)
    assert found["width"] in (64, 160)

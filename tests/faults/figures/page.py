"""Whether the page and the events file slow the frames down.

``python -m tests.faults.figures.page BUNDLE VIDEO [--watch none|view|streams] [--live-fps 0] [--pairs 9] [--frames 300]``

Each pair is two runs of ``edgecv run`` with four cameras in processes of their own, in alternating order: one plain, and one with
the sink ``events:`` on a file of 10,000 events and with the page. ``--watch none``: nobody looks. ``view``: somebody has the events
view open, which asks as ``events.js`` does. ``streams``: that, and the four live images. The watcher is a process that reads
and throws away, as a browser on another machine would: what a browser costs its own machine is no cost of EdgeCV.

With ``--live-fps 0`` the cameras are files, which are read as fast as the model takes them: the processor is full, and whatever
paints images takes some of it. With another number they are live cameras of that rate, as in use.

It prints the slow-down of the frame rate of each pair, their median, and its 95 % interval by the ranks of the binomial (of 9
pairs the 2nd and the 8th: 96.1 %).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from statistics import median

from tests.faults.figures.frames import rank
from tests.integration.events_history import CAMERAS, spread, write_history
from tests.unit.cloud_sync.support import ROOT, free_port

_EVENTS = 10_000
_RUN_S = 900

_SOURCE = """
[[sources]]
name = "{name}"
uri = "{uri}"
"""
_APP = """
sinks = ["jsonl:results.jsonl"{events}]
max_frames = {frames}
[model]
bundle = "{bundle}"
threads = {threads}
{sources}
[[steps]]
type = "track"
[[steps]]
type = "line"
name = "entrance"
points = [[0.5, 0.0], [0.5, 1.0]]
units = "relative"
{preview}
"""


def write_app(args: argparse.Namespace, folder: Path, port: int | None) -> None:
    """The application, with the page where there is a port."""
    live = f"synthetic://?frames=0&live=1&fps={args.live_fps}&width=1280&height=720"
    uri = live if args.live_fps else args.video
    text = _APP.format(
        events="" if port is None else ', "events:events.db"',
        frames=args.frames,
        bundle=args.bundle,
        threads=args.threads,
        sources="".join(_SOURCE.format(name=name, uri=uri) for name in CAMERAS),
        preview="" if port is None else f"[preview]\nport = {port}",
    )
    (folder / "app.toml").write_text(text)
    if port is not None:
        write_history(folder / "events.db", spread(_EVENTS))


def fps(args: argparse.Namespace, folder: Path, *, serves: bool) -> float:
    """The frame rate that one run reports."""
    port = free_port() if serves else None
    write_app(args, folder, port)
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "edgecv", "run", "--config", "app.toml", "--json"]
    watcher = None
    if port is not None and args.watch != "none":
        watch = [sys.executable, "-m", "tests.faults.figures.page", "watch", str(port), "--watch", args.watch]
        watcher = subprocess.Popen(watch, cwd=ROOT, env=env)
    try:
        done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=_RUN_S, check=False)
    finally:
        if watcher is not None:
            watcher.kill()
            watcher.wait()
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(json.loads(done.stdout)["fps"])


def ask(port: int, path: str) -> bytes:
    """One answer of the page."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def follow(port: int, key: str) -> None:
    """Read one stream of images until it ends."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", f"/stream/{key}?page=figures")
    answer = connection.getresponse()
    while answer.read1(1 << 16):
        pass


def watch(port: int, *, streams: bool) -> None:
    """Do what an open page does, until this process is killed."""
    following: set[str] = set()
    turn = 0
    while True:
        with suppress(OSError, ValueError, http.client.HTTPException):  # not there yet
            status = json.loads(ask(port, "/api/status?page=figures"))
            if turn % 3 == 0:
                ask(port, "/api/events")
            if turn % 30 == 0:
                day_ms = int(time.time()) // 86_400 * 86_400_000
                ask(port, f"/api/events/day?from_ms={day_ms}&to_ms={day_ms + 86_400_000}")
                ask(port, "/api/events/choices")
            turn += 1
            for source in status["sources"] if streams else ():
                if source["image_age_s"] is not None and source["key"] not in following:
                    following.add(source["key"])
                    threading.Thread(target=follow, args=(port, source["key"]), daemon=True).start()
        time.sleep(1.0)


def compare(args: argparse.Namespace) -> None:
    """Run the pairs and print what they say."""
    slower = []
    with tempfile.TemporaryDirectory() as name:
        for pair in range(args.pairs):
            found = {}
            for serves in (pair % 2 == 0, pair % 2 == 1):
                folder = Path(name) / f"{pair}-{serves}"
                folder.mkdir()
                found[serves] = fps(args, folder, serves=serves)
            slower.append(found[False] / found[True] - 1)
            said = f"without {found[False]:.2f}, with {found[True]:.2f} frames a second, slow-down {slower[-1]:+.2%}"
            print(f"pair {pair + 1}: {said}, load {os.getloadavg()[0]:.1f}", flush=True)
    slower.sort()
    k = rank(len(slower))
    interval = f", 95 % interval {slower[k - 1]:+.2%} to {slower[-k]:+.2%}" if k else ""
    print(f"slow-down: median {median(slower):+.2%}{interval}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", help="or `watch`, for the process that looks")
    parser.add_argument("video", help="or the port")
    parser.add_argument("--watch", choices=["none", "view", "streams"], default="none")
    parser.add_argument("--live-fps", type=int, default=0)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.bundle == "watch":
        watch(int(args.video), streams=args.watch == "streams")
    args.bundle, args.video = (str(Path(name).resolve()) for name in (args.bundle, args.video))
    compare(args)


if __name__ == "__main__":
    main()

"""Cameras that come and go: a detector, a classifier on its boxes, a rule of one's own, and a webhook that is told.

python cameras.py yolov8n.ecv kinds.ecv https://site.example/hook cameras.txt

Each line of cameras.txt is a name and a URI, such as "door rtsp://10.0.0.7/1". The file is read again and again: a line more
is a camera more, and a camera whose line is gone is released.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import edgecv
from edgecv.pipelines.steps import Classify, Track

LOOK_S = 1.0


def new_kind(result: edgecv.Result, memory: dict[str, Any]) -> edgecv.Result:
    """An event when a camera shows a kind of object that it has not shown before; ``memory`` is that camera's own."""
    seen: set[str] = memory.setdefault("seen", set())
    found = result.detections
    for kind in () if found is None or found.data is None else found.data["kind"]:
        if kind and kind not in seen:
            seen.add(kind)
            result = result.with_event("kind.new", kind=str(kind), seen=len(seen))
    return result


def cameras(listed: Path) -> dict[str, str]:
    lines = [line.split(maxsplit=1) for line in listed.read_text().splitlines() if line.strip()]
    return {name: uri.strip() for name, uri in lines}


def follow(pipeline: edgecv.Pipeline, listed: Path, done: threading.Event) -> None:
    """Let the pipeline have the cameras that the file lists."""
    known = cameras(listed)
    while not done.wait(LOOK_S):
        wanted = cameras(listed) or known  # without a camera the pipeline would end
        try:
            for name in wanted.keys() - known.keys():
                pipeline.add_source(wanted[name], name)
            for name in known.keys() - wanted.keys():
                pipeline.remove_source(name)
        except edgecv.EdgeCVError as error:
            print(error, file=sys.stderr)
        known = wanted


def main(detector: str, classifier: str, hook: str, listed: str) -> None:
    steps: list[Any] = [Track(), Classify(name="kind", model=classifier, refresh_s=5), new_kind]
    with edgecv.Model.load(detector, lanes=2) as model:
        sinks = [f"webhook:{hook}?events=events"]
        pipeline = edgecv.Pipeline(cameras(Path(listed)), model, steps=steps, sinks=sinks, confidence=0.1)
        done = threading.Event()
        threading.Thread(target=follow, args=(pipeline, Path(listed), done), daemon=True).start()
        try:
            summary = pipeline.run()
        finally:
            done.set()
    print(f"{summary.frames} frames")


if __name__ == "__main__":
    main(*sys.argv[1:])

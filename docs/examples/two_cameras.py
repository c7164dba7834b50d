"""Two cameras, one model: people who enter and leave are counted, evidence is kept, a page shows it all.

python two_cameras.py yolov8n.ecv rtsp://viewer@10.0.0.7/1?password_file=door.secret usb://0
"""

from __future__ import annotations

import sys

import edgecv
from edgecv.pipelines.steps import Confidence, Line, Motion, Track

LINE = [[0.1, 0.6], [0.9, 0.6]]  # shares of the width and height of the image


def only_daylight(result: edgecv.Result) -> edgecv.Result | None:
    """A step of your own: dark images are dropped."""
    return result if result.frame.image[::16, ::16].mean() > 10 else None


def tell(result: edgecv.Result) -> None:
    """A sink of your own; it runs in a thread of its own."""
    for event in result.events:
        print(f"{event.source_id}: {event.data['label']} went {event.data['direction']}, {event.data['total']} so far")


def main(bundle: str, door: str, yard: str, *more: str) -> None:
    sinks = [tell, "jsonl:results.jsonl?overwrite=1", "snapshots:shots?on=events", *more]
    steps = [
        only_daylight,
        Track(lost_s=6),
        Confidence(least=0.4),
        Line(name="entrance", points=LINE, units="relative", state="entrance.json"),
    ]
    with edgecv.load(bundle, lanes=2) as model:
        cameras = {"door": door, "yard": yard}
        pipeline = edgecv.Pipeline(cameras, model, steps=steps, gates=[Motion()], sinks=sinks, confidence=0.1)
        with pipeline:
            for result in pipeline:
                if result.frame.index % 100 == 0:
                    for source in pipeline.status().sources:
                        print(f"{source.source_id} is {source.health.state}, {source.fps:.0f} frames per second")


if __name__ == "__main__":
    main(*sys.argv[1:])

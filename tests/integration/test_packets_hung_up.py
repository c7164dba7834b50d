"""What a camera encoded is wanted no more while it flows, as when a step that blurs is added at run time."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from edgecv.media.packets import Packet
from edgecv.pipelines.sources.supervised.source import SupervisedSource
from tests.cameras.mjpeg_server import mjpeg_server
from tests.cameras.world import next_frame, wait_until

_LOOKED_S = 0.6


def test_packets_that_are_wanted_no_more_cost_nothing_and_can_be_wanted_again() -> None:
    with mjpeg_server() as server:
        source = SupervisedSource(f"http://{server.host}/video")
        try:
            got: list[Packet] = []
            source.on_packet = got.append
            wait_until(lambda: len(got) > 3, "packets")
            source.on_packet = None
            next_frame(source)
            before, began_s = _seconds_used(), time.monotonic()
            wait_until(lambda: time.monotonic() - began_s > _LOOKED_S, "a while")
            used = (_seconds_used() - before) / (time.monotonic() - began_s)
            assert used < 0.25, "the thread of the camera reads a line that nobody empties, again and again"
            del got[:]
            source.on_packet = got.append
            wait_until(lambda: len(got) > 3, "packets again")
        finally:
            source.close()


def _seconds_used() -> float:
    """Of the thread that looks after the camera."""
    (thread,) = (one for one in threading.enumerate() if one.name.startswith("edgecv-supervisor"))
    fields = Path(f"/proc/self/task/{thread.native_id}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

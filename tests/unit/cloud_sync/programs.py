"""Programs that the fault tests start in processes of their own and kill.

python -m tests.unit.cloud_sync.programs device URL OUTBOX LOG COUNT   emits, and logs each accepted id
python -m tests.unit.cloud_sync.programs ingest URL DIR                lands until it is killed
python -m tests.unit.cloud_sync.programs pictures URL OUTBOX UPLOAD COUNT  emits events with pictures
python -m tests.unit.cloud_sync.programs sink URL OUTBOX PLATFORM      is online on a platform until it is killed
python -m tests.unit.cloud_sync.programs hold OUTBOX FLAG              owns an outbox until it is killed
python -m tests.unit.cloud_sync.programs home_assistant URL DIR        shows a camera until it is killed
"""

from __future__ import annotations

import secrets
import sys
import threading
import time
from pathlib import Path

from edgecv.cloud_sync.delivery.sender import Sender
from edgecv.cloud_sync.ingest.ingest import Ingest
from edgecv.cloud_sync.mqtt.broker_url import parse_broker_url
from edgecv.cloud_sync.outbox.outbox import Outbox
from edgecv.cloud_sync.sink import MqttSink
from tests.unit.cloud_sync.home_assistant import Camera, running_sink
from tests.unit.cloud_sync.support import ADDRESS, FAST, FAST_SEND, SMALL, make_envelope, until


def device(url: str, folder: str, log: str, count: str) -> None:
    """The log is the list of obligations: what stands in it was accepted and must arrive."""
    outbox = Outbox(folder, limits=SMALL)
    sender = Sender(outbox, parse_broker_url(url), ADDRESS, options=FAST_SEND)
    sender.start()
    with Path(log).open("a", encoding="utf-8") as obligations:
        for number in range(1, int(count) + 1):
            envelope = make_envelope(outbox)
            outbox.put(envelope)
            until(lambda accepted=number: outbox.stats().accepted == accepted, "it is accepted", pause_s=0.002)
            obligations.write(f"{envelope.id}\n")
            obligations.flush()
    drained = sender.drain(15.0)
    sender.close()
    outbox.close()
    sys.exit(0 if drained else 1)


def ingest(url: str, folder: str) -> None:
    Ingest(url, folder, reconnect=FAST).run(threading.Event())


def pictures(url: str, folder: str, upload: str, count: str) -> None:
    from tests.integration.test_sync_blobs import open_sink, pictured

    sink = open_sink(url, Path(folder), upload=upload, drain_s=60.0)
    for _ in range(int(count)):
        sink.emit(pictured(secrets.randbits(32)))
        time.sleep(0.02)
    sink.close()
    stats = sink.stats()
    print(stats, file=sys.stderr)
    sys.exit(1 if stats.snapshots_waiting or stats.pending else 0)


def sink(url: str, folder: str, platform: str) -> None:
    MqttSink(url, tenant=ADDRESS.tenant, device=ADDRESS.device, outbox=folder, ack="broker", platform=platform)
    time.sleep(60.0)


def hold(folder: str, flag: str) -> None:
    outbox = Outbox(folder, limits=SMALL)
    Path(flag).write_text("held")
    time.sleep(60.0)
    outbox.close()


def home_assistant(url: str, folder: str) -> None:
    with running_sink(url, Path(folder), Camera("door")):
        time.sleep(60.0)


if __name__ == "__main__":
    programs = {
        "device": device,
        "ingest": ingest,
        "pictures": pictures,
        "sink": sink,
        "hold": hold,
        "home_assistant": home_assistant,
    }
    programs[sys.argv[1]](*sys.argv[2:])

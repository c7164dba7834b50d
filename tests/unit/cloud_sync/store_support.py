"""Stores with events in them, for the tests of cloud_sync/store."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgecv.cloud_sync.envelope import Envelope, decode, encode
from edgecv.cloud_sync.ingest.database import EventDatabase
from edgecv.cloud_sync.ingest.landed import Landed, Stored
from edgecv.cloud_sync.mqtt.topics import Address
from edgecv.cloud_sync.store.sql.query import open_answers
from edgecv.cloud_sync.store.writer import StoreWriter

# A moment in the middle of an hour that is over.
NOON_S = int(datetime(2026, 11, 20, 12, 30, tzinfo=timezone.utc).timestamp())
NEVER = threading.Event()


def box(class_name: str = "cat", **more: Any) -> dict[str, Any]:
    known = {"xyxy": [64, 48, 128, 96], "confidence": 0.5, "class_id": 1, "label": class_name, "tracker_id": 7}
    return {**known, "xyxyn": [0.1, 0.1, 0.2, 0.2], **more}


def event(
    seq: int,
    data: dict[str, Any] | None = None,
    *,
    device: str = "cam-1",
    tenant: str = "acme",
    boot: int = 7,
    at_s: float = NOON_S,
    received_s: float | None = None,
    kind: str = "edgecv.result",
    model: str = "demo/onnx-int8",
) -> Landed:
    """An event as it comes out of a batch; by default a frame with one box, received when it happened."""
    address = Address(tenant=tenant, device=device)
    moment = datetime.fromtimestamp(int(at_s), tz=timezone.utc)
    envelope = Envelope(
        id=f"{boot}:{seq}",
        source=address.source,
        type=kind,
        time=f"{moment:%Y-%m-%dT%H:%M:%S}.000000000Z",
        boot=boot,
        seq=seq,
        mono_ns=seq,
        clock_synced=True,
        model=model,
        data={"index": seq, "source_id": "door", "detections": [box()]} if data is None else data,
    )
    received_ns = int((at_s if received_s is None else received_s) * 1e9)
    return Landed.from_envelope(decode(encode(envelope)), address, received_ns)


def store(folder: Path, events: Sequence[Landed]) -> Stored:
    """Store events as ingest does."""
    landing = EventDatabase(folder)
    try:
        return landing.store(events, [])
    finally:
        landing.close()


def merge(folder: Path) -> int:
    """Merge as ``edgecv store merge`` does; how many events were merged."""
    landing = EventDatabase(folder)
    try:
        writer = StoreWriter(landing)
        report = writer.merge(NEVER)
        writer.compact(NEVER)
        return report.events
    finally:
        landing.close()


def ask(folders: Path | Iterable[Path], sql: str) -> list[dict[str, Any]]:
    """The rows of a query."""
    with open_answers([folders] if isinstance(folders, Path) else list(folders)) as answers:
        return answers.run(sql, lambda reader: reader.read_all().to_pylist())


def value(folders: Path | Iterable[Path], sql: str) -> Any:
    """The one value of a query."""
    (row,) = ask(folders, sql)
    (found,) = row.values()
    return found

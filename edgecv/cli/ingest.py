"""``edgecv ingest`` stores the events that devices publish to a broker."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecv.cli.console import INTERRUPTED, log_lines, note
from edgecv.cli.entry import take_over

if TYPE_CHECKING:
    from edgecv.cloud_sync.ingest.ingest import Ingest


def ingest(
    mqtt: Annotated[str, typer.Option(help="Broker: mqtts://user@host?password_file=FILE.")],
    db: Annotated[Path, typer.Option(help="Folder for landing.db.")],
    group: Annotated[
        str | None, typer.Option(help="Share the events with other ingests of this name, each with its own --db.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Port for /metrics and /healthz: 9100, or 9100?host=0.0.0.0.", metavar="PORT")
    ] = None,
    merge_at: Annotated[
        str, typer.Option(help="Merge events into Parquet: hourly, or once a day at a time in UTC such as 03:00.")
    ] = "",
    retain_days: Annotated[
        int | None, typer.Option(min=1, help="Delete what is older, whole hours, after each merge.")
    ] = None,
    blob_urls: Annotated[
        str,
        typer.Option(
            help="Where devices upload snapshots: s3://BUCKET/PREFIX?..., or command:PROGRAM; else they come here."
        ),
    ] = "",
    blobs_mb: Annotated[float, typer.Option(min=0, help="Most megabytes of snapshots of one device.")] = 1000.0,
    blob_missing_h: Annotated[
        float, typer.Option(min=0, help="A snapshot that did not come for so many hours is missing.")
    ] = 24.0,
) -> None:
    """Store the events of every device of a broker, and acknowledge each after its commit."""
    from edgecv._internal.extras import require
    from edgecv.cloud_sync.ingest.blobs.limits import BlobLimits
    from edgecv.cloud_sync.ingest.blobs.signers import parse_signer
    from edgecv.cloud_sync.ingest.ingest import Ingest
    from edgecv.cloud_sync.store.upkeep import UpkeepOptions

    upkeep = UpkeepOptions(merge_at=merge_at, retain_days=retain_days)
    for package in ("pyarrow", "duckdb") if merge_at else ():
        require(package, "cloud")  # now, and not at three in the morning
    log_lines(logging.INFO)
    stop = threading.Event()
    caught: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        caught.append(number)
        stop.set()

    take_over(end)
    limits = BlobLimits(device_bytes=round(blobs_mb * 1e6), missing_after_s=blob_missing_h * 3600)
    signer = parse_signer(blob_urls) if blob_urls else None
    running = Ingest(mqtt, db, group=group, upkeep=upkeep, blobs=limits, signer=signer)
    with _metrics(running, metrics) as port:
        note(f"events go to {running.db_path}; stop with Ctrl-C")
        if port is not None:
            note(f"numbers for Prometheus are at port {port}, /metrics")
        running.run(stop)
    stats = running.stats()
    note(f"{stats.stored} stored, {stats.duplicates} duplicates, {stats.rejected} rejected")
    if stats.blobs or stats.blobs_refused:
        note(f"{stats.blobs} snapshots stored, {stats.blobs_refused} messages about snapshots refused")
    if stats.renamed:
        note(f"{stats.renamed} had the id of another event and were stored under one of their own")
    if stats.erased:
        note(f"{stats.erased} were of what is kept no more, and were not stored")
    if signal.SIGINT in caught:
        raise typer.Exit(INTERRUPTED)


def _metrics(running: Ingest, place: str | None) -> AbstractContextManager[int | None]:
    if place is None:
        return nullcontext()
    from edgecv.cloud_sync.ingest.metrics import IngestCollector
    from edgecv.pipelines.sinks.metrics.served import served_metrics

    def health() -> tuple[bool, Mapping[str, Any]]:
        stats = running.stats()
        return not stats.last_error, {
            "ok": not stats.last_error,
            "reasons": [stats.last_error] * bool(stats.last_error),
        }

    return served_metrics(place, IngestCollector(running.stats, running.devices), health)

"""``edgecv ingest`` stores the events that devices publish to a broker."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from edgecv.cli.console import INTERRUPTED, log_lines, note
from edgecv.cli.entry import take_over


def ingest(
    mqtt: Annotated[str, typer.Option(help="Broker: mqtts://user@host?password_file=FILE.")],
    db: Annotated[Path, typer.Option(help="Folder for landing.db.")],
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
    from edgecv.cloud_sync.ingest.blobs.limits import BlobLimits
    from edgecv.cloud_sync.ingest.blobs.signers import parse_signer
    from edgecv.cloud_sync.ingest.ingest import Ingest

    log_lines(logging.INFO)
    stop = threading.Event()
    caught: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        caught.append(number)
        stop.set()

    take_over(end)
    limits = BlobLimits(device_bytes=round(blobs_mb * 1e6), missing_after_s=blob_missing_h * 3600)
    running = Ingest(mqtt, db, blobs=limits, signer=parse_signer(blob_urls) if blob_urls else None)
    note(f"events go to {running.db_path}; stop with Ctrl-C")
    running.run(stop)
    stats = running.stats()
    note(f"{stats.stored} stored, {stats.duplicates} duplicates, {stats.rejected} rejected")
    if stats.blobs or stats.blobs_refused:
        note(f"{stats.blobs} snapshots stored, {stats.blobs_refused} messages about snapshots refused")
    if stats.renamed:
        note(f"{stats.renamed} had the id of another event and were stored under one of their own")
    if signal.SIGINT in caught:
        raise typer.Exit(INTERRUPTED)

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
) -> None:
    """Store the events of every device of a broker, and acknowledge each after its commit."""
    from edgecv.cloud_sync.ingest.ingest import Ingest

    log_lines(logging.INFO)
    stop = threading.Event()
    caught: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        caught.append(number)
        stop.set()

    take_over(end)
    running = Ingest(mqtt, db, group=group)
    with _metrics(running, metrics):
        note(f"events go to {running.db_path}; stop with Ctrl-C")
        running.run(stop)
    stats = running.stats()
    note(f"{stats.stored} stored, {stats.duplicates} duplicates, {stats.rejected} rejected")
    if stats.renamed:
        note(f"{stats.renamed} had the id of another event and were stored under one of their own")
    if signal.SIGINT in caught:
        raise typer.Exit(INTERRUPTED)


def _metrics(running: Ingest, place: str | None) -> AbstractContextManager[object]:
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

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
    running = Ingest(mqtt, db)
    note(f"events go to {running.db_path}; stop with Ctrl-C")
    running.run(stop)
    stats = running.stats()
    note(f"{stats.stored} stored, {stats.duplicates} duplicates, {stats.rejected} rejected")
    if stats.renamed:
        note(f"{stats.renamed} had the id of another event and were stored under one of their own")
    if signal.SIGINT in caught:
        raise typer.Exit(INTERRUPTED)

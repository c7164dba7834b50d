"""A large outbox file is checked while the outbox works already: reading a backlog of a million events takes its time."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from edgecv.cloud_sync.outbox.schema import check


def open_read_only(path: Path) -> sqlite3.Connection:
    """A connection that never writes, beside the one that does.

    Raises:
        sqlite3.Error: there is no such file, or it cannot be read.
    """
    db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA query_only=1")
    return db


class FileCheck:
    """Reads every page once on a thread of its own; ``on_damage`` is called there when their structure is damaged."""

    def __init__(self, path: Path, on_damage: Callable[[sqlite3.Error], object]) -> None:
        self._path = path
        self._on_damage = on_damage
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="edgecv-outbox-check", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the check, done or not."""
        with self._lock:
            self._stopped = True
            if self._db is not None:
                self._db.interrupt()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        with (
            suppress(sqlite3.OperationalError),
            closing(open_read_only(self._path)) as db,
        ):  # stopped, or the disk fails
            try:
                with self._lock:
                    if self._stopped:
                        return
                    self._db = db
                check(db)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                self._on_damage(error)
            finally:
                with self._lock:
                    self._db = None

"""Questions to an events file that somebody writes meanwhile: read-only, short, and with a limit on their time."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from edgecv.errors import ConfigError, SinkError
from edgecv.pipelines.sinks.events.schema import check_kind

LIMIT_S = 2.0  # for one question; the page waits a little longer
_WAIT_S = 4.0  # with its turn
_STEPS = 5000  # of SQLite, between two looks at the clock: about a millisecond
_BUSY_S = 0.5
_THREADS = 2

Answer = TypeVar("Answer")


class HistoryReader:
    """Asks an events file in its own threads, each question on a connection of its own that never writes."""

    def __init__(self, path: str | Path, limit_s: float = LIMIT_S) -> None:
        self._path = Path(path)
        self._limit_s = limit_s
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="edgecv-history")

    async def ask(self, question: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """The answer. Raises ``SinkError``: there is no such file, it is damaged, it took too long; and as ``question``."""
        loop = asyncio.get_running_loop()
        try:
            return await asyncio.wait_for(loop.run_in_executor(self._threads, partial(self.answer, question)), _WAIT_S)
        except asyncio.TimeoutError as error:
            raise SinkError("The events file does not answer in time.", "Ask for less, or later.") from error

    def answer(self, question: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """As ``ask``, in this thread."""
        if not self._path.is_file():
            raise SinkError(f"{self._path.name} does not exist yet.", f"Does a sink write it? events:{self._path.name}")
        try:
            with closing(self._connect()) as db:
                self._check(db)
                db.execute("BEGIN")  # one moment for all statements of the question
                return question(db)
        except sqlite3.Error as error:
            said = "it took too long" if "interrupted" in str(error) else str(error)
            raise SinkError(f"{self._path.name} cannot be read: {said}.") from error

    def close(self) -> None:
        """Let go of the threads; a second call does nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _check(self, db: sqlite3.Connection) -> None:
        try:
            is_ready = check_kind(db, self._path.name)
        except ConfigError as error:
            raise SinkError(error.message, error.hint) from error
        if not is_ready:
            raise SinkError(f"{self._path.name} holds no events yet.")

    def _connect(self) -> sqlite3.Connection:
        where = f"file:{quote(str(self._path.absolute()))}?mode=ro"
        db = sqlite3.connect(where, uri=True, isolation_level=None, timeout=_BUSY_S)
        end_s = time.monotonic() + self._limit_s
        db.set_progress_handler(lambda: time.monotonic() > end_s, _STEPS)
        return db

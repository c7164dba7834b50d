"""A question to the pipeline that may take long to be answered, asked once for all who wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class SharedQuestion(Generic[Answer]):
    """Asks in a thread of its own, and never twice at one time.

    The server goes on while the answer is on its way. A question that is never answered holds one thread, however many wait.
    """

    def __init__(self, ask: Callable[[], Answer], limit_s: float) -> None:
        """Prepare to ask; whoever waits for longer than ``limit_s`` gets ``asyncio.TimeoutError``."""
        self._ask = ask
        self._limit_s = limit_s
        self._asked: Future[Answer] | None = None

    async def answer(self) -> Answer:
        """Wait for the answer; what ``ask`` raises is raised here."""
        if self._asked is None or self._asked.done():
            self._asked = Future()
            # Not a pool: its threads would keep the program from ending when a gauge hangs.
            threading.Thread(target=self._run, args=(self._asked,), name="edgecv-web-question", daemon=True).start()
        return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._asked)), self._limit_s)

    def _run(self, asked: Future[Answer]) -> None:
        try:
            asked.set_result(self._ask())
        except Exception as error:  # noqa: BLE001 - raised where the answer is awaited
            asked.set_exception(error)

"""A broker inside this process, for the demo: amqtt, on loopback, MQTT 3.1.1."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from concurrent.futures import (
    Future,
    TimeoutError as FutureTimeoutError,  # the builtin one only from Python 3.11
)
from typing import Any

from edgecv._internal.extras import require
from edgecv.errors import SyncError

_ATTEMPTS = 5
_ANYBODY = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}


class EmbeddedBroker:
    """A broker for one demonstration; it keeps nothing and lets everybody on this machine in.

    Raises:
        MissingDependency: amqtt is not installed.
        SyncError: it did not start in ``timeout_s``, which it also has for stopping.
    """

    def __init__(self, timeout_s: float = 10.0) -> None:
        self._timeout_s = timeout_s
        self._amqtt = require("amqtt.broker", "demo")
        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # they report every client as a warning
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        started: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="edgecv-broker", daemon=True)
        self._thread.start()
        try:
            self.port = started.result(timeout_s)
        except FutureTimeoutError as error:
            raise SyncError(f"The demo broker did not start in {timeout_s} s.", "Try again.") from error

    @property
    def url(self) -> str:
        """What to give to a sink and to ingest."""
        # amqtt reads the properties of an MQTT 5 CONNECT as a name and waits for the rest of it: ask for 3.1.1 at once.
        return f"mqtt://127.0.0.1:{self.port}?protocol=3.1.1"

    def close(self) -> bool:
        """Stop; ``False`` when that took too long. A second call does nothing."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(self._timeout_s)
        return not self._thread.is_alive()

    def __enter__(self) -> EmbeddedBroker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, started: Future[int]) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve(started))
        except SyncError as error:
            started.set_exception(error)
        finally:
            self._loop.close()

    async def _serve(self, started: Future[int]) -> None:
        broker, port = await self._start()
        started.set_result(port)
        await self._stop.wait()
        try:
            await asyncio.wait_for(broker.shutdown(), self._timeout_s / 2)
        except asyncio.TimeoutError:
            return  # its clients are gone with this loop

    async def _start(self) -> tuple[Any, int]:
        """amqtt does not say which port it got for 0, so a free one is looked up; another process may be faster."""
        for _ in range(_ATTEMPTS):
            port = _free_port()
            listener = {"type": "tcp", "bind": f"127.0.0.1:{port}"}
            broker = self._amqtt.Broker({"listeners": {"default": listener}, "plugins": _ANYBODY}, loop=self._loop)
            try:
                await broker.start()
            except self._amqtt.BrokerError:
                continue
            return broker, port
        raise SyncError("The demo broker found no free port on loopback.", "Try again.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

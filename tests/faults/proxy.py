"""A TCP proxy that breaks connections in the ways a network does.

It runs an event loop in a thread of its own; ``set`` changes what becomes of all connections, present and future:

===============  ======================================================================================================
``passing``      every byte goes through
``black_hole``   nothing goes through in either direction; what waits goes on when the fault is over, as with TCP
``upward``       one way only: from the client to the server
``downward``     one way only: from the server to the client
``slow``         ``slow_bytes_s`` bytes a second, in pieces, each ``slow_delay_s`` late
``refusing``     connections are reset, and so is every new one
``half_open``    the server's side is closed; the client's stays open, and what it says is swallowed, for as long as it lives
===============  ======================================================================================================

``reset`` resets all connections once. A proxy cannot lose a SYN: in a black hole a new connection is made and then says nothing.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Mode = Literal["passing", "black_hole", "upward", "downward", "slow", "refusing", "half_open"]
_T = TypeVar("_T")
_PIECE_BYTES = 16 * 1024
_DEADLINE_S = 5.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST


@dataclass(slots=True, eq=False)
class _Half:
    """One direction of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    upward: bool
    swallowing: bool = False  # the other side is gone, and this one does not know


class FaultProxy:
    """Listens on loopback and stands between clients and the server on ``port``."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._mode: Mode = "passing"
        self._halves: set[_Half] = set()
        self._serving: set[asyncio.Task[Any]] = set()
        self.slow_bytes_s = 4_000
        self.slow_delay_s = 0.05
        self.connections = 0
        self.up_bytes = self.down_bytes = 0
        self.held = 0  # pieces that a fault stopped, slowed or swallowed: whether it really happened
        self.broken = 0  # connections that were reset or left half open
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self._listener = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = int(self._listener.sockets[0].getsockname()[1])
        self.url = f"mqtt://127.0.0.1:{self.port}"

    def set(self, mode: Mode) -> None:
        """Treat all connections like this from now on."""
        self._call(self._set(mode))

    def reset(self) -> None:
        """Reset every connection now."""
        self._call(self._do(self._reset_all))

    def close(self) -> None:
        """End everything."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_DEADLINE_S)
        self._loop.close()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_DEADLINE_S)

    # What follows runs on the loop.

    async def _do(self, action: Callable[[], None]) -> None:
        action()

    async def _set(self, mode: Mode) -> None:
        self._mode = mode
        if mode == "refusing":
            self._reset_all()
        elif mode == "half_open":
            self._leave_half_open()
        self._changed.set()
        self._changed = asyncio.Event()

    async def _close(self) -> None:
        self._listener.close()
        self._reset_all()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _reset_all(self) -> None:
        for half in list(self._halves):
            _reset(half.writer)
            self.broken += half.upward

    def _leave_half_open(self) -> None:
        for half in list(self._halves):
            half.swallowing = True
            if half.upward:
                self.broken += 1
                half.writer.close()  # towards the server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._join(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._serving.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "refusing":
            self.held += 1
            _reset(writer)
            return
        self.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            _reset(writer)
            return
        up = _Half(reader, far_writer, upward=True)
        down = _Half(far_reader, writer, upward=False)
        self._halves |= {up, down}
        tasks = [asyncio.ensure_future(self._pump(half)) for half in (up, down)]
        try:
            # A side that closed ends both, except when the client shall not hear of it.
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if up.swallowing:
                await tasks[0]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._halves -= {up, down}
            far_writer.close()

    async def _pump(self, half: _Half) -> None:
        with suppress(OSError):
            while piece := await half.reader.read(_PIECE_BYTES):
                if self._mode != "passing" or half.swallowing:
                    self.held += 1
                    piece = await self._through_fault(half, piece)
                if half.upward:
                    self.up_bytes += len(piece)
                else:
                    self.down_bytes += len(piece)
                if piece:
                    half.writer.write(piece)
                    await half.writer.drain()

    async def _through_fault(self, half: _Half, piece: bytes) -> bytes:
        """Wait until the piece may go on; empty when it never may."""
        while not half.swallowing:
            if self._mode == "slow":
                await asyncio.sleep(self.slow_delay_s + len(piece) / self.slow_bytes_s)
                return piece
            if self._lets_through(half):
                return piece
            await self._changed.wait()
        return b""

    def _lets_through(self, half: _Half) -> bool:
        if self._mode in ("passing", "refusing", "half_open"):
            return True  # half_open: only connections that began later come here
        return self._mode == ("upward" if half.upward else "downward")


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()

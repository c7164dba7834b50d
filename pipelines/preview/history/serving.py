"""Sends a file of an event, slice by slice: who does not read keeps one slice in memory, and is let go after a while."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from starlette.types import Message, Receive, Scope, Send

from edgecv.pipelines.preview.history.media import MediaFile, Part
from edgecv.pipelines.web.visitors import visitor_of

MOST_OF_ONE = 8  # files that one visitor takes at a time
_MOST_IN_ALL = 16
_STALLED_S = 10.0
_SLICE_BYTES = 1 << 16


class Takers:
    """Counts who takes files, in the thread of the server."""

    def __init__(self, abort: Callable[[object], None], stalled_s: float = _STALLED_S) -> None:
        """Count from nothing; ``abort`` cuts the connection of a client that takes nothing for ``stalled_s``."""
        self.abort = abort
        self.stalled_s = stalled_s
        self._takers: Counter[str] = Counter()

    def is_full(self, address: str) -> bool:
        """Whether one more file to that address has to wait."""
        return self._takers[visitor_of(address)] >= MOST_OF_ONE or self._takers.total() >= _MOST_IN_ALL

    @contextmanager
    def taking(self, address: str) -> Iterator[None]:
        """One more file is under way while this lasts."""
        visitor = visitor_of(address)
        self._takers[visitor] += 1
        try:
            yield
        finally:
            self._takers[visitor] -= 1
            self._takers += Counter()  # forgets what stands at zero


class FileResponse:
    """A part of an open file, which is closed at the end."""

    def __init__(self, takers: Takers, file: MediaFile, part: Part | None, reading: Executor) -> None:
        self._takers, self._file, self._part, self._reading = takers, file, part, reading

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it until all of it is sent, the client leaves, or takes nothing for too long."""
        scope.setdefault("state", {})["endless"] = True  # the deadline here is for each slice, not for the whole film
        try:
            with self._takers.taking(scope["client"][0] if scope.get("client") else ""):
                await self._serve(scope, receive, send)
        finally:
            os.close(self._file.descriptor)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        leaving = asyncio.ensure_future(_disconnect(receive))
        sending = asyncio.ensure_future(self._send_part(send, is_head=scope["method"] == "HEAD"))
        try:
            await asyncio.wait((leaving, sending), return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and not sending.result():
                self._takers.abort(scope["client"])
        finally:
            leaving.cancel()
            sending.cancel()
            await asyncio.wait((sending,))  # a read that is under way ends before the file is closed

    async def _send_part(self, send: Send, *, is_head: bool) -> bool:
        """``False`` when the client stalled, or the file became shorter meanwhile."""
        part = self._part or Part(begin=0, end=0)
        try:
            await asyncio.wait_for(send(self._start()), self._takers.stalled_s)
            at, end = part.begin, part.begin if is_head else part.end
            while at < end:
                data = await self._read(at, min(_SLICE_BYTES, end - at))
                if not data:
                    return False
                await asyncio.wait_for(send(_body(data)), self._takers.stalled_s)
                at += len(data)
            await asyncio.wait_for(send(_body(b"", more=False)), self._takers.stalled_s)
        except asyncio.TimeoutError:
            return False
        return True

    async def _read(self, at: int, length: int) -> bytes:
        reading = asyncio.get_running_loop().run_in_executor(self._reading, os.pread, self._file.descriptor, length, at)
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            await asyncio.wait((reading,))
            raise
        except OSError:
            return b""

    def _start(self) -> Message:
        file, part = self._file, self._part
        headers = {"accept-ranges": "bytes", "content-type": file.content_type, "etag": file.tag}
        if part is None:
            headers |= {"content-range": f"bytes */{file.size_bytes}", "content-length": "0"}
            return _head(416, headers)
        headers["content-length"] = str(part.end - part.begin)
        if part.is_whole:
            return _head(200, headers)
        headers["content-range"] = f"bytes {part.begin}-{part.end - 1}/{file.size_bytes}"
        return _head(206, headers)


def _head(status: int, headers: dict[str, str]) -> Message:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": pairs}


def _body(data: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

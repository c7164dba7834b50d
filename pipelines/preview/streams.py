"""Motion JPEG for browsers: the newest picture again and again; who is too slow misses some."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from starlette.types import Receive, Scope, Send

from edgecv.pipelines.preview.pictures import Channel, Pictures

MOST_STREAMS = 16
_POLLS_PER_PICTURE = 4
_LONGEST_POLL_S = 0.25  # the end of the page is seen after that
_REPEAT_S = (
    5.0  # a picture that stays is sent again, or a watcher who went away in silence would hold his place for ever
)
_STALLED_S = 10.0  # a watcher who takes nothing for so long is let go
_BOUNDARY = b"edgecv-picture"
# Stands before each picture, sent with the one before: Chromium shows a picture when the head of the next one arrives.
_HEAD = b"\r\n--" + _BOUNDARY + b"\r\nContent-Type: image/jpeg\r\n\r\n"

Abort = Callable[[object], None]


class Streams:
    """Counts who watches what; all of it happens in the thread of the server, but for ``close``."""

    def __init__(
        self, pictures: Pictures, abort: Abort, most: int = MOST_STREAMS, stalled_s: float = _STALLED_S
    ) -> None:
        """Nobody watches.

        Args:
            pictures: What is shown.
            abort: Cuts the connection of a client, named as in the scope of its request.
            most: Streams at one time.
            stalled_s: A watcher who takes nothing for so long is let go.
        """
        self.pictures = pictures
        self.abort = abort
        self.stalled_s = stalled_s
        self.closing = False
        self._most = most
        self._open: Counter[tuple[str, str]] = Counter()  # by page and channel

    def __len__(self) -> int:
        return self._open.total()

    @property
    def full(self) -> bool:
        """Whether one more watcher has to be sent away."""
        return len(self) >= self._most

    def watched_by(self, page: str) -> list[str]:
        """The channels that one open page receives."""
        return sorted(key for (name, key), count in self._open.items() if name == page and count)

    def enter(self, page: str, channel: Channel) -> None:
        """One more watcher."""
        self._open[page, channel.key] += 1

    def leave(self, page: str, channel: Channel) -> None:
        """One watcher less."""
        self._open[page, channel.key] -= 1
        self._open += Counter()  # forgets what stands at zero

    def close(self) -> None:
        """Let every stream end soon. From any thread."""
        self.closing = True


class MjpegResponse:
    """One watcher of one channel."""

    def __init__(self, streams: Streams, channel: Channel, page: str) -> None:
        self._streams = streams
        self._channel = channel
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send pictures until the watcher leaves, stalls, or the page is closed."""
        self._streams.enter(self._page, self._channel)
        try:
            await self._serve(scope, receive, send)
        finally:
            self._streams.leave(self._page, self._channel)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = b"multipart/x-mixed-replace; boundary=" + _BOUNDARY
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        leaving = asyncio.ensure_future(_disconnect(receive))
        sending = asyncio.ensure_future(self._send_pictures(send))
        try:
            await asyncio.wait((leaving, sending), return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and not sending.result():
                self._streams.abort(scope["client"])
                await asyncio.wait((leaving,), timeout=1.0)
        finally:
            leaving.cancel()
            sending.cancel()

    async def _send_pictures(self, send: Send) -> bool:
        """``False`` when the watcher stalled."""
        await send(_body(_HEAD))
        shown, sent_s = 0, time.monotonic()
        while self._goes_on():
            picture = await self._streams.pictures.current(self._channel)
            repeat = time.monotonic() - sent_s >= _REPEAT_S
            if picture is not None and (picture.number != shown or repeat):
                try:
                    await asyncio.wait_for(send(_body(picture.jpeg + _HEAD)), self._streams.stalled_s)
                except asyncio.TimeoutError:
                    return False
                shown, sent_s = picture.number, time.monotonic()
            await asyncio.sleep(min(_LONGEST_POLL_S, 1 / (_POLLS_PER_PICTURE * self._streams.pictures.fps)))
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return True

    def _goes_on(self) -> bool:
        return not self._streams.closing and self._streams.pictures.holds(self._channel)


def _body(data: bytes) -> dict[str, object]:
    return {"type": "http.response.body", "body": data, "more_body": True}


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

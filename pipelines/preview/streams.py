"""Motion JPEG for browsers: the newest image again and again; who is too slow misses some."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from edgecv.pipelines.preview.painted import Channel, PaintedImages
from edgecv.pipelines.web.visitors import visitor_of

MOST_STREAMS = 16  # of one visitor
_STREAMS_IN_ALL = 24  # more than one visitor may have: there is always a place for another one
_POLLS_PER_IMAGE = 4
_LONGEST_POLL_S = 0.25  # the end of the page is seen after that
_REPEAT_S = (
    5.0  # an image that stays is sent again, or a watcher who went away in silence would hold his place for ever
)
_STALLED_S = 10.0  # a watcher who takes nothing for so long is let go
_SLICE_BYTES = 1 << 16  # of a single image: what a slow reader leaves in memory
_BOUNDARY = b"edgecv-image"
# Stands before each image, sent with the one before: Chromium shows an image when the head of the next one arrives.
_HEAD = b"\r\n--" + _BOUNDARY + b"\r\nContent-Type: image/jpeg\r\n\r\n"

Abort = Callable[[object], None]


class Streams:
    """Counts who watches what; all of it happens in the thread of the server, but for ``close``."""

    def __init__(
        self, images: PaintedImages, abort: Abort, most: int = MOST_STREAMS, stalled_s: float = _STALLED_S
    ) -> None:
        """Count from nothing; ``abort`` cuts the connection of a client, named as in the scope of its request.

        ``most`` bounds the streams of one visitor at one time, and the single images that it has not taken yet. A watcher
        who takes nothing for ``stalled_s`` is let go.
        """
        self.images = images
        self.abort = abort
        self.stalled_s = stalled_s
        self.closing = False
        self._most = most
        self._open: Counter[tuple[str, str]] = Counter()  # by page and channel
        self._watchers: Counter[str] = Counter()  # by visitor
        self._takers: Counter[str] = Counter()  # of single images, by visitor

    def __len__(self) -> int:
        return self._open.total()

    def is_full(self, address: str) -> bool:
        """Whether one more watcher from there has to be sent away."""
        return self._is_full(self._watchers, address)

    def takes_no_image(self, address: str) -> bool:
        """Whether so many single images are under way to that address that one more has to wait."""
        return self._is_full(self._takers, address)

    def watched_by(self, page: str) -> list[str]:
        """The channels that one open page receives."""
        return sorted(key for (name, key), count in self._open.items() if name == page and count)

    @contextmanager
    def watching(self, page: str, channel: Channel, address: str) -> Iterator[None]:
        """One more watcher while this lasts."""
        with _one_more(self._open, (page, channel.key)), _one_more(self._watchers, visitor_of(address)):
            yield

    @contextmanager
    def taking(self, address: str) -> Iterator[None]:
        """One more image is under way while this lasts."""
        with _one_more(self._takers, visitor_of(address)):
            yield

    def _is_full(self, places: Counter[str], address: str) -> bool:
        return places[visitor_of(address)] >= self._most or places.total() >= max(self._most, _STREAMS_IN_ALL)

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
        """Send images until the watcher leaves, stalls, or the page is closed."""
        scope.setdefault("state", {})["endless"] = True  # the server sets a deadline for every other answer
        with self._streams.watching(self._page, self._channel, _address(scope)):
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        leaving = asyncio.ensure_future(_disconnect(receive))
        sending = asyncio.ensure_future(self._send_images(send))
        try:
            await asyncio.wait((leaving, sending), return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and not sending.result():
                self._streams.abort(scope["client"])
                await asyncio.wait((leaving,), timeout=1.0)
        finally:
            leaving.cancel()
            sending.cancel()

    async def _send_images(self, send: Send) -> bool:
        """``False`` when the watcher stalled."""
        try:
            await self._send(send, _start(b"multipart/x-mixed-replace; boundary=" + _BOUNDARY))
            await self._send(send, _body(_HEAD))
            shown, sent_s = 0, time.monotonic()
            while self._goes_on():
                image = await self._streams.images.current(self._channel)
                repeat = time.monotonic() - sent_s >= _REPEAT_S
                if image is not None and (image.number != shown or repeat):
                    await self._send(send, _body(image.jpeg + _HEAD))
                    shown, sent_s = image.number, time.monotonic()
                await asyncio.sleep(min(_LONGEST_POLL_S, 1 / (_POLLS_PER_IMAGE * self._streams.images.fps)))
            await self._send(send, _body(b"", more=False))
        except asyncio.TimeoutError:
            return False
        return True

    async def _send(self, send: Send, message: Message) -> None:
        """Send, and raise ``TimeoutError`` when what was sent before is not taken for too long."""
        await asyncio.wait_for(send(message), self._streams.stalled_s)

    def _goes_on(self) -> bool:
        return not self._streams.closing and self._streams.images.holds(self._channel)


class ImageResponse:
    """One image, sent in slices: a client that does not read keeps only one of them in memory."""

    def __init__(self, streams: Streams, jpeg: bytes) -> None:
        self._streams = streams
        self._jpeg = jpeg

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the interface's
        """Send the JPEG as the answer to one request."""
        with self._streams.taking(_address(scope)):
            await send(_start(b"image/jpeg", len(self._jpeg)))
            for at in range(0, len(self._jpeg), _SLICE_BYTES):
                await send(_body(self._jpeg[at : at + _SLICE_BYTES]))
            await send(_body(b"", more=False))


@contextmanager
def _one_more(places: Counter[Any], place: object) -> Iterator[None]:
    places[place] += 1
    try:
        yield
    finally:
        places[place] -= 1
        places += Counter()  # forgets what stands at zero


def _address(scope: Scope) -> str:
    return scope["client"][0] if scope.get("client") else ""


def _start(kind: bytes, length: int | None = None) -> Message:
    headers = [(b"content-type", kind)]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    return {"type": "http.response.start", "status": 200, "headers": headers}


def _body(data: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

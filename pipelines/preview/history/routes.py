"""The addresses of the events view."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from edgecv.errors import ConfigError, SinkError
from edgecv.pipelines.preview.history.media import MediaFile, open_media, part_of
from edgecv.pipelines.preview.history.queries import MOST_ROWS, Filter, choices, day, latest, media_path
from edgecv.pipelines.preview.history.reader import HistoryReader
from edgecv.pipelines.preview.history.serving import FileResponse, Takers
from edgecv.pipelines.preview.history.thumbnails import Thumbnails
from edgecv.pipelines.web.answers import json_answer
from edgecv.pipelines.web.request_checks import client_address

_Answer = TypeVar("_Answer")

_ROWS = 50
_READERS = 2  # threads for files, apart from those for questions


class History:
    """Answers for one events file."""

    def __init__(self, path: str | Path, abort: Callable[[object], None]) -> None:
        """Prepare to read; the file may come later. ``abort`` cuts the connection of a client."""
        self.reader = HistoryReader(path)
        self._takers = Takers(abort)
        self._thumbnails = Thumbnails()
        self._files = ThreadPoolExecutor(_READERS, thread_name_prefix="edgecv-history-files")

    def routes(self) -> list[Route]:
        """The addresses, for the application of the page."""
        return [
            Route("/api/events", self._events, methods=["GET"]),
            Route("/api/events/choices", self._choices, methods=["GET"]),
            Route("/api/events/day", self._day, methods=["GET"]),
            Route("/media/{number}/{kind}", self._media, methods=["GET"]),
        ]

    def close(self) -> None:
        """Let go of the threads; a second call does nothing."""
        self.reader.close()
        self._files.shutdown(wait=False, cancel_futures=True)

    async def _events(self, request: Request) -> Response:
        def asked(db: sqlite3.Connection) -> dict[str, Any]:
            limit = request.query_params.get("limit", str(_ROWS))
            rows = int(limit) if limit.isdecimal() and len(limit) < 6 else _ROWS
            return latest(db, Filter.from_query(request.query_params), max(1, min(MOST_ROWS, rows)))

        return await self._answer(asked)

    async def _choices(self, _: Request) -> Response:
        return await self._answer(choices)

    async def _day(self, request: Request) -> Response:
        return await self._answer(lambda db: day(db, Filter.from_query(request.query_params)))

    async def _answer(self, question: Callable[[sqlite3.Connection], dict[str, Any]]) -> Response:
        try:
            return json_answer(await self.reader.ask(question))
        except ConfigError as error:
            return json_answer({"problem": error.message}, 400)
        except SinkError as error:
            return json_answer({"problem": error.message, "hint": error.hint}, 503)

    async def _media(self, request: Request) -> ASGIApp:
        number, kind = request.path_params["number"], request.path_params["kind"]
        if kind not in ("snapshot", "clip", "thumbnail") or not re.fullmatch("[0-9]{1,18}", number):
            return _missing()
        if self._takers.is_full(client_address(request)):
            return PlainTextResponse("Too many files are under way to you.", 503, {"Retry-After": "5"})
        of_kind = "snapshot" if kind == "thumbnail" else kind
        try:
            path = await self.reader.ask(lambda db: media_path(db, int(number), of_kind))
        except SinkError as error:
            return PlainTextResponse(error.message, 503, {"Retry-After": "5"})
        found = None if path is None else await self._in_thread(open_media, path)
        if found is None:
            return _missing()
        if kind == "thumbnail":
            jpeg = await self._in_thread(_thumbnail, self._thumbnails, found)
            return _missing() if jpeg is None else Response(jpeg, media_type="image/jpeg")
        headers = request.headers
        is_same = headers.get("if-range", found.tag) == found.tag
        part = part_of(headers.get("range", "") if is_same else "", found.size_bytes)
        return FileResponse(self._takers, found, part, self._files)

    async def _in_thread(self, action: Callable[..., _Answer], *arguments: Any) -> _Answer:
        return await asyncio.get_running_loop().run_in_executor(self._files, partial(action, *arguments))


def _thumbnail(thumbnails: Thumbnails, file: MediaFile) -> bytes | None:
    try:
        return thumbnails.of(file)
    finally:
        os.close(file.descriptor)


def _missing() -> Response:
    return PlainTextResponse("There is no such file, or not any more.", 404)

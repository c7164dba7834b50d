"""What the editor asks of the server: the lines and zones as they are, and to go on with others."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgecv.errors import ConfigError, EdgeCVError
from edgecv.pipelines.preview.editor.book import OutOfDate, StepBook
from edgecv.pipelines.preview.editor.shapes import Edit, shapes_of
from edgecv.pipelines.preview.painted import PaintedImages
from edgecv.pipelines.web.answers import json_answer
from edgecv.pipelines.web.questions import SharedQuestion

_MOST_BYTES = 1 << 18
_BODY_S = 10.0  # for all of an edit to arrive
_SAVE_S = 20.0  # for the steps to change; they wait for one frame at most
_NO_BOOK = "This page knows no app.toml. Copy the TOML, or run the pipeline with: edgecv run --config app.toml --edit"


def editor_routes(book: StepBook | None, images: PaintedImages) -> list[Route]:
    """The routes; without a ``book`` shapes can be drawn and copied, and nothing is known or saved."""
    return [
        Route("/api/shapes", partial(_show, book, images), methods=["GET"]),
        Route("/api/shapes", partial(_save, book, images), methods=["PUT"]),
    ]


async def _show(book: StepBook | None, images: PaintedImages, _: Request) -> Response:
    return await _answer(partial(_document, book, images))


async def _save(book: StepBook | None, images: PaintedImages, request: Request) -> Response:
    """Only a page of this server gets here (``CheckedApp``), for a browser asks before it lets another send JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        return _error(415, "An edit is JSON.")
    if book is None:
        return _error(403, _NO_BOOK)
    if not book.editable:
        return _error(403, book.reason())
    try:
        body = await asyncio.wait_for(_body(request), _BODY_S)
        edit = None if body is None else msgspec.json.decode(body, type=Edit)
    except asyncio.TimeoutError:
        return _error(408, "The edit did not arrive.")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _error(400, f"This is no edit: {error}.")
    return _error(413, "The edit is too large.") if edit is None else await _answer(partial(_saved, book, images, edit))


def _saved(book: StepBook, images: PaintedImages, edit: Edit) -> dict[str, Any]:
    book.save(edit)
    return _document(book, images)


def _document(book: StepBook | None, images: PaintedImages) -> dict[str, Any]:
    """What the editor needs to know; labels and sizes are those of the newest images."""
    version, tables = ("", []) if book is None else book.read()
    newest = [channel.newest[1] for channel in images.channels() if channel.newest is not None]
    reason = _NO_BOOK if book is None else book.reason()
    return {
        "can_save": not reason,
        "reason": reason,
        "file": "app.toml" if book is None else book.name,
        "version": version,
        "shapes": shapes_of(tables),
        "names": [str(table["name"]) for table in tables if "name" in table],
        "labels": sorted({label for result in newest for label in result.labels}),
        "sources": [
            {"name": result.frame.source_id, "size_wh": [*result.frame.image.shape[1::-1]]} for result in newest
        ],
    }


async def _answer(ask: Any) -> Response:
    """In a thread of its own: the images of all others go on meanwhile."""
    try:
        return json_answer(await SharedQuestion(ask, _SAVE_S).answer())
    except asyncio.TimeoutError:
        return _error(503, "The pipeline does not answer.")
    except OutOfDate as error:
        return _error(409, error.message, error.hint)
    except ConfigError as error:
        return _error(422, error.message, error.hint)
    except EdgeCVError as error:
        return _error(500, error.message, error.hint)


async def _body(request: Request) -> bytes | None:
    """The whole body; ``None`` when it is too large."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            return None
    return body


def _error(code: int, message: str, hint: str = "") -> Response:
    return json_answer({"error": message, "hint": hint}, code)

"""The routes of the page."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from edgecv.pipelines.preview.editor.book import StepBook
from edgecv.pipelines.preview.editor.routes import editor_routes
from edgecv.pipelines.preview.history.routes import History
from edgecv.pipelines.preview.overview import Overview
from edgecv.pipelines.preview.painted import Channel
from edgecv.pipelines.preview.streams import ImageResponse, MjpegResponse, Streams
from edgecv.pipelines.web.access import SESSION_S, Access
from edgecv.pipelines.web.address import HostNames
from edgecv.pipelines.web.answers import json_answer
from edgecv.pipelines.web.questions import SharedQuestion
from edgecv.pipelines.web.request_checks import CheckedApp, admits, client_address

_STATUS_S = 3.0  # for the pipeline and the gauges to answer; they are asked in a thread that may be left behind
_LOGIN_BYTES = 4096
_LOGIN_S = 10.0  # for all of the form to arrive
_PAGE_ID = 32  # characters
_STATIC = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
    "/events.js": ("events.js", "text/javascript"),
    "/events.css": ("events.css", "text/css"),
    "/editor.js": ("editor.js", "text/javascript"),
    "/editor.css": ("editor.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the routes need.

    Attributes:
        cookie: Name of the session's cookie; with the port, as browsers share cookies between ports.
        instance: Changes with every start, so that open pages see a restart.
        path: Under which a proxy serves the page, such as ``/door``, or empty.
        history: Answers for the events file, where there is one.
    """

    title: str
    cookie: str
    instance: str
    access: Access
    hosts: HostNames
    streams: Streams
    overview: Overview
    path: str = ""
    history: History | None = None
    editor: StepBook | None = None


def build_app(site: Site) -> ASGIApp:
    """The page as an ASGI application."""
    asking = SharedQuestion(site.overview.document, _STATUS_S)
    routes = [
        *(Route(path, _static(name, kind), methods=["GET"]) for path, (name, kind) in _STATIC.items()),
        Route("/login", _login_form, methods=["GET"]),
        Route("/login", partial(_log_in, site), methods=["POST"]),
        Route("/api/status", partial(_status, site, asking), methods=["GET"]),
        Route("/image/{key}", partial(_image, site), methods=["GET"]),
        Route("/stream/{key}", partial(_stream, site), methods=["GET"]),
        *(() if site.history is None else site.history.routes()),
        *editor_routes(site.editor, site.streams.images),
    ]
    return CheckedApp(Starlette(routes=routes), site.hosts, site.access, site.cookie, site.path)


def _static(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    text = _text(name)

    async def answer(_: Request) -> Response:
        return Response(text, media_type=kind)

    return answer


def _text(name: str) -> str:
    return (files("edgecv.pipelines.preview") / name).read_text(encoding="utf-8")


async def _login_form(_: Request) -> Response:
    return _login_page("", 200)


async def _log_in(site: Site, request: Request) -> Response:
    try:
        body = await asyncio.wait_for(_small_body(request), _LOGIN_S)
    except asyncio.TimeoutError:
        return PlainTextResponse("The token did not arrive.", 408)
    token = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0].strip()
    if not await admits(site.access, token, request):
        if site.access.is_slowed(client_address(request)):
            return _login_page("That token is wrong. So many were that each has to wait a few seconds now.", 429)
        return _login_page("That token is wrong.", 401)
    answer = RedirectResponse("./", 303)
    session = site.access.open_session()
    answer.set_cookie(site.cookie, session, max_age=SESSION_S, path=site.path or "/", httponly=True, samesite="strict")
    return answer


def _login_page(message: str, code: int) -> Response:
    """The form; ``message`` is one of the sentences above, never anything that was sent."""
    shown = f'<p role="alert">{message}</p>' if message else ""
    return Response(_text("login.html").replace("<!-- message -->", shown), code, media_type="text/html")


async def _small_body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LOGIN_BYTES:
            return b""
    return body


async def _status(site: Site, asking: SharedQuestion[dict[str, Any]], request: Request) -> Response:
    try:
        document = await asking.answer()
    except Exception as error:  # noqa: BLE001 - whatever the pipeline or a gauge raises, the page says it and asks again
        problem = "it does not answer" if isinstance(error, asyncio.TimeoutError) else str(error)
        return json_answer({"problem": problem}, 503)
    return json_answer(
        {
            **document,
            "instance": site.instance,
            "title": site.title,
            "has_history": site.history is not None,
            "watching": site.streams.watched_by(_page(request)),
            "streams_full": site.streams.is_full(client_address(request)),
        }
    )


async def _image(site: Site, request: Request) -> Response | ImageResponse:
    channel = _channel(site, request)
    if site.streams.takes_no_image(client_address(request)):
        return _busy("Too many images are under way to you.")
    image = None if channel is None else await site.streams.images.current(channel)
    return _missing() if image is None else ImageResponse(site.streams, image.jpeg)


async def _stream(site: Site, request: Request) -> Response | MjpegResponse:
    channel = _channel(site, request)
    if channel is None:
        return _missing()
    if site.streams.is_full(client_address(request)):
        return _busy("Too many watchers.")
    if request.method == "HEAD":
        return Response()
    return MjpegResponse(site.streams, channel, _page(request))


def _channel(site: Site, request: Request) -> Channel | None:
    return site.streams.images.find(request.path_params["key"])


def _page(request: Request) -> str:
    return request.query_params.get("page", "")[:_PAGE_ID]


def _busy(message: str) -> Response:
    return PlainTextResponse(message, 503, {"Retry-After": "5"})


def _missing() -> Response:
    return PlainTextResponse("No image of that source yet.", 404)

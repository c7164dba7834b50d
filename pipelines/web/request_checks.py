"""What every request has to pass, and what every answer carries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgecv.pipelines.web.access import Access
from edgecv.pipelines.web.address import HostNames

OPEN_PATHS = frozenset({"/login", "/page.css", "/icon.svg"})

_HEADERS: Sequence[tuple[bytes, bytes]] = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
        b"connect-src 'self'; "
        b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    # Not `no-referrer`: browsers would then send the login form with `Origin: null`.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class CheckedApp:
    """Lets a request through to the page when it is meant for this server and its sender may look."""

    def __init__(self, app: ASGIApp, hosts: HostNames, access: Access, cookie: str, path: str) -> None:
        self._app = app
        self._hosts = hosts
        self._access = access
        self._cookie = cookie
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the page answer."""
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        # A proxy may keep the path under which it serves the page, or take it away.
        is_below = scope["path"].startswith(f"{self._path}/") if self._path else False
        if is_below:
            scope = {**scope, "path": scope["path"][len(self._path) :]}
        request = Request(scope, receive)
        refusal = self._refuse(request)
        if refusal is None and self._path and scope["path"] == self._path and not is_below:
            refusal = RedirectResponse(f"{self._path.rpartition('/')[2]}/", 308)
        with suppress(ClientDisconnect):  # in the middle of a body: there is nobody to answer
            if refusal is None and not self._knows(request):
                refusal = await self._refuse_stranger(request)
            if refusal is None:
                scope.setdefault("state", {})["admitted"] = True  # the server cuts it for nobody else
            await (refusal or self._app)(scope, receive, send_guarded)

    def _refuse(self, request: Request) -> Response | None:
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not self._hosts.believes(hosts[0]):
            return PlainTextResponse("This server does not go by that name. See the option allowed_hosts.", 421)
        if "transfer-encoding" in request.headers and "content-length" in request.headers:
            # A proxy may find another end of this request than we do, and take its rest for the next one.
            return PlainTextResponse("A request has one length.", 400, {"Connection": "close"})
        if _is_foreign(request) or comes_from_elsewhere(request):
            return PlainTextResponse("Other pages may not use this one.", 403)
        return None

    def _knows(self, request: Request) -> bool:
        # The path of the scope: it is the one that the routes go by.
        if self._access.is_open or request.scope["path"] in OPEN_PATHS:
            return True
        return self._access.knows(request.cookies.get(self._cookie, ""))

    async def _refuse_stranger(self, request: Request) -> Response | None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return None if await admits(self._access, token.strip(), request) else _unknown(self._access, request)
        if request.scope["path"] == "/":
            return RedirectResponse(
                "login", 303
            )  # as all addresses of the page relative: a proxy may serve it under a path
        return _unknown(self._access, request)


async def admits(access: Access, token: str, request: Request) -> bool:
    """Whether the token is the right one. After many wrong ones from there it waits for its turn; who leaves loses it."""
    address = client_address(request)
    pause_s = access.pause_s(address)
    if pause_s:
        state = request.scope.setdefault("state", {})
        was_admitted = state.get("admitted", False)
        state["admitted"] = False  # while it waits the server may cut it for somebody else
        if await _leaves_within(request, pause_s):
            return False
        state["admitted"] = was_admitted
    return access.admits(token, address)


async def _leaves_within(request: Request, seconds: float) -> bool:
    async def leave() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    try:
        await asyncio.wait_for(leave(), seconds)
    except asyncio.TimeoutError:
        return False
    return True


def client_address(request: Request) -> str:
    """Where a request came from."""
    return request.client.host if request.client is not None else ""


def _is_foreign(request: Request) -> bool:
    """Whether another page made the browser send this; following a link to the page is all right.

    A page on the Internet may otherwise load images from a server on loopback, and keep it painting.
    """
    site = request.headers.get("sec-fetch-site", "none")
    followed_link = request.headers.get("sec-fetch-mode") == "navigate" and request.method in ("GET", "HEAD")
    return site not in ("none", "same-origin") and not followed_link


def comes_from_elsewhere(request: Request) -> bool:
    """Whether a browser says that a page of another server sent this."""
    origin = request.headers.get("origin")
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc != request.headers["host"]
    except ValueError:  # no URL at all
        return True


def _unknown(access: Access, request: Request) -> Response:
    if access.is_slowed(client_address(request)):
        return PlainTextResponse("A token is needed. Many wrong ones came from your address: each has to wait.", 429)
    return PlainTextResponse("A token is needed.", 401, {"WWW-Authenticate": "Bearer"})

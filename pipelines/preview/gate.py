"""What every request has to pass, and what every answer carries."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgecv.pipelines.preview.access import Access, TooManyFailures
from edgecv.pipelines.preview.address import HostNames

OPEN_PATHS = frozenset({"/login", "/page.css", "/icon.svg"})

_HEADERS: Sequence[tuple[bytes, bytes]] = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    # Not `no-referrer`: browsers would then send the login form with `Origin: null`.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class Gate:
    """Lets a request through to the page when it is meant for this server and its sender may look."""

    def __init__(self, app: ASGIApp, hosts: HostNames, access: Access, cookie: str) -> None:
        self._app = app
        self._hosts = hosts
        self._access = access
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the page answer."""
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        refusal = self._refuse(Request(scope))
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refuse(self, request: Request) -> Response | None:
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not self._hosts.believes(hosts[0]):
            return PlainTextResponse("This server does not go by that name. See the option allowed_hosts.", 421)
        if _is_foreign(request):
            return PlainTextResponse("Other pages may not use this one.", 403)
        if self._access.is_open or request.url.path in OPEN_PATHS:
            return None
        return self._refuse_stranger(request)

    def _refuse_stranger(self, request: Request) -> Response | None:
        if self._access.knows(request.cookies.get(self._cookie, "")):
            return None
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self._check_bearer(token.strip(), client_address(request))
        if request.url.path == "/":
            return RedirectResponse("/login", 303)
        return _unknown()

    def _check_bearer(self, token: str, address: str) -> Response | None:
        try:
            return None if self._access.admits(token, address) else _unknown()
        except TooManyFailures as error:
            return PlainTextResponse("Too many wrong tokens.", 429, {"Retry-After": str(ceil(error.wait_s))})


def client_address(request: Request) -> str:
    """Where a request came from."""
    return request.client.host if request.client is not None else ""


def _is_foreign(request: Request) -> bool:
    """Whether another page made the browser send this; following a link to the page is all right.

    A page on the Internet may otherwise load pictures from a server on loopback, and keep it painting.
    """
    site = request.headers.get("sec-fetch-site", "none")
    followed_link = request.headers.get("sec-fetch-mode") == "navigate" and request.method in ("GET", "HEAD")
    return site not in ("none", "same-origin") and not followed_link


def _unknown() -> Response:
    return PlainTextResponse("A token is needed.", 401, {"WWW-Authenticate": "Bearer"})

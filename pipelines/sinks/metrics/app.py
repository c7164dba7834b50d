"""The answers to ``/metrics`` and ``/healthz``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from edgecv._internal.extras import require
from edgecv.pipelines.web.access import Access
from edgecv.pipelines.web.address import HostNames
from edgecv.pipelines.web.questions import SharedQuestion
from edgecv.pipelines.web.request_checks import CheckedApp

log = logging.getLogger("edgecv.pipelines")

PATHS = ("/metrics", "/healthz")
_LIMIT_S = 8.0  # for the pipeline and the gauges to answer; Prometheus waits for 10 s by default


Health = Callable[[], tuple[bool, Mapping[str, Any]]]
"""Whether all is well, and the document that says so."""


class Collector(Protocol):
    """What ``prometheus_client`` calls a custom collector."""

    def collect(self) -> Iterable[Any]:
        """Every metric of this moment."""


def build_app(health: Health, collector: Collector, hosts: HostNames) -> ASGIApp:
    """Both answers as an ASGI application, for everybody who asks for one of ``hosts``."""
    answers = _Answers(health, collector)
    routes = [
        Route(path, answers.guarded(one)) for path, one in zip(PATHS, (answers.tell, answers.health), strict=True)
    ]
    app = Starlette(routes=routes, middleware=[Middleware(GZipMiddleware)], exception_handlers={404: _unknown})
    return CheckedApp(app, hosts, Access(None), cookie="", path="")


class _Answers:
    def __init__(self, health: Health, collector: Collector) -> None:
        self._numbers = SharedQuestion(lambda: list(collector.collect()), _LIMIT_S)
        self._health = SharedQuestion(health, _LIMIT_S)
        self._has_complained = False

    def guarded(self, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """The same answer, and a word about why there is none."""

        async def guarded(request: Request) -> Response:
            try:
                return await answer(request)
            except asyncio.TimeoutError:
                return _json({"error": "no answer came in time"}, 503)
            except Exception as error:  # noqa: BLE001 - whatever the pipeline or a library raises; it is said once
                if not self._has_complained:
                    self._has_complained = True
                    log.warning("The metrics cannot be told: %s: %s", type(error).__name__, error)
                return _json({"error": "see the log"}, 500)

        return guarded

    async def tell(self, request: Request) -> Response:
        """The numbers, in the format that Prometheus asks for."""
        numbers = _Collected(await self._numbers.answer())
        exposition = require("prometheus_client.exposition", "metrics")
        try:
            encode, kind = exposition.choose_encoder(request.headers.get("accept", ""))
        except Exception:  # noqa: BLE001 - of an `Accept` that the library cannot read it says ValueError, TypeError ...
            encode, kind = exposition.choose_encoder("")
        return Response(encode(numbers), headers={"content-type": kind})

    async def health(self, _: Request) -> Response:
        """Whether the pipeline is well."""
        is_healthy, document = await self._health.answer()
        return _json(document, 200 if is_healthy else 503)


class _Collected:
    """Metrics that were collected already, as ``prometheus_client`` takes them."""

    def __init__(self, families: Sequence[Any]) -> None:
        self._families = families

    def collect(self) -> Iterator[Any]:
        """Iterate over the metric families that were collected."""
        return iter(self._families)


async def _unknown(_: Request, __: Exception) -> Response:
    return PlainTextResponse("There are /metrics and /healthz.", 404)


def _json(document: object, code: int) -> Response:
    return Response(msgspec.json.encode(document), code, media_type="application/json")

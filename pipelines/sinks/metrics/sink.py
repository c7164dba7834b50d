"""``metrics:9100``: what a pipeline does, for Prometheus, and ``/healthz`` for whoever restarts things."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, ClassVar

import msgspec

from edgecv._internal.extras import require
from edgecv.errors import ConfigError, SinkError
from edgecv.pipelines.sinks.metrics.collector import StatusCollector, check_gauges
from edgecv.pipelines.sinks.metrics.health import health_document
from edgecv.pipelines.web.address import HostNames, resolve, split_names
from edgecv.pipelines.web.small_server import Environment, StartResponse, open_server
from edgecv.protocols import SinkType
from edgecv.results import Result
from edgecv.status import Gauge, PipelineStatus
from edgecv.uris import Uri, read_options

log = logging.getLogger("edgecv.pipelines")

_JOIN_S = 5.0
_GUARDS = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)


class MetricsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the query of ``metrics:`` may say.

    Attributes:
        host: Address to listen on; the default is reached from this machine only. ``0.0.0.0`` is every address of it:
            there is no password, so let a firewall choose who may ask.
        allowed_hosts: More names of this server, with commas.
    """

    host: Annotated[str, msgspec.Meta(min_length=1)] = "127.0.0.1"
    allowed_hosts: str = ""


class MetricsSink(SinkType):
    """Answers ``/metrics`` and ``/healthz`` over HTTP; it counts nothing itself but asks the pipeline when it is asked.

    ``/healthz`` is 200 while the pipeline runs and at least one source is live, else 503; its JSON says why. The port is taken
    at once, it is answered from ``attach`` or the first result on. Whoever asks for another name than this server's gets 421: else
    any web page could point its name at this machine and read the numbers through a browser here (DNS rebinding).

    Attributes:
        port: The port in use; another than asked for only where that was 0.
    """

    Options: ClassVar[type[msgspec.Struct]] = MetricsOptions
    writes_files: ClassVar[bool] = False
    name: ClassVar[str] = "metrics"

    def __init__(
        self,
        port: int = 9100,
        host: str = "127.0.0.1",
        *,
        gauges: Sequence[Gauge] = (),
        allowed_hosts: Sequence[str] = (),
    ) -> None:
        """Take the port.

        Args:
            port: 0 takes a free one.
            host: Address to listen on.
            gauges: Numbers to show beside the pipeline's own, as ``edgecv_NAME``.
            allowed_hosts: More names of this server, such as the one that Prometheus knows it by.

        Raises:
            ConfigError: the port is in use or not allowed, the host is not of this machine, or a name does not fit.
            MissingDependency: prometheus-client is not installed.
        """
        prometheus = require("prometheus_client", "metrics")
        check_gauges(gauges)
        self._status: Callable[[], PipelineStatus] | None = None
        # A registry of its own: the global one belongs to the app, and two pipelines may live in one process.
        registry = prometheus.CollectorRegistry(auto_describe=False)
        registry.register(StatusCollector(self._ask, tuple(gauges)))
        self._expose: Any = prometheus.make_wsgi_app(registry)
        address = resolve(host, port)
        self._hosts = HostNames(address, allowed_hosts)
        self._server = open_server(address, self._answer)
        self.port: int = self._server.server_port
        self._thread: threading.Thread | None = None
        self._closed = self._complained = False

    @classmethod
    def from_uri(cls, uri: Uri, *, fps: float = 0.0, overwrite: bool = False) -> MetricsSink:  # noqa: ARG003 - the seam's
        """Open ``metrics:PORT``; errors as in the constructor."""
        options = read_options(uri, MetricsOptions)
        if not uri.path.isdecimal() or int(uri.path) > 65_535:
            raise ConfigError(f"'{uri.path}' is no port.", "Write for example: metrics:9100?host=0.0.0.0")
        return cls(int(uri.path), options.host, allowed_hosts=split_names(options.allowed_hosts))

    def attach(self, status: Callable[[], PipelineStatus]) -> None:
        """Begin to answer with what ``status`` says."""
        self._status = status
        self._start()

    def emit(self, result: Result) -> None:  # noqa: ARG002 - the pipeline counts
        """Begin to answer, where nobody attached a status; when it is closed: ``SinkError``."""
        if self._closed:
            raise SinkError(f"The metrics on port {self.port} are closed.")
        self._start()

    def close(self) -> None:
        """Give the port back; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._server.stop(running=self._thread is not None)
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def _start(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._server.serve, name="edgecv-metrics", daemon=True)
            self._thread.start()

    def _ask(self) -> PipelineStatus | None:
        return None if self._status is None else self._status()

    def _answer(self, environ: Environment, start_response: StartResponse) -> Iterable[bytes]:
        def start_guarded(status: str, headers: list[tuple[str, str]], *more: Any) -> object:
            return start_response(status, [*headers, *_GUARDS], *more)

        if not self._hosts.believes(environ.get("HTTP_HOST", "")):
            error = "this server does not go by that name; see the option allowed_hosts"
            return _say(start_guarded, "421 Misdirected Request", {"error": error})
        try:
            return self._look_up(environ, start_guarded)
        except Exception as error:  # noqa: BLE001 - whatever the pipeline or a library raises; it is said once
            if not self._complained:
                self._complained = True
                log.warning("The metrics cannot be told: %s: %s", type(error).__name__, error)
            return _say(start_guarded, "500 Internal Server Error", {"error": "see the log"})

    def _look_up(self, environ: Environment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            return _say(start_response, "405 Method Not Allowed", {"error": "only GET"})
        if path == "/metrics":
            return self._tell(environ, start_response)
        if path == "/healthz":
            healthy, document = health_document(self._ask())
            return _say(start_response, "200 OK" if healthy else "503 Service Unavailable", document)
        return _say(start_response, "404 Not Found", {"error": "there are /metrics and /healthz"})

    def _tell(self, environ: Environment, start_response: StartResponse) -> Iterable[bytes]:
        exposed: Iterable[bytes]
        try:
            exposed = self._expose(environ, start_response)
        except Exception:  # noqa: BLE001 - of an `Accept` that the library cannot read it says ValueError, TypeError ...
            exposed = self._expose({**environ, "HTTP_ACCEPT": "", "QUERY_STRING": ""}, start_response)
        return exposed


def _say(start_response: StartResponse, status: str, document: object) -> list[bytes]:
    body = msgspec.json.encode(document)
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
    ]
    start_response(status, headers)
    return [body]

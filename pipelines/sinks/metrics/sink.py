"""``metrics:9100``: what a pipeline does, for Prometheus, and ``/healthz`` for whoever restarts things."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar

import msgspec

from edgecv._internal.extras import require
from edgecv.errors import ConfigError, SinkError
from edgecv.pipelines.sinks.metrics.collector import StatusCollector, check_gauges
from edgecv.pipelines.sinks.metrics.health import health_document
from edgecv.pipelines.uris import Uri, read_options
from edgecv.pipelines.web.address import HostNames, resolve, split_names
from edgecv.protocols import SinkType
from edgecv.results import Result
from edgecv.status import Gauge, PipelineStatus


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

    ``/healthz`` is 200 while the pipeline runs and at least one source is live, else 503; its JSON says why. ``preview:`` at the
    same host and port shares the server. Whoever asks for another name than this server's gets 421: else
    any web page could point its name at this machine and read the numbers through a browser here (DNS rebinding).

    Attributes:
        port: The port in use; another than asked for only where that was 0.
    """

    Options: ClassVar[type[msgspec.Struct]] = MetricsOptions
    writes_files: ClassVar[bool] = False
    non_blocking: ClassVar[bool] = True
    name: ClassVar[str] = "metrics"

    def __init__(
        self,
        port: int = 9100,
        host: str = "127.0.0.1",
        *,
        gauges: Sequence[Gauge] = (),
        allowed_hosts: Sequence[str] = (),
    ) -> None:
        """Begin to listen; port 0 takes a free one.

        Args:
            gauges: Numbers to show beside the pipeline's own, as ``edgecv_NAME``.
            allowed_hosts: More names of this server, such as the one that Prometheus knows it by.

        Raises:
            ConfigError: the port is in use or not allowed, the host is not of this machine, or a name does not fit.
            MissingDependency: prometheus-client, Starlette or uvicorn is not installed.
        """
        for module in ("prometheus_client", "starlette", "uvicorn"):
            require(module, "metrics")
        from edgecv.pipelines.sinks.metrics.app import PATHS, build_app
        from edgecv.pipelines.web.places import take_place

        check_gauges(gauges)
        self._status: Callable[[], PipelineStatus] | None = None
        self._closed = False
        address = resolve(host, port)
        hosts = HostNames(address, allowed_hosts)
        try:
            self._place = take_place(address, PATHS)
        except SinkError as error:
            raise ConfigError(error.message, error.hint) from error
        self.port = self._place.port
        # No registry of prometheus_client: the global one belongs to the app, and two pipelines may live in one process.
        collector = StatusCollector(self._ask, tuple(gauges))
        self._place.serve(build_app(lambda: health_document(self._ask()), collector, hosts))

    @classmethod
    def from_uri(cls, uri: Uri, *, fps: float = 0.0, overwrite: bool = False) -> MetricsSink:  # noqa: ARG003 - the seam's
        """Open ``metrics:PORT``; errors as in the constructor."""
        options = read_options(uri, MetricsOptions)
        return cls(port_of(uri), options.host, allowed_hosts=split_names(options.allowed_hosts))

    def attach(self, status: Callable[[], PipelineStatus]) -> None:
        """Answer with what ``status`` says from now on."""
        self._status = status

    def emit(self, result: Result) -> None:  # noqa: ARG002 - the pipeline counts
        """Do nothing; when it is closed: ``SinkError``."""
        if self._closed:
            raise SinkError(f"The metrics on port {self.port} are closed.")

    def close(self) -> None:
        """Give the port back; a second call does nothing."""
        self._closed = True
        self._place.close()

    def _ask(self) -> PipelineStatus | None:
        return None if self._status is None else self._status()


def port_of(uri: Uri) -> int:
    """The port in ``metrics:PORT``. Raises ``ConfigError``: it is none."""
    if not uri.path.isdecimal() or int(uri.path) > 65_535:
        raise ConfigError(f"'{uri.path}' is no port.", "Write for example: metrics:9100?host=0.0.0.0")
    return int(uri.path)

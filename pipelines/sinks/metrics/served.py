"""Numbers of another part of EdgeCV at an address of this machine, served as the sink ``metrics:`` serves a pipeline's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgecv._internal.extras import require
from edgecv.errors import ConfigError, SinkError
from edgecv.pipelines.sinks.metrics.app import PATHS, Collector, Health, build_app
from edgecv.pipelines.sinks.metrics.sink import MetricsOptions, port_of
from edgecv.pipelines.uris import parse_sink, read_options
from edgecv.pipelines.web.address import HostNames, resolve, split_names


@contextmanager
def served_metrics(place: str, collector: Collector, health: Health) -> Iterator[int]:
    """Answer ``/metrics`` and ``/healthz`` until the block ends; gives the port.

    ``place`` is what stands after ``metrics:`` in a sink, such as ``9100?host=0.0.0.0``.

    Raises:
        ConfigError: the port is in use or not allowed, or the host is not of this machine.
        MissingDependency: prometheus-client, Starlette or uvicorn is not installed.
    """
    for module in ("prometheus_client", "starlette", "uvicorn"):
        require(module, "metrics")
    from edgecv.pipelines.web.places import take_place

    uri = parse_sink(f"metrics:{place}")
    options = read_options(uri, MetricsOptions)
    address = resolve(options.host, port_of(uri))
    try:
        taken = take_place(address, PATHS)
    except SinkError as error:
        raise ConfigError(error.message, error.hint) from error
    try:
        taken.serve(build_app(health, collector, HostNames(address, split_names(options.allowed_hosts))))
        yield taken.port
    finally:
        taken.close()

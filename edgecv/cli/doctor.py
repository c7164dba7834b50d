"""``edgecv doctor`` says what on this device does not work or could work better, with a line to paste for each."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from edgecv.cli.console import log_lines, print_json, say
from edgecv.cli.options import REPEAT, Json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgecv.devices.doctor.finding import Finding, Probe

_Sources = Annotated[list[str] | None, typer.Option("--source", help=f"Whether this camera gives a frame. {REPEAT}")]
_Broker = Annotated[
    str | None,
    typer.Option("--mqtt", help="Whether this broker lets the device in: mqtts://user@host?password_file=FILE."),
]


def doctor(source: _Sources = None, mqtt: _Broker = None, json: Json = False) -> None:
    """Say what on this device does not work or could work better; change nothing. Exit code 1 if something does not work."""
    from edgecv.devices.detect import detect
    from edgecv.devices.doctor.doctor import diagnose
    from edgecv.devices.doctor.environment import read_environment
    from edgecv.devices.doctor.finding import has_failed, summary

    log_lines()
    probes = list(_probes(source or (), mqtt))  # first, since a URL that is none is wrong usage
    device = detect()
    findings = diagnose(device, read_environment(device), probes)
    if json:
        document = {"failed": has_failed(findings), "fingerprint": device.fingerprint}
        print_json({**document, "findings": [asdict(one) for one in findings]})
    else:
        for one in findings:
            _show(one)
        say(summary(findings))
    if has_failed(findings):
        raise typer.Exit(1)


def _probes(sources: Sequence[str], mqtt: str | None) -> Iterator[Probe]:
    from edgecv import registry
    from edgecv.cli import reach

    for text in sources:
        from edgecv.pipelines.uris import parse_source

        uri = parse_source(text)
        registry.place("sources", uri.scheme)
        yield partial(reach.source_finding, uri)
    if mqtt is not None:
        from edgecv.cloud_sync.mqtt.broker_url import parse_broker_url

        yield partial(reach.broker_finding, parse_broker_url(mqtt))


def _show(one: Finding) -> None:
    from edgecv._internal.printable import printable

    say(f"{one.level:6}{one.id:23} {printable(one.what)}")
    for name, text in (("why", one.why), ("fix", one.fix)):
        if text:
            say(f"{'':6}{name:5}{printable(text)}")

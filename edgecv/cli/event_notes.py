"""What is odd about the events that ``app.toml`` asks for: kinds that nobody gives, pictures that nobody makes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, get_args

from edgecv.notifications.choice import read_choice, read_kinds, strangers
from edgecv.pipelines.sinks.clips.options import ClipsOptions
from edgecv.pipelines.sinks.webhook.options import WebhookOptions
from edgecv.pipelines.steps.options import Options
from edgecv.pipelines.uris import Uri, parse_sink, read_options
from edgecv.status import SourceState

if TYPE_CHECKING:
    from edgecv.cli.app_config import App, AppFile, MqttTable

_ALWAYS = (*(f"source.{state}" for state in get_args(SourceState)), "governor")


def event_notes(app: App) -> list[str]:
    """A sentence for each thing that will never happen."""
    kinds = given_kinds(app)
    notes = [f"{where}: {said}" for where, patterns in _asked(app.file) for said in strangers(patterns, kinds)]
    if not all(isinstance(step, Options) and step.gives_kinds is not None for step in app.steps):
        notes = []  # a step of somebody else may give events of any kind
    return [*notes, *_unsent(app.file), *_unmade(app.file)]


def given_kinds(app: App) -> tuple[str, ...]:
    """The kinds of events that the steps and sources of an application give, as far as they say."""
    said = (step.gives_kinds or () for step in app.steps if isinstance(step, Options))
    return (*dict.fromkeys(kind for kinds in said for kind in kinds), *_ALWAYS)


def _asked(file: AppFile) -> Iterator[tuple[str, Sequence[str]]]:
    """Who asks for which kinds."""
    for uri in _uris(file):
        if uri.scheme == "webhook":
            yield uri.name, read_options(uri, WebhookOptions).choice.kinds
        if uri.scheme == "clips" and (on := read_options(uri, ClipsOptions).on):
            yield uri.name, read_kinds(on, uri.name)
    if file.mqtt is not None:
        yield "[mqtt] events", _mqtt_kinds(file.mqtt)
        yield from _marks(file.mqtt)


def _unsent(file: AppFile) -> Iterator[str]:
    """Kinds that get a picture or a mark, and are not sent."""
    if file.mqtt is None:
        return
    sent = _mqtt_kinds(file.mqtt)
    for name, kinds in _marks(file.mqtt):
        for kind in kinds:
            if kind not in sent and not any(
                fnmatchcase(kind, pattern) or fnmatchcase(pattern, kind) for pattern in sent
            ):
                yield f"{name}: '{kind}' is not sent at all. [mqtt] events sends {', '.join(sent)}."


def _unmade(file: AppFile) -> Iterator[str]:
    """Webhooks that name pictures, where no sink makes any."""
    uris = _uris(file)
    if any(uri.scheme == "snapshots" for uri in uris) or len(uris) < len(file.sinks):  # code of the application may
        return
    for uri in uris:
        if uri.scheme == "webhook" and read_options(uri, WebhookOptions).snapshot == "name":
            yield (
                f"{uri.name}: snapshot=name names the pictures of the sink snapshots:, and there is none. "
                'Add "snapshots:shots?on=events&every_s=0", or write snapshot=attach.'
            )


def _uris(file: AppFile) -> list[Uri]:
    """The sinks that are no code of the application."""
    return [parse_sink(sink) for sink in file.sinks if isinstance(sink, str)]


def _mqtt_kinds(table: MqttTable) -> tuple[str, ...]:
    return read_choice(table.events, "[mqtt] events").kinds


def _marks(table: MqttTable) -> Iterator[tuple[str, Sequence[str]]]:
    chosen = table.snapshots
    if chosen is not None:
        yield "[mqtt] snapshots", chosen if isinstance(chosen, list) else chosen.events
    if table.notify is not None:
        yield "[mqtt.notify] events", table.notify.events

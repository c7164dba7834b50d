"""What happens to the images of each camera of an application: ``edgecv privacy report``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from edgecv.pipelines.sinks.clips.options import ClipsOptions
from edgecv.pipelines.sinks.events.sink import EventsOptions
from edgecv.pipelines.sinks.files.counts import CountsOptions
from edgecv.pipelines.sinks.options import LineSinkOptions
from edgecv.pipelines.sinks.video.segments import SegmentsOptions
from edgecv.pipelines.sinks.video.snapshots import SnapshotsOptions
from edgecv.pipelines.sinks.webhook.options import WebhookOptions
from edgecv.pipelines.source_config import SourceConfig
from edgecv.pipelines.uris import Uri, parse_sink, read_options

_HOUR_S = 3600.0
_EVERY_S: Mapping[str, float] = MappingProxyType({"hour": _HOUR_S, "day": 24 * _HOUR_S})
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

Content = Literal["images", "data", "numbers", "unknown"]
"""What a sink is given: images and data about them; data alone (boxes, classes, times); counts; a plug-in takes what it likes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlet:
    """One place where results go.

    Attributes:
        name: As in ``app.toml``, without credentials.
        content: What it is given.
        leaves: Where it goes when it leaves the device; empty when it stays.
        keeps: Whether files stay on this device.
        retains: Whether it deletes by the retention of each camera.
        longest_s: After how long it deletes in any case; ``None`` where age deletes nothing.
        sheds: In words, what else bounds what it keeps; empty where nothing does.
    """

    name: str
    content: Content
    leaves: str = ""
    keeps: bool = False
    retains: bool = False
    longest_s: float | None = None
    sheds: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraPrivacy:
    """One camera: what ``app.toml`` says of it, and what is missing.

    Attributes:
        name: What its results are called.
        purpose: Why it is there; empty where nobody said.
        retention: As in ``app.toml``; empty where nobody said.
        polygons: How many its mask has.
        masked_percent: Share of the image that the mask covers, in percent.
        images: Names of the outlets that get its images.
        data: Names of those that get data alone.
        leaves: What leaves the device: a sentence for each outlet.
        warnings: What is missing, or does not fit together.
    """

    name: str
    purpose: str
    retention: str
    polygons: int
    masked_percent: float
    images: tuple[str, ...]
    data: tuple[str, ...]
    leaves: tuple[str, ...]
    warnings: tuple[str, ...]


def sink_outlet(text: str) -> Outlet:
    """A sink that is given as text; errors as ``check_sink``, which looked at it before. Of a plug-in the worst is assumed."""
    uri = parse_sink(text)
    if uri.scheme in _OUTLETS:
        return _OUTLETS[uri.scheme](uri)
    return Outlet(name=uri.name, content="unknown", keeps=True, leaves="wherever its plug-in sends them")


def own_outlet(place: str) -> Outlet:
    """A sink of the application's own code: the worst is assumed."""
    return Outlet(name=place, content="unknown", keeps=True, leaves="wherever your code sends them")


def page_outlet(name: str, content: Content, host: str) -> Outlet:
    """A web server of this device."""
    return Outlet(name=name, content=content, leaves="" if host in _LOOPBACK else f"to whoever may open it ({host})")


def camera_privacy(source: SourceConfig, outlets: Sequence[Outlet]) -> CameraPrivacy:
    """What the file says of one camera, beside where its images and data go; raises as ``SourceConfig.result_name``."""
    mask = source.privacy_mask
    images = tuple(one.name for one in outlets if one.content in ("images", "unknown"))
    return CameraPrivacy(
        name=source.result_name,
        purpose=source.purpose.strip(),
        retention=source.retention,
        polygons=len(source.mask),
        masked_percent=0.0 if mask is None else round(100 * mask.share, 1),
        images=images,
        data=tuple(one.name for one in outlets if one.name not in images),
        leaves=tuple(f"{_said(one.content)} of {one.name} go {one.leaves}" for one in outlets if one.leaves),
        warnings=tuple(_warnings(source, outlets)),
    )


def report_document(cameras: Sequence[CameraPrivacy], outlets: Sequence[Outlet]) -> dict[str, Any]:
    """The report as JSON holds it."""
    return {
        "cameras": [msgspec.to_builtins(camera) for camera in cameras],
        "outlets": [msgspec.to_builtins(outlet) for outlet in outlets],
        "warnings": sum(len(camera.warnings) for camera in cameras),
    }


def report_lines(cameras: Sequence[CameraPrivacy]) -> Iterator[str]:
    """The report as lines of text, in the order of the cameras."""
    for camera in cameras:
        covered = f"{camera.polygons} polygons, about {camera.masked_percent:g} % of the image"
        yield camera.name
        yield f"  purpose    {camera.purpose or '-'}"
        yield f"  retention  {camera.retention or '-'}"
        yield f"  mask       {covered if camera.polygons else 'none'}"
        yield f"  images     {', '.join(camera.images) or 'go nowhere'}"
        yield f"  data alone {', '.join(camera.data) or 'go nowhere'}"
        yield from (f"  {'leaves' if not number else '':<10} {line}" for number, line in enumerate(camera.leaves))
        if not camera.leaves:
            yield "  leaves     nothing leaves this device"
        yield from (f"  warning    {line}" for line in camera.warnings)


def _warnings(source: SourceConfig, outlets: Sequence[Outlet]) -> Iterator[str]:
    if not source.purpose.strip():
        yield 'It has no purpose. Say why it is there: purpose = "counts visitors".'
    kept = [one for one in outlets if one.keeps]
    if source.retention_s is None and any(one.content != "data" for one in kept):
        yield 'Its images are kept, and nothing says how long they may be: retention = "72h".'
    for one in kept:
        if source.retention_s is not None and not one.retains:
            yield from _unapplied(one, source.retention, source.retention_s)


def _unapplied(outlet: Outlet, text: str, retention_s: float) -> Iterator[str]:
    """Where a retention is not applied, unless something else deletes earlier."""
    if outlet.longest_s is None:
        but = f" ({outlet.sheds})" if outlet.sheds else ""
        yield f"{outlet.name} deletes nothing by age{but}: {text} is not applied there."
    elif outlet.longest_s > retention_s:
        yield f"{outlet.name} keeps {_said(outlet.content)} for up to {outlet.longest_s / _HOUR_S:g} h, longer than {text}."


def _clips(uri: Uri) -> Outlet:
    options = read_options(uri, ClipsOptions)
    return _ring(uri.name, options.keep_hours, f"{options.keep_gb:g} GB")


def _segments(uri: Uri) -> Outlet:
    options = read_options(uri, SegmentsOptions)
    return _ring(uri.name, options.keep_hours, f"{options.keep_gb:g} GB")


def _snapshots(uri: Uri) -> Outlet:
    options = read_options(uri, SnapshotsOptions)
    return _ring(uri.name, options.keep_hours, f"{options.keep_mb:g} MB")


def _ring(name: str, keep_hours: float, budget: str) -> Outlet:
    return Outlet(
        name=name,
        content="images",
        keeps=True,
        retains=True,
        longest_s=keep_hours * _HOUR_S or None,
        sheds=f"the oldest go above {budget}",
    )


def _lines(uri: Uri) -> Outlet:
    return _line_file(uri, read_options(uri, LineSinkOptions), "data")


def _counts(uri: Uri) -> Outlet:
    return _line_file(uri, read_options(uri, CountsOptions), "numbers")


def _line_file(uri: Uri, options: LineSinkOptions, content: Content) -> Outlet:
    if uri.path == "-":
        return Outlet(name=uri.name, content=content, leaves="to the standard output of the program")
    longest_s = (options.keep + 1) * _EVERY_S[options.every] if options.every else None
    return Outlet(name=uri.name, content=content, keeps=True, longest_s=longest_s)


def _events(uri: Uri) -> Outlet:
    options = read_options(uri, EventsOptions)
    longest_s = options.keep_days * 24 * _HOUR_S or None
    sheds = f"the oldest go above {options.keep} events"
    return Outlet(name=uri.name, content="data", keeps=True, retains=True, longest_s=longest_s, sheds=sheds)


def _page(uri: Uri) -> Outlet:
    content: Content = "images" if uri.scheme == "preview" else "numbers"
    return page_outlet(uri.name, content, uri.options.get("host", "127.0.0.1"))


def _webhook(uri: Uri) -> Outlet:
    attaches = read_options(uri, WebhookOptions).snapshot == "attach"
    content: Content = "images" if attaches else "data"
    return Outlet(name=uri.name, content=content, leaves="to the address of the webhook")


_OUTLETS: Mapping[str, Callable[[Uri], Outlet]] = MappingProxyType(
    {
        "clips": _clips,
        "counts": _counts,
        "csv": _lines,
        "events": _events,
        "jsonl": _lines,
        "metrics": _page,
        "preview": _page,
        "record": lambda uri: Outlet(name=uri.name, content="images", keeps=True, sheds="it ends at max_gb"),
        "segments": _segments,
        "snapshots": _snapshots,
        "video": lambda uri: Outlet(name=uri.name, content="images", keeps=True),
        "webhook": _webhook,
    }
)


def _said(content: Content) -> str:
    return "images and data" if content in ("images", "unknown") else content

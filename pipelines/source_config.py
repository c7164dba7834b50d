"""``SourceConfig``: one source of a pipeline, and how its frames are treated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec

from edgecv import registry
from edgecv._internal.printable import short
from edgecv._internal.redaction import redact
from edgecv._internal.strict import check_number
from edgecv.errors import ConfigError
from edgecv.pipelines.loop.handover import SlotPolicy
from edgecv.pipelines.privacy.mask import PrivacyMask, mask_polygons
from edgecv.pipelines.privacy.retention import retention_seconds
from edgecv.pipelines.sources import SOURCE_HINT, open_source
from edgecv.pipelines.sources.played import PlayOptions
from edgecv.pipelines.steps.regions import Point
from edgecv.pipelines.uris import parse_source, read_options
from edgecv.protocols import Source, lacks

if TYPE_CHECKING:
    Origin: TypeAlias = str | int | Path | Source
else:
    Origin = Any  # msgspec knows no protocols; `SourceConfig` checks it

Corners = Annotated[Sequence[Point], msgspec.Meta(max_length=256)]
Policy = Literal["auto", "lossless", "latest", "every_nth"]
POLICIES: tuple[Policy, ...] = ("auto", "lossless", "latest", "every_nth")
_FILE_SCHEMES = frozenset({"file", "images", "recording"})  # sources that wait for us
_NTH = 'For every third frame: policy="every_nth", nth=3 (--policy every_nth --nth 3 on the command line).'
_LEAST_AGE_MS = 0.001


class SourceConfig(msgspec.Struct, frozen=True):
    """One source and how its frames are treated: an argument of ``Pipeline``, and a table ``[[sources]]`` of ``app.toml``.

    ``edgecv.Pipeline(edgecv.SourceConfig("rtsp://door/1", name="door", max_age_ms=500), model)``

    Attributes:
        uri: ``0``, ``clip.mp4``, ``rtsp://user@camera/1?password_file=door.secret`` or an object with ``read`` and ``close``.
        name: What its results are called; the URI without credentials by default.
        policy: ``lossless``: every frame is used, and the source waits. ``latest``: the newest frame is used, and older ones
            are dropped. ``every_nth``: one of ``nth`` frames is used. ``auto``: a live source has ``latest``, another ``lossless``.
        nth: For ``every_nth``, which then does as ``auto`` with the frames that are left.
        max_age_ms: Frames that are older than this are dropped before the model; ``None`` for no limit.
        mask: Polygons that are painted black in every frame before anything looks at it, each a list of corners in shares of
            width and height, 0 to 1. A frame that cannot be masked is dropped (docs/privacy.md).
        purpose: Why the camera is there, for ``edgecv privacy report``.
        retention: How long files with its images are kept by the sinks that delete by age: ``72h`` or ``30d``.

    Raises:
        ConfigError: ``uri`` is no source, there is no such policy, a number makes no sense, or a polygon would cover less than
            was meant.
    """

    uri: Origin
    name: str = ""
    policy: Policy = "auto"
    nth: Annotated[int, msgspec.Meta(ge=1)] = 1
    max_age_ms: Annotated[float, msgspec.Meta(gt=0)] | None = None
    mask: Sequence[Corners] = ()
    purpose: str = ""
    retention: str = ""

    def __post_init__(self) -> None:
        _check_origin(self.uri)
        if self.policy not in POLICIES:
            raise ConfigError(f"There is no policy '{self.policy}'.", f"Known: {', '.join(POLICIES)}.")
        check_number("nth", self.nth, 1, whole=True, hint=_NTH)
        if self.nth > 1 and self.policy != "every_nth":
            raise ConfigError(f"nth is {self.nth}, and the policy is '{self.policy}'.", _NTH)
        if self.max_age_ms is not None:
            check_number("max_age_ms", self.max_age_ms, _LEAST_AGE_MS, hint="Leave it out for no limit.")
        retention_seconds(self.retention)
        mask_polygons(self.mask)

    def __repr__(self) -> str:
        """Without the password that a URI may hold."""
        try:
            name = self.result_name
        except ConfigError:  # a URI that cannot be read is told where it is opened
            name = redact(str(self.uri))
        return f"SourceConfig({name!r}, policy={self.policy!r}, nth={self.nth}, max_age_ms={self.max_age_ms})"

    def slot_policy(self, live: bool) -> SlotPolicy:
        """How frames are handed to the loop."""
        if self.policy in ("lossless", "latest"):
            return "lossless" if self.policy == "lossless" else "latest"
        return "latest" if live else "lossless"

    def open(self) -> Source:
        """The source itself; errors as ``open_source``."""
        return open_source(self.uri) if isinstance(self.uri, str | int | Path) else self.uri

    @property
    def privacy_mask(self) -> PrivacyMask | None:
        """What covers parts of its images; ``None`` where nothing does. Each reader needs one of its own."""
        return PrivacyMask(mask_polygons(self.mask)) if self.mask else None

    @property
    def retention_s(self) -> float | None:
        """How long files with its images are kept; ``None`` where nothing is said."""
        return retention_seconds(self.retention)

    @property
    def result_name(self) -> str:
        """What its results are called; raises as ``parse_source``."""
        if isinstance(self.uri, str | int | Path):
            return self.name or parse_source(self.uri).name
        return self.name or self.uri.source_id

    @property
    def plays(self) -> PlayOptions:
        """How a file, folder or recording is played; raises as ``read_options``."""
        if not isinstance(self.uri, str | int | Path):
            return PlayOptions()
        uri = parse_source(self.uri)
        options = read_options(uri, registry.resolve("sources", uri.scheme).Options)
        return options if isinstance(options, PlayOptions) else PlayOptions()

    @property
    def file(self) -> Path | None:
        """The file or folder that is read, where there is one; raises as ``parse_source``."""
        if not isinstance(self.uri, str | int | Path):
            return None
        uri = parse_source(self.uri)
        return Path(uri.path).resolve() if uri.scheme in _FILE_SCHEMES else None


def _check_origin(origin: object) -> None:
    if isinstance(origin, str | int | Path) and not isinstance(origin, bool):
        return
    if isinstance(origin, type):
        raise ConfigError(f"{short(origin)} is no source but a class.", "Give an object of it.")
    if missing := lacks(origin, Source):
        raise ConfigError(
            f"{short(origin)} is no source: it lacks {', '.join(missing)}.",
            f"Give a camera number, a file, a folder, a URI or an object. {SOURCE_HINT}",
        )


SourceLike: TypeAlias = "str | int | Path | Source | SourceConfig"
SourcesLike: TypeAlias = "SourceLike | Sequence[SourceLike] | Mapping[str, SourceLike]"


def read_sources(sources: SourcesLike) -> list[SourceConfig]:
    """One source or many; the names of a mapping win. Raises ``ConfigError`` when there is none, or one is no source."""
    if isinstance(sources, Mapping):
        found = [as_config(source, str(name)) for name, source in sources.items()]
    elif isinstance(sources, Sequence) and not isinstance(sources, str):
        found = [as_config(source) for source in sources]
    else:
        found = [as_config(sources)]
    if not found:
        raise ConfigError("There is no source.", "Give at least one: a camera number, a video, a folder or a URI.")
    return found


def as_config(source: SourceLike, name: str = "") -> SourceConfig:
    """The description of a source that is given in any way; ``name`` wins where it is not empty."""
    if not isinstance(source, SourceConfig):
        return SourceConfig(source, name)
    return msgspec.structs.replace(source, name=name or source.name)

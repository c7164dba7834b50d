"""``snapshots:DIR``: now and then an image of what was found, with its JSON beside it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from edgecv._internal.atomic import write_private
from edgecv._internal.extras import require
from edgecv.errors import ConfigError, SinkError
from edgecv.events import EventMedia
from edgecv.pipelines.sinks.documents import encode
from edgecv.pipelines.sinks.video.file_ring import FileRing
from edgecv.pipelines.sinks.video.ring_order import Clocks
from edgecv.pipelines.steps.filter.classes import ClassFilter
from edgecv.pipelines.uris import Uri, read_options
from edgecv.protocols import SinkType
from edgecv.results import Frame, Image, Result

_MINUTE_NS = 60 * 10**9
_PRUNE_NS = 5 * 10**9  # how often the budget is looked after


class SnapshotsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the query of ``snapshots:`` may say.

    Attributes:
        on: ``detections``: frames in which something was found. ``events``: frames that steps had something to say about.
            ``all``: every frame.
        classes: Names or numbers, comma-separated: with ``on=detections`` only these count.
        every_s: Least time between two images of a source; by default 1, and with ``on=events`` 0: each event has its image.
        max_per_minute: Most images of a source in any minute; by default 30, and with ``on=events`` 120.
        free_mb: The oldest are deleted too when the disk has less left than this.
        keep_mb: The oldest images are deleted when all together are larger.
        keep_hours: Images that are older are deleted; 0 keeps them. A jump of the clock makes none older.
        draw: Paint what was found onto the images.
        quality: Of the JPEG, 1 to 100.
    """

    on: Literal["detections", "events", "all"] = "detections"
    classes: str = ""
    every_s: Annotated[float, msgspec.Meta(ge=0)] | None = None
    max_per_minute: Annotated[int, msgspec.Meta(ge=1, le=6000)] | None = None
    free_mb: Annotated[float, msgspec.Meta(ge=0)] = 100.0
    keep_mb: Annotated[float, msgspec.Meta(gt=0)] = 500.0
    keep_hours: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    draw: bool = False
    quality: Annotated[int, msgspec.Meta(ge=1, le=100)] = 90


def _limits(options: SnapshotsOptions) -> tuple[float, int]:
    every_s, most = (0.0, 120) if options.on == "events" else (1.0, 30)
    return (
        every_s if options.every_s is None else options.every_s,
        most if options.max_per_minute is None else options.max_per_minute,
    )


@dataclass(slots=True)
class _Pace:
    """When the images of a source were taken, monotonic nanoseconds of the last minute."""

    taken_ns: deque[int] = field(default_factory=deque)

    def allows(self, now_ns: int, every_s: float, max_per_minute: int) -> bool:
        while self.taken_ns and self.taken_ns[0] <= now_ns - _MINUTE_NS:
            self.taken_ns.popleft()
        too_soon = bool(self.taken_ns) and now_ns - self.taken_ns[-1] < every_s * 1e9
        return not too_soon and len(self.taken_ns) < max_per_minute


class SnapshotsSink(SinkType):
    """Writes ``DIR/20261121T154418.123Z_SOURCE.jpg`` (UTC of the frame) and the document of the frame as ``.json`` beside it.

    Each file appears whole or not at all, the JSON first: whoever sees an image finds its document. The budget may be passed
    by what five seconds write. Masks are left out of the JSON. Only the owner may read the files (0600) and the new folder (0700).

    Attributes:
        skipped: Frames that were wanted, but came too soon after another.
        on_media: Called with each image of a frame that has events.
    """

    Options: ClassVar[type[msgspec.Struct]] = SnapshotsOptions

    def __init__(
        self, folder: str | Path, *, options: SnapshotsOptions | None = None, clocks: Clocks | None = None
    ) -> None:
        """Take the folder, made if only it is missing; by ``clocks`` files grow old.

        Raises:
            ConfigError: the folder is a file, or another sink writes there.
            SinkError: it cannot be written there.
        """
        self._options = options or SnapshotsOptions()
        self._classes = tuple(name.strip() for name in self._options.classes.split(",") if name.strip())
        self._cv2 = require("cv2", "vision")
        self._ring = FileRing(
            folder,
            (".jpg", ".json"),
            keep_bytes=round(self._options.keep_mb * 1e6),
            keep_s=self._options.keep_hours * 3600,
            free_bytes=round(self._options.free_mb * 1e6),
            clocks=clocks,
        )
        for left in self._ring.folder.glob(".*.tmp"):  # of a process that was killed
            if self._ring.owns(left.name[1 : -len(".tmp")]):
                left.unlink(missing_ok=True)
        self._filter: ClassFilter | None = None
        self._paces: dict[str, _Pace] = {}
        self._limits = _limits(self._options)  # least seconds between two, and most in a minute
        self._pruned_ns = 0
        self._closed = False
        self.skipped = 0
        self.on_media: Callable[[EventMedia], None] | None = None

    @classmethod
    def from_uri(cls, uri: Uri, *, fps: float = 0.0, overwrite: bool = False) -> SnapshotsSink:  # noqa: ARG003 - the seam's
        """Open ``snapshots:DIR``; errors as in the constructor."""
        return cls(uri.path, options=read_options(uri, SnapshotsOptions))

    def emit(self, result: Result) -> None:
        """Write an image of the frame when it is wanted and due.

        Raises ``SinkError`` when it cannot be written, or the model has not the classes that are asked for.
        """
        if self._closed:
            raise SinkError(f"{self._ring.folder} is closed.")
        if not self._is_wanted(result):
            return
        frame = result.frame
        if self._is_due(frame):
            self._write(result)
        else:
            self.skipped += 1
        if frame.monotonic_ns - self._pruned_ns >= _PRUNE_NS:
            self._pruned_ns = frame.monotonic_ns
            self._ring.prune()

    def retain(self, source_id: str, longest_s: float) -> None:
        """Delete images of this source that are older, whatever ``keep_hours`` says."""
        self._ring.retain(source_id, longest_s)

    def expire(self) -> None:
        """Delete what is too old."""
        self._ring.prune()

    def close(self) -> None:
        """Keep to the budget a last time; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._ring.prune()
            self._ring.close()

    def _is_wanted(self, result: Result) -> bool:
        if self._options.on == "all":
            return True
        if self._options.on == "events":
            return bool(result.events)
        if self._classes:
            result = self._class_filter(result)(result)
        found = result.classification if result.detections is None else result.detections
        return found is not None and len(found) > 0

    def _class_filter(self, result: Result) -> ClassFilter:
        """Made at the first result: only that knows the labels."""
        try:
            self._filter = self._filter or ClassFilter.from_names(self._classes, result.labels)
        except ConfigError as error:
            raise SinkError(f"{self._ring.folder}: {error.message}", error.hint) from error
        return self._filter

    def _is_due(self, frame: Frame) -> bool:
        pace = self._paces.setdefault(frame.source_id, _Pace())
        if not pace.allows(frame.scene_ns, *self._limits):
            return False
        pace.taken_ns.append(frame.scene_ns)
        return True

    def _write(self, result: Result) -> None:
        frame = result.frame
        image = result.plot() if self._options.draw else frame.image
        stem = self._ring.new_stem(frame.captured_ns, frame.source_id, ".jpg")
        self._put(stem + ".json", encode(result.as_dict(masks=False)))
        try:
            self._put(stem + ".jpg", self._jpeg(image))
        except SinkError:
            (self._ring.folder / (stem + ".json")).unlink(missing_ok=True)
            raise
        if result.events and self.on_media is not None:
            keys = tuple(event.key for event in result.events)
            path = self._ring.folder / (stem + ".jpg")
            self.on_media(EventMedia(keys=keys, kind="snapshot", path=path, source_id=frame.source_id))

    def _jpeg(self, image: Image) -> bytes:
        encoded: Any = self._cv2.imencode(".jpg", image, [self._cv2.IMWRITE_JPEG_QUALITY, self._options.quality])[1]
        return bytes(encoded.tobytes())

    def _put(self, name: str, data: bytes) -> None:
        """A file that appears whole, for the owner of the folder alone."""
        try:
            write_private(self._ring.folder / name, data)
        except OSError as error:
            raise SinkError(
                f"{self._ring.folder} cannot be written: {error.strerror}.", "Is the disk full, or keep_mb too large?"
            ) from error

"""``clips:DIR``: a video of each event, with the seconds before it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from edgecv._internal.extras import require
from edgecv.errors import SinkError
from edgecv.events import Event, EventMedia
from edgecv.media.packets import Packet
from edgecv.pipelines.closing import close_all
from edgecv.pipelines.sinks.clips.folder import ClipFolder
from edgecv.pipelines.sinks.clips.options import ClipsOptions, Wanted
from edgecv.pipelines.sinks.clips.roll import Roll
from edgecv.pipelines.sinks.clips.writer import ClipWriter
from edgecv.pipelines.sinks.video.ring_order import Clocks
from edgecv.pipelines.uris import Uri, read_options
from edgecv.protocols import SinkType
from edgecv.results import Result

log = logging.getLogger("edgecv.pipelines")


class ClipsSink(SinkType):
    """Writes ``DIR/20261121T154418.123Z_SOURCE.mp4`` (UTC of its first image) for each event, and a ``.json`` beside it.

    A ring in memory keeps the last seconds of each source, still encoded. The H.264 or H.265 of a network camera is kept as it
    came, and copied into the file. JPEG images of cameras, and the frames of all other sources, become H.264 when a clip is
    written. A camera with a mask, or whose images a step paints over, gives frames as they come out of the steps. There is no
    sound, and nothing is drawn. Events that come before a clip is over prolong it; the JSON lists them with their places. A file
    has its name once it is whole. Until then it ends with ``.part``, can be read all the same, and gets its name at the next
    start if the process is killed. Only the owner may read the files.

    Attributes:
        on_media: Called with each clip that is whole.
        lost: Events that got no clip, because the disk is full or the source gave no image.
    """

    Options: ClassVar[type[msgspec.Struct]] = ClipsOptions

    def __init__(
        self, folder: str | Path, *, options: ClipsOptions | None = None, clocks: Clocks | None = None
    ) -> None:
        """Take the folder, made if only it is missing, and give clips of a process that was killed their names.

        Raises:
            ConfigError: the folder is a file, or another sink writes there.
            SinkError: it cannot be written there.
        """
        self._options = options or ClipsOptions()
        require("av", "video")
        require("cv2", "vision")
        self.on_media: Callable[[EventMedia], None] | None = None
        self._wanted = Wanted(self._options)
        self._rolls: dict[str, Roll] = {}
        self._adding = threading.Lock()
        self._folder = ClipFolder(folder, self._options, clocks)
        self._writer = ClipWriter(self._folder, self._options, self._tell)
        self._closed = False
        self._recovered = self._folder.recover()
        if self._recovered:
            log.info("%s: %d clips of a process that was killed were mended.", self._folder.path, len(self._recovered))

    @classmethod
    def from_uri(cls, uri: Uri, *, fps: float = 0.0, overwrite: bool = False) -> ClipsSink:  # noqa: ARG003 - the seam's
        """Open ``clips:DIR``; errors as in the constructor."""
        return cls(uri.path, options=read_options(uri, ClipsOptions))

    @property
    def lost(self) -> int:
        """Events that got no clip."""
        return self._writer.lost

    def emit(self, result: Result) -> None:
        """Remember the frame, and make a clip of its events. Raises ``SinkError``: the sink is closed."""
        self._check_open()
        events = [event for event in result.events if self._wanted(event)]
        frame = result.frame
        roll = self._roll(frame.source_id)
        roll.take_frame(frame, is_wanted=bool(events))
        if events:
            self._writer.note(roll, events, frame.scene_ns)
        if not roll.has_room:
            self._writer.hurry()
            roll.wait_for_room()

    def emit_event(self, event: Event) -> None:
        """Make a clip of an event whose frame a step dropped, or of one of a source's health where ``on`` names it.

        Raises ``SinkError``: the sink is closed.
        """
        self._check_open()
        if self._wanted(event) and event.source_id in self._rolls:
            roll = self._rolls[event.source_id]
            self._writer.note(roll, [event], roll.scene_ns(event.time_ns))

    def take_packet(self, source_id: str, packet: Packet) -> None:
        """Remember what a camera encoded."""
        self._roll(source_id).take_packet(packet)

    def drop_packets(self, source_id: str) -> None:
        """Forget what a camera encoded, delete what is being written of it, and take its frames from now on."""
        self._roll(source_id).refuse_packets()
        self._writer.spoil(source_id)

    def retain(self, source_id: str, longest_s: float) -> None:
        """Delete clips of this source that were begun longer ago, whatever ``keep_hours`` says."""
        self._folder.retain(source_id, longest_s)

    def expire(self) -> None:
        """Delete what is too old; at the first time, tell of the clips that were mended."""
        mended, self._recovered = self._recovered, []
        for path, document in mended:
            self._tell(str(document.get("source_id", "")), path, _keys(document))
        self._folder.prune()

    def close(self) -> None:
        """Finish the clips that are being written; a second call does nothing. Raises ``SinkError``: that took too long."""
        if not self._closed:
            self._closed = True
            close_all([self._writer.close, self._folder.prune, self._folder.close])

    def _check_open(self) -> None:
        if self._closed:
            raise SinkError(f"{self._folder.path} is closed.")

    def _roll(self, source_id: str) -> Roll:
        roll = self._rolls.get(source_id)
        if roll is None:
            with self._adding:
                roll = self._rolls.setdefault(source_id, Roll(source_id, self._options))
        return roll

    def _tell(self, source_id: str, path: Path, keys: tuple[str, ...]) -> None:
        if self.on_media is not None:
            self.on_media(EventMedia(keys=keys, kind="clip", path=path, source_id=source_id))


def _keys(document: dict[str, Any]) -> tuple[str, ...]:
    """The keys of the events in a document that a killed process left; it may be anything."""
    events = document.get("events")
    rows = events if isinstance(events, list) else []
    return tuple(row["key"] for row in rows if isinstance(row, dict) and isinstance(row.get("key"), str))

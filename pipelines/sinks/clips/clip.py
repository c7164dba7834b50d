"""``Clip``: one video of one or more events, while it is written."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecv.events import Event
from edgecv.media.packets import Packet, PacketStream
from edgecv.pipelines.sinks.clips.encoder import JpegEncoder
from edgecv.pipelines.sinks.clips.folder import ClipFolder
from edgecv.pipelines.sinks.clips.mp4 import Mp4Writer
from edgecv.pipelines.sinks.clips.roll import Roll

_LATE_S = 3.0  # what is on its way from a camera when its time is over
_SILENT_S = 30.0  # a source that gives nothing for so long ends its clips
_DESCRIBE_S = 2.0  # how often further events are written into the document of a clip that grows
_MOST_EVENTS = 1000  # in a document; of a storm of events the first say enough


@dataclass(slots=True, kw_only=True, eq=False)
class Clip:
    """What a clip shall show, and how far it is.

    Attributes:
        roll: The source that it shows, and where its packets come from.
        is_original: Whether those are what the camera encoded.
        scene: Which of the source's scenes it shows (``Roll.scene``).
        number: Of the next packet.
        end_ns: Scene time of its end; a further event moves it.
        latest_ns: Scene time beyond which no event moves it.
        fps: Most images a second of what is encoded here.
        is_spoiled: Its images must not be seen as they came.
        events: Each with the scene time of its frame.
    """

    roll: Roll
    is_original: bool
    scene: int
    number: int
    end_ns: int
    latest_ns: int
    fps: float
    is_spoiled: bool = False
    events: list[tuple[Event, int]] = field(default_factory=list)
    stem: str = ""
    _stream: PacketStream | None = None
    _writer: Mp4Writer | None = None
    _encoder: JpegEncoder | None = None
    _first: Packet | None = None
    _last_ns: int = 0
    _described: int = 0
    _described_s: float = 0.0
    _moved_s: float = field(default_factory=time.monotonic)

    def takes(self, roll: Roll, scene_ns: int) -> bool:
        """Whether an event of that source and moment belongs here."""
        is_here = roll is self.roll and roll.scene == self.scene and not self.is_spoiled
        return is_here and scene_ns <= min(self.end_ns, self.latest_ns)

    @property
    def is_empty(self) -> bool:
        """Whether no image of the event came so far."""
        return self._writer is None or self._writer.is_empty

    def advance(self, folder: ClipFolder) -> bool:
        """Write what came; whether it is over. Raises ``SinkError``: it cannot be written."""
        packets, following = self.roll.ring.after(self.number)
        self.number = following - len(packets)
        for packet in packets:
            if self._is_past(packet):
                return True
            self._write(packet, folder)
            self.number += 1
        if packets:
            self._moved_s = time.monotonic()
        if not self.is_empty and self._is_news():
            self._describe(folder, is_whole=False)
        return self._is_overdue()

    def finish(self, folder: ClipFolder) -> Path:
        """Make it whole. Raises ``SinkError``: it cannot be written."""
        assert self._writer is not None
        self._writer.close()
        self._describe(folder, is_whole=True)
        return folder.finish(self.stem)

    def abandon(self, folder: ClipFolder) -> None:
        """Delete what was written of it so far."""
        if self._writer is not None:
            self._writer.abandon()
        if self.stem:
            folder.drop(self.stem)

    def _is_past(self, packet: Packet) -> bool:
        """Whether the clip ends before this packet: by time, or because it is of another stream."""
        if packet.scene_ns > min(self.end_ns, self.latest_ns):
            return True
        return self._stream is not None and packet.stream is not self._stream

    def _is_news(self) -> bool:
        """Whether the document lacks events, and was written some time ago."""
        now_s, listed = time.monotonic(), min(len(self.events), _MOST_EVENTS)
        return not self._described or (listed > self._described and now_s - self._described_s >= _DESCRIBE_S)

    def _is_overdue(self) -> bool:
        silent_s = time.monotonic() - self._moved_s
        late_s = (time.monotonic_ns() - min(self.end_ns, self.latest_ns)) / 1e9
        return silent_s > _SILENT_S or (self.roll.is_live and min(late_s, silent_s) > _LATE_S)

    def _write(self, packet: Packet, folder: ClipFolder) -> None:
        if self._stream is None:
            if not packet.is_key:
                return
            self._begin(packet, folder)
        assert self._writer is not None
        for one in [packet] if self._encoder is None else self._encoder.encoded(packet):
            self._writer.write(one)
        self._last_ns = packet.scene_ns

    def _begin(self, packet: Packet, folder: ClipFolder) -> None:
        self._stream = self._first = None
        self._encoder = JpegEncoder(packet.stream, self.fps) if packet.stream.codec == "jpeg" else None
        self.stem = folder.begin(packet.captured_ns, self.roll.source_id)
        stream = packet.stream if self._encoder is None else self._encoder.stream
        self._writer = Mp4Writer(folder.part(self.stem), stream)
        self._stream, self._first = packet.stream, packet

    def _describe(self, folder: ClipFolder, *, is_whole: bool) -> None:
        assert self._first is not None and self._stream is not None
        events, count = self.events[:_MOST_EVENTS], len(self.events)
        first = self._first
        document: dict[str, Any] = {
            "source_id": self.roll.source_id,
            "began_ns": first.captured_ns,
            "duration_s": _seconds(self._last_ns - first.scene_ns),
            "width": self._stream.width,
            "height": self._stream.height,
            "codec": "h264" if self._stream.codec == "jpeg" else self._stream.codec,
            "original": self.is_original and self._stream.codec != "jpeg",
            "whole": is_whole,
            "events": [
                {"key": event.key, "offset_s": _seconds(scene_ns - first.scene_ns), **event.as_dict()}
                for event, scene_ns in events
            ],
            **({"events_left_out": count - len(events)} if count > len(events) else {}),
        }
        folder.describe(self.stem, document)
        self._described, self._described_s = len(events), time.monotonic()


def _seconds(duration_ns: int) -> float:
    return round(duration_ns / 1e9, 3)

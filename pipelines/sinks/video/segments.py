"""``segments:DIR``: annotated videos of every source in pieces of a minute, the oldest of which go."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from edgecv._internal.extras import require
from edgecv.errors import SinkError
from edgecv.media.video_writer import VideoWriter
from edgecv.pipelines.closing import close_all
from edgecv.pipelines.sinks.video.file_ring import FileRing
from edgecv.pipelines.sinks.video.ring_order import Clocks, RingFile
from edgecv.pipelines.sinks.video.scene_clock import SceneClock
from edgecv.pipelines.sinks.video.video import NOMINAL_FPS
from edgecv.pipelines.uris import Uri, read_options
from edgecv.protocols import SinkType
from edgecv.results import Frame, Image, Result

log = logging.getLogger("edgecv.pipelines")

_GAP_S = 10.0  # a source that was away for longer begins a new file, so that the names tell the times
_TEND_S = 5.0  # how often budget and silent sources are looked after
_FIRST_RETRY_S = 1.0  # after a full disk; doubled up to:
_LAST_RETRY_S = 30.0


class SegmentsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the query of ``segments:`` may say.

    Attributes:
        seconds: Length of a segment.
        free_mb: The oldest are deleted too when the disk has less left than this.
        keep_gb: The oldest segments are deleted when all together are larger.
        keep_hours: Segments that were begun longer ago are deleted; 0 keeps them. A jump of the clock makes none older.
        format: Container of the files.
        draw: Paint what was found onto the frames.
        fsync_s: How often files are brought to the disk, against a power cut; 0 leaves it to the system. A kill of the
            process loses about a second whatever stands here.
    """

    seconds: Annotated[float, msgspec.Meta(ge=1, le=86_400)] = 60.0
    free_mb: Annotated[float, msgspec.Meta(ge=0)] = 100.0
    keep_gb: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    keep_hours: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    format: Literal["mp4", "mkv"] = "mp4"
    draw: bool = True
    fsync_s: Annotated[float, msgspec.Meta(ge=0)] = 5.0


@dataclass(slots=True)
class _Recording:
    path: Path
    writer: VideoWriter
    clock: SceneClock
    shape: tuple[int, ...]
    last_ns: int
    synced_ns: int
    last_s: float = 0.0
    frames: int = 0
    is_silent: bool = False  # nothing was written since `expire` looked

    def is_over(self, frame: Frame, seconds: float) -> bool:
        time_s = self.clock.time_s(frame)
        return frame.image.shape != self.shape or time_s - self.last_s > _GAP_S or time_s >= seconds

    def write(self, image: Image, frame: Frame) -> None:
        time_s = self.clock.time_s(frame)
        self.writer.write(image, time_s)
        self.last_s, self.last_ns = time_s, frame.monotonic_ns
        self.frames += 1
        self.is_silent = False


class SegmentsSink(SinkType):
    """Records every source into files of its own, ``DIR/20261121T154418.123Z_SOURCE.mp4`` (UTC of the first frame).

    A new file begins after ``seconds``, when the frames get another size, and after a gap of ten seconds. A kill loses about
    a second. What a crash left behind stays and counts for the budget; of each source the newest such file is tried, and
    called ``.broken`` when it shows no image (empty files go). On a full disk results are refused, and recording begins
    anew, after 1 to 30 s, once there is space. The budget may be passed by what five seconds write. Only the owner may read the
    files (0600) and the new folder (0700).

    Attributes:
        leftovers: Files of earlier runs that were there at the start, oldest first.
    """

    Options: ClassVar[type[msgspec.Struct]] = SegmentsOptions

    def __init__(
        self,
        folder: str | Path,
        *,
        fps: float = 0.0,
        options: SegmentsOptions | None = None,
        clocks: Clocks | None = None,
    ) -> None:
        """Take the folder, made if only it is missing, and look after what an earlier run left.

        Args:
            fps: Frames per second of the sources; 0.0 takes the times of capture instead (cameras).
            clocks: By which files grow old.

        Raises:
            ConfigError: the folder is a file, or another sink writes there.
            SinkError: it cannot be written there.
        """
        self._options = options or SegmentsOptions()
        self._fps = fps
        self._av = require("av", "video")
        require("cv2", "vision")
        self._suffix = f".{self._options.format}"
        self._ring = FileRing(
            folder,
            (".mp4", ".mkv"),
            keep_bytes=round(self._options.keep_gb * 1e9),
            keep_s=self._options.keep_hours * 3600,
            free_bytes=round(self._options.free_mb * 1e6),
            clocks=clocks,
        )
        self._recordings: dict[str, _Recording] = {}
        self._tended_ns = 0
        self._blocked_until_ns, self._retry_s = 0, _FIRST_RETRY_S
        self._closed = False
        self._repair()
        self.leftovers = tuple(file.path for file in self._ring.files())
        if self.leftovers:
            log.info("%s holds %d segments of earlier runs.", self._ring.folder, len(self.leftovers))

    @classmethod
    def from_uri(cls, uri: Uri, *, fps: float = 0.0, overwrite: bool = False) -> SegmentsSink:  # noqa: ARG003 - the seam's
        """Open ``segments:DIR``; errors as in the constructor."""
        return cls(uri.path, fps=fps, options=read_options(uri, SegmentsOptions))

    def emit(self, result: Result) -> None:
        """Append one frame to the segment of its source. Raises ``SinkError``: it cannot be written."""
        if self._closed:
            raise SinkError(f"{self._ring.folder} is closed.")
        frame = result.frame
        recording = self._recordings.get(frame.source_id)
        if recording is not None and recording.is_over(frame, self._options.seconds):
            self._finish(frame.source_id)
        try:
            image = result.plot() if self._options.draw else frame.image
            self._recording(frame).write(image, frame)
            self._tend(frame.monotonic_ns)
        except SinkError:
            self._give_up(frame)
            raise

    def retain(self, source_id: str, longest_s: float) -> None:
        """Delete segments of this source that were begun longer ago, whatever ``keep_hours`` says."""
        self._ring.retain(source_id, longest_s)

    def expire(self) -> None:
        """Delete what is too old, and finish files that nothing was written to since the last time: they would never be.

        Raises ``SinkError`` when the end of such a file could not be written.
        """
        silent = [source_id for source_id, recording in self._recordings.items() if recording.is_silent]
        for recording in self._recordings.values():
            recording.is_silent = True
        close_all([*(partial(self._finish, source_id) for source_id in silent), self._prune])

    def close(self) -> None:
        """Finish all segments; a second call does nothing.

        Raises ``SinkError`` when the end of one could not be written; the others are finished all the same.
        """
        if self._closed:
            return
        self._closed = True
        finishes = [partial(self._finish, source_id) for source_id in self._recordings]
        close_all([*finishes, self._ring.prune, self._ring.close])

    def _recording(self, frame: Frame) -> _Recording:
        recording = self._recordings.get(frame.source_id)
        if recording is None:
            recording = self._recordings[frame.source_id] = self._begin(frame)
        return recording

    def _begin(self, frame: Frame) -> _Recording:
        if frame.monotonic_ns < self._blocked_until_ns:
            raise SinkError(f"{self._ring.folder} takes nothing yet.", "Is the disk full?")
        self._prune()
        path = self._ring.folder / (
            self._ring.new_stem(frame.captured_ns, frame.source_id, self._suffix) + self._suffix
        )
        return _Recording(
            path=path,
            writer=VideoWriter(path, self._fps or NOMINAL_FPS, private=True),
            clock=SceneClock.start(frame, self._fps),
            shape=frame.image.shape,
            last_ns=frame.monotonic_ns,
            synced_ns=frame.monotonic_ns,
        )

    def _finish(self, source_id: str) -> None:
        recording = self._recordings.pop(source_id)
        try:
            recording.writer.close()
            if recording.frames and self._options.fsync_s:
                recording.writer.sync()
        finally:
            if not recording.frames:  # a header alone shows nothing
                recording.path.unlink(missing_ok=True)

    def _give_up(self, frame: Frame) -> None:
        """Keep what was written and try anew later, on a disk that may have space by then."""
        if frame.source_id in self._recordings:
            with suppress(SinkError):
                self._finish(frame.source_id)
        if frame.monotonic_ns >= self._blocked_until_ns:
            self._blocked_until_ns = frame.monotonic_ns + round(self._retry_s * 1e9)
            self._retry_s = min(_LAST_RETRY_S, self._retry_s * 2)

    def _tend(self, now_ns: int) -> None:
        """Every few seconds: bring files to the disk, keep to the budget, finish what sources left open."""
        for recording in self._recordings.values():
            self._look_after(recording, now_ns)
        if now_ns - self._tended_ns < _TEND_S * 1e9:
            return
        self._tended_ns = now_ns
        for source_id, recording in list(self._recordings.items()):
            if now_ns - recording.last_ns > _GAP_S * 1e9:
                self._finish(source_id)
        self._prune()

    def _look_after(self, recording: _Recording, now_ns: int) -> None:
        if now_ns - recording.synced_ns < (self._options.fsync_s or _TEND_S) * 1e9:
            return
        recording.synced_ns = now_ns
        if self._options.fsync_s:
            recording.writer.sync()
        self._retry_s = _FIRST_RETRY_S  # the disk has taken seconds again

    def _prune(self) -> None:
        self._ring.prune(in_use=[recording.path for recording in self._recordings.values()])

    def _repair(self) -> None:
        newest: dict[str, RingFile] = {}
        for file in self._ring.files():
            if not file.size_bytes:
                file.path.unlink(missing_ok=True)
            elif file.path.suffix != ".broken":
                newest[file.source] = file
        for file in newest.values():
            if not _shows_an_image(self._av, file.path):
                log.warning("%s shows no image; it is called .broken now.", file.path)
                file.path.rename(file.path.with_name(file.path.name + ".broken"))


def _shows_an_image(av: Any, path: Path) -> bool:
    try:
        with av.open(str(path)) as container:
            return next(container.decode(video=0), None) is not None
    except (OSError, ValueError, IndexError):  # PyAV's errors are the former; no video stream is the last
        return False

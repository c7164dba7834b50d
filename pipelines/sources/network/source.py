"""``rtsp://user:password@cam/1``, ``http://cam/video.mjpg``: a camera in the network, decoded by PyAV.

RTSP is read by libav as well, HTTP is not: a camera must not lead us to other hosts, to files or to what never ends
(``http_stream``, ``jpeg_stream``, ``rtsp_redirects``).

Known options are ours, the rest of the query goes to the camera (see ``edgecv.pipelines.uris``). ``rtsps`` and ``https`` encrypt;
the certificate is not checked, because cameras sign their own.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from typing import Any

from edgecv._internal.extras import require
from edgecv.errors import SourceError
from edgecv.media.image_headers import image_size
from edgecv.media.video_files import STREAM_FORMATS
from edgecv.pipelines.sources.frames import FrameStamper
from edgecv.pipelines.sources.jpeg_stream import JpegStream
from edgecv.pipelines.sources.live import LiveOptions, LiveSource, Unrecoverable, check_size, need
from edgecv.pipelines.sources.network.address import NetworkOptions, camera_url, check_url, host_port
from edgecv.pipelines.sources.network.errors import HUNG_UP, stream_error
from edgecv.pipelines.sources.network.http_stream import HTTP_ERRORS, HttpStream, OnlyRead
from edgecv.pipelines.sources.network.rtsp_redirects import no_redirect
from edgecv.pipelines.sources.packets import JpegPackets, VideoPackets
from edgecv.pipelines.uris import Uri, parse_source, read_options
from edgecv.results import Frame, Image

_UNREADABLE_ALLOWED = 100  # packets in a row: the first key frame may have been sent before we came
_EVERY_S = 1.0  # as live as a page that shows snapshots
_END_S, _END_PART = 2.0, 0.02  # recorders round, and begin and end at key frames
# What libav may read before it says what the stream is: its own 5 s would eat the time a camera has to come back.
# Not `fflags=nobuffer`: it throws the packets away that were looked at, and with them the key frame that a new viewer gets.
_PROBE = {"analyzeduration": "1000000", "fpsprobesize": "1", "flags": "low_delay"}
# What libav may take a stream for, and what it may open by itself. No playlists (hls, dash, concat, sdp), which name others.
_RTSP_ONLY = {"format_whitelist": "rtsp", "protocol_whitelist": "rtsp,rtsps,tcp,tls,udp,rtp,srtp"}
_STREAMS_ONLY = {"format_whitelist": STREAM_FORMATS, "protocol_whitelist": "none"}
_TOO_LARGE = re.compile(r"Picture size (\d+)x(\d+) exceeds")


class NetworkSource(LiveSource):
    """A stream of a camera; frames are decoded and resized as they arrive."""

    Options = NetworkOptions

    @staticmethod
    def check(uri: Uri) -> None:
        """Refuse what can never work, without touching the camera; errors as of ``open_source``."""
        check_url(uri)
        need("av", "video")

    def __init__(self, uri: str | Uri) -> None:
        """Connect, and wait for the description of the stream.

        Raises ``SourceError``: the camera cannot be reached or refuses; its ``code`` says how.
        """
        self._uri = parse_source(uri)
        self._options = read_options(self._uri, NetworkOptions)
        self.source_id = self._uri.name
        self.fps = 0.0
        self._av = require("av", "video")
        self._reformatter = self._av.video.reformatter.VideoReformatter()
        self._stamper = FrameStamper(self.source_id)
        self._video_packets, self._jpeg_packets = VideoPackets(), JpegPackets()
        self._http: HttpStream | None = None
        self._container: Any = None
        self._closed = threading.Event()
        self._first_s: float | None = None  # times of a stream that has an end
        self._last_s = self._duration_s = 0.0
        try:
            self._images = self._open()
        except BaseException:
            self.close()
            raise
        self._is_open = True

    def read(self) -> Frame | None:
        """The next frame, or ``None`` when the source was closed, or at the end of what a recorder plays.

        Raises ``SourceError``: the stream broke off or cannot be decoded.
        """
        if not self._is_open:
            return None
        try:
            image = next(self._images)
        except StopIteration:
            if self._is_played():
                return None
            raise SourceError(f"{self.source_id} ended the stream.", HUNG_UP, code="eof") from None
        except (self._av.error.FFmpegError, *HTTP_ERRORS) as error:
            raise stream_error(self._av.error, error, self._uri, opening=False) from error
        return self._stamper.stamp(image)

    def close(self) -> None:
        """Hang up; a second call does nothing."""
        self._is_open = False
        self._closed.set()
        if self._container is not None:
            self._container.close()
            self._container = None
        if self._http is not None:
            self._http.close()
            self._http = None

    def _open(self) -> Iterator[Image]:
        url, limit = camera_url(self._uri, self._options), self._limit()
        try:
            if self._uri.scheme.startswith("rtsp"):
                options = {**_PROBE, **_RTSP_ONLY, **limit, "rtsp_transport": self._options.transport}
                with no_redirect(self._av, self.source_id, *host_port(self._uri)):
                    self._container = self._av.open(url, options=options)
            else:
                self._http = self._asked(url)
                if self._http.is_jpeg:
                    return self._stills(self._jpegs(url, self._http))
                options = {**_PROBE, **_STREAMS_ONLY, **limit}
                self._container = self._av.open(OnlyRead(self._http.read), options=options)
        except (self._av.error.FFmpegError, *HTTP_ERRORS) as error:
            raise stream_error(self._av.error, error, self._uri, opening=True) from error
        return self._decoded(self._video())

    def _limit(self) -> dict[str, str]:
        """For libav's decoders, which round sides up before they compare: what lies between is refused once it is decoded."""
        return {"max_pixels": str(2 * self._options.most_pixels)}

    def _asked(self, url: str) -> HttpStream:
        return HttpStream(url, self.source_id, max(self._options.connect_s, self._options.deadline_s))

    def _jpegs(self, url: str, http: HttpStream) -> Iterator[bytes]:
        """Encoded images of a stream; of an address that gives one at a time, each time it is asked again."""
        due_s = time.monotonic()
        while True:
            stream, count = JpegStream(http.read, self.source_id, self._options.most_pixels), 0
            while (data := stream.next()) is not None:
                count += 1
                yield data
            if count != 1 or not (self._options.every_s or http.is_image):
                return
            due_s = max(due_s + (self._options.every_s or _EVERY_S), time.monotonic())
            http.close()
            if self._closed.wait(max(0.0, due_s - time.monotonic())):
                return
            http = self._http = self._asked(url)

    def _stills(self, encoded: Iterator[bytes]) -> Iterator[Image]:
        """JPEG images; each says its size, and its camera may change it."""
        decoder = self._av.CodecContext.create("mjpeg", "r")
        decoder.options = self._limit()
        unreadable = 0
        for data in encoded:
            try:
                size_wh = image_size(data)
                check_size(*size_wh, self.source_id, self._options)
                frames = decoder.decode(self._av.Packet(data))
            except Unrecoverable:
                raise
            except (SourceError, self._av.error.FFmpegError):
                unreadable += 1
                if unreadable > _UNREADABLE_ALLOWED:
                    raise
                continue
            if self.on_packet is not None and frames:
                self.on_packet(self._jpeg_packets.made(data, size_wh))
            for frame in frames:
                unreadable = 0
                if not frame.is_corrupt:
                    yield self._image(frame)

    def _video(self) -> Any:
        """Find the video stream; raise ``Unrecoverable`` where none can be decoded."""
        streams = self._container.streams.video
        if not streams:
            raise Unrecoverable(f"{self.source_id} has no video.", "Does the path lead to a camera?", code="codec")
        if getattr(streams[0], "codec_context", None) is None:
            raise Unrecoverable(
                f"{self.source_id} sends a format that this PyAV cannot decode.",
                "Set the camera to H.264, H.265 or MJPEG.",
                code="codec",
            )
        if self._container.duration and self._uri.scheme.startswith("rtsp"):  # a recorder plays what it has stored
            self._duration_s = self._container.duration / 1e6
        elif self._container.duration:
            raise Unrecoverable(
                f"{self.source_id} is a file, no camera.", "Download it and give the file as the source.", code="codec"
            )
        self.fps = float(streams[0].average_rate or streams[0].guessed_rate or 0.0)
        decoder = streams[0].codec_context
        check_size(decoder.width, decoder.height, self.source_id, self._options)
        decoder.options = self._limit()  # its size may change in mid-stream
        streams[0].thread_type = "SLICE"  # decoding whole frames side by side would hold each back
        return streams[0]

    def _decoded(self, stream: Any) -> Iterator[Image]:
        """Images that are whole: none that the decoder made up for lost packets."""
        unreadable = 0
        for packet in self._container.demux(stream):
            try:
                frames = packet.decode()
            except (self._av.error.InvalidDataError, self._av.error.ArgumentError):
                self._check_packet(packet)
                unreadable += 1
                if unreadable > _UNREADABLE_ALLOWED:
                    raise
                continue
            finally:  # only now the decoder knows the size
                self._keep(packet, stream.codec_context)
            for frame in frames:
                unreadable = 0
                self._note_time(frame)
                if not frame.is_corrupt:
                    yield self._image(frame)

    def _keep(self, packet: Any, decoder: Any) -> None:
        """Give a packet to whoever wants it, decoded or not: a player may make more of it."""
        if self.on_packet is not None and (made := self._video_packets.made(packet, decoder)) is not None:
            self.on_packet(made)

    def _note_time(self, frame: Any) -> None:
        if self._duration_s and frame.pts is not None:
            at_s = float(frame.pts * frame.time_base)
            self._first_s = at_s if self._first_s is None else self._first_s
            self._last_s = at_s - self._first_s

    def _is_played(self) -> bool:
        """Whether the end of a stream is that of the recording which it plays, and not of the connection."""
        return bool(self._duration_s) and self._last_s >= self._duration_s - max(_END_S, self._duration_s * _END_PART)

    def _check_packet(self, packet: Any) -> None:
        """Say so when what could not be decoded is too large: libav tells its log only."""
        logging = self._av.logging
        logging.set_level(logging.ERROR)
        try:
            with logging.Capture() as said:
                packet.decode()
        except self._av.error.FFmpegError:
            pass
        finally:
            logging.set_level(None)
        for _, _, text in said:
            if (found := _TOO_LARGE.search(text)) is not None:
                check_size(int(found[1]), int(found[2]), self.source_id, self._options)

    def _image(self, frame: Any) -> Image:
        check_size(frame.width, frame.height, self.source_id, self._options)
        width, height = _size(self._options, frame.width, frame.height)
        check_size(width, height, self.source_id, self._options)
        image: Image = self._reformatter.reformat(frame, width, height, format="bgr24").to_ndarray()
        return image


def _size(options: LiveOptions, width: int, height: int) -> tuple[int, int]:
    """What to resize to; one side alone keeps the proportions."""
    if not (options.width or options.height):
        return width, height
    wanted_width = options.width or max(1, round(width * options.height / height))
    return wanted_width, options.height or max(1, round(height * options.width / width))

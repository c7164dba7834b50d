"""``rtsp://user:password@cam/1``, ``http://cam/video.mjpg``: a camera in the network, decoded by PyAV.

RTSP is read by libav as well, HTTP is not: a camera must not lead us to other hosts, to files or to what never ends
(``http_stream``, ``jpeg_stream``, ``rtsp_redirects``).

Known options are ours, the rest of the query goes to the camera (see ``edgecv.pipelines.uris``). ``rtsps`` and ``https`` encrypt;
the certificate is not checked, because cameras sign their own.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec

from edgecv._internal.extras import require
from edgecv._internal.printable import printable
from edgecv._internal.redaction import split_userinfo
from edgecv._internal.secret_files import read_secret
from edgecv.errors import ConfigError, SourceError
from edgecv.media.image_headers import image_size
from edgecv.media.video_files import STREAM_FORMATS
from edgecv.pipelines.sources.frames import FrameStamper
from edgecv.pipelines.sources.http_stream import HTTP_ERRORS, HttpStream, OnlyRead, why
from edgecv.pipelines.sources.jpeg_stream import JpegStream
from edgecv.pipelines.sources.live import LiveOptions, LiveSource, Unrecoverable, check_size, need
from edgecv.pipelines.sources.rtsp_redirects import no_redirect
from edgecv.pipelines.uris import Uri, parse_source, read_options
from edgecv.results import Frame, Image

_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_UNREADABLE_ALLOWED = 100  # packets in a row: the first group of images may have begun before we came
_LOOK_S = 2.0
_EVERY_S = 1.0  # as live as a page that shows snapshots
_END_S, _END_PART = 2.0, 0.02  # recorders round, and begin and end at key frames
_HUNG_UP = "The camera hung up: it restarts, or serves too many viewers."
# What libav may read before it says what the stream is: its own 5 s would eat the time a camera has to come back.
# Not `fflags=nobuffer`: it throws the packets away that were looked at, and with them the key frame that a new viewer gets.
_PROBE = {"analyzeduration": "1000000", "fpsprobesize": "1", "flags": "low_delay"}
# What libav may take a stream for, and what it may open by itself. No playlists (hls, dash, concat, sdp), which name others.
_RTSP_ONLY = {"format_whitelist": "rtsp", "protocol_whitelist": "rtsp,rtsps,tcp,tls,udp,rtp,srtp"}
_STREAMS_ONLY = {"format_whitelist": STREAM_FORMATS, "protocol_whitelist": "none"}
_TOO_LARGE = re.compile(r"Image size (\d+)x(\d+) exceeds")


class NetworkOptions(LiveOptions, frozen=True, kw_only=True):
    """What the query of a network camera may say besides; ``width`` and ``height``: resize to.

    Attributes:
        transport: How RTSP brings the frames; TCP passes firewalls and loses none.
        password_file: File with the password, readable by its owner only; the URL then names the user alone.
        every_s: Ask an address that gives one image at a time again after so many seconds; 0: each second.
    """

    transport: Literal["tcp", "udp"] = "tcp"
    password_file: str = ""
    every_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.0


class NetworkSource(LiveSource):
    """A stream of a camera; frames are decoded and resized as they arrive.

    Attributes:
        source_id: The URL without credentials.
        live: ``True``.
        fps: Frames per second the stream announces, 0.0 when it does not.
    """

    Options = NetworkOptions

    @staticmethod
    def check(uri: Uri) -> None:
        """Refuse what can never work, without touching the camera.

        Raises:
            ConfigError: the URL names no host, ``transport`` is given for HTTP or ``every_s`` for RTSP, or the password cannot be
            had.
            MissingDependency: PyAV is not installed.
        """
        if not _host_port(uri)[0]:
            raise ConfigError(f"{uri.name} names no host.", f"Write for example: {uri.scheme}://192.168.1.20/1")
        if "transport" in uri.options and not uri.scheme.startswith("rtsp"):
            raise ConfigError(f"{uri.name}: only RTSP has a transport.", "Leave it out.")
        options = read_options(uri, NetworkOptions)
        _camera_url(uri, options)
        _check_every(uri, options)
        need("av", "video")

    def __init__(self, uri: str | Uri) -> None:
        """Connect, and wait for the description of the stream.

        Raises:
            SourceError: the camera cannot be reached or refuses; its ``code`` says how.
            ConfigError: an option has a wrong value.
            MissingDependency: PyAV is not installed.
        """
        self._uri = parse_source(uri)
        self._options = read_options(self._uri, NetworkOptions)
        self.source_id = self._uri.name
        self.fps = 0.0
        self._av = require("av", "video")
        self._reformatter = self._av.video.reformatter.VideoReformatter()
        self._stamper = FrameStamper(self.source_id)
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

        Raises:
            SourceError: the stream broke off or cannot be decoded.
        """
        if not self._is_open:
            return None
        try:
            image = next(self._images)
        except StopIteration:
            if self._is_played():
                return None
            raise SourceError(f"{self.source_id} ended the stream.", _HUNG_UP, code="eof") from None
        except (self._av.error.FFmpegError, *HTTP_ERRORS) as error:
            raise self._error(error, opening=False) from error
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
        """Connect; the images that come."""
        url, limit = _camera_url(self._uri, self._options), self._limit()
        try:
            if self._uri.scheme.startswith("rtsp"):
                options = {**_PROBE, **_RTSP_ONLY, **limit, "rtsp_transport": self._options.transport}
                with no_redirect(self._av, self.source_id, *_host_port(self._uri)):
                    self._container = self._av.open(url, options=options)
            else:
                self._http = self._asked(url)
                if self._http.is_jpeg:
                    return self._stills(self._jpegs(url, self._http))
                options = {**_PROBE, **_STREAMS_ONLY, **limit}
                self._container = self._av.open(OnlyRead(self._http.read), options=options)
        except (self._av.error.FFmpegError, *HTTP_ERRORS) as error:
            raise self._error(error, opening=True) from error
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
                check_size(*image_size(data), self.source_id, self._options)
                frames = decoder.decode(self._av.Packet(data))
            except Unrecoverable:
                raise
            except (SourceError, self._av.error.FFmpegError):
                unreadable += 1
                if unreadable > _UNREADABLE_ALLOWED:
                    raise
                continue
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
            for frame in frames:
                unreadable = 0
                self._note_time(frame)
                if not frame.is_corrupt:
                    yield self._image(frame)

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

    def _error(self, error: Exception, *, opening: bool) -> SourceError:
        """What went wrong, by its class, without its text: that holds the URL."""
        what = "cannot be opened" if opening else "broke off"
        reason = getattr(error, "strerror", None) or type(error).__name__
        if isinstance(error, self._av.error.FFmpegError):
            code, hint = _classify(self._av.error, error)
            if code == "":
                code, hint = self._why_no_stream() if opening else ("eof", _HUNG_UP)
        else:
            code, hint = why(error, _host_port(self._uri)[0])
        kind = Unrecoverable if code == "auth" or isinstance(error, _no_code(self._av.error)) else SourceError
        return kind(f"{self.source_id} {what}: {printable(str(reason))}.", hint, code=code)

    def _why_no_stream(self) -> tuple[str, str]:
        """libav calls an unknown host, a page instead of a video, and more, an «input/output error»: look for ourselves."""
        host, port = _host_port(self._uri)
        try:
            socket.create_connection((host, port), _LOOK_S).close()
        except HTTP_ERRORS as error:
            return why(error, host)
        return "codec", "Something answers there, but not with a video. Does the path lead to one?"


def _check_every(uri: Uri, options: NetworkOptions) -> None:
    if options.every_s and uri.scheme.startswith("rtsp"):
        raise ConfigError(f"{uri.name}: RTSP is a stream, every_s is for snapshots.", "For fewer frames: fps=0.2")
    if options.every_s >= options.deadline_s:
        raise ConfigError(
            f"{uri.name}: with every_s={options.every_s:g} it would be stale after deadline_s={options.deadline_s:g}.",
            f"Allow more: deadline_s={options.every_s * 2 + 5:g}",
        )


def _size(options: LiveOptions, width: int, height: int) -> tuple[int, int]:
    """What to resize to; one side alone keeps the proportions."""
    if not (options.width or options.height):
        return width, height
    wanted_width = options.width or max(1, round(width * options.height / height))
    return wanted_width, options.height or max(1, round(height * options.width / width))


def _no_code(errors: Any) -> tuple[type[Exception], ...]:
    return errors.DecoderNotFoundError, errors.DemuxerNotFoundError, errors.ProtocolNotFoundError


def _classify(errors: Any, error: Exception) -> tuple[str, str]:
    """Class and next step of an error of PyAV; empty where the error says too little."""
    table: tuple[tuple[tuple[type[Exception], ...], str, str], ...] = (
        ((errors.HTTPUnauthorizedError, errors.HTTPForbiddenError), "auth", "Check user and password."),
        ((errors.HTTPNotFoundError,), "missing", "The camera has no such stream: check the path of the URL."),
        (
            (errors.HTTPClientError, errors.HTTPServerError),
            "refused",
            "The camera refuses: too many viewers, or try transport=udp?",
        ),
        ((ConnectionRefusedError,), "refused", "Nothing listens there. Is the service on, and the port right?"),
        ((TimeoutError, errors.ExitError), "timeout", "Is it switched on, and in this network?"),
        ((errors.EOFError, ConnectionError), "eof", _HUNG_UP),
        (_no_code(errors), "codec", "This PyAV cannot read it. Set the camera to H.264, H.265 or MJPEG."),
        ((ValueError,), "codec", "That is no stream, or it is damaged. Does the path lead to the video?"),
    )
    for kinds, code, hint in table:
        if isinstance(error, kinds):
            return code, hint
    return "", ""


def _host_port(uri: Uri) -> tuple[str, int]:
    authority = re.split(r"[/?#]", split_userinfo(uri.path)[1], maxsplit=1)[0]
    found = re.fullmatch(r"(?:\[([^\]]*)\]|([^:]*))(?::(\d+))?", authority)
    if found is None:
        return "", 0
    return found[1] or found[2] or "", int(found[3] or _PORTS[uri.scheme])


def _camera_url(uri: Uri, options: NetworkOptions) -> str:
    """The URL with user and password as the rules want them: cameras' passwords are full of ``@ / ?``.

    Raises:
        ConfigError: there is a password file, and no user or another password.
    """
    userinfo, rest = split_userinfo(uri.path)
    user, colon, password = userinfo.partition(":")
    if options.password_file:
        if colon or not user:
            raise ConfigError(
                f"{uri.name}: with password_file the URL has a user and no password.",
                f"Write for example: {uri.scheme}://viewer@192.168.1.20/1?password_file=camera.secret",
            )
        colon, password = ":", quote(read_secret(options.password_file), safe="")
    elif not userinfo:
        return f"{uri.scheme}://{rest}"
    return f"{uri.scheme}://{_escaped(user)}{colon}{_escaped(password)}@{rest}"


def _escaped(text: str) -> str:
    """Percent-encoded; what is encoded already stays."""
    return quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", text), safe="%!$&'()*+,;=-._~", errors="surrogateescape")

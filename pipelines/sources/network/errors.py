"""What went wrong with the stream of a network camera, in words that name no password."""

from __future__ import annotations

import socket
from typing import Any

from edgecv._internal.printable import printable
from edgecv.errors import SourceError
from edgecv.pipelines.sources.live import Unrecoverable
from edgecv.pipelines.sources.network.address import host_port
from edgecv.pipelines.sources.network.http_stream import HTTP_ERRORS, why
from edgecv.pipelines.uris import Uri

HUNG_UP = "The camera hung up: it restarts, or serves too many viewers."
_LOOK_S = 2.0


def stream_error(errors: Any, error: Exception, uri: Uri, *, opening: bool) -> SourceError:
    """What went wrong, by its class, without its text: that holds the URL."""
    what = "cannot be opened" if opening else "broke off"
    reason = getattr(error, "strerror", None) or type(error).__name__
    if isinstance(error, errors.FFmpegError):
        code, hint = _classify(errors, error)
        if code == "":
            code, hint = _why_no_stream(uri) if opening else ("eof", HUNG_UP)
    else:
        code, hint = why(error, host_port(uri)[0])
    kind = Unrecoverable if code == "auth" or isinstance(error, _no_code(errors)) else SourceError
    return kind(f"{uri.name} {what}: {printable(str(reason))}.", hint, code=code)


def _why_no_stream(uri: Uri) -> tuple[str, str]:
    """libav calls an unknown host, a page instead of a video, and more, an «input/output error»: look for ourselves."""
    host, port = host_port(uri)
    try:
        socket.create_connection((host, port), _LOOK_S).close()
    except HTTP_ERRORS as error:
        return why(error, host)
    return "codec", "Something answers there, but not with a video. Does the path lead to one?"


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
        ((errors.EOFError, ConnectionError), "eof", HUNG_UP),
        (_no_code(errors), "codec", "This PyAV cannot read it. Set the camera to H.264, H.265 or MJPEG."),
        ((ValueError,), "codec", "That is no stream, or it is damaged. Does the path lead to the video?"),
    )
    for kinds, code, hint in table:
        if isinstance(error, kinds):
            return code, hint
    return "", ""

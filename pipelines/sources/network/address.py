"""The URL of a network camera: what its query may say, where it leads, and how user and password are written in it."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import quote

import msgspec

from edgecv._internal.redaction import split_userinfo
from edgecv._internal.secret_files import read_secret
from edgecv.errors import ConfigError
from edgecv.pipelines.sources.live import LiveOptions
from edgecv.pipelines.uris import Uri, read_options

PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}


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


def check_url(uri: Uri) -> None:
    """Refuse what can never work, without touching the camera.

    Raises ``ConfigError`` when the URL names no host, an option is not for its scheme, or the password cannot be had.
    """
    if not host_port(uri)[0]:
        raise ConfigError(f"{uri.name} names no host.", f"Write for example: {uri.scheme}://192.168.1.20/1")
    if "transport" in uri.options and not uri.scheme.startswith("rtsp"):
        raise ConfigError(f"{uri.name}: only RTSP has a transport.", "Leave it out.")
    options = read_options(uri, NetworkOptions)
    camera_url(uri, options)
    _check_every(uri, options)


def host_port(uri: Uri) -> tuple[str, int]:
    """Host and port; an empty host where the URL names none."""
    authority = re.split(r"[/?#]", split_userinfo(uri.path)[1], maxsplit=1)[0]
    found = re.fullmatch(r"(?:\[([^\]]*)\]|([^:]*))(?::(\d+))?", authority)
    if found is None:
        return "", 0
    return found[1] or found[2] or "", int(found[3] or PORTS[uri.scheme])


def camera_url(uri: Uri, options: NetworkOptions) -> str:
    """The URL with user and password as the rules want them: cameras' passwords are full of ``@ / ?``.

    Raises ``ConfigError`` when there is a password file, and no user or another password.
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


def _check_every(uri: Uri, options: NetworkOptions) -> None:
    if options.every_s and uri.scheme.startswith("rtsp"):
        raise ConfigError(f"{uri.name}: RTSP is a stream, every_s is for snapshots.", "For fewer frames: fps=0.2")
    if options.every_s >= options.deadline_s:
        raise ConfigError(
            f"{uri.name}: with every_s={options.every_s:g} it would be stale after deadline_s={options.deadline_s:g}.",
            f"Allow more: deadline_s={options.every_s * 2 + 5:g}",
        )


def _escaped(text: str) -> str:
    """Percent-encoded; what is encoded already stays."""
    return quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", text), safe="%!$&'()*+,;=-._~", errors="surrogateescape")

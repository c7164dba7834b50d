"""``mqtt[s]://user@host:port?option=value``, or ``ws[s]://…/path`` for MQTT over WebSocket: parsed once, printed never."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from edgecv._internal.redaction import refuse_doubtful
from edgecv._internal.secret_files import check_private, credential_path, read_secret
from edgecv.errors import ConfigError

_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_ENCRYPTED = {"mqtt": False, "mqtts": True, "ws": False, "wss": True}
_WEBSOCKET_PATH = "/mqtt"  # of AWS, Azure, HiveMQ and EMQX; mosquitto takes any
_OPTIONS = frozenset({"password_file", "user_file", "insecure", "ca_file", "cert_file", "key_file", "protocol"})
_SYNTAX = "Write mqtts://user@host:8883?password_file=FILE, wss://host/mqtt, or mqtt://localhost:1883."
_PATH = re.compile(r"(/[A-Za-z0-9._~%-]+)+/?")  # nothing that would end the line of a request
_IN_A_FILE = (
    "Write the password into a file of its own (chmod 600) and name that: ?password_file=FILE. In a service of systemd: "
    "LoadCredential=mqtt:FILE and ?password_file=$CREDENTIALS_DIRECTORY/mqtt."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUrl:
    """A broker and how to enter; user and password appear in no text form."""

    host: str  # name or address
    port: int  # TCP port
    tls: bool  # whether the connection is encrypted; the certificate is then always verified
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    protocol: str = "auto"  # or `5` or `3.1.1`; `auto` falls back from 5 when the broker does not know it
    ca_file: str | None = None  # certificates to trust instead of the system's
    cert_file: str | None = None  # this device's own certificate (mTLS)
    key_file: str | None = field(default=None, repr=False)  # its key
    path: str = field(default="", repr=False)  # of the WebSocket; empty for MQTT right on TCP or TLS

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'ws' if self.path else 'mqtt'}{'s' if self.tls else ''}://{host}:{self.port}"


def redact(url: str) -> str:
    """Scheme, host and port of a URL: what may be printed of it."""
    found = re.match(
        r"(?P<scheme>[a-z]{1,8})://(?:.*@)?(?P<host>\[[0-9a-fA-F:.]+\]|[\w.-]+)(?P<port>:\d+)?(?:[/?#]|$)", url
    )
    if found is None:
        return "(a URL that cannot be printed)"
    return f"{found['scheme']}://{found['host']}{found['port'] or ''}"


def parse_broker_url(url: str) -> BrokerUrl:
    """Check a broker URL and read the files it names.

    Args:
        url: Options are ``user_file``, ``password_file``, ``ca_file``, ``cert_file``, ``key_file``, ``protocol`` (``5`` or
            ``3.1.1``) and ``insecure=1``, which allows plaintext outside this machine. A file may be named
            ``$CREDENTIALS_DIRECTORY/NAME``, a credential of systemd.

    Raises:
        ConfigError: malformed, an unknown option, a password in the URL, a file is missing or readable by others, or it asks
            for plaintext outside loopback without saying so.
    """
    parts = _split(url)
    options = _options(url, parts)
    if parts.password is not None:
        raise ConfigError(f"{redact(url)} has a password in it, which ps, logs and histories show.", _IN_A_FILE)
    is_websocket = parts.scheme in ("ws", "wss")
    broker = BrokerUrl(
        host=parts.hostname or "",
        port=parts.port or _PORTS[parts.scheme],
        tls=_ENCRYPTED[parts.scheme],
        username=_user(parts, options),
        password=read_secret(options["password_file"]) if "password_file" in options else None,
        protocol=_protocol(options),
        ca_file=_existing(options.get("ca_file")),
        cert_file=_existing(options.get("cert_file")),
        key_file=_private(options.get("key_file")),
        path=(parts.path.rstrip("/") or _WEBSOCKET_PATH) if is_websocket else "",
    )
    if not broker.tls and not _is_loopback(broker.host) and options.get("insecure") != "1":
        raise ConfigError(
            f"{broker} would send everything, passwords too, in plaintext over the network.",
            f"Use {'wss' if is_websocket else 'mqtts'}://, or add ?insecure=1 if this network is really yours alone.",
        )
    return broker


def _split(url: str) -> SplitResult:
    refuse_doubtful(url)
    try:
        parts = urlsplit(url)
        has_path = parts.path not in ("", "/")
        usable = parts.scheme in _PORTS and bool(parts.hostname) and not parts.fragment and parts.port != 0
        usable = usable and (
            not has_path or (parts.scheme in ("ws", "wss") and _PATH.fullmatch(parts.path) is not None)
        )
    except ValueError:
        usable = False
    if not usable:
        # `from None`: the text of urlsplit's error may quote the password.
        raise ConfigError(f"{redact(url)} is not a broker URL.", _SYNTAX) from None
    return parts


def _options(url: str, parts: SplitResult) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(options.keys() - _OPTIONS)
    if unknown:
        raise ConfigError(
            f"The broker URL {redact(url)} has options that do not exist ({len(unknown)}).",
            f"Known: {', '.join(sorted(_OPTIONS))}.",
        )
    return options


def _protocol(options: dict[str, str]) -> str:
    protocol = options.get("protocol", "auto")
    if protocol not in ("auto", "5", "3.1.1"):
        raise ConfigError("The broker URL asks for an MQTT version that does not exist.", "protocol is 5 or 3.1.1.")
    return protocol


def _user(parts: SplitResult, options: dict[str, str]) -> str | None:
    if "user_file" in options:
        return read_secret(options["user_file"])
    return unquote(parts.username) if parts.username else None


def _existing(name: str | None) -> str | None:
    if name is None:
        return None
    path = credential_path(name)
    if not Path(path).is_file():
        raise ConfigError(f"{path} does not exist.", "Check the ca_file, cert_file and key_file of the broker URL.")
    return path


def _private(name: str | None) -> str | None:
    path = _existing(name)
    if path is not None:
        check_private(Path(path), Path(path).stat().st_mode)
    return path


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

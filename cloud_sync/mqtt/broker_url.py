"""``mqtt[s]://user:password@host:port?option=value``: parsed once, printed never."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from edgecv._internal.redaction import refuse_doubtful
from edgecv._internal.secret_files import read_secret
from edgecv.errors import ConfigError

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_OPTIONS = frozenset({"password_file", "insecure", "ca_file", "cert_file", "key_file", "protocol"})
_SYNTAX = "Write mqtts://user@host:8883?password_file=FILE, or mqtt://localhost:1883."
_ENCODED = "A password in the URL has %2F for /, %23 for #, %3F for ? and %40 for @."


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

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


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
        url: Options are ``password_file``, ``ca_file``, ``cert_file``, ``key_file``, ``protocol`` (``5`` or ``3.1.1``)
            and ``insecure=1``, which allows plaintext outside this machine.

    Raises:
        ConfigError: malformed, an unknown option, a file is missing or readable by others, or it asks for
            plaintext outside loopback without saying so.
    """
    parts = _split(url)
    options = _options(url, parts)
    broker = BrokerUrl(
        host=parts.hostname or "",
        port=parts.port or _PORTS[parts.scheme],
        tls=parts.scheme == "mqtts",
        username=unquote(parts.username) if parts.username else None,
        password=_password(parts, options),
        protocol=_protocol(options),
        ca_file=_existing(options.get("ca_file")),
        cert_file=_existing(options.get("cert_file")),
        key_file=_existing(options.get("key_file")),
    )
    if not broker.tls and not _is_loopback(broker.host) and options.get("insecure") != "1":
        raise ConfigError(
            f"{broker} would send everything, passwords too, in plaintext over the network.",
            "Use mqtts://, or add ?insecure=1 if this network is really yours alone.",
        )
    return broker


def _split(url: str) -> SplitResult:
    refuse_doubtful(url)
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _PORTS and bool(parts.hostname) and parts.path in ("", "/") and not parts.fragment
        usable = usable and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        # `from None`: the text of urlsplit's error may quote the password.
        raise ConfigError(f"{redact(url)} is not a broker URL.", f"{_SYNTAX} {_ENCODED}") from None
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


def _password(parts: SplitResult, options: dict[str, str]) -> str | None:
    if "password_file" in options:
        return read_secret(options["password_file"])
    return unquote(parts.password) if parts.password is not None else None


def _existing(name: str | None) -> str | None:
    if name is not None and not Path(name).is_file():
        raise ConfigError(f"{name} does not exist.", "Check the ca_file, cert_file and key_file of the broker URL.")
    return name


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

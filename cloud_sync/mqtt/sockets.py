"""Opens the connection to a broker: TCP, TLS where the URL asks for it, WebSocket where it does; with one deadline for all."""

from __future__ import annotations

import socket
import ssl
import time

from edgecv.cloud_sync.mqtt.broker_url import BrokerUrl
from edgecv.cloud_sync.mqtt.websocket import WebSocket
from edgecv.errors import TransportError

BrokerSocket = socket.socket | WebSocket


def open_socket(broker: BrokerUrl, timeout_s: float) -> BrokerSocket:
    """A connection over which MQTT can go.

    Raises:
        TransportError: there is no WebSocket for MQTT at that port.
        ssl.SSLError: the certificate is not trusted, or there is no TLS at that port.
        OSError: not reachable.
    """
    deadline_s = time.monotonic() + timeout_s
    sock = _connected(broker, deadline_s)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # acknowledgements are small and wait for nothing
        if broker.tls:
            sock = tls_context(broker).wrap_socket(
                sock, server_hostname=broker.host, do_handshake_on_connect=False, suppress_ragged_eofs=True
            )
            _shake_hands(sock, deadline_s)
        if broker.path:
            sock.settimeout(_left_s(deadline_s))
            host = f"[{broker.host}]" if ":" in broker.host else broker.host
            return WebSocket(
                sock, host=f"{host}:{broker.port}", path=broker.path, timeout_s=deadline_s - time.monotonic()
            )
    except BaseException:
        sock.close()
        raise
    return sock


def tls_context(broker: BrokerUrl) -> ssl.SSLContext:
    """TLS 1.2 or newer, with the certificate checked, and with our own where the URL names one.

    Raises:
        ssl.SSLError: a certificate or key cannot be used.
        OSError: one cannot be read.
    """
    context = ssl.create_default_context(cafile=broker.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if broker.cert_file is not None:
        context.load_cert_chain(broker.cert_file, broker.key_file, password=_no_password)
    return context


def unread_bytes(sock: BrokerSocket) -> int:
    """What TLS has already read and ``poll`` knows nothing of."""
    return sock.pending() if isinstance(sock, ssl.SSLSocket | WebSocket) else 0


def _connected(broker: BrokerUrl, deadline_s: float) -> socket.socket:
    """Connect to the first address that answers; each gets its share of the time."""
    addresses = socket.getaddrinfo(broker.host, broker.port, type=socket.SOCK_STREAM)
    failure: OSError | None = None
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_left_s(deadline_s) / (len(addresses) - tried))
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure or OSError("the name has no address")


def _shake_hands(sock: ssl.SSLSocket, deadline_s: float) -> None:
    sock.settimeout(_left_s(deadline_s))
    sock.do_handshake()


def _left_s(deadline_s: float) -> float:
    return max(deadline_s - time.monotonic(), 0.001)


def _no_password() -> str:
    # Without it OpenSSL asks on the terminal, and a service waits there for ever.
    raise TransportError(
        "The key in key_file is encrypted.", "Write it without a password, readable by its owner alone."
    )

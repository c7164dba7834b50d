"""Why a broker could not be reached, or did not take something, in words and with the next step."""

from __future__ import annotations

import ssl

from edgecv.cloud_sync.mqtt.broker_url import BrokerUrl
from edgecv.cloud_sync.mqtt.events import NO_SUBSCRIBERS, NOT_AUTHORIZED, TOO_LARGE
from edgecv.errors import TransportError

_CHECK_USER = " Check the user in the URL and password_file."
ENTRY = {4: _CHECK_USER, 5: _CHECK_USER, 0x86: _CHECK_USER, 0x87: _CHECK_USER}  # by version 3.1.1 and 5
AGAIN = (
    " That was right after connecting, {count} times in a row: does another device have the same tenant and device name, or is an "
    "event larger than the broker takes?"
)
STINGY = (
    "{broker} takes packets of {takes} bytes and EdgeCV needs {needs}: everything waits. Raise its limit "
    "(mosquitto: max_packet_size)."
)
NOT_GRANTED = (
    "{broker} does not allow to subscribe to {topics}. Look at its access rules: a device reads the topic 'ack' below its own "
    "name, ingest every 'ev' (docs/examples/mosquitto)."
)
TAKEN_OVER = (
    "{broker} ended the connection, since another client of the name {name} came: do two devices have one tenant and device name? "
    "Give each its own."
)
HUNG = (
    "The connection to {broker} hung for {seconds:g} s without a step, in the name server or in the MQTT library. It was given up; "
    "another is made."
)
UNHEARD = (
    "The broker takes the events and nobody acknowledges them: is 'edgecv ingest' running there, and do the broker's access rules "
    "let this device write to {topic}? (MQTT 3.1.1 does not tell.)"
)
_UNPLACED = {
    NO_SUBSCRIBERS: "nobody subscribes to the events: is 'edgecv ingest' running?",
    NOT_AUTHORIZED: "the broker does not allow this device to write its events: look at its access rules "
    "(docs/examples/mosquitto), and whether the user of the URL is that of tenant and device",
    TOO_LARGE: "too large for the broker",
}
# By X.509 verification codes of OpenSSL
_TLS = (
    (
        frozenset({18, 19, 20, 21}),
        "its certificate is signed by nobody whom this machine trusts.",
        "Name its certificate authority, or the certificate itself if it is self-signed: ?ca_file=ca.crt",
    ),
    (
        frozenset({62, 64}),
        "its certificate is made out to another name.",
        "Write the host in the URL as the certificate has it, or have one made for this name.",
    ),
    (
        frozenset({9, 10}),
        "its certificate is not valid at the time of this machine.",
        "Is the clock right (date)? Otherwise the broker needs a new certificate.",
    ),
)


def why_unplaced(reason_code: int) -> str:
    """Why a message was not delivered, by the reason code of MQTT 5."""
    return _UNPLACED.get(reason_code, f"refused by the broker with reason {reason_code:#04x}")


def tls_failure(broker: BrokerUrl, error: ssl.SSLError) -> TransportError:
    """What is wrong with the broker's certificate, or with TLS at all."""
    code = getattr(error, "verify_code", 0)
    for codes, what, hint in _TLS:
        if code in codes:
            return TransportError(f"{broker}: TLS failed: {what}", hint)
    return TransportError(
        f"{broker}: TLS failed: {error.reason or error}.",
        "Is that the port for TLS, and does it ask for cert_file and key_file?",
    )


def tls_alert(error: ssl.SSLError) -> str:
    """What the broker found wrong after our side of TLS was done: since TLS 1.3 it looks at our certificate only then."""
    reason = (error.reason or str(error)).lower().replace("_", " ")
    if "certificate" in reason or "unknown ca" in reason:
        return f"{reason}. It asks for a certificate of this device that it trusts: cert_file and key_file in the URL"
    return reason

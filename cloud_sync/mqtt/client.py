"""A client of paho, made and connected: the only module that imports it."""

from __future__ import annotations

import ssl
from typing import Any

from edgecv._internal.extras import require
from edgecv.cloud_sync.mqtt.broker_url import BrokerUrl
from edgecv.cloud_sync.mqtt.events import LinkOptions
from edgecv.cloud_sync.mqtt.reasons import tls_failure
from edgecv.cloud_sync.mqtt.sockets import BrokerSocket, open_socket, tls_context
from edgecv.errors import TransportError

TESTED_PAHO = "install one that EdgeCV is tested with."
mqtt = require("paho.mqtt.client", "mqtt")
enums = require("paho.mqtt.enums", "mqtt")
packets = require("paho.mqtt.packettypes", "mqtt")
props = require("paho.mqtt.properties", "mqtt")

V5, V311 = int(mqtt.MQTTv5), int(mqtt.MQTTv311)


def make_client(broker: BrokerUrl, options: LinkOptions, protocol: int) -> Any:
    """A client that does nothing by itself: neither reconnect nor keep messages back."""
    more = {} if protocol == V5 else {"clean_session": True}
    client = mqtt.Client(
        enums.CallbackAPIVersion.VERSION2,
        client_id=options.client_id,
        protocol=enums.MQTTProtocolVersion(protocol),
        reconnect_on_failure=False,
        manual_ack=options.manual_ack,
        **more,
    )
    client.suppress_exceptions = True
    client.connect_timeout = options.timeout_s
    client.max_inflight_messages_set(0)  # the window is kept by the link, where ReceiveMaximum is known
    if broker.username is not None or broker.password is not None:
        client.username_pw_set(broker.username or "", broker.password)
    if options.will is not None:
        client.will_set(options.will.topic, options.will.payload, qos=1, retain=options.will.retain)
    client.on_socket_register_write = lambda *_: None  # with it, publish() leaves writing to our loop
    return client


def connect(client: Any, broker: BrokerUrl, options: LinkOptions, protocol: int) -> None:
    """Connect and wait for nothing but TCP, TLS and WebSocket.

    Raises:
        TransportError: not reachable, or its certificate is not trusted.
    """
    more = {"clean_start": True, "properties": _connect_properties(options)} if protocol == V5 else {}
    opened: list[BrokerSocket] = []

    def create_socket() -> BrokerSocket:
        opened.append(open_socket(broker, options.timeout_s))
        return opened[-1]

    client._create_socket = create_socket
    try:
        if broker.tls:
            client.tls_set_context(tls_context(broker))  # for a paho that would not ask us: never without TLS
        client.connect(broker.host, broker.port, options.keepalive_s, **more)
    except ssl.SSLError as error:
        raise tls_failure(broker, error) from error
    except (OSError, ValueError) as error:
        raise TransportError(f"{broker} cannot be reached: {error}", "Check host and port.") from error
    if not opened or client.socket() is not opened[-1]:
        raise TransportError(f"This version of paho-mqtt opens connections of its own: {TESTED_PAHO}")


def content_properties(content_type: str) -> Any:
    """What MQTT 5 says of a payload: its media type, and that it is text."""
    properties = props.Properties(packets.PacketTypes.PUBLISH)
    properties.ContentType = content_type
    properties.PayloadFormatIndicator = 1
    return properties


def _connect_properties(options: LinkOptions) -> Any:
    properties = props.Properties(packets.PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 0
    properties.ReceiveMaximum = max(options.window, 1)
    properties.MaximumPacketSize = options.max_packet_bytes
    return properties

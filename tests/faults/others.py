"""How others publish: small stand-ins, written from their public behaviour, all on paho.

They get the same scaled times as EdgeCV.

=============  ========================================================================================================
``naive``      paho as its examples use it: QoS 1, ``loop_start``, ``publish`` and forget. It keeps messages in memory while there
               is no connection and sends them when there is one
``frigate``    Frigate's ``frigate/comms/mqtt.py``: QoS 0 by default, ``publish`` returns at once when there is no connection, a
               fresh client after a loss (there every 10 s)
``dlstreamer``  DL Streamer's ``gvametapublish`` with ``method=mqtt``: QoS 0 and a clean session, a message that the client does not
               take is logged and dropped, connections are retried with a doubling delay (there 1 to 30 s, and only a
               configured number of times in all: the stand-in never gives up)
=============  ========================================================================================================
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import paho.mqtt.client as paho

TOPIC = "other/cam-1/ev"
_KEEPALIVE_S = 2
_RETRY_S = 0.4  # instead of 10 s and 30 s


class Publisher(Protocol):
    """A device of another tool."""

    def publish(self, payload: bytes) -> bool:
        """Give an event away; whether the tool took it."""

    def close(self, timeout_s: float) -> bool:
        """Deliver what is left; whether that worked."""


class Naive:
    """QoS 1, and paho does the rest."""

    def __init__(self, port: int) -> None:
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="cam-1")
        self._client.reconnect_delay_set(1, 1)  # whole seconds are the least that paho knows
        self._client.connect_async("127.0.0.1", port, keepalive=_KEEPALIVE_S)
        self._client.loop_start()
        self._last: paho.MQTTMessageInfo | None = None

    def publish(self, payload: bytes) -> bool:
        self._last = self._client.publish(TOPIC, payload, qos=1)
        return self._last.rc in (paho.MQTT_ERR_SUCCESS, paho.MQTT_ERR_NO_CONN)  # without a connection it is kept

    def close(self, timeout_s: float) -> bool:
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            if self._last is None or self._last._published:
                return True
            time.sleep(0.02)
        return False


class DropsOffline:
    """QoS 0, nothing while there is no connection; ``delay_s`` says how long until the next attempt."""

    def __init__(self, port: int, delay_s: Callable[[int], float]) -> None:
        self._port = port
        self._delay_s = delay_s
        self._attempt = 0
        self._start()

    def publish(self, payload: bytes) -> bool:
        if not self._client.is_connected():
            return False
        return self._client.publish(TOPIC, payload, qos=0).rc == paho.MQTT_ERR_SUCCESS

    def close(self, timeout_s: float) -> bool:
        time.sleep(min(timeout_s, 1.0))
        return True

    def _start(self) -> None:
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="cam-1", reconnect_on_failure=False)
        client.on_disconnect = client.on_connect_fail = lambda *_: self._later(client)  # type: ignore[assignment]
        self._client = client
        client.connect_async("127.0.0.1", self._port, keepalive=_KEEPALIVE_S)
        client.loop_start()

    def _later(self, client: paho.Client) -> None:
        if client is self._client:
            self._attempt += 1
            threading.Timer(self._delay_s(self._attempt), self._start).start()


def _frigate(port: int) -> Publisher:
    return DropsOffline(port, lambda _: _RETRY_S)


def _dlstreamer(port: int) -> Publisher:
    return DropsOffline(port, lambda attempt: min(_RETRY_S / 30 * 2**attempt, _RETRY_S))


OTHERS: Mapping[str, Callable[[int], Publisher]] = {"naive": Naive, "frigate": _frigate, "dlstreamer": _dlstreamer}

"""Brokers that imitate the rules of platforms: who may use which topic, sizes, and what is not supported."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho

from tests.unit.cloud_sync.support import Mosquitto, running_mosquitto

DEVICE, TENANT = "cam-1", "acme"
INSIDE = "inside"  # user of the platform's own services


@dataclass(frozen=True, kw_only=True)
class Imitation:
    """The part of a platform's rules that mosquitto can enforce."""

    access: tuple[str, ...]  # lines of its ACL for devices; `%c` is the client id
    limits: tuple[str, ...] = ()  # lines of its configuration
    user: str = ""  # in the URL, where the platform wants one of its own
    watched: tuple[str, ...]  # topics that only the platform reads


_SHADOW = (
    "pattern write $aws/things/%c/shadow/name/edgecv/update",
    "pattern read $aws/things/%c/shadow/name/edgecv/update/rejected",
)
_AWS = ("message_size_limit 131072", "max_qos 1", "max_inflight_messages 100", "max_keepalive 1200")

IMITATIONS = {
    # Policies let a client write and read below its own name, which is that of the thing.
    "aws": Imitation(
        access=(
            "pattern write edgecv/acme/%c/ev",
            "pattern write edgecv/acme/%c/status",
            "pattern read edgecv/acme/%c/ack",
            *_SHADOW,
        ),
        limits=_AWS,
        watched=("edgecv/#", "$aws/things/#"),
    ),
    "aws-basic-ingest": Imitation(
        access=("pattern write $aws/rules/edgecv/edgecv/acme/%c/ev", "pattern write edgecv/acme/%c/status", *_SHADOW),
        limits=_AWS,
        watched=("edgecv/#", "$aws/rules/#", "$aws/things/#"),
    ),
    # One user name, fixed topics, nothing retained, 256 KB.
    "azure": Imitation(
        access=(
            "user 127.0.0.1/cam-1/?api-version=2021-04-12",
            "topic write devices/cam-1/messages/events/#",
            "topic write $iothub/twin/PATCH/properties/reported/#",
            "topic read $iothub/twin/res/#",
        ),
        limits=("retain_available false", "max_qos 1", "message_size_limit 262144"),
        watched=("devices/#", "$iothub/twin/PATCH/#"),
    ),
    # The topic spaces of a namespace; messages of 512 KB, nothing retained.
    "azure-eventgrid": Imitation(
        access=(
            "pattern write edgecv/acme/%u/ev",
            "pattern write edgecv/acme/%u/status",
            "pattern read edgecv/acme/%u/ack",
        ),
        limits=("retain_available false", "max_qos 1", "message_size_limit 524288", "max_inflight_messages 16"),
        watched=("edgecv/#",),
    ),
    # The user name is the access token; 64 KB.
    "thingsboard": Imitation(
        access=("user A1B2C3", "topic write v1/devices/me/telemetry", "topic write v1/devices/me/attributes"),
        limits=("message_size_limit 65536", "max_qos 1"),
        user="A1B2C3",
        watched=("v1/devices/me/#",),
    ),
}


class Inside:
    """A service of the platform, which reads everything that devices may write."""

    def __init__(self, port: int, watched: tuple[str, ...]) -> None:
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._seen: list[Any] = []
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.username_pw_set(INSIDE)
        self._client.on_message = lambda _c, _d, message: self._messages.put(message)
        granted = threading.Semaphore(0)
        self._client.on_subscribe = lambda *_: granted.release()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        for topic in watched:
            self._client.subscribe(topic, qos=1)
            assert granted.acquire(timeout=5.0)

    @property
    def seen(self) -> list[Any]:
        """Every message so far."""
        while not self._messages.empty():
            self._seen.append(self._messages.get())
        return list(self._seen)

    def on(self, topic: str) -> list[Any]:
        """The messages of one topic, or of those that begin with it when it ends in ``/``."""
        return [one for one in self.seen if one.topic == topic or (topic.endswith("/") and one.topic.startswith(topic))]

    def documents(self, topic: str) -> list[Any]:
        """The same, read as JSON."""
        return [json.loads(one.payload) for one in self.on(topic)]

    def say(self, topic: str, payload: bytes = b"{}") -> None:
        self._client.publish(topic, payload, qos=1).wait_for_publish(5.0)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def imitated(platform: str, folder: Path) -> Iterator[tuple[Mosquitto, Inside]]:
    """A broker with the rules of a platform, and the platform behind it; nobody may have been refused in the end."""
    rules = IMITATIONS[platform]
    access, log = folder / "acl", folder / "mosquitto.log"
    everything = ["topic readwrite #", "topic readwrite $aws/#", "topic readwrite $iothub/#"]
    stored = ["user ingest", "topic read edgecv/+/+/ev", "topic write edgecv/+/+/ack"]
    access.write_text("\n".join([*rules.access, f"user {INSIDE}", *everything, *stored]) + "\n")
    config = ["allow_anonymous true", f"acl_file {access}", f"log_dest file {log}", "log_type all", *rules.limits]
    with running_mosquitto(folder, config) as broker:
        inside = Inside(broker.port, rules.watched)
        yield broker, inside
        inside.close()


def refusals(folder: Path) -> list[str]:
    """What the broker refused, as its log says."""
    text = (folder / "mosquitto.log").read_text(errors="replace")
    return [line for line in text.splitlines() if "Denied" in line or "not authorised" in line or "Dropped" in line]


def url_of(broker: Mosquitto, platform: str, user: str = "") -> str:
    user = user or IMITATIONS[platform].user
    return broker.url.replace("mqtt://", f"mqtt://{user}@") if user else broker.url

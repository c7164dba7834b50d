"""The connection to the broker of Home Assistant and the thread that serves it."""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable

from edgecv._internal.printable import printable
from edgecv._internal.timing import Backoff
from edgecv.cloud_sync.home_assistant.announcer import Announcer, Message
from edgecv.cloud_sync.home_assistant.names import Topics
from edgecv.cloud_sync.mqtt.broker_url import BrokerUrl
from edgecv.cloud_sync.mqtt.events import (
    NO_SUBSCRIBERS,
    NOT_AUTHORIZED,
    TOO_LARGE,
    Connected,
    Disconnected,
    LinkEvent,
    LinkOptions,
    Received,
    Undelivered,
    Will,
)
from edgecv.cloud_sync.mqtt.inbox import Inbox, InboxLimits
from edgecv.cloud_sync.mqtt.transport import MqttTransport
from edgecv.cloud_sync.notices import Notice
from edgecv.status import PipelineStatus

_log = logging.getLogger(__name__)

_TURN_S = 0.25
_INBOX = InboxLimits(messages=64, total_bytes=2**18, topic_messages=64, topic_bytes=2**18)
_WHY = {
    NOT_AUTHORIZED: "The broker does not allow this device to write to {topic}: see docs/home-assistant.md for its access rules.",
    TOO_LARGE: "The broker finds the message to {topic} too large (mosquitto: max_packet_size, message_size_limit).",
}


class Connection:
    """Sends what the announcer has to say, and listens for a start of Home Assistant.

    Nothing waits for it, and nothing of it is kept when the broker is away: what was true then does not matter later.
    """

    def __init__(
        self,
        broker: BrokerUrl,
        topics: Topics,
        announcer: Announcer,
        ask: Callable[[], PipelineStatus | None],
        *,
        birth_delay_s: float,
        reconnect: Backoff | None = None,
    ) -> None:
        self._topics, self._announcer, self._ask = topics, announcer, ask
        self._birth_delay_s = birth_delay_s
        self._inbox = Inbox(_INBOX)  # None: look again
        self._woken = threading.Event()
        self._stopping = False
        self._epoch = 0
        self._repeat_s = float("inf")
        self._topic_of: dict[int, str] = {}
        self._notice = Notice(_log)
        self.trouble = ""  # what went wrong last, until a connection stands again
        offline = announcer.availability(False)
        address = topics.address
        options = LinkOptions(
            client_id=f"edgecv-{address.tenant}-{address.device}-ha",
            subscriptions=(topics.birth,),
            will=Will(topic=offline.topic, payload=offline.payload),
            backoff=reconnect or Backoff(),
        )
        self._transport = MqttTransport(broker, options, self._inbox.put)
        self._thread = threading.Thread(target=self._run, name="edgecv-ha", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the broker is reached now."""
        return self._epoch > 0

    def start(self) -> None:
        """Begin to connect, in the background."""
        self._transport.start()
        self._thread.start()

    def hurry(self) -> None:
        """Something happened; never waits, and asks once however often it is called."""
        if not self._woken.is_set():
            self._woken.set()
            self._inbox.put(None)

    def close(self, timeout_s: float = 3.0) -> bool:
        """Say goodbye; ``False`` when that took too long."""
        deadline_s = time.monotonic() + timeout_s
        self._stopping = True
        self._inbox.put(None)
        self._thread.join(timeout_s)
        if self._epoch:
            self._send(self._announcer.availability(False))
        return self._transport.close(max(deadline_s - time.monotonic(), 0.1)) and not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._take_in()
                if self._epoch and not self._stopping:
                    self._send_due()
            except Exception as error:  # noqa: BLE001 (the thread's last resort: the pipeline and later turns go on)
                self._say(f"Home Assistant cannot be told: {type(error).__name__}: {error}")
                time.sleep(_TURN_S)

    def _take_in(self) -> None:
        """Handle all that came in; wait a little for the first of it."""
        try:
            self._handle(self._inbox.get(_TURN_S))
            while True:
                self._handle(self._inbox.get(0.0))
        except queue.Empty:
            return

    def _handle(self, event: LinkEvent | None) -> None:
        if event is None:
            self._woken.clear()
        elif isinstance(event, Connected):
            self._epoch, self.trouble, self._repeat_s = event.epoch, "", float("inf")
            self._topic_of.clear()
            self._announcer.repeat()
            self._send(self._announcer.availability(True))
        elif isinstance(event, Disconnected):
            self._epoch = 0
            if not self._stopping:
                self._say(f"Home Assistant's broker: {event.reason}")
        elif isinstance(event, Received):
            if event.topic == self._topics.birth and event.payload == b"online":
                self._repeat_s = min(self._repeat_s, time.monotonic() + random.uniform(0.0, self._birth_delay_s))
        else:
            topic = self._topic_of.pop(event.token, "")
            if isinstance(event, Undelivered) and event.reason_code != NO_SUBSCRIBERS:
                why = _WHY.get(event.reason_code, f"The broker refuses {{topic}} with {event.reason_code:#04x}.")
                self._say(why.format(topic=topic))

    def _send_due(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._repeat_s:
            self._repeat_s = float("inf")
            self._announcer.start_again()
            self._send(self._announcer.availability(True))
        for message in self._announcer.due(self._ask, now_s):
            self._send(message)

    def _send(self, message: Message) -> None:
        token = self._transport.publish(self._epoch, message.topic, message.payload, retain=True)
        self._topic_of[token] = message.topic
        while len(self._topic_of) > 256:
            del self._topic_of[next(iter(self._topic_of))]

    def _say(self, trouble: str) -> None:
        self.trouble = printable(trouble, 500)
        self._notice(trouble)

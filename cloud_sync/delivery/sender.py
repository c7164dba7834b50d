"""``Sender``: takes events out of an outbox and publishes them until ingest has them."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from dataclasses import replace

from edgecv._internal.printable import printable
from edgecv.cloud_sync.acks import to_ranges
from edgecv.cloud_sync.blobs.mailbox import Mailbox
from edgecv.cloud_sync.delivery.answers import AnswerReader
from edgecv.cloud_sync.delivery.in_flight import Flight, InFlightBatches
from edgecv.cloud_sync.delivery.options import SendOptions
from edgecv.cloud_sync.delivery.parking import VAIN_ATTEMPTS, Parking
from edgecv.cloud_sync.delivery.supply import Supply
from edgecv.cloud_sync.envelope import MAX_EVENT_BYTES
from edgecv.cloud_sync.mqtt.broker_url import BrokerUrl
from edgecv.cloud_sync.mqtt.events import (
    NO_SUBSCRIBERS,
    PAYLOAD_INVALID,
    TOO_LARGE,
    Connected,
    Delivered,
    Disconnected,
    LinkEvent,
    Received,
    Undelivered,
)
from edgecv.cloud_sync.mqtt.inbox import Inbox, InboxLimits
from edgecv.cloud_sync.mqtt.reasons import UNHEARD, why_unplaced
from edgecv.cloud_sync.mqtt.topics import Address
from edgecv.cloud_sync.mqtt.transport import MqttTransport
from edgecv.cloud_sync.outbox.outbox import Outbox
from edgecv.cloud_sync.platforms.route import Route, plan_route
from edgecv.cloud_sync.stats import SyncStats
from edgecv.errors import SyncError

_IDLE_S = 1.0
# A flood on the `ack` topic must not fill the memory; a lost acknowledgement only costs a repetition.
_INBOX = InboxLimits(messages=1_000, total_bytes=4 * 2**20, topic_messages=1_000, topic_bytes=4 * 2**20)
_MOST_IN_VAIN = 3  # windows full of batches that the broker took and ingest did not answer, kept in memory


class Sender:
    """The SendThread of one device; whoever made the outbox closes it."""

    def __init__(
        self,
        outbox: Outbox,
        broker: BrokerUrl,
        address: Address,
        *,
        options: SendOptions | None = None,
        route: Route | None = None,
        blobs: Mailbox | None = None,
    ) -> None:
        self._outbox = outbox
        options = options or SendOptions()
        self._route = route or plan_route(broker, address, ack=options.ack)
        self._options = self._route.bounded(options)
        self._blobs = blobs or Mailbox(address, ())
        self._inbox = Inbox(_INBOX)  # None: look again
        self._more = threading.Event()
        self._more.set()
        self._woken = threading.Event()
        self._stopping = False
        self._unheard = UNHEARD.format(topic=self._route.events_topic)
        self._epoch = 0
        self._window = self._options.window
        self._flights = InFlightBatches()
        self._parking = Parking(self._flights)
        self._supply = Supply(outbox, self._options)
        self._answers = AnswerReader(outbox, self._flights, self._parking, self._route.acks_topic or "")
        self._stats = SyncStats()
        link = self._route.link_options(self._options, optional=self._blobs.topics)
        self._transport = MqttTransport(self._route.broker, link, self._inbox.put)
        self._thread = threading.Thread(target=self._run, name="edgecv-send", daemon=True)

    def start(self) -> None:
        """Begin to connect and to send."""
        self._outbox.when_stored(self._look_again)
        self._transport.start()
        self._thread.start()

    def stats(self) -> SyncStats:
        """The counts of the sender at this moment."""
        answers = self._answers
        return self._stats + SyncStats(parked=self._parking.parked, ignored=answers.ignored, last_error=answers.trouble)

    def drain(self, timeout_s: float) -> bool:
        """Wait until nothing is left to deliver, at most ``timeout_s``."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            stats = self._outbox.stats()
            if not stats.pending and not stats.queued:
                return True
            time.sleep(0.01)
        return False

    def close(self, timeout_s: float = 5.0) -> bool:
        """Stop sending and say goodbye to the broker; ``False`` when that took too long."""
        deadline_s = time.monotonic() + timeout_s
        self._stopping = True
        self._inbox.put(None)
        self._thread.join(timeout_s)
        if self._epoch:
            self._publish_status("offline")
        return self._transport.close(max(deadline_s - time.monotonic(), 0.1)) and not self._thread.is_alive()

    def _look_again(self) -> None:
        self._more.set()
        if not self._woken.is_set():
            self._woken.set()
            self._inbox.put(None)

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._turn()
            except SyncError as error:
                self._note(last_error=error.message)
                time.sleep(0.2)  # the outbox is stuck or closing; its own counts say more
            except Exception as error:  # noqa: BLE001 (the thread's last resort: events stay on disk, sending goes on)
                self._note(last_error=f"{type(error).__name__}: {error}")
                time.sleep(0.2)

    def _turn(self) -> None:
        self._take_in(self._wait_s())
        if self._epoch:
            self._unpark()
            self._publish_due()
            self._fill_window()
            if self._options.ack == "ingest" and self._parking.give_up_stubborn() and not self._stats.last_error:
                self._note(last_error=self._unheard)

    def _wait_s(self) -> float:
        if not self._epoch:
            return _IDLE_S
        due_s, held_s = self._flights.next_due_s(), self._supply.held_s()
        wait_s = _IDLE_S if due_s is None else min(max(due_s - time.monotonic(), 0.0), _IDLE_S)
        return wait_s if held_s is None else min(wait_s, held_s)

    def _take_in(self, timeout_s: float) -> None:
        """Handle all that came in; wait for the first of it."""
        try:
            self._handle(self._inbox.get(timeout_s))
            while True:
                self._handle(self._inbox.get(0.0))
        except queue.Empty:
            return

    def _handle(self, event: LinkEvent | None) -> None:
        if event is None:
            self._woken.clear()
        elif self._blobs.heeds(event, self._transport.publish):
            return
        elif isinstance(event, Received):
            self._heard(event)
        elif isinstance(event, Delivered):
            self._delivered(event)
        elif isinstance(event, Undelivered):
            self._undelivered(event)
        elif isinstance(event, Connected):
            self._connected(event)
        else:
            self._disconnected(event)

    def _connected(self, event: Connected) -> None:
        self._epoch, self._window = event.epoch, event.window
        self._parking.max_packet_bytes = event.max_packet_bytes
        self._flights.all_due(time.monotonic())
        self._outbox.mark_backlog()
        self._answers.trouble = ""
        self._note(connected=True, protocol=event.protocol, last_error="")
        self._publish_status("online")

    def _disconnected(self, event: Disconnected) -> None:
        self._note(connected=False, last_error=printable(event.reason, 500))
        if self._epoch:
            self._parking.connection_ended()
        self._epoch = 0

    def _heard(self, event: Received) -> None:
        refusal = self._route.refusal(event)
        if refusal is not None:
            self._note(last_error=refusal or self._stats.last_error)
            return
        arrived = self._answers.arrived
        self._answers.read(event.topic, event.payload)
        if self._answers.arrived > arrived and self._stats.last_error in (self._unheard, why_unplaced(NO_SUBSCRIBERS)):
            self._outbox.mark_backlog()  # ingest is back: what came meanwhile is no more urgent than what comes now
            self._note(last_error="")

    def _delivered(self, event: Delivered) -> None:
        flight = self._flights.of_token(event.token)
        if flight is None:
            return
        self._flights.taken(flight, self._repeat_s(flight))
        if self._options.ack == "broker":
            self._parking.landed(flight)
            self._outbox.acknowledge(to_ranges(self._flights.land(flight)))

    def _undelivered(self, event: Undelivered) -> None:
        flight = self._flights.of_token(event.token)
        if flight is None:
            return
        if event.reason_code == NO_SUBSCRIBERS and self._route.counts_without_subscribers:
            self._delivered(Delivered(token=event.token))
            return
        self._flights.failed(flight, self._repeat_s(flight))
        why = why_unplaced(event.reason_code)
        self._note(unplaced=self._stats.unplaced + 1, last_error=why)
        if event.reason_code not in (TOO_LARGE, PAYLOAD_INVALID):
            return  # it goes out again when it is due
        if len(flight.rows) == 1 and flight.sent_bytes > MAX_EVENT_BYTES:
            self._bury(flight, why)
        else:
            self._parking.set_aside(flight)

    def _bury(self, flight: Flight, why: str) -> None:
        flight.due_s = self._repeat_s(flight)  # where the disk fails, the event stays on its way until then
        for key in list(flight.rows):
            self._outbox.bury(key, why)
            self._flights.take_out(flight, key)

    def _unpark(self) -> None:
        if not self._parking.is_over():
            return
        # From the start: what is on its way goes out once more, and ingest knows what it has.
        self._outbox.rewind()
        self._flights.clear()
        self._parking.clear()
        self._more.set()

    def _fill_window(self) -> None:
        if self._supply.is_free_again():
            self._more.set()
        while self._more.is_set() and self._places_taken() < self._window and self._has_bytes_left():
            # The last place of a window is kept for alarms, so that they never wait for telemetry.
            only_alarms = self._window > 1 and self._places_taken() == self._window - 1
            if not only_alarms:
                self._more.clear()  # before looking: a commit after this sets it again
            claim = self._supply.next_batch(only_alarms=only_alarms, max_bytes=self._parking.max_packet_bytes)
            if claim.rows:
                self._flights.add(claim.rows, time.monotonic())
                self._publish_due()
            if claim.rows or claim.corrupt:
                self._more.set()
            elif only_alarms:
                return

    def _has_bytes_left(self) -> bool:
        """Nothing is claimed that would only wait in memory: the link keeps the window, to the byte."""
        return self._flights.unanswered_bytes < self._options.window_bytes

    def _places_taken(self) -> int:
        """Of the window; what the broker takes and then drops, as too large, shall not take them all."""
        return len(self._flights) - min(len(self._flights.in_vain(VAIN_ATTEMPTS)), _MOST_IN_VAIN * self._window)

    def _publish_due(self) -> None:
        for flight in self._flights.sendable(time.monotonic()):
            self._publish(flight)

    def _publish(self, flight: Flight) -> None:
        if flight.attempts:
            self._stats += SyncStats(resent=1)
        self._flights.pack(flight)
        route = self._route
        payload, why = route.pack((row.body for row in flight.rows.values()), flight.nonce)
        if why or (len(payload) > self._options.batch_bytes and len(flight.rows) > 1):  # JSON for readers is longer
            self._never_publish(flight, why)
            return
        flight.sent_bytes, flight.digest = len(payload), hashlib.sha256(payload).hexdigest()
        token = self._transport.publish(self._epoch, route.events_topic, payload, content_type=route.form.content_type)
        # One connection loses nothing: until the broker took it there is nothing to repeat, and a link that hangs is ended.
        self._flights.published(flight, token, sent_s=time.monotonic(), due_s=float("inf"))
        self._stats += SyncStats(published=1)

    def _never_publish(self, flight: Flight, why: str) -> None:
        """What need not be tried, such as more than a platform takes: halve the batch, and give up one event alone."""
        if len(flight.rows) > 1:
            self._flights.split(flight, time.monotonic())
            return
        self._note(last_error=f"{why}: it is a dead letter.")
        self._bury(flight, why)

    def _repeat_s(self, flight: Flight) -> float:
        """When it goes out again if nobody answers."""
        return time.monotonic() + self._options.resend.delay_s(flight.attempts - 1)

    def _publish_status(self, state: str) -> None:
        if (status := self._route.status(state)) is not None:
            topic, payload, retain = status
            self._transport.publish(self._epoch, topic, payload, retain=retain)

    def _note(self, **changes: object) -> None:
        self._stats = replace(self._stats, **changes)  # type: ignore[arg-type]

"""``Ingest``: receives events, commits them, and only then acknowledges them."""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgecv.cloud_sync.acks import Key, encode_acks, to_ranges
from edgecv.cloud_sync.broker_url import parse_broker_url
from edgecv.cloud_sync.envelope import decode_batch
from edgecv.cloud_sync.landing import Landed, Landing, Rejected
from edgecv.cloud_sync.link import Backoff, Connected, Disconnected, LinkEvent, LinkOptions, Received
from edgecv.cloud_sync.topics import EVENTS_FILTER, Address, parse_events_topic
from edgecv.cloud_sync.transport import MqttTransport
from edgecv.errors import SyncError
from edgecv.protocols import Clock

_log = logging.getLogger(__name__)

_IDLE_S = 0.2
_GROUP_S = 0.005
_GROUP_MESSAGES = 256
_MAX_INBOX = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestStats:
    """Counts since the start.

    Attributes:
        connected: Whether a broker is there now.
        messages: Batches received.
        stored: Events that were new.
        duplicates: Events that were there already; they are acknowledged like new ones.
        rejected: Messages, or events in them, kept out; the newest 1,000 are in table ``rejected``.
        dropped: Messages left unread because the disk did not keep up; their devices send them again.
        commits: Durable commits.
        last_error: Why there was no connection or no commit, or empty.
    """

    connected: bool = False
    messages: int = 0
    stored: int = 0
    duplicates: int = 0
    rejected: int = 0
    dropped: int = 0
    commits: int = 0
    last_error: str = ""


class Ingest:
    """Lands the events of all devices of a broker in ``DIR/landing.db``.

    Args:
        url: The broker.
        db_dir: Folder of the database; one ingest at a time may own it.
        clock: UTC nanoseconds, for ``received_ns``.
        reconnect: Delays between connections, and between attempts to commit.

    Raises:
        ConfigError: the URL cannot be used.
        SyncError: the folder belongs to another ingest or cannot be written.
        MissingDependency: paho-mqtt is not installed.
    """

    def __init__(
        self, url: str, db_dir: Path | str, *, clock: Clock = time.time_ns, reconnect: Backoff | None = None
    ) -> None:
        self._clock = clock
        self._backoff = reconnect or Backoff()
        broker = parse_broker_url(url)
        self._landing = Landing(db_dir)
        self._inbox: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
        self._epoch = 0
        self._stats = IngestStats()
        self._dropped = 0
        options = LinkOptions(
            client_id=f"edgecv-ingest-{secrets.token_hex(4)}",
            subscriptions=(EVENTS_FILTER,),
            window=64,
            manual_ack=True,
            backoff=self._backoff,
        )
        self._transport = MqttTransport(broker, options, self._enqueue)

    @property
    def db_path(self) -> Path:
        """The database; table ``events`` may be read while ingest runs."""
        return self._landing.path

    def stats(self) -> IngestStats:
        """Counts of this moment."""
        return replace(self._stats, dropped=self._dropped)

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set, then close; call it once."""
        self._transport.start()
        try:
            while not stop.is_set():
                messages = self._receive()
                if messages:
                    self._land(messages, stop)
        finally:
            self._transport.close(5.0)
            self._landing.close()

    def _enqueue(self, event: LinkEvent) -> None:
        # An MQTT 5 broker stops at the window; one of 3.1.1 may flood, and then not reading is the back-pressure.
        if isinstance(event, Received) and self._inbox.qsize() >= _MAX_INBOX:
            self._dropped += 1
        else:
            self._inbox.put(event)

    def _receive(self) -> list[Received]:
        """Wait for messages, and a moment more for others that can share their commit."""
        messages: list[Received] = []
        deadline_s = time.monotonic() + _IDLE_S
        while len(messages) < _GROUP_MESSAGES:
            try:
                event = self._inbox.get(timeout=max(deadline_s - time.monotonic(), 0.0))
            except queue.Empty:
                break
            if isinstance(event, Received):
                if not messages:
                    deadline_s = time.monotonic() + _GROUP_S
                messages.append(event)
            else:
                self._note_link(event)
        return messages

    def _note_link(self, event: LinkEvent) -> None:
        if isinstance(event, Connected):
            self._epoch = event.epoch
            _log.info("connected to the broker")
            self._note(connected=True, last_error="")
        elif isinstance(event, Disconnected):
            self._epoch = 0
            if event.reason != self._stats.last_error:
                _log.warning("no broker: %s; trying again", event.reason)
            self._note(connected=False, last_error=event.reason)

    def _land(self, messages: Sequence[Received], stop: threading.Event) -> None:
        landed: list[Landed] = []
        rejected: list[Rejected] = []
        for message in messages:
            self._check(message, landed, rejected)
        if not self._commit(landed, rejected, stop):
            return
        self._note(messages=self._stats.messages + len(messages))
        self._acknowledge(landed)
        for message in messages:
            self._transport.acknowledge(message)

    def _check(self, message: Received, landed: list[Landed], rejected: list[Rejected]) -> None:
        now_ns = self._clock()
        reasons: Sequence[str]
        try:
            address = parse_events_topic(message.topic)
            batch = decode_batch(message.payload)
            strangers = [one for one in batch.envelopes if one.source != address.source]
            reasons = (*batch.errors, *(f"The source {one.source!r} is not the topic's." for one in strangers))
            own = [one for one in batch.envelopes if one.source == address.source]
            landed.extend(Landed(address=address, envelope=one, received_ns=now_ns) for one in own)
        except SyncError as error:
            reasons = (error.message,)
        for reason in reasons:
            rejected.append(Rejected(topic=message.topic, reason=reason, payload=message.payload, received_ns=now_ns))

    def _commit(self, landed: Sequence[Landed], rejected: Sequence[Rejected], stop: threading.Event) -> bool:
        """Commit, again and again while the disk refuses; ``False`` when it was stopped before."""
        attempt = 0
        while not stop.is_set():
            try:
                stored = self._landing.store(landed, rejected)
            except SyncError as error:
                self._note(last_error=error.message)
                stop.wait(self._backoff.delay_s(attempt))
                attempt += 1
                continue
            self._note(
                stored=self._stats.stored + stored,
                duplicates=self._stats.duplicates + len(landed) - stored,
                rejected=self._stats.rejected + len(rejected),
                commits=self._stats.commits + 1,
            )
            return True
        return False

    def _acknowledge(self, landed: Sequence[Landed]) -> None:
        keys: defaultdict[Address, list[Key]] = defaultdict(list)
        for one in landed:
            keys[one.address].append((one.envelope.boot, one.envelope.seq))
        for address, found in keys.items():
            for payload in encode_acks(to_ranges(found)):
                self._transport.publish(self._epoch, address.topic("ack"), payload)

    def _note(self, **changes: object) -> None:
        self._stats = replace(self._stats, **changes)  # type: ignore[arg-type]

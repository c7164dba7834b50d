"""``Ingest``: receives events, commits them, and only then acknowledges them."""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from edgecv._internal.printable import printable
from edgecv._internal.timing import Backoff
from edgecv.cloud_sync.acks import Key
from edgecv.cloud_sync.envelope import decode_batch
from edgecv.cloud_sync.ingest.answers import Answers
from edgecv.cloud_sync.ingest.blobs.desk import ANNOUNCEMENTS, PARTS, BlobDesk
from edgecv.cloud_sync.ingest.blobs.limits import BlobLimits
from edgecv.cloud_sync.ingest.blobs.signers import UrlSigner
from edgecv.cloud_sync.ingest.database import OF_THE_CONTENT, EventDatabase
from edgecv.cloud_sync.ingest.group import Group
from edgecv.cloud_sync.ingest.landed import Landed, Rejected
from edgecv.cloud_sync.ingest.seen import DeviceSeen, DevicesSeen
from edgecv.cloud_sync.ingest.shares import note_connected
from edgecv.cloud_sync.ingest.stats import IngestStats
from edgecv.cloud_sync.mqtt.broker_url import parse_broker_url
from edgecv.cloud_sync.mqtt.events import Connected, Disconnected, LinkEvent, LinkOptions, Received
from edgecv.cloud_sync.mqtt.inbox import Inbox, InboxLimits
from edgecv.cloud_sync.mqtt.topics import EVENTS_FILTER, Address, group_filter, parse_events_topic
from edgecv.cloud_sync.mqtt.transport import MqttTransport
from edgecv.cloud_sync.notices import Notice
from edgecv.cloud_sync.store.upkeep import Upkeep, UpkeepOptions
from edgecv.errors import SyncError

_log = logging.getLogger(__name__)

_IDLE_S = 0.2
_GROUP_S = 0.005
_GROUP_MESSAGES = 256
# Honest batches are a few kilobytes. One device may not take all the room: its own share is an eighth.
_INBOX = InboxLimits(messages=1024, total_bytes=64 * 2**20, topic_messages=128, topic_bytes=8 * 2**20)
_MAX_PACKET_BYTES = 2 * 2**20
_GROUP_TEXT_BYTES = 8 * 2**20
_MAX_REASONS = 8  # kept of one message; all are counted


class Ingest:
    """Lands the events of all devices of a broker in ``DIR/landing.db``.

    Args:
        url: The broker, such as ``mqtts://user@host?password_file=FILE``. It need not be reachable.
        db_dir: Folder of the database; one ingest at a time may own it.
        group: Several ingests of one group share the messages of a broker between them, each with a folder of its own. Without a
            name this ingest gets every message.
        reconnect: The delays between connections, and between attempts to commit.
        upkeep: When to merge events into Parquet, and how long to keep them. By default they stay in the database.
        blobs: How much is taken of pictures.
        signer: Gives the URLs to which devices upload pictures; without one they come here.

    Raises:
        ConfigError: the URL or the group cannot be used.
        SyncError: the folder belongs to another ingest or cannot be written.
        MissingDependency: paho-mqtt is not installed.
    """

    def __init__(
        self,
        url: str,
        db_dir: Path | str,
        *,
        group: str | None = None,
        reconnect: Backoff | None = None,
        upkeep: UpkeepOptions | None = None,
        blobs: BlobLimits | None = None,
        signer: UrlSigner | None = None,
    ) -> None:
        self._backoff = reconnect or Backoff()
        broker = parse_broker_url(url)
        wanted = group_filter(group, EVENTS_FILTER)
        self._is_member = group is not None
        self._landing = EventDatabase(db_dir)
        self._upkeep = Upkeep(self._landing, upkeep or UpkeepOptions())
        self._inbox = Inbox(_INBOX)
        self._kept_out = Notice(_log)
        self._failed = Notice(_log)
        self._renamed = Notice(_log)
        self._epoch = 0
        self._stats = IngestStats()
        self._dropped = 0
        self._devices = DevicesSeen()
        options = LinkOptions(
            client_id=f"edgecv-ingest-{secrets.token_hex(4)}",
            subscriptions=(wanted,),
            optional=(group_filter(group, ANNOUNCEMENTS), PARTS),
            max_packet_bytes=_MAX_PACKET_BYTES,
            window=64,
            manual_ack=True,
            backoff=self._backoff,
        )
        self._transport = MqttTransport(broker, options, self._enqueue)
        folder, wake = self._landing.path.parent, partial(self._inbox.put, None)
        self._blobs = BlobDesk(folder, self._tell, wake, limits=blobs or BlobLimits(), signer=signer)

    @property
    def db_path(self) -> Path:
        """The database; table ``events`` may be read while ingest runs."""
        return self._landing.path

    def stats(self) -> IngestStats:
        """The counts of the ingest at this moment."""
        messages, size = self._inbox.waiting()
        stats = replace(self._stats, blobs=self._blobs.stored, blobs_refused=self._blobs.refused)
        return replace(stats, dropped=self._dropped, waiting=messages, waiting_bytes=size)

    def devices(self) -> Sequence[DeviceSeen]:
        """The devices that were heard of since the start, at most 10,000; those that were silent for longest first."""
        return self._devices.all()

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set, then close; call it once."""
        self._upkeep.start()
        self._transport.start()
        self._blobs.start()
        try:
            while not stop.is_set():
                messages = self._receive()
                if messages:
                    self._land(messages, stop)
                self._blobs.settle(self._landing.write)
        finally:
            self._blobs.close()
            self._blobs.settle(self._landing.write)  # it never waits for the disk to recover
            self._transport.close(5.0)
            self._upkeep.close()
            self._landing.close()

    def _enqueue(self, event: LinkEvent) -> None:
        if isinstance(event, Received) and self._blobs.heeds(event):
            self._transport.acknowledge(event)  # to the broker; devices repeat what got lost
        elif not self._inbox.put(event) and isinstance(event, Received):
            self._dropped += 1
            self._transport.acknowledge(event)  # to the broker, which would stop at the window otherwise

    def _tell(self, topic: str, payload: bytes) -> None:
        if self._epoch:
            self._transport.publish(self._epoch, topic, payload)

    def _receive(self) -> list[Received]:
        """Wait for messages, and a moment more for others that can share their commit."""
        messages: list[Received] = []
        deadline_s = time.monotonic() + _IDLE_S
        while len(messages) < _GROUP_MESSAGES:
            try:
                event = self._inbox.get(max(deadline_s - time.monotonic(), 0.0))
            except queue.Empty:
                break
            if event is None:
                break  # a picture arrived
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
            note_connected(event, is_member=self._is_member)
            self._note(connected=True, last_error="")
        elif isinstance(event, Disconnected):
            self._epoch = 0
            reason = printable(event.reason, 500)
            if reason != self._stats.last_error:
                _log.warning("no broker: %s; trying again", reason)
            self._note(connected=False, last_error=reason)

    def _land(self, messages: Sequence[Received], stop: threading.Event) -> None:
        """Land messages together; when that breaks, one by one, so that the one that broke it stands alone."""
        done = 0
        try:
            while done < len(messages):
                group, count = self._group(messages[done:])
                if not self._commit(group, stop):
                    return
                self._answer(group, messages[done : done + count])
                done += count
        except Exception as error:  # noqa: BLE001 (no message may stop ingest; its device and the log hear of it)
            if len(messages) - done == 1:
                self._give_up(messages[done], error)
                return
            for message in messages[done:]:
                self._land([message], stop)

    def _group(self, messages: Sequence[Received]) -> tuple[Group, int]:
        """Check messages until enough for a commit came together; also says how many that were."""
        group = Group()
        count = 0
        for message in messages:
            self._check(message, group)
            count += 1
            if group.text_bytes >= _GROUP_TEXT_BYTES:
                break
        return group, count

    def _check(self, message: Received, group: Group) -> None:
        now_ns = time.time_ns()
        try:
            reasons = self._admit(message.payload, parse_events_topic(message.topic), group, now_ns)
        except SyncError as error:
            reasons = [error.message]
        if not reasons:
            return
        self._kept_out(f"A message on {message.topic!r} was kept out, or events in it: {reasons[0]}")
        group.refused += len(reasons)
        for reason in reasons[:_MAX_REASONS]:
            group.rejected.append(
                Rejected(topic=message.topic, reason=reason, payload=message.payload, received_ns=now_ns)
            )

    def _admit(self, payload: bytes, address: Address, group: Group, now_ns: int) -> list[str]:
        """Take the good events of a message into a group; returns what is wrong with the others.

        Raises:
            SyncError: nothing of it can be read; its device will be told.
        """
        try:
            batch = decode_batch(payload)
        except SyncError as error:
            group.answers.refuse(address, payload, error)
            raise
        group.text_bytes += batch.text_bytes
        wrong = dict(batch.errors)
        keys: list[Key] = []
        for place, one in zip(batch.places, batch.envelopes, strict=True):
            if one.source == address.source:
                group.landed.append(Landed.from_envelope(one, address, now_ns))
                keys.append((one.boot, one.seq))
            else:
                wrong[place] = f"The source {one.source!r} is not the topic's."
        group.answers.add(address, batch.nonce, keys, wrong)
        return list(wrong.values())

    def _commit(self, group: Group, stop: threading.Event) -> bool:
        """Commit, again and again while the disk refuses; ``False`` when it was stopped before."""
        attempt = 0
        while not stop.is_set():
            began_s = time.monotonic()
            try:
                stored = self._landing.store(group.landed, group.rejected)
            except SyncError as error:
                self._note(last_error=error.message, commit_s=self._stats.commit_s + time.monotonic() - began_s)
                stop.wait(self._backoff.delay_s(attempt))
                attempt += 1
                continue
            for one in stored.renamed:
                self._renamed(
                    f"Event {one.boot}:{one.seq} of {one.address.source} has the id of another one; both are kept. Do two devices "
                    "go by one name, or does a device run from a copy of another's outbox?"
                )
            self._note(
                stored=self._stats.stored + stored.new,
                renamed=self._stats.renamed + len(stored.renamed),
                duplicates=self._stats.duplicates + len(group.landed) - stored.new - stored.erased,
                erased=self._stats.erased + stored.erased,
                rejected=self._stats.rejected + group.refused,
                commits=self._stats.commits + 1,
                last_error="" if attempt else self._stats.last_error,  # the disk takes it again
                commit_s=self._stats.commit_s + time.monotonic() - began_s,
            )
            self._devices.note_landed(group.landed)
            return True
        return False

    def _answer(self, group: Group, messages: Sequence[Received]) -> None:
        """Tell devices what is safe, and the broker that the messages are taken care of."""
        self._note(messages=self._stats.messages + len(messages))
        self._send(group.answers)
        for message in messages:
            self._transport.acknowledge(message)

    def _send(self, answers: Answers) -> None:
        for topic, payload in answers.messages():
            self._tell(topic, payload)

    def _give_up(self, message: Received, error: Exception) -> None:
        self._failed(f"A message on {message.topic!r} could not be read at all: {type(error).__name__}: {error}")
        if isinstance(error, OF_THE_CONTENT):  # of anything else, nobody knows that it would fail again
            answers = Answers()
            answers.refuse(parse_events_topic(message.topic), message.payload, error)
            self._send(answers)
        self._note(messages=self._stats.messages + 1, rejected=self._stats.rejected + 1)
        self._transport.acknowledge(message)

    def _note(self, **changes: object) -> None:
        self._stats = replace(self._stats, **changes)  # type: ignore[arg-type]

"""``MqttSink``: what a pipeline found, on its way to the cloud."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from edgecv._internal.strict import check_number
from edgecv._internal.timing import clock_is_synced
from edgecv.cloud_sync.blobs.lane import BlobLane
from edgecv.cloud_sync.blobs.options import SnapshotOptions, UploadPace
from edgecv.cloud_sync.delivery.options import AckMode, SendOptions
from edgecv.cloud_sync.delivery.sender import Sender
from edgecv.cloud_sync.envelope import Envelope, Stamp, envelope_from_event, envelope_from_result
from edgecv.cloud_sync.mqtt.broker_url import parse_broker_url
from edgecv.cloud_sync.mqtt.topics import Address
from edgecv.cloud_sync.notify import Notifier, NotifyOptions
from edgecv.cloud_sync.outbox.accounts.losses import Loss
from edgecv.cloud_sync.outbox.limits import LaneLimits, OutboxLimits
from edgecv.cloud_sync.outbox.outbox import Outbox
from edgecv.cloud_sync.platforms.route import plan_route
from edgecv.cloud_sync.stats import SyncStats
from edgecv.cloud_sync.wire.payloads import Wire
from edgecv.errors import ConfigError, SyncError
from edgecv.events import Event, Priority
from edgecv.notifications.choice import Choice, read_choice
from edgecv.results import Result

_CLOCK_CHECK_S = 10.0
_FEW_EVENTS = 100  # two batches
_LONGEST_TTL_S = 100 * 365 * 86_400.0


class MqttSink:
    """A sink that keeps events on disk until ingest has them; ``emit`` waits for neither disk nor network.

    Args:
        url: The broker, such as ``mqtts://user@host?password_file=FILE``. It need not be reachable.
        tenant: Owner of this device.
        device: Its name, unique within the tenant.
        outbox: Folder for events that wait; one process at a time may own it.
        ack: ``ingest``: ``edgecv ingest`` says when an event is safe. ``broker``: the broker does, which is weaker.
        events: ``events``: events alone. ``detections``: also frames in which something was found. ``all``: also every other
            frame. A list of kinds, such as ``["line.crossed", "zone.*"]``: only these events; the report of losses goes always.
        limits: Sizes of the outbox.
        options: How to send; its ``ack`` gives way to ``ack``.
        telemetry_ttl_s: Results of frames that could not be delivered for so long are worthless, and deleted; ``None`` keeps
            them. Events of steps stay.
        drain_s: How long ``close`` waits for the rest to be delivered.
        wire: ``zlib`` compresses batches, for ingest. ``json`` is a batch of CloudEvents for other readers, and goes with
            ``ack="broker"``. ``None``: ``zlib`` with ingest, else ``json``.
        platform: Whose topics and limits hold: ``aws``, ``azure``, ``thingsboard`` ... (``platform_names()``), or the path of a
            TOML file of the user's own. ``None``: a broker without rules of its own.
        lanes: Limits of single lanes of the outbox, in place of those in ``limits``.
        window_bytes: Most bytes on their way that the broker has not taken, in place of that in ``options``.
        drain_events_s: Most events of the backlog in a second, in place of that in ``options``. What happens while a
            connection stands goes first in any case.
        snapshots: Which events get a picture of their frame, and how it leaves the device; ``None``: no picture leaves it.
        notify: Which events get the mark that people are told of them, and how often; ``None``: none. No event is held back.

    ``promise`` says what ``ack="broker"`` does not promise; it is empty with ingest.

    Raises:
        ConfigError: the URL, a name, a mode or the platform cannot be used, or they do not go together.
        OutboxLocked: another process owns the outbox.
        SyncError: the outbox cannot be used.
        MissingDependency: paho-mqtt, or for pictures OpenCV, is not installed.
    """

    name: ClassVar[str] = "mqtt"

    def __init__(
        self,
        url: str,
        *,
        tenant: str,
        device: str,
        outbox: Path | str,
        ack: AckMode = "ingest",
        events: Choice = "detections",
        limits: OutboxLimits | None = None,
        options: SendOptions | None = None,
        telemetry_ttl_s: float | None = None,
        drain_s: float = 2.0,
        wire: Wire | None = None,
        platform: str | None = None,
        lanes: Mapping[Priority, LaneLimits] | None = None,
        window_bytes: int | None = None,
        drain_events_s: float | None = None,
        snapshots: SnapshotOptions | None = None,
        notify: NotifyOptions | None = None,
    ) -> None:
        self._choice = read_choice(events, "events of MQTT")
        self._notifier = None if notify is None else Notifier(notify)
        if telemetry_ttl_s is not None:
            check_number("telemetry_ttl_s", telemetry_ttl_s, 0.0, _LONGEST_TTL_S)
        if snapshots is not None and ack != "ingest":
            raise ConfigError(
                "Snapshots need an ingest that takes them, and ack='broker' has none.",
                "Use ack='ingest', or no snapshots.",
            )
        given = {"window_bytes": window_bytes, "drain_events_s": drain_events_s}
        own = {name: value for name, value in given.items() if value is not None}
        send = replace(options or SendOptions(), ack=ack, **own)  # type: ignore[arg-type]
        self._address = Address(tenant=tenant, device=device)
        broker = parse_broker_url(url)
        route = plan_route(broker, self._address, ack=ack, wire=wire, platform=platform)
        self.promise = route.promise
        self._telemetry_ttl_s = telemetry_ttl_s
        self._drain_s = drain_s
        self._emitted = 0
        self._synced = _Remembered(clock_is_synced)
        self._closing = threading.Lock()
        self._closed = False
        limits = limits or OutboxLimits()
        self._outbox = Outbox(outbox, limits=limits if lanes is None else replace(limits, lanes=lanes))
        self._outbox.report_losses(self._loss_report)
        self._blobs = None if snapshots is None else self._open_blobs(Path(outbox), snapshots, send.snapshots)
        mailbox = None if self._blobs is None else self._blobs.mailbox
        self._sender = Sender(self._outbox, broker, self._address, options=send, route=route, blobs=mailbox)
        self._sender.start()

    def emit(self, result: Result) -> None:
        """Take one result and the events of its steps; what cannot be kept is counted in ``stats``."""
        if self._choice.frames == "all" or (self._choice.frames == "found" and _found_something(result)):
            self._emitted += 1
            self._store(lambda stamp: envelope_from_result(result, stamp), "telemetry", ttl_s=self._telemetry_ttl_s)
        events = tuple(self._marked(event) for event in result.events if self._choice.wants(event))
        if self._blobs is not None:
            events = self._take_pictures(replace(result, events=events), self._blobs)
        for event in events:
            self._put_event(event, result.frame.monotonic_ns, result.model)

    def emit_event(self, event: Event) -> None:
        """Take one event that belongs to no frame; what cannot be kept is counted in ``stats``."""
        if self._choice.wants(event):
            self._put_event(self._marked(event), time.monotonic_ns(), "")

    def close(self) -> None:
        """Store what is queued, deliver for a bounded time and leave the rest on disk; a second call does nothing."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._deliver(time.monotonic() + self._drain_s)
            self._sender.close()
            if not self._outbox.close():
                raise SyncError("The outbox could not store its last events in time.", "Is the disk slow or full?")

    def stats(self) -> SyncStats:
        """The counts of this sink, its outbox and its sender at this moment."""
        stats = SyncStats(emitted=self._emitted) + self._outbox.stats() + self._sender.stats()
        for part in (self._blobs, self._notifier):
            stats += part.stats() if part is not None else SyncStats()
        return stats

    def _open_blobs(self, outbox: Path, snapshots: SnapshotOptions, pace: UploadPace) -> BlobLane:
        try:
            return BlobLane(
                outbox / "blobs",
                self._address,
                snapshots,
                put=self._put_pictured,
                calm=self._is_calm,
                lose=lambda reason: self._outbox.lose(reason, "blob"),
                pace=pace,
            )
        except BaseException:
            self._outbox.close()
            raise

    def _marked(self, event: Event) -> Event:
        return event if self._notifier is None else self._notifier(event)

    def _take_pictures(self, result: Result, blobs: BlobLane) -> tuple[Event, ...]:
        plain = blobs.take(result)
        # The others come by `_put_pictured`, from the encoder's thread.
        self._emitted += len(result.events) - len(plain)
        return plain

    def _put_pictured(self, event: Event, result: Result) -> None:
        self._store_event(event, result.frame.monotonic_ns, result.model)

    def _is_calm(self) -> bool:
        """Whether so few events wait that all may be on their way."""
        waiting = self._outbox.stats()
        return waiting.pending + waiting.queued - self._sender.stats().parked <= _FEW_EVENTS

    def _deliver(self, deadline_s: float) -> None:
        """Store what waits in memory, events and pictures, and deliver until the deadline: events first."""
        if self._blobs is not None:
            self._blobs.finish_events()
            self._blobs.store()
        self._sender.drain(deadline_s - time.monotonic())
        if self._blobs is not None:
            self._blobs.drain(deadline_s - time.monotonic())
            self._blobs.close()

    def _put_event(self, event: Event, mono_ns: int, model: str) -> None:
        self._emitted += 1
        self._store_event(event, mono_ns, model)

    def _store_event(self, event: Event, mono_ns: int, model: str) -> None:
        self._store(
            lambda stamp: envelope_from_event(event, stamp, mono_ns=mono_ns, model=model),
            event.priority,
            coalesce_key=event.coalesce_key,
        )

    def _store(
        self, make: Callable[[Stamp], Envelope], lane: Priority, *, ttl_s: float | None = None, coalesce_key: str = ""
    ) -> None:
        try:
            envelope = make(self._stamp(self._outbox.next_seq()))
        except (TypeError, ValueError, OverflowError, OSError):  # such as a time that no calendar has
            self._outbox.refuse(lane)
            return
        with suppress(SyncError):  # the outbox counts it
            self._outbox.put(envelope, ttl_s=ttl_s, coalesce_key=coalesce_key)

    def _stamp(self, seq: int) -> Stamp:
        return Stamp(address=self._address, boot=self._outbox.boot, seq=seq, clock_synced=self._synced())

    def _loss_report(self, losses: Sequence[Loss], seq: int) -> Envelope:
        data = {"total": sum(loss.count for loss in losses), "losses": [loss.as_dict() for loss in losses]}
        event = Event(kind="sync.losses", time_ns=time.time_ns(), data=data)
        return envelope_from_event(event, self._stamp(seq), mono_ns=time.monotonic_ns())


class _Remembered:
    """Asks the kernel about the clock every ten seconds, not every frame."""

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask = ask
        self._asked_s = float("-inf")
        self._answer = False

    def __call__(self) -> bool:
        now_s = time.monotonic()
        if now_s - self._asked_s > _CLOCK_CHECK_S:
            self._asked_s, self._answer = now_s, self._ask()
        return self._answer


def _found_something(result: Result) -> bool:
    return bool(result.detections) or bool(result.classification)

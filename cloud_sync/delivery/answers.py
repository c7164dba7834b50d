"""What ingest says of the batches on their way: it has these events, and will never take those."""

from __future__ import annotations

import logging
import time

from edgecv._internal.printable import printable
from edgecv.cloud_sync.acks import Ack, Key, Refused, decode_answer, to_ranges
from edgecv.cloud_sync.delivery.in_flight import Flight, InFlightBatches
from edgecv.cloud_sync.delivery.parking import Parking
from edgecv.cloud_sync.notices import Notice
from edgecv.cloud_sync.outbox.outbox import Outbox
from edgecv.errors import SyncError

_log = logging.getLogger(__name__)

_OVERTAKEN_S = 1.0
_LATER_S = 600.0  # until a batch goes out again that ingest will take once it is updated


class AnswerReader:
    """Reads the topic ``ack`` of a device: what is there is deleted from the outbox, what is refused for good is buried.

    Whoever does not know the nonce of a batch, or its digest, did not receive it and can have nothing deleted or buried.
    """

    def __init__(self, outbox: Outbox, flights: InFlightBatches, parking: Parking, topic: str) -> None:
        self.ignored = 0  # messages, or parts of them, that meant no batch of this run
        self.arrived = 0  # batches that reached ingest
        self.trouble = ""  # what was last refused, and why
        self._outbox = outbox
        self._flights = flights
        self._parking = parking
        self._topic = topic
        self._notice = Notice(_log)

    def read(self, topic: str, payload: bytes) -> None:
        """Take in one message; one that is no answer is counted and left out."""
        if topic != self._topic:
            self._ignore("A message came on a topic that this device does not read.")
            return
        try:
            answer = decode_answer(payload)
        except SyncError as error:
            self._ignore(f"A message on the topic of acknowledgements is none: {error.message}")
            return
        for ack in answer.acks:
            self._land(ack)
        if isinstance(answer.refused, tuple):
            for refused in answer.refused:
                self._refuse(refused)

    def _land(self, ack: Ack) -> None:
        flight = self._flights.holder(ack.nonce)
        if flight is None:
            self._stranger(ack.nonce, "An acknowledgement is for no batch of this run.")
            return
        sent_s = flight.sent_s
        self._parking.landed(flight)
        self.arrived += 1
        order = flight.order
        self._outbox.acknowledge(to_ranges(self._flights.land_of(flight, ack.ranges)))
        for index, reason in ack.nacks:
            # One that is not there was answered before: this is the answer to a repetition.
            if index < len(order) and order[index] in flight.rows:
                self._bury(flight, order[index], reason)
        # Brokers keep the order, so what went out well before an acknowledged batch and has no answer is lost.
        self._flights.hurry(time.monotonic(), sent_s - _OVERTAKEN_S)

    def _refuse(self, refused: Refused) -> None:
        flight = self._flights.of_digest(refused.digest)
        if flight is None:
            self._stranger(refused.digest, "A refusal is for no batch of this run.")
            return
        self.arrived += 1
        if refused.later:
            # Nothing is wrong with the events. The window fills with such batches, and the rest waits on disk.
            self._say(f"Ingest is older than this device: update it. It says: {refused.reason}")
            flight.due_s = time.monotonic() + _LATER_S
        elif len(flight.rows) > 1:
            self._flights.split(flight, time.monotonic())  # the fault may be in one of its events
        else:
            self._bury(flight, next(iter(flight.rows)), refused.reason)

    def _bury(self, flight: Flight, key: Key, reason: str) -> None:
        """Make a dead letter of an event; where the disk fails it stays on its way, and ingest refuses it once more."""
        self._say(f"Ingest will never take an event; it is kept as dead ('edgecv sync dead'): {printable(reason, 200)}")
        try:
            self._outbox.bury(key, f"ingest: {printable(reason, 200)}")
        except SyncError as error:
            self._say(error.message)
        else:
            self._flights.take_out(flight, key)

    def _say(self, text: str) -> None:
        self.trouble = text
        self._notice(text)

    def _stranger(self, mark: str, why: str) -> None:
        if not self._flights.has_ended(mark):
            self._ignore(why)

    def _ignore(self, why: str) -> None:
        self.ignored += 1
        self._notice(
            f"{why} It was ignored. One may be late after a restart, and an older ingest than this device sends such ones; "
            f"otherwise somebody else writes to {self._topic}: see the broker's access rules."
        )

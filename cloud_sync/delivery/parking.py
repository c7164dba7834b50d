"""Events that a broker finds too large: which those may be, and when they are tried again."""

from __future__ import annotations

import logging
import time

from edgecv.cloud_sync.delivery.in_flight import Flight, InFlightBatches
from edgecv.cloud_sync.mqtt.events import ANY_PACKET
from edgecv.cloud_sync.notices import Notice

_log = logging.getLogger(__name__)

VAIN_ATTEMPTS = 3  # that the broker took and ingest did not answer
_MOST_ATTEMPTS = 6  # the same, while other batches were answered
_HANG_UPS = 2  # connections that ended while one batch alone was under way: it was that
_NEVER_TOO_LARGE_BYTES = 1024  # a broker that takes less is of no use
_PARKED_S = 600.0


class Parking:
    """What waits on disk because this broker refuses it: another, or the same one tomorrow, may not.

    A batch of several events that may be too large is halved until one event is left.
    """

    def __init__(self, flights: InFlightBatches) -> None:
        self.max_packet_bytes = ANY_PACKET  # what the broker says that it takes
        self.parked = 0  # events
        self._flights = flights
        self._notice = Notice(_log)
        self._landed_s = float("-inf")
        self._landed_bytes = 0
        self._refused_at_bytes = 0
        self._over_s = 0.0

    def landed(self, flight: Flight) -> None:
        """Learn from a batch that arrived."""
        self._landed_s = time.monotonic()
        self._landed_bytes = max(self._landed_bytes, flight.sent_bytes)

    def connection_ended(self) -> None:
        """Brokers of version 3.1.1 hang up on what is too large for them, and say nothing."""
        flights = self._flights.unanswered()
        for flight in flights:
            flight.suspect = True
        if len(flights) == 1:
            flights[0].ends += 1
            if flights[0].ends >= _HANG_UPS:
                self._doubt(flights[0])

    def give_up_stubborn(self) -> bool:
        """Set aside what the broker says that it takes while only others arrive; whether nothing arrives at all."""
        unheard = False
        for flight in self._flights.in_vain(VAIN_ATTEMPTS):
            if self._landed_s <= flight.first_s:
                unheard = True
            elif flight.attempts >= _MOST_ATTEMPTS:
                self._doubt(flight)
        return unheard

    def set_aside(self, flight: Flight) -> None:
        """Halve a batch that is too large; leave one event of that kind on disk for a while."""
        if len(flight.rows) > 1:
            self._flights.split(flight, time.monotonic())
            return
        if not self.parked:
            self._over_s = time.monotonic() + _PARKED_S
        self.parked += 1
        self._refused_at_bytes = self.max_packet_bytes
        says = "" if self.max_packet_bytes == ANY_PACKET else f" and says that it takes {self.max_packet_bytes}"
        self._notice(
            f"The broker refuses an event of {flight.sent_bytes} bytes{says}. It waits on disk, the others go on. "
            "Raise the broker's limit (mosquitto: max_packet_size, message_size_limit)."
        )
        self._flights.land(flight)

    def is_over(self) -> bool:
        """Whether the time has come, or the broker, to try everything that is parked again."""
        larger = self.max_packet_bytes > self._refused_at_bytes
        return self.parked > 0 and (larger or time.monotonic() >= self._over_s)

    def clear(self) -> None:
        """Nothing is parked any more; the broker may be another one by now."""
        self.parked = self._landed_bytes = 0

    def _doubt(self, flight: Flight) -> None:
        # Where a batch of its size has arrived, it is the network or ingest that fails.
        if flight.sent_bytes > max(self._landed_bytes, _NEVER_TOO_LARGE_BYTES):
            self.set_aside(flight)

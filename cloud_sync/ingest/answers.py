"""What ingest tells each device after a commit: what it has, what it will never take, and why."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from edgecv.cloud_sync.acks import (
    Ack,
    Key,
    Refused,
    encode_acks,
    encode_bare_acks,
    encode_refusals,
    reason_text,
    to_ranges,
)
from edgecv.cloud_sync.envelope import NewerBatch
from edgecv.cloud_sync.mqtt.topics import Address


@dataclass(slots=True)
class _ToDevice:
    acks: list[Ack] = field(default_factory=list)
    bare: list[Key] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


class Answers:
    """Collects what the devices of one commit are to hear, and writes it as messages."""

    def __init__(self) -> None:
        self._devices: defaultdict[Address, _ToDevice] = defaultdict(_ToDevice)

    def add(self, address: Address, nonce: str | None, keys: Sequence[Key], wrong: Mapping[int, str]) -> None:
        """Of one batch: the events that were stored, and by their index those that never will be, with the reason.

        Devices older than version 2 send no nonce and understand no reason; they hear of the stored ones alone.
        """
        if nonce is None:
            self._devices[address].bare.extend(keys)
            return
        nacks = tuple((index, reason_text(why)) for index, why in wrong.items())
        if keys or nacks:
            self._devices[address].acks.append(Ack(nonce=nonce, ranges=tuple(to_ranges(keys)), nacks=nacks))

    def refuse(self, address: Address, payload: bytes, error: Exception) -> None:
        """A whole message that could not be read."""
        refused = Refused(
            digest=hashlib.sha256(payload).hexdigest(),
            reason=reason_text(str(error)),
            later=isinstance(error, NewerBatch),
        )
        self._devices[address].refused.append(refused)

    def messages(self) -> Iterator[tuple[str, bytes]]:
        """Topic and payload of each message to send."""
        for address, said in self._devices.items():
            payloads = (
                *encode_acks(said.acks),
                *encode_bare_acks(to_ranges(said.bare)),
                *encode_refusals(said.refused),
            )
            yield from ((address.topic("ack"), payload) for payload in payloads)

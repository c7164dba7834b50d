"""``Group``: what a few messages brought."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgecv.cloud_sync.ingest.answers import Answers
from edgecv.cloud_sync.ingest.landed import Landed, Rejected


@dataclass(slots=True, kw_only=True)
class Group:
    """What a few messages brought, for one commit."""

    landed: list[Landed] = field(default_factory=list)  # events to store
    rejected: list[Rejected] = field(default_factory=list)  # what to keep of messages and events that did not pass
    refused: int = 0  # how many did not pass
    answers: Answers = field(default_factory=Answers)  # what to tell the devices once it is committed
    text_bytes: int = 0  # what the messages inflated to

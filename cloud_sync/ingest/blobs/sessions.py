"""Pictures on their way to ingest: in memory, bounded, each known by a number that only its device was told."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from edgecv.cloud_sync.blobs.messages import Announcement
from edgecv.cloud_sync.ingest.blobs.limits import BlobLimits
from edgecv.cloud_sync.ingest.blobs.signers import SignedUrl
from edgecv.cloud_sync.mqtt.topics import Address

_TOKEN_BYTES = 16
_MOST = 10_000  # uploads to a URL, which hold little memory


@dataclass(slots=True, kw_only=True, eq=False)
class Session:
    """One picture on its way."""

    address: Address  # of the device
    asked: Announcement
    signed: SignedUrl | None = None  # the upload to a URL; `None`: parts
    data: bytearray = field(default_factory=bytearray, repr=False)  # the parts that came, in order
    token: str = field(default_factory=lambda: secrets.token_hex(_TOKEN_BYTES), repr=False)
    ends_s: float = 0.0  # monotonic time at which it is forgotten
    is_ending: bool = False  # whether somebody looks at the place of an upload already

    @property
    def cost_bytes(self) -> int:
        """Memory that it will need."""
        return 0 if self.signed is not None else self.asked.bytes


class Sessions:
    """All pictures on their way; used by one thread."""

    def __init__(self, limits: BlobLimits) -> None:
        self._limits = limits
        self._sessions: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def open_parts(self, address: Address, asked: Announcement) -> Session | None:
        """A session for parts: that of the same picture, if there is one, with what came of it; ``None`` when there is no room."""
        same = next((one for one in self._of(address) if one.asked.sha256 == asked.sha256 and one.signed is None), None)
        fresh = Session(address=address, asked=asked)
        if same is not None and same.asked.bytes == asked.bytes:
            fresh.data, same.data = same.data, bytearray()
            self.end(same)
        own = [one for one in self._of(address) if one.signed is None]
        for older in own[: max(len(own) + 1 - self._limits.device_sessions, 0)]:
            self.end(older)
        if sum(one.cost_bytes for one in self._sessions.values()) + asked.bytes > self._limits.memory_bytes:
            return None
        return self._add(fresh, self._limits.idle_s)

    def open_upload(self, address: Address, asked: Announcement, signed: SignedUrl) -> Session | None:
        """A session for an upload to a URL; ``None`` when there is no room."""
        for older in [one for one in self._of(address) if one.asked.sha256 == asked.sha256]:
            self.end(older)
        if len(self._sessions) >= _MOST:
            return None
        return self._add(Session(address=address, asked=asked, signed=signed), signed.expires_s + self._limits.idle_s)

    def find(self, token: str, address: Address) -> Session | None:
        """The session of this device; it lives on."""
        session = self._sessions.get(token)
        if session is None or session.address != address:
            return None
        if session.signed is None:
            session.ends_s = time.monotonic() + self._limits.idle_s
        return session

    def end(self, session: Session) -> None:
        """Forget a session and the parts that came of it."""
        self._sessions.pop(session.token, None)

    def expire(self) -> None:
        """Forget sessions of which nothing came for too long."""
        now_s = time.monotonic()
        for session in [one for one in self._sessions.values() if one.ends_s <= now_s]:
            self.end(session)

    def _add(self, session: Session, lives_s: float) -> Session:
        session.ends_s = time.monotonic() + lives_s
        self._sessions[session.token] = session
        return session

    def _of(self, address: Address) -> Iterator[Session]:
        return iter([one for one in self._sessions.values() if one.address == address])

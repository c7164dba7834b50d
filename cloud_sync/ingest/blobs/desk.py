"""``BlobDesk``: tells devices where their pictures go, takes parts, and looks whether uploads came."""

from __future__ import annotations

import hashlib
import logging
import queue
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from edgecv._internal.atomic import write_private
from edgecv._internal.private_files import make_private_folder
from edgecv.cloud_sync.blobs.messages import (
    Announcement,
    Done,
    Drop,
    More,
    Part,
    PutHere,
    Reply,
    SendParts,
    State,
    Uploaded,
    Wait,
    decode_announcement,
    decode_part,
    encode,
)
from edgecv.cloud_sync.ingest.blobs import table
from edgecv.cloud_sync.ingest.blobs.limits import BlobLimits
from edgecv.cloud_sync.ingest.blobs.replies import Arrival, settled
from edgecv.cloud_sync.ingest.blobs.sessions import Session, Sessions
from edgecv.cloud_sync.ingest.blobs.signers import BlobName, SignedUrl, UrlSigner
from edgecv.cloud_sync.ingest.blobs.table import StoredBlob
from edgecv.cloud_sync.ingest.blobs.url_work import UrlWork
from edgecv.cloud_sync.mqtt.events import Received
from edgecv.cloud_sync.mqtt.inbox import Inbox, InboxLimits
from edgecv.cloud_sync.mqtt.topics import ROOT, Address, parse_topic
from edgecv.cloud_sync.notices import Notice
from edgecv.errors import SyncError

_log = logging.getLogger(__name__)

ANNOUNCEMENTS = f"{ROOT}/+/+/blob"
PARTS = f"{ROOT}/+/+/blob-part"

_INBOX = InboxLimits(messages=1024, total_bytes=32 * 2**20, topic_messages=32, topic_bytes=2 * 2**20)
_IDLE_S = 0.5
_MISS_EVERY_S = 30.0
_BUSY_S, _REFUSED_S = 10.0, 60.0


class BlobDesk:
    """One thread, beside the one that lands events; what arrives is committed by that one (``settle``).

    ``send`` publishes one message to a device, and ``wake`` has that thread look for what arrived.
    """

    def __init__(
        self,
        folder: Path,
        send: Callable[[str, bytes], None],
        wake: Callable[[], object],
        *,
        limits: BlobLimits,
        signer: UrlSigner | None,
    ) -> None:
        self._folder = folder
        self._send = send
        self._wake = wake
        self._limits = limits
        self._inbox = Inbox(_INBOX)
        self._sessions = Sessions(limits)
        self._urls = None if signer is None else UrlWork(signer, self._later)
        self._arrivals: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        self._owed: list[Arrival] = []  # of `settle`
        self._miss_at_s = 0.0
        self._found: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()  # by the threads of `_urls`
        self._kept_out = Notice(_log)
        self._db: sqlite3.Connection | None = None
        self._stopping = False
        self.stored = 0  # pictures that arrived
        self.refused = 0  # messages about pictures, and pictures, that were kept out
        self._thread = threading.Thread(target=self._run, name="edgecv-blobs", daemon=True)

    def start(self) -> None:
        """Begin to answer devices, in the background."""
        self._thread.start()

    def heeds(self, message: Received) -> bool:
        """Take a message about pictures, on the network thread; whether it was one. Devices repeat what has no room."""
        if message.topic.rpartition("/")[2] not in ("blob", "blob-part"):
            return False
        self._inbox.put(message)
        return True

    def settle(self, write: Callable[[Callable[[sqlite3.Connection], None]], None]) -> None:
        """Commit what arrived, then tell the devices; on the thread that lands events, whose database ``write`` commits to."""
        self._owed += [self._arrivals.get() for _ in range(self._arrivals.qsize())]
        now_s = time.monotonic()
        if not self._owed and now_s < self._miss_at_s:
            return
        before_ns = time.time_ns() - int(self._limits.missing_after_s * 1e9)

        def action(db: sqlite3.Connection) -> None:
            table.store(db, [arrival.blob for arrival in self._owed])
            table.miss(db, before_ns)

        try:
            write(action)
        except SyncError as error:
            self._kept_out(error.message)  # it is tried again
            return
        owed, self._owed, self._miss_at_s = self._owed, [], now_s + _MISS_EVERY_S
        self.stored += len(owed)
        for arrival in owed:
            self._reply(arrival.blob.address, arrival.reply)

    def close(self) -> None:
        """Stop; what was under way begins anew at another ingest."""
        self._stopping = True
        self._inbox.put(None)
        if self._urls is not None:
            self._urls.close()
        if self._thread.is_alive():
            self._thread.join(5.0)

    # What follows runs on the thread of the desk.

    def _run(self) -> None:
        while not self._stopping:
            try:
                event = self._inbox.get(_IDLE_S)
                if isinstance(event, Received):
                    self._handle(event)
            except queue.Empty:
                self._sessions.expire()
            except Exception as error:  # noqa: BLE001 (no message may stop the desk; devices ask again)
                self._refuse(f"A message about a picture broke something: {type(error).__name__}: {error}")
            while not self._found.empty():
                self._found.get()()
        if self._db is not None:
            self._db.close()

    def _handle(self, message: Received) -> None:
        try:
            address, leaf = parse_topic(message.topic)
            if leaf == "blob":
                return self._announced(address, decode_announcement(message.payload))
            said = decode_part(message.payload)
        except SyncError as error:
            return self._refuse(f"A message on {message.topic[:80]!r} is not about a picture: {error.message}")
        return self._part(address, said) if isinstance(said, Part) else self._uploaded(address, said)

    def _announced(self, address: Address, asked: Announcement) -> None:
        try:
            state, used_bytes = self._known(address, asked.sha256)
        except sqlite3.Error as error:
            return self._wait(address, asked, _BUSY_S, f"the database cannot be read: {error}")
        if (reply := settled(asked, state)) is not None:
            return self._reply(address, reply)
        if self._is_too_much(address, asked, used_bytes):
            return None
        if self._urls is not None and "put" in asked.ways:
            name = BlobName(address=address, sha256=asked.sha256, bytes=asked.bytes, type=asked.type)
            self._urls.sign(name, lambda signed, why: self._signed(address, asked, signed, why))
            return None  # where too many are being signed, the device asks again
        if "parts" in asked.ways:
            return self._grant_parts(address, asked)
        return self._wait(address, asked, _REFUSED_S, "there are no URLs here")

    def _is_too_much(self, address: Address, asked: Announcement, used_bytes: int) -> bool:
        """Whether a picture is too large, or its device has its share; the device is told."""
        limits = self._limits
        if asked.bytes > limits.max_bytes:
            self._refuse(f"A picture of {address.source} has {asked.bytes} bytes; {limits.max_bytes} are allowed.")
            why = f"more than {limits.max_bytes} bytes"
            self._reply(address, Drop(nonce=asked.nonce, sha256=asked.sha256, reason=why))
            return True
        if used_bytes + asked.bytes > limits.device_bytes:
            self._refuse(f"The pictures of {address.source} fill their share of {limits.device_bytes} bytes.")
            self._wait(address, asked, _REFUSED_S, "the share of this device is full")
            return True
        return False

    def _grant_parts(self, address: Address, asked: Announcement) -> None:
        if shutil.disk_usage(self._folder).free - asked.bytes < self._limits.floor_bytes:
            return self._wait(address, asked, _REFUSED_S, "the disk is almost full")
        session = self._sessions.open_parts(address, asked)
        if session is None:
            return self._wait(address, asked, _BUSY_S, "too many pictures come at once")
        return self._reply(address, SendParts(nonce=asked.nonce, sha256=asked.sha256, session=session.token))

    def _later(self, action: Callable[[], None]) -> None:
        self._found.put(action)
        self._inbox.put(None)

    def _signed(self, address: Address, asked: Announcement, signed: SignedUrl | None, why: str) -> None:
        if signed is None:
            self._refuse(why)
            if "parts" in asked.ways:
                return self._grant_parts(address, asked)
            return self._wait(address, asked, _REFUSED_S, "there is no URL now")
        session = self._sessions.open_upload(address, asked, signed)
        if session is None:
            return self._wait(address, asked, _BUSY_S, "too many pictures come at once")
        reply = PutHere(
            nonce=asked.nonce,
            sha256=asked.sha256,
            session=session.token,
            url=signed.url,
            headers=signed.headers,
            expires_s=signed.expires_s,
        )
        return self._reply(address, reply)

    def _part(self, address: Address, part: Part) -> None:
        session = self._sessions.find(part.session, address)
        if session is None or session.signed is not None:
            return None  # of another member of the group, or nobody's
        asked, data = session.asked, session.data
        if part.offset == len(data) and len(data) + len(part.data) <= asked.bytes:
            data += part.data
        if len(data) < asked.bytes:
            more = More(nonce=asked.nonce, sha256=asked.sha256, session=session.token, have=len(data))
            return self._reply(address, more)
        return self._whole(session)

    def _whole(self, session: Session) -> None:
        asked, address = session.asked, session.address
        self._sessions.end(session)
        if hashlib.sha256(session.data).hexdigest() != asked.sha256:
            self._refuse(f"A picture of {address.source} is not what its name says.")
            return self._wait(address, asked, _REFUSED_S, "its content is not what its name says")
        place = f"blobs/{asked.sha256[:2]}/{asked.sha256}"
        try:
            path = self._folder / place
            make_private_folder(path.parent, parents=True)
            write_private(path, bytes(session.data), flush=True)
        except OSError as error:
            self._refuse(f"A picture cannot be written: {error.strerror}.")
            return self._wait(address, asked, _BUSY_S, "the disk failed")
        return self._arrived(session, "stored", place)

    def _uploaded(self, address: Address, said: Uploaded) -> None:
        session = self._sessions.find(said.session, address)
        if session is None or session.signed is None or self._urls is None or session.is_ending:
            return
        session.is_ending = True
        signed = session.signed
        self._urls.look(signed, session.asked.bytes, lambda state, why: self._looked(session, signed.place, state, why))

    def _looked(self, session: Session, place: str, state: State | None, why: str) -> None:
        if state is not None:
            return self._arrived(session, state, place)
        self._sessions.end(session)
        self._refuse(why)
        return self._wait(session.address, session.asked, _BUSY_S, "the upload is not there")

    def _arrived(self, session: Session, state: State, place: str) -> None:
        asked = session.asked
        self._sessions.end(session)
        blob = StoredBlob(
            address=session.address,
            sha256=asked.sha256,
            bytes=asked.bytes,
            type=asked.type,
            state=state,
            place=place,
            now_ns=time.time_ns(),
        )
        self._arrivals.put(Arrival(blob=blob, reply=Done(nonce=asked.nonce, sha256=asked.sha256, state=state)))
        self._wake()

    def _wait(self, address: Address, asked: Announcement, wait_s: float, reason: str) -> None:
        self._reply(address, Wait(nonce=asked.nonce, sha256=asked.sha256, wait_s=wait_s, reason=reason[:200]))

    def _reply(self, address: Address, reply: Reply) -> None:
        self._send(address.topic("blob-reply"), encode(reply))

    def _refuse(self, why: str) -> None:
        self.refused += 1
        self._kept_out(why)

    def _known(self, address: Address, sha256: str) -> tuple[str, int]:
        if self._db is None:  # it reads only: one connection writes, that of the thread that lands events
            uri = f"{(self._folder.absolute() / 'landing.db').as_uri()}?mode=ro"
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=1.0, check_same_thread=False)
        return table.known(self._db, address, sha256)

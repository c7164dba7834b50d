"""Brings pictures to the cloud, one after the other, the one that waits longest first."""

from __future__ import annotations

import secrets
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from edgecv._internal.printable import printable
from edgecv.cloud_sync.blobs.folder import Blob, BlobFolder
from edgecv.cloud_sync.blobs.http import Request, check_headers, check_url
from edgecv.cloud_sync.blobs.mailbox import Mailbox
from edgecv.cloud_sync.blobs.messages import (
    PART_BYTES,
    Announcement,
    Done,
    Drop,
    More,
    Part,
    PutHere,
    Reply,
    SendParts,
    Uploaded,
    Wait,
    Way,
    encode,
    encode_part,
)
from edgecv.cloud_sync.blobs.options import SnapshotOptions, UploadPace
from edgecv.cloud_sync.stats import SyncStats
from edgecv.errors import ConfigError, SyncError, TransportError

_IDLE_S = 1.0
_NONCE_BYTES = 16
_PUTS = 3  # attempts with one URL
_URLS = 2  # URLs that may fail for one picture, before the parts
_HTTP_REST_S = 300.0  # then the next pictures go in parts at once
_CONFIRM_S = 20.0
_PART_TRIES = 6
_HEADER_BYTES = 512  # of a packet with a part
_UNANSWERED, _UNUSABLE = 0, 1  # beside the statuses of HTTP
_LEAST_PART_BYTES = 4 * 1024
_LONGEST_WAIT_S = 600.0
_MAY_PASS = frozenset({408, 425, 429})


@dataclass(slots=True, kw_only=True)
class _Errand:
    """One picture on its way; its nonce stays the same, so that a late answer counts."""

    blob: Blob
    data: bytes = field(repr=False)
    nonce: str = field(default_factory=lambda: secrets.token_hex(_NONCE_BYTES), repr=False)
    failed_urls: int = 0


class BlobUploader:
    """The thread that uploads; ``calm`` says whether no events wait, behind which parts stand back."""

    def __init__(
        self,
        folder: BlobFolder,
        mailbox: Mailbox,
        options: SnapshotOptions,
        *,
        calm: Callable[[], bool],
        pace: UploadPace | None = None,
    ) -> None:
        self._folder = folder
        self._mailbox = mailbox
        self._options = options
        self._calm = calm
        self._pace = pace or UploadPace()
        self._trusted = _trust(options.ca_file)
        self._request: Request | None = None
        self._http_rests_until_s = 0.0
        self._part_bytes = PART_BYTES
        self._stats = SyncStats()
        self._thread = threading.Thread(target=self._run, name="edgecv-blob-send", daemon=True)
        self._thread.start()

    def stats(self) -> SyncStats:
        """What was sent, and why something was not."""
        return self._stats

    def close(self, timeout_s: float) -> bool:
        """Stop; what was not delivered stays on disk. ``False`` when that took too long."""
        self._mailbox.close()
        if (request := self._request) is not None:
            request.cut()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._mailbox.is_closing:
            blob = self._folder.hold() if self._mailbox.epoch else None
            if blob is None:
                self._mailbox.idle(_IDLE_S)
                continue
            try:
                self._bring(blob)
            except Exception as error:  # noqa: BLE001 (the thread's last resort: the picture stays on disk)
                self._note(f"{type(error).__name__}: {error}")
                self._mailbox.pause(_IDLE_S)
            finally:
                self._folder.release()

    def _bring(self, blob: Blob) -> None:
        """Ask and do what is answered until the picture is away, or the connection is."""
        data = self._folder.read(blob)
        if data is None:
            return
        errand = _Errand(blob=blob, data=data)
        self._mailbox.ask(errand.nonce)
        while epoch := self._mailbox.epoch:
            reply = self._ask(errand, epoch)
            if isinstance(reply, PutHere):
                reply = self._put(errand, reply, epoch)
            elif isinstance(reply, SendParts):
                reply = self._send_parts(errand, reply, epoch)
            if self._ended(errand, reply) or self._mailbox.is_closing:
                return

    def _ended(self, errand: _Errand, reply: Reply | None) -> bool:
        if isinstance(reply, Done):
            self._folder.remove(errand.blob)
            self._stats = replace(self._stats, snapshots_sent=self._stats.snapshots_sent + 1, last_error="")
            return True
        if isinstance(reply, Drop):
            self._folder.drop(errand.blob, "too_large", f"ingest never takes a picture: {printable(reply.reason, 200)}")
            return True
        if isinstance(reply, Wait):
            self._note(f"ingest takes no pictures now: {printable(reply.reason, 200)}")
            self._mailbox.pause(min(reply.wait_s, _LONGEST_WAIT_S))
        return False

    def _ask(self, errand: _Errand, epoch: int) -> Reply | None:
        """Announce the picture until an answer comes, or the connection is gone."""
        blob = errand.blob
        for attempt in range(10_000):
            ways = self._ways(late=attempt > 0)
            asked = Announcement(nonce=errand.nonce, sha256=blob.sha256, bytes=blob.size_bytes, ways=ways)
            self._mailbox.send("blob", encode(asked))
            wait_s = self._options.url_wait_s if "put" in ways and attempt == 0 else self._pace.ask.delay_s(attempt)
            reply = self._next(errand, wait_s, epoch)
            if reply is not None or self._mailbox.epoch != epoch or self._mailbox.is_closing:
                return reply
            self._note("nobody answers where a picture should go: an ingest older than this device, or none?")
        return None

    def _ways(self, *, late: bool) -> tuple[Way, ...]:
        upload = self._options.upload
        if upload != "auto":
            return ("put",) if upload == "http" else ("parts",)
        rests = time.monotonic() < self._http_rests_until_s
        return ("parts",) if rests or late else ("put", "parts")

    def _next(self, errand: _Errand, timeout_s: float, epoch: int, session: str = "") -> Reply | None:
        """The next answer about this picture; one about parts only where it is of this session."""
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            reply = self._mailbox.next(left_s, epoch)
            if reply is None:
                return None
            is_late = isinstance(reply, More) and reply.session != session
            if reply.sha256 == errand.blob.sha256 and not is_late:
                return reply
        return None

    def _put(self, errand: _Errand, reply: PutHere, epoch: int) -> Reply | None:
        """Upload to a URL and have that confirmed; ``None``: ask again."""
        until_s = time.monotonic() + reply.expires_s
        for attempt in range(_PUTS):
            status = self._put_once(errand, reply)
            if 200 <= status < 300:
                return self._confirm(errand, reply, epoch)
            may_pass = status == _UNANSWERED or status >= 500 or status in _MAY_PASS
            if not may_pass or self._mailbox.is_closing or attempt == _PUTS - 1:
                break
            self._mailbox.pause(self._pace.put.delay_s(attempt))
            if time.monotonic() >= until_s:
                break
        self._url_failed(errand)
        return None

    def _put_once(self, errand: _Errand, reply: PutHere) -> int:
        """The status of the answer; ``_UNANSWERED`` or ``_UNUSABLE`` when there was none."""
        try:
            place, headers = check_url(reply.url, self._options.url_hosts), check_headers(reply.headers)
            self._request = Request(place, self._trusted)
            status = self._request.put(errand.data, headers, self._options.timeout_s)
        except TransportError as error:
            self._note(error.message)
            return _UNANSWERED
        except SyncError as error:
            self._note(error.message)
            return _UNUSABLE
        finally:
            self._request = None
        if not 200 <= status < 300:
            self._note(f"a picture could not be uploaded: {place} answered with HTTP {status}")
        return status

    def _url_failed(self, errand: _Errand) -> None:
        errand.failed_urls += 1
        if errand.failed_urls >= _URLS and self._options.upload == "auto":
            self._http_rests_until_s = time.monotonic() + _HTTP_REST_S
        self._mailbox.pause(self._pace.put.delay_s(errand.failed_urls))

    def _confirm(self, errand: _Errand, reply: PutHere, epoch: int) -> Reply | None:
        self._mailbox.send("blob-part", encode(Uploaded(session=reply.session)))
        answer = self._next(errand, _CONFIRM_S, epoch)
        return answer if isinstance(answer, Done | Drop | Wait) else None

    def _send_parts(self, errand: _Errand, grant: SendParts, epoch: int) -> Reply | None:
        """Send the picture in parts, from where ingest has it; ``None``: ask again."""
        data = errand.data
        size = min(grant.part_bytes, self._part_bytes, self._mailbox.max_packet_bytes - _HEADER_BYTES)
        have = sent = tries = 0
        while tries < _PART_TRIES and self._stand_back(epoch):
            while sent < min(len(data), have + grant.window * size):
                part = Part(session=grant.session, offset=sent, data=data[sent : sent + size])
                self._mailbox.send("blob-part", encode_part(part))
                sent += len(part.data)
            reply = self._next(errand, self._pace.part.delay_s(tries), epoch, grant.session)
            if reply is None:
                sent, tries = have, tries + 1
            elif not isinstance(reply, More):
                return None if isinstance(reply, PutHere | SendParts) else reply
            elif reply.have > have:
                have, sent, tries = reply.have, max(sent, reply.have), 0
        if self._mailbox.epoch != epoch and not have:  # a broker of MQTT 3.1.1 hangs up on what is too large for it
            self._part_bytes = max(self._part_bytes // 2, _LEAST_PART_BYTES)
        return None

    def _stand_back(self, epoch: int) -> bool:
        """Let events go first; ``False`` when the connection is gone."""
        while self._mailbox.epoch == epoch and not self._mailbox.is_closing:
            if self._calm():
                return True
            self._mailbox.pause(self._pace.calm_s)
        return False

    def _note(self, last_error: str) -> None:
        self._stats = replace(self._stats, last_error=printable(last_error, 500))


def _trust(ca_file: str) -> ssl.SSLContext | None:
    if not ca_file:
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigError(f"{ca_file} holds no certificates to trust.", "Give a PEM file.") from error

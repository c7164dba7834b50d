"""``webhook:https://host/path``: results as JSON to an HTTP receiver, in batches."""

from __future__ import annotations

import base64
import logging
import random
import re
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

import msgspec

from edgecv._internal.printable import printable
from edgecv._internal.secret_files import read_secret
from edgecv.errors import ConfigError, SinkError
from edgecv.events import Event
from edgecv.pipelines.sinks.documents import encode, event_document
from edgecv.pipelines.sinks.webhook.client import NETWORK_ERRORS, Answer, Poster, backoff_s, check_url, origin
from edgecv.pipelines.sinks.webhook.queue import Waiting
from edgecv.pipelines.uris import Uri, read_options
from edgecv.protocols import SinkType
from edgecv.results import Result
from edgecv.version import __version__

log = logging.getLogger("edgecv.pipelines")

_LONGEST_REASON = 200
_JOIN_S = 1.0  # for a sender that was interrupted
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class WebhookOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the query of ``webhook:`` may say.

    Attributes:
        events: ``detections``: frames in which something was found or that steps had something to say about. ``all``: every
            frame. ``events``: only events, each as a document of its own.
        masks: Send masks too.
        token_file: A file with the secret to send; it never stands in the URL.
        auth: ``bearer`` sends it as a token, ``basic`` takes it for ``user:password``.
        ca_file: Certificates to trust instead of the system's.
        batch: Most documents in a request.
        linger_s: How long a document waits for others.
        timeout_s: For one request with its answer.
        retry_s: First pause after a failure; doubled up to 30 s.
        max_age_s: A batch that is tried in vain for so long is given up, lest one that the receiver chokes on stops all others.
        queue: Documents that may wait; then the oldest are given up.
        queue_mb: The same in megabytes.
        drain_s: How long ``close`` goes on delivering.
    """

    events: Literal["detections", "all", "events"] = "detections"
    masks: bool = False
    token_file: str = ""
    auth: Literal["bearer", "basic"] = "bearer"
    ca_file: str = ""
    batch: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 50
    linger_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 1.0
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=120)] = 10.0
    retry_s: Annotated[float, msgspec.Meta(gt=0, le=30)] = 0.5
    max_age_s: Annotated[float, msgspec.Meta(gt=0)] = 300.0
    queue: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1000
    queue_mb: Annotated[float, msgspec.Meta(gt=0, le=256)] = 8.0
    drain_s: Annotated[float, msgspec.Meta(ge=0, le=20)] = 5.0


class WebhookSink(SinkType):
    """POSTs a JSON array of documents, those of ``jsonl:``.

    Each batch has an ``Idempotency-Key`` that stays the same when it is tried again: a receiver that remembers them counts
    nothing twice. 5xx, 408, 425, 429 and failures of the network are tried again, after ``Retry-After`` where the receiver
    gives one; other answers give the batch up. What waits is in memory only: a restart loses it, and ``mqtt:`` is the sink
    that does not. Losses are counted and said by ``close``. Proxies of the environment are not used, TLS is always verified.

    Attributes:
        delivered: Documents the receiver took.
        lost: Documents that were given up.
    """

    Options: ClassVar[type[msgspec.Struct]] = WebhookOptions
    writes_files: ClassVar[bool] = False

    def __init__(
        self, url: str, *, options: WebhookOptions | None = None, share: Callable[[], float] = random.random
    ) -> None:
        """Check the address, whose path is kept out of logs and errors; nothing is sent yet.

        ``share`` gives 0 to 1 at random, to spread the pauses.

        Raises ``ConfigError``: the address, the secret or the certificates cannot be used.
        """
        self._options = options or WebhookOptions()
        self._name = origin(check_url(url))
        self._share = share
        self._poster = Poster(url, self._headers(url), _trust(self._options.ca_file))
        self._waiting = Waiting(self._options.queue, round(self._options.queue_mb * 1e6), self._options.batch)
        self._thread: threading.Thread | None = None
        self._closed = False
        self._drained_by = float("inf")
        self._problem, self._hint, self._is_failing = "", "", False
        self._accepted = self._given_up = self.delivered = 0

    @classmethod
    def from_uri(cls, uri: Uri, *, fps: float = 0.0, overwrite: bool = False) -> WebhookSink:  # noqa: ARG003 - the seam's
        """Open ``webhook:https://...``, or ``webhook:FILE`` with the URL in a file: where its path or query is a secret."""
        options = read_options(uri, WebhookOptions)
        is_url = re.match(r"https?://", uri.path, re.IGNORECASE) is not None
        return cls(uri.path if is_url else _secret(uri.path, "the URL"), options=options)

    @property
    def lost(self) -> int:
        """Documents that were given up."""
        return self._given_up + self._waiting.pushed_out

    def emit(self, result: Result) -> None:
        """Queue the document of one frame.

        Raises ``SinkError`` when it is closed, or the document alone is larger than the queue.
        """
        self._queue(self._documents(result))

    def emit_event(self, event: Event) -> None:
        """Queue the document of one event; errors as in ``emit``."""
        self._queue([event_document(event)])

    def close(self) -> None:
        """Deliver for a few seconds more, then give the rest up; a second call does nothing.

        Raises ``SinkError``: something was lost since the beginning; it says how much.
        """
        if self._closed:
            return
        self._closed = True
        self._drained_by = time.monotonic() + self._options.drain_s
        self._waiting.close()
        if self._thread is not None:
            self._thread.join(self._options.drain_s)
            self._poster.interrupt()
            self._thread.join(_JOIN_S)
        self._waiting.discard()
        self._given_up = self._accepted - self.delivered - self._waiting.pushed_out
        if self.lost:
            problem = self._problem or "They were not sent in time."
            raise SinkError(
                f"{self._name} did not get {self.lost} of {self._accepted} documents: {problem}", self._hint
            )

    def _documents(self, result: Result) -> list[object]:
        if self._options.events == "events":
            return [event_document(event) for event in result.events]
        found = any(answer is not None and len(answer) for answer in (result.detections, result.classification))
        if self._options.events == "all" or found or result.events:
            return [result.as_dict(masks=self._options.masks)]
        return []

    def _queue(self, documents: Sequence[object]) -> None:
        if self._closed:
            raise SinkError(f"{self._name} is closed.")
        pushed_out = self._waiting.pushed_out
        for document in documents:
            if not self._waiting.put(encode(document)):
                raise SinkError(f"A result is too large for {self._name}.", "Leave masks out, or raise queue_mb.")
            self._accepted += 1
        if self._waiting.pushed_out > pushed_out and not self._is_failing:
            self._note("The queue was full: the oldest went.", "Is the receiver too slow? Send less: ?events=events")
        if documents and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="edgecv-webhook", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        for batch in self._batches():
            since = time.monotonic()
            body, headers = b"[" + b",".join(batch) + b"]", {"Idempotency-Key": uuid.uuid4().hex}
            delivered = self._deliver(body, headers, since)
            self.delivered += len(batch) if delivered else 0
            self._given_up += 0 if delivered else len(batch)
        self._poster.close()

    def _batches(self) -> Iterator[list[bytes]]:
        while time.monotonic() < self._drained_by:
            batch = self._waiting.take(self._options.linger_s)
            if not batch:
                return
            yield batch

    def _deliver(self, body: bytes, headers: dict[str, str], since: float) -> bool:
        attempt = 0
        while (left_s := self._left_s(since)) > 0:
            try:
                answer = self._poster.post(body, headers, min(self._options.timeout_s, left_s))
            except SinkError as error:
                self._note(error.message, error.hint)
                return False
            except NETWORK_ERRORS as error:
                answer = Answer(503, 0.0)  # as good as a receiver that is not there
                if attempt == 0 or self._left_s(since) > 0:  # else cut short by us: the reason before it is the reason
                    self._note(_reason(error), "Is the receiver up, and the network?")
            else:
                if answer.is_delivered:
                    self._is_failing = False
                    return True
                self._note(f"It answered with HTTP {answer.status}.", _hint(answer.status))
            if not answer.may_pass:
                return False
            pause_s = max(answer.retry_after_s, backoff_s(attempt, self._options.retry_s, self._share()))
            self._waiting.pause(pause_s, lambda: min(self._drained_by, since + self._options.max_age_s))
            attempt += 1
        return False

    def _left_s(self, since: float) -> float:
        return min(self._drained_by, since + self._options.max_age_s) - time.monotonic()

    def _note(self, problem: str, hint: str) -> None:
        self._problem, self._hint = problem, hint
        if not self._is_failing:
            self._is_failing = True
            log.warning("%s takes no results: %s", self._name, problem)

    def _headers(self, url: str) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "User-Agent": f"edgecv/{__version__}"}
        if self._options.token_file:
            secret = _secret(self._options.token_file, "the token")
            parts = urlsplit(url)
            if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
                raise ConfigError(f"{self._name} would get the token unencrypted.", "Use https.")
            if self._options.auth == "basic":
                headers["Authorization"] = "Basic " + base64.b64encode(secret.encode()).decode()
            else:
                headers["Authorization"] = f"Bearer {secret}"
        return headers


def _secret(path: str, what: str) -> str:
    """The one line of a file; it is never shown."""
    text = read_secret(path).strip()
    if not re.fullmatch(r"[\x20-\x7e]+", text):
        raise ConfigError(f"{path} must hold {what} of the webhook, in one line of ASCII text.")
    return text


def _trust(ca_file: str) -> ssl.SSLContext | None:
    if not ca_file:
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigError(f"{ca_file} holds no certificates to trust.", "Give a PEM file.") from error


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "No answer in time."
    # Some errors of urllib3 and http.client repeat what the receiver sent.
    return f"{printable(getattr(error, 'strerror', None) or str(error) or type(error).__name__)[:_LONGEST_REASON]}."


def _hint(status: int) -> str:
    if status in (401, 403):
        return "Check the secret in token_file, and auth."
    return "The receiver refuses what it gets: look into its log." if status < 500 else "Look into the receiver's log."

"""``webhook:https://host/path``: results and events to an HTTP receiver, in batches of JSON or as a template says."""

from __future__ import annotations

import base64
import logging
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar
from urllib.parse import urlsplit

import msgspec

from edgecv._internal.secret_files import read_secret
from edgecv.errors import ConfigError, SinkError
from edgecv.events import Event, EventMedia
from edgecv.notifications.rates import Limiter
from edgecv.pipelines.sinks.webhook.client import (
    NETWORK_ERRORS,
    Answer,
    Poster,
    backoff_s,
    check_url,
    hint_for,
    origin,
    reason_of,
    trusted,
)
from edgecv.pipelines.sinks.webhook.options import WebhookOptions
from edgecv.pipelines.sinks.webhook.parcels import Files, Notification, Parcel, frame_document
from edgecv.pipelines.sinks.webhook.pictures import Pictures
from edgecv.pipelines.sinks.webhook.queue import Waiting
from edgecv.pipelines.sinks.webhook.requests import ArrayWriter, Request, TemplateWriter
from edgecv.pipelines.uris import Uri, read_options
from edgecv.protocols import SinkType
from edgecv.results import Result
from edgecv.version import __version__

log = logging.getLogger("edgecv.pipelines")

_JOIN_S = 1.0  # for a sender that was interrupted
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class WebhookSink(SinkType):
    """POSTs a JSON array of documents, those of ``jsonl:``, or each event as a template says.

    Each request has an ``Idempotency-Key`` that stays the same when it is tried again, and each event its ``key``: a receiver
    that remembers them counts nothing twice. 5xx, 408, 425, 429 and failures of the network are tried again, after
    ``Retry-After`` where the receiver gives one; other answers give the request up. What waits is in memory only: a restart
    loses it, and begins with limits that nothing has used yet; ``mqtt:`` is the sink that loses nothing. Losses are counted and
    said by ``close``; what limits hold back is told in number with the next event, or at the end. Proxies of the environment
    are not used, TLS is always verified.

    Attributes:
        delivered: Documents the receiver took.
        lost: Documents that were given up.
        held_back: Events that ``cooldown_s`` and ``at_most`` did not let through.
    """

    Options: ClassVar[type[msgspec.Struct]] = WebhookOptions
    writes_files: ClassVar[bool] = False

    def __init__(
        self, url: str, *, options: WebhookOptions | None = None, share: Callable[[], float] = random.random
    ) -> None:
        """Check the address, whose path is kept out of logs and errors; nothing is sent yet.

        ``share`` gives 0 to 1 at random, to spread the pauses.

        Raises ``ConfigError``: the address, the secret, the template or the certificates cannot be used; and
        ``MissingDependency``: a picture is asked for, and OpenCV is not installed.
        """
        self._options = options = options or WebhookOptions()
        self._name = origin(check_url(url))
        self._share = share
        self._poster = Poster(url, self._headers(url), trusted(options.ca_file))
        self._choice, self._limiter, self._files = options.choice, Limiter(options.limits), Files(options.snapshot_url)
        self._pictures: Pictures | None = None
        if options.snapshot == "attach":
            self._pictures = Pictures(draw=options.draw, max_side=options.max_side, quality=options.quality)
        self._writer: ArrayWriter | TemplateWriter = ArrayWriter(self._files)
        if options.template:
            self._writer = TemplateWriter(options.form, self._files, options.zone)
        self._waiting: Waiting[Parcel] = Waiting(
            options.queue, round(options.queue_mb * 1e6), options.batch, self._untell
        )
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

    @property
    def held_back(self) -> int:
        """Events that ``cooldown_s`` and ``at_most`` did not let through so far."""
        return self._limiter.held_back

    def emit(self, result: Result) -> None:
        """Queue the document of one frame, or its events.

        Raises ``SinkError`` when it is closed, or a document alone is larger than the queue.
        """
        self._check_open()
        if self._choice.frames == "none":
            self._notify(result.events, result)
        elif self._choice.frames == "all" or result.events or _found_something(result):
            self._queue(frame_document(result, masks=self._options.masks))

    def emit_event(self, event: Event) -> None:
        """Queue one event that belongs to no frame; errors as in ``emit``."""
        self._check_open()
        self._notify((event,), None)

    def take_media(self, media: EventMedia) -> None:
        """Remember the file of a picture, for the event that it shows."""
        if self._options.snapshot == "name":
            self._files.add(media)

    def close(self) -> None:
        """Deliver for a few seconds more, then give the rest up; a second call does nothing.

        Raises ``SinkError``: something was lost since the beginning; it says how much.
        """
        if self._closed:
            return
        self._tell_rest()
        self._closed = True
        self._drained_by = time.monotonic() + self._options.drain_s
        self._waiting.close()
        if self._thread is not None:
            self._thread.join(self._options.drain_s)
            self._poster.interrupt()
            self._thread.join(_JOIN_S)
        self._waiting.discard()
        self._given_up = self._accepted - self.delivered - self._waiting.pushed_out
        if untold := self._limiter.untold:
            log.warning("%s was not told of %d events that were held back.", self._name, untold)
        if self.lost:
            problem = self._problem or "They were not sent in time."
            raise SinkError(
                f"{self._name} did not get {self.lost} of {self._accepted} documents: {problem}", self._hint
            )

    def _notify(self, events: Sequence[Event], result: Result | None) -> None:
        """Queue the events that are wanted and may pass; a picture is made once for all of them.

        What is wrong with one of them, or with the picture, keeps none of the others: it is raised at the end.
        """
        problems: list[SinkError] = []
        picture: bytes | None = None
        for event in events:
            held = self._limiter.admit(event) if self._choice.wants(event) else None
            if held is None:
                continue
            if picture is None:
                picture = self._picture(result, problems)
            try:
                self._queue(Notification.of(event, held, picture))
            except SinkError as error:
                self._limiter.take_back(held)
                problems.append(error)
        if problems:
            raise problems[0]

    def _picture(self, result: Result | None, problems: list[SinkError]) -> bytes:
        """The picture that goes along, if one is wanted and can be made."""
        if self._pictures is None or result is None:
            return b""
        try:
            return self._pictures.of(result)
        except SinkError as error:
            problems.append(error)
            return b""

    def _tell_rest(self) -> None:
        """Say at the end how many events were held back, if one more may be said."""
        if held := self._limiter.rest():
            data = {"count": sum(held.values()), "kinds": dict(held)}
            self._queue(Notification.of(Event(kind="events.held_back", time_ns=time.time_ns(), data=data), {}))

    def _untell(self, parcel: Parcel) -> None:
        """What was to be told with a document that is given up is told with the next one."""
        if isinstance(parcel, Notification) and parcel.held:
            self._limiter.take_back(parcel.held)

    def _check_open(self) -> None:
        if self._closed:
            raise SinkError(f"{self._name} is closed.")

    def _queue(self, parcel: Parcel) -> None:
        pushed_out = self._waiting.pushed_out
        if not self._waiting.put(parcel):
            raise SinkError(f"A result is too large for {self._name}.", "Leave masks out, or raise queue_mb.")
        self._accepted += 1
        if self._waiting.pushed_out > pushed_out and not self._is_failing:
            self._note("The queue was full: the oldest went.", "Is the receiver too slow? Send less: ?events=events")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="edgecv-webhook", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        for batch in self._batches():
            for request in self._writer.write(batch):
                if self._deliver(request, time.monotonic()):
                    self.delivered += len(request.parcels)
                else:
                    self._given_up += len(request.parcels)
                    for parcel in request.parcels:
                        self._untell(parcel)
        self._poster.close()

    def _batches(self) -> Iterator[Sequence[Parcel]]:
        while time.monotonic() < self._drained_by:
            batch = self._waiting.take(self._options.linger_s)
            if not batch:
                return
            yield batch

    def _deliver(self, request: Request, since: float) -> bool:
        attempt, headers = 0, {**request.headers, "Idempotency-Key": uuid.uuid4().hex}
        while (left_s := self._left_s(since)) > 0:
            try:
                timeout_s = min(self._options.timeout_s, left_s)
                answer = self._poster.post(request.body, headers, timeout_s, request.method)
            except SinkError as error:
                self._note(error.message, error.hint)
                return False
            except NETWORK_ERRORS as error:
                answer = Answer(503, 0.0)  # as good as a receiver that is not there
                if attempt == 0 or self._left_s(since) > 0:  # else cut short by us: the reason before it is the reason
                    self._note(reason_of(error), "Is the receiver up, and the network?")
            else:
                if answer.is_delivered:
                    self._is_failing = False
                    return True
                self._note(f"It answered with HTTP {answer.status}.", hint_for(answer.status))
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
        headers = {"User-Agent": f"edgecv/{__version__}"}
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


def _found_something(result: Result) -> bool:
    return any(answer is not None and len(answer) for answer in (result.detections, result.classification))


def _secret(path: str, what: str) -> str:
    """The one line of a file; it is never shown."""
    text = read_secret(path).strip()
    if not re.fullmatch(r"[\x20-\x7e]+", text):
        raise ConfigError(f"{path} must hold {what} of the webhook, in one line of ASCII text.")
    return text

"""Who may look: a token, exchanged for a session that the browser keeps."""

from __future__ import annotations

import hmac
import secrets
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from edgecv.errors import ConfigError
from edgecv.pipelines.web.visitors import visitor_of

SESSION_S = 12 * 3600
LONGEST_PAUSE_S = 3.0
_SESSIONS = 32
_SHORTEST_TOKEN = 16  # characters
_WINDOW_S = 60.0
_FREE_FAILURES = 5  # of one address, in one window; then every attempt from there has to wait
_TURN_S = 0.2  # between two attempts of an address that has to wait
_ADDRESSES = 1024  # that are remembered for their failures
_MAKE_ONE = '(umask 077; python3 -c "import secrets; print(secrets.token_urlsafe(24))" > FILE)'


@dataclass(slots=True)
class _Failures:
    """Wrong tokens of one address: when the last ones came, and when the latest attempt is looked at."""

    at_s: deque[float] = field(default_factory=lambda: deque(maxlen=_FREE_FAILURES))
    turn_s: float = 0.0


class Access:
    """Knows the token and the sessions; holds neither in clear.

    Wrong tokens slow down the address they came from, and no other. The right one is never refused: it may have to wait
    for ``LONGEST_PAUSE_S``, where others try from the same address. Who has a session waits for nothing. Of a flood that
    would have to wait for longer each token is looked at at once, lest those who wait take all places: what keeps the page
    closed is the length of the token, not the pause.
    """

    def __init__(self, token: str | None, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Ask for ``token``, or let everyone in when it is ``None``.

        Raises ``ConfigError`` when the token is too short or has characters that a header cannot carry.
        """
        if token is not None:
            _check(token)
        self._token = None if token is None else _digest(token)
        self._clock_s = clock_s
        self._sessions: OrderedDict[bytes, float] = OrderedDict()  # digest -> end
        self._failures: OrderedDict[str, _Failures] = OrderedDict()  # by visitor; who failed last stands at the end

    @property
    def is_open(self) -> bool:
        """Whether nobody has to say a token."""
        return self._token is None

    def pause_s(self, address: str) -> float:
        """How long to wait before the next token from ``address`` is looked at; each call is one attempt."""
        if not self.is_slowed(address):
            return 0.0
        failures, now_s = self._failures[visitor_of(address)], self._clock_s()
        turn_s = max(now_s, failures.turn_s) + _TURN_S
        if turn_s > now_s + LONGEST_PAUSE_S:
            return 0.0
        failures.turn_s = turn_s
        return turn_s - now_s

    def is_slowed(self, address: str) -> bool:
        """Whether so many wrong tokens came from ``address`` that the next ones have to wait."""
        failures = self._failures.get(visitor_of(address))
        if failures is None or len(failures.at_s) < _FREE_FAILURES:
            return False
        return failures.at_s[0] > self._clock_s() - _WINDOW_S

    def admits(self, token: str, address: str) -> bool:
        """Whether ``token``, which came from ``address``, is the right one; a wrong one is counted."""
        if self._token is None or hmac.compare_digest(_digest(token), self._token):
            return True
        visitor = visitor_of(address)
        failures = self._failures.setdefault(visitor, _Failures())
        failures.at_s.append(self._clock_s())
        self._failures.move_to_end(visitor)
        while len(self._failures) > _ADDRESSES:
            self._failures.popitem(last=False)
        return False

    def open_session(self) -> str:
        """A new session; of many the oldest is forgotten."""
        session = secrets.token_urlsafe(32)
        self._sessions[_digest(session)] = self._clock_s() + SESSION_S
        while len(self._sessions) > _SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def knows(self, session: str) -> bool:
        """Whether ``session`` was given out here and has not ended."""
        return self._sessions.get(_digest(session), 0.0) > self._clock_s()


def show_new_token(host: str) -> str:
    """Make a token and print it once, to the person who started the program.

    Raises ``ConfigError`` when standard error is not a terminal: what is printed would stay in a log.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        raise ConfigError(
            f"The preview on {host} can be reached from outside and has no token.",
            f"Name a file with one: --preview-token FILE, token_file=FILE. Make it so: {_MAKE_ONE} Or listen on 127.0.0.1.",
        )
    token = secrets.token_urlsafe(18)
    print(f"Token of the preview page, shown only now: {token}", file=sys.stderr, flush=True)
    return token


def _check(token: str) -> None:
    if len(token) < _SHORTEST_TOKEN or not all("!" <= char <= "~" for char in token):
        raise ConfigError(
            f"The token of the preview must have {_SHORTEST_TOKEN} or more characters, ASCII without spaces.",
            f"Make one: {_MAKE_ONE}",
        )


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()

"""Who may look: a token, exchanged for a session that the browser keeps."""

from __future__ import annotations

import hmac
import secrets
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from hashlib import sha256

from edgecv.errors import ConfigError

SESSION_S = 12 * 3600
_SESSIONS = 32
_SHORTEST_TOKEN = 16  # characters
_WINDOW_S = 60.0
_FAILURES_PER_ADDRESS = 5  # in one window
_FAILURES = 50  # of all addresses together: one attacker may have many
_MAKE_ONE = '(umask 077; python3 -c "import secrets; print(secrets.token_urlsafe(24))" > FILE)'


class TooManyFailures(Exception):  # not an error of the app: how `Access` tells the page to answer 429
    """So many wrong tokens came that none is looked at for now."""

    def __init__(self, wait_s: float) -> None:
        super().__init__()
        self.wait_s = wait_s


class Access:
    """Knows the token and the sessions; holds neither in clear."""

    def __init__(self, token: str | None, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Ask for ``token``, or let everyone in when it is ``None``.

        Raises:
            ConfigError: the token is too short or has characters that a header cannot carry.
        """
        if token is not None:
            _check(token)
        self._token = None if token is None else _digest(token)
        self._clock_s = clock_s
        self._sessions: OrderedDict[bytes, float] = OrderedDict()  # digest -> end
        self._failures: deque[tuple[float, str]] = deque(maxlen=_FAILURES)

    @property
    def is_open(self) -> bool:
        """Whether nobody has to say a token."""
        return self._token is None

    def admits(self, token: str, address: str) -> bool:
        """Whether ``token``, which came from ``address``, is the right one; a wrong one is counted.

        Raises:
            TooManyFailures: it was not looked at.
        """
        self._check_failures(address)
        if self._token is None or hmac.compare_digest(_digest(token), self._token):
            return True
        self._failures.append((self._clock_s(), address))
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

    def _check_failures(self, address: str) -> None:
        now_s = self._clock_s()
        while self._failures and self._failures[0][0] <= now_s - _WINDOW_S:
            self._failures.popleft()
        own = [at_s for at_s, who in self._failures if who == address]
        if len(own) >= _FAILURES_PER_ADDRESS or len(self._failures) >= _FAILURES:
            oldest_s = own[0] if len(own) >= _FAILURES_PER_ADDRESS else self._failures[0][0]
            raise TooManyFailures(oldest_s + _WINDOW_S - now_s)


def show_new_token(host: str) -> str:
    """Make a token and print it once, to the person who started the program.

    Raises:
        ConfigError: standard error is not a terminal: what is printed would stay in a log.
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

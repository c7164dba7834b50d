"""What a command asks of the ingest that owns a store: a file in ``requests/``, and an answer beside it.

Only one process may write a store. While ingest runs it is that one, so a command leaves its wish there and waits.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from edgecv._internal.atomic import new_file
from edgecv._internal.file_locks import is_locked
from edgecv._internal.private_files import FILE_MODE, make_private_folder
from edgecv.cloud_sync.store.manifest import Forgotten
from edgecv.errors import EdgeCVError, SyncError

_log = logging.getLogger(__name__)

_FOLDER = "requests"
_MAX_BYTES = 64 * 1024
_POLL_S = 0.25


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the owner of a store is to do."""

    id: str
    action: Literal["merge", "forget", "retain"]
    open_hours: bool = False  # of `merge`
    tombstone: Forgotten | None = None  # of `forget`
    days: int | None = None  # of `retain`
    tenant: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a request: its result, or why it failed."""

    result: dict[str, object] | None = None
    error: str = ""
    hint: str = ""


def new_request(action: str, **fields: object) -> Request:
    """A request with an id of its own."""
    return Request(id=secrets.token_hex(8), action=action, **fields)  # type: ignore[arg-type]


def ask(folder: Path, request: Request, timeout_s: float) -> Mapping[str, object] | None:
    """Have the running ingest do something, and wait for the answer; ``None`` if it ended without one.

    Raises:
        SyncError: it cannot be asked, did not answer in time, or says that it could not be done.
    """
    place = folder / _FOLDER
    asked, answered = place / f"{request.id}.json", place / f"{request.id}.answer"
    try:
        make_private_folder(place)
        with new_file(asked, FILE_MODE) as file:
            file.write(msgspec.json.encode(request))
        deadline_s = time.monotonic() + timeout_s
        while not answered.exists():
            if not is_locked(folder / "lock") and not answered.exists():
                asked.unlink(missing_ok=True)
                return None
            if time.monotonic() > deadline_s:
                raise SyncError(
                    f"The ingest of {folder} did not answer in {timeout_s:g} s.",
                    "It does it when it can; look at its log. An older one answers no requests: stop it first.",
                )
            time.sleep(_POLL_S)
        answer = msgspec.json.decode(answered.read_bytes(), type=Answer)
        answered.unlink(missing_ok=True)
    except (OSError, msgspec.MsgspecError) as error:
        raise SyncError(f"The ingest of {folder} cannot be asked: {error}", "May you write to the store?") from error
    if answer.result is None:
        raise SyncError(answer.error, answer.hint)
    return answer.result


def fulfil(
    folder: Path, request: Request, perform: Callable[[], dict[str, object]], timeout_s: float
) -> Mapping[str, object]:
    """Ask the ingest that owns a store, or do it here where none runs, or it was only another command and has ended.

    Raises:
        SyncError: it is no store, or it could not be done.
    """
    if not (folder / "landing.db").exists():
        raise SyncError(f"{folder} is no store.", "Name the folder of an ingest (--db).")
    answered = ask(folder, request, timeout_s) if is_locked(folder / "lock") else None
    return perform() if answered is None else answered


def waiting(folder: Path) -> list[Request]:
    """The requests that wait, oldest first; files that are none are removed."""
    found: list[tuple[float, Request]] = []
    for path in (folder / _FOLDER).glob("*.json"):
        try:
            stat = path.lstat()
            text = path.read_bytes() if stat.st_size <= _MAX_BYTES and not path.is_symlink() else b""
            request = msgspec.json.decode(text, type=Request)
            if path.stem != request.id:
                raise ValueError("its name is not its id")
            found.append((stat.st_mtime, request))
        except (OSError, ValueError, RecursionError):
            path.unlink(missing_ok=True)
    return [request for _, request in sorted(found, key=lambda one: one[0])]


def answer(folder: Path, request: Request, perform: Callable[[], dict[str, object]]) -> None:
    """Do it and write the answer; what fails is said there.

    Raises:
        SyncError: the answer could not be written; the request waits on.
    """
    try:
        answered = Answer(result=perform())
    except EdgeCVError as error:
        answered = Answer(error=error.message, hint=error.hint)
    except Exception as error:  # noqa: BLE001 (asked again it would fail again, and keep all others waiting)
        _log.exception("a request failed")
        answered = Answer(error=f"It could not be done: {error!r}", hint="The log of the ingest says more.")
    place = folder / _FOLDER
    try:
        with new_file(place / f"{request.id}.answer", FILE_MODE) as file:
            file.write(msgspec.json.encode(answered))
        (place / f"{request.id}.json").unlink(missing_ok=True)
    except OSError as error:
        raise SyncError(f"{place} cannot be written: {error.strerror}.", "Free disk space.") from error

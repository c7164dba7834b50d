"""``audit.jsonl``: who asked, forgot and deleted what, one JSON line each; every line holds the hash of the one before."""

from __future__ import annotations

import getpass
import hashlib
import os
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

import msgspec

from edgecv._internal.file_locks import try_lock
from edgecv._internal.private_files import FILE_MODE, append_file, write_all
from edgecv.errors import SyncError

_TAIL_BYTES = 64 * 1024
_FIRST = "0" * 64
_MAX_TEXT = 8000
_PATIENCE_S = 10.0


def audit_path(folder: Path) -> Path:
    """The file of a store."""
    return folder / "audit.jsonl"


def write_audit(folder: Path, action: str, details: Mapping[str, object]) -> None:
    """Add a line, durably; several processes may do so at a time.

    Raises:
        SyncError: it could not be written.
    """
    path = audit_path(folder)
    try:
        with os.fdopen(append_file(path, FILE_MODE), "ab", buffering=0) as file:
            _wait_for_lock(file, path)
            last = _tail(path)
            whole = b"" if last.endswith(b"\n") or not last else b"\n"  # after what a power cut left of a line
            write_all(file.fileno(), whole + _line(action, details, _last_hash(last)))
            os.fsync(file.fileno())
    except OSError as error:
        raise SyncError(
            f"{path} cannot be written: {error.strerror}.", "May you write to the store, and is there space?"
        ) from error


def _wait_for_lock(file: BinaryIO, path: Path) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while not try_lock(file):
        if time.monotonic() > deadline_s:
            raise SyncError(f"Another process holds {path}.", "Is one stopped while it writes?")
        time.sleep(0.01)


def _line(action: str, details: Mapping[str, object], previous: str) -> bytes:
    now = datetime.fromtimestamp(time.time(), tz=timezone.utc)
    line = {"time": f"{now:%Y-%m-%dT%H:%M:%S}Z", "actor": _actor(), "action": action, **details, "prev": previous}
    return msgspec.json.encode({key: _short(value) for key, value in line.items()}) + b"\n"


def _short(value: object) -> object:
    return value[:_MAX_TEXT] if isinstance(value, str) else value


def _actor() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without a name, such as in a container
        return str(os.getuid())


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _TAIL_BYTES, 0))
        return file.read()


def _last_hash(tail: bytes) -> str:
    """The hash of the last line, or of what a power cut left of it."""
    lines = tail.splitlines()
    return hashlib.sha256(lines[-1]).hexdigest() if lines else _FIRST

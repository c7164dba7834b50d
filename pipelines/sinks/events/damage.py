"""What to do with a file that stands where events are to be written: go on with it, refuse it, or put it aside."""

from __future__ import annotations

import logging
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

from edgecv.errors import ConfigError

log = logging.getLogger("edgecv.pipelines")

_MAGIC = b"SQLite format 3\0"


def check_head(path: Path) -> bool:
    """Whether a database may stand there; ``False`` for what a power cut left of one, which must be put aside.

    Raises:
        ConfigError: it is a folder, a link, or a file of another kind.
        OSError: it cannot be read.
    """
    if path.is_symlink():
        raise ConfigError(f"{path} is a link: no events are written through it.", "Name the file itself.")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder.", "Name a file: events:events.db")
    if not path.exists():
        return True
    with path.open("rb") as file:
        head = file.read(len(_MAGIC))
    if not head.strip(b"\0"):
        return not head
    if head != _MAGIC:
        raise ConfigError(f"{path} is no events file.", "Choose another name, or move it away yourself.")
    return True


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is at fault, and not the disk or another program."""
    return type(error) is sqlite3.DatabaseError


def put_aside(path: Path, reason: object) -> Path:
    """Rename a damaged file, with what SQLite keeps beside it; nothing of it is deleted.

    Raises:
        OSError: it cannot be renamed.
    """
    stem = f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    number, aside = 1, path.with_name(stem)
    while aside.exists():
        number += 1
        aside = path.with_name(f"{stem}-{number}")
    for suffix in ("-wal", ""):  # the log first: it must never lie beside another database than its own
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)  # an index of the log; SQLite builds it anew
    log.warning(
        "%s is damaged (%s). It is called %s now, and the events go on in a new file.", path, reason, aside.name
    )
    return aside

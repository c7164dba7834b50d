"""Files from elsewhere, read up to a size that no honest one reaches."""

from __future__ import annotations

import errno
from pathlib import Path

MEBIBYTE = 1 << 20


def read_bounded(path: Path, most_bytes: int = MEBIBYTE) -> bytes:
    """The content of a file; it may be a pipe or a device, too, which is not read further than that.

    Raises:
        OSError: it cannot be read, or has more bytes than ``most_bytes``.
    """
    with path.open("rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        size = f"{most_bytes >> 20} MiB" if most_bytes >= MEBIBYTE else f"{most_bytes >> 10} KiB"
        raise OSError(errno.EFBIG, f"it is too large: more than {size}", str(path))
    return data


def read_bounded_text(path: Path, most_bytes: int = MEBIBYTE, encoding: str = "utf-8") -> str:
    """The same as text.

    Raises:
        OSError: see ``read_bounded``.
        UnicodeDecodeError: it is not text in that encoding.
    """
    return read_bounded(path, most_bytes).decode(encoding)

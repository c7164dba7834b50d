"""Files from elsewhere, read up to a size that no honest one reaches."""

from __future__ import annotations

import codecs
import errno
from pathlib import Path

MEBIBYTE = 1 << 20
_MARKS = (  # byte order marks, longest first
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def read_bounded(path: Path, most_bytes: int = MEBIBYTE) -> bytes:
    """The content of a file; it may be a pipe or a device, too, which is not read further than that.

    Raises:
        OSError: it cannot be read, or has more bytes than ``most_bytes``.
    """
    with path.open("rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        size = f"{most_bytes >> 20} MiB" if most_bytes >= MEBIBYTE else f"{most_bytes >> 10} KiB"
        raise OSError(errno.EFBIG, f"it is too large: larger than {size}", str(path))
    return data


def read_bounded_text(path: Path, most_bytes: int = MEBIBYTE, encoding: str = "utf-8") -> str:
    """The same as text.

    Raises:
        OSError: see ``read_bounded``.
        UnicodeDecodeError: it is not text in that encoding.
    """
    return read_bounded(path, most_bytes).decode(encoding)


def read_plain_text(path: Path, most_bytes: int = MEBIBYTE) -> str:
    """A text file from any editor: UTF-8, or UTF-16 or UTF-32 that begins with its byte order mark, which is left out.

    Raises:
        OSError: see ``read_bounded``.
        ValueError: it is not such a text.
    """
    return plain_text(read_bounded(path, most_bytes))


def plain_text(data: bytes) -> str:
    """Text from the bytes of a file; see ``read_plain_text``.

    Raises:
        ValueError: it is not such a text.
    """
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no text in UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    if "\0" in text:
        raise ValueError("it holds NUL characters; save it as UTF-8")
    return text

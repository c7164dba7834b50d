"""Opens files that a command or a sink writes."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import BinaryIO

from edgecv._internal.atomic import Kind, check_replaceable
from edgecv._internal.private_files import FILE_MODE, create_file
from edgecv.errors import ConfigError, SinkError


def open_target(
    path: str | Path, *, overwrite: bool = False, private: bool = False, kind: Kind | None = None
) -> BinaryIO:
    """Open a new file for unbuffered writing; never through a link, which others may have put there.

    ``overwrite`` replaces an existing one, of this ``kind`` only if one is given. A ``private`` file is for its owner alone,
    whatever the umask is.

    Raises:
        ConfigError: it exists and ``overwrite`` is not set, it is of another kind, or it is a link.
        SinkError: it cannot be written there.
    """
    try:
        if overwrite and kind is not None:
            check_replaceable(Path(path), kind)
        descriptor = create_file(path, FILE_MODE if private else 0o666, overwrite=overwrite)
        return os.fdopen(descriptor, "wb", buffering=0)
    except FileExistsError as error:
        raise ConfigError(
            f"{path} exists.",
            "Choose another name, or overwrite it: ?overwrite=1 or --force. jsonl:, csv: and counts: also take ?append=1.",
        ) from error
    except OSError as error:
        raise not_opened(path, error) from error


def not_opened(path: str | Path, error: OSError) -> ConfigError | SinkError:
    """Why a file could not be opened for writing, with the next step."""
    if error.errno == errno.ELOOP:
        return ConfigError(
            f"{path} is a link, and is not written through.", "Name the file itself, or delete the link."
        )
    return SinkError(f"{path} cannot be written: {error.strerror}.", "Does the folder exist, and may you write there?")
